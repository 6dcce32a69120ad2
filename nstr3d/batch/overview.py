"""An HTML page that lists a data set's shapes with thumbnails and metrics, worst first.

It is a single file and needs no network.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from nstr3d.batch.catalogue import Catalogue, select
from nstr3d.batch.store import Store
from nstr3d.jobs.results import PICTURE
from nstr3d.view.page.template import fill

OVERVIEW = "index.html"
ROWS = 2000  # rows on the page; a longer page opens slowly
# (column, heading, factor, format)
SHOWN = (
    ("distance_error_near", "near x 1e-4", 1e4, ".2f"),
    ("normal_error_field", "normals °", 1, ".2f"),
    ("iou_volume", "IoU", 1, ".4f"),
    ("chamfer", "Chamfer x 1e-4", 1e4, ".2f"),
    ("hausdorff", "Hausdorff x 1e-4", 1e4, ".1f"),
    ("points_mean", "points x 1e-4", 1e4, ".2f"),
    ("parameters", "parameters", 1, ",d"),
    ("bytes", "bytes", 1, ",d"),
    ("seconds", "seconds", 1, ".1f"),
)
WORST = "status = 'done', coalesce(distance_error_near, points_mean) DESC, id"

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 1.5em; color: #222 }
table { border-collapse: collapse }
th { position: sticky; top: 0; background: #eee; text-align: right; vertical-align: bottom }
th button { all: unset; cursor: pointer; padding: .4em .5em }
th[aria-sort] button { text-decoration: underline }
td { padding: .3em .5em; border-bottom: 1px solid #ddd; text-align: right }
td { font-variant-numeric: tabular-nums }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; max-width: 30em }
th:nth-child(-n+3), td:nth-child(-n+3) { overflow-wrap: anywhere }
td:nth-child(2) { min-width: 7em }
td:nth-child(3) { min-width: 14em }
#filter { margin-bottom: 1em; width: 20em }
img { height: 60px; display: block }
.bad { color: #a00 }
</style>
<h1>{{ title }}</h1>
<p>{{ summary }}</p>
<input id="filter" placeholder="filter by name or error" aria-label="filter">
<table><thead><tr>
{%- for head in heads %}<th><button>{{ head }}</button></th>{% endfor %}</tr></thead><tbody>
{% for row in rows -%}
<tr><td data-v="{{ row.id }}">
{%- if row.done %}
<img loading="lazy" alt="" src="{{ row.link }}/{{ picture }}" onerror="this.remove()">
{%- endif -%}
</td><td><a href="{{ row.link }}/report.json">{{ row.id }}</a></td><td>
{%- if row.done %}done{% else %}
<span class="bad">{{ row.status }}: {{ row.error }}</span>
{%- endif -%}
</td>
{%- for value, text in row.numbers %}
{%- if text %}<td data-v="{{ value }}">{{ text }}</td>{% else %}<td data-v></td>{% endif %}
{%- endfor -%}
</tr>
{% endfor -%}
</tbody></table>
<script>
const body = document.querySelector("tbody"), heads = [...document.querySelectorAll("th")];
heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
  const up = head.getAttribute("aria-sort") === "descending";
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return (up ? 1 : -1) * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
  };
  body.append(...[...body.rows].sort(order));
}));
document.querySelector("#filter").addEventListener("input", event => {
  const word = event.target.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(word);
});
</script>
</html>
"""


def save_overview(store: Store, catalogue: Catalogue) -> None:
    """Writes index.html with the worst `ROWS` shapes of the catalogue.

    Failed shapes come first, then the fitted ones by decreasing error. Raises OSError if the store
    cannot be written.
    """
    counts = catalogue.counts()
    columns = ("id", "status", "error", *(name for name, *_ in SHOWN))
    rows = select(catalogue.path, columns, order=WORST, limit=ROWS)
    total = sum(counts.values())
    limit_note = "" if total <= ROWS else f" The worst {ROWS:,} are shown; catalog.sqlite has all."
    summary = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    page = fill(
        PAGE,
        title=f"{total:,} shapes",
        summary=f"{summary}.{limit_note}",
        heads=("", "shape", "status", *(name for _, name, *_ in SHOWN)),
        rows=[_page_row(row) for row in rows],
        picture=PICTURE,
    )
    store.write(OVERVIEW, page.encode())


def _page_row(row: dict[str, Any]) -> dict[str, Any]:
    """The values that the page shows of a catalogue row; a missing number has an empty text.

    A row with a value of another type, which another program wrote, is shown as failed.
    """
    from nstr3d.batch.schema import check_row

    try:
        check_row(row)
    except ValueError as error:
        known = {"id": str(row["id"]), "status": "failed", "error": str(error)}
        row = dict.fromkeys(row) | known
    numbers = [
        ("", "")
        if row[column] is None
        else (json.dumps(row[column]), f"{row[column] * factor:{form}}")
        for column, _, factor, form in SHOWN
    ]
    return {
        "id": row["id"],
        "link": quote(row["id"]),
        "done": row["status"] == "done",
        "status": row["status"],
        "error": row["error"] or "",
        "numbers": numbers,
    }
