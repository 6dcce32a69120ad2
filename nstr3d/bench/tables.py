"""Tables and plots of benchmark rows: Markdown, and images by matplotlib (the ``bench`` extra)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstr3d.bench.compare import Row


@dataclass(frozen=True)
class Measure:
    """A column of a table.

    ``name`` is the measure's name in a `Row` and ``head`` the column's heading. Values are divided
    by ``unit`` and formatted by ``form``. ``axis`` is the label in a plot. ``rising`` says that
    larger values are better.
    """

    name: str
    head: str
    unit: float = 1.0
    form: str = ".2f"
    axis: str = ""
    rising: bool = False

    def text(self, value: float) -> str:
        """The text of a cell with ``value``, empty for NaN."""
        return "" if math.isnan(value) else f"{value / self.unit:{self.form}}"


SURFACE = (
    Measure("near", "near x 1e-4", 1e-4, axis="mean |f - d| near the surface"),
    Measure("surface", "on x 1e-4", 1e-4),
    Measure("volume", "box x 1e-4", 1e-4, ".1f"),
    Measure("normals", "normals"),
    Measure("iou_near", "IoU near", form=".4f"),
    Measure("iou_volume", "IoU", form=".4f"),
    Measure("hausdorff", "Hausdorff", form=".2%"),
)
"""The measures of distance fields; tables are sorted by the first one, which plots also show."""
PICTURE = (Measure("psnr", "PSNR dB", axis="PSNR dB", rising=True),)
SOUND = (Measure("snr", "SNR dB", axis="SNR dB", rising=True),)


def final(rows: Sequence[Row]) -> list[Row]:
    """The rows measured at the end of a training."""
    return [row for row in rows if row.done == 1]


def summary(rows: Sequence[Row], base: str, measures: Sequence[Measure] = SURFACE) -> str:
    """Markdown tables, one for each budget and limit, with a line per field.

    Lines hold means over tracks and seeds and are sorted by the first of ``measures``, best first.
    That measure is also shown relative to the field ``base``: as a ratio, or as a difference if
    larger values are better. Its spread is half the range over seeds of the mean over tracks. Only
    tracks and seeds that every field of the table has finished count.
    """
    lines, first = [], measures[0]
    for (budget, limit), group in sorted(
        _grouped(final(rows), lambda row: (row.budget, row.limit)).items()
    ):
        fields = list(dict.fromkeys(row.field for row in group))
        common = set.intersection(
            *({(row.track, row.seed) for row in group if row.field == field} for field in fields)
        )
        if not common:
            continue
        own = {
            field: [row for row in group if row.field == field and (row.track, row.seed) in common]
            for field in fields
        }
        tracks, seeds = len({track for track, _ in common}), len({seed for _, seed in common})
        sign = "-" if first.rising else "/"
        head = (
            "field",
            "parameters",
            "steps",
            "seconds",
            f"{first.name} {sign} {base}",
            *(m.head for m in measures),
        )
        lines += [
            f"**{budget:,} parameters, {limit}**, mean over {tracks} signals and {seeds} seeds"
            f"{_machine(group)}",
            "",
        ]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        order = sorted(
            fields, key=lambda name: mean_of(own[name], first.name), reverse=first.rising
        )
        lines += [_line(field, own[field], own.get(base), measures) for field in order]
        lines.append("")
    return "\n".join(lines)


def by_track(rows: Sequence[Row], measure: Measure = SURFACE[0]) -> str:
    """Markdown tables of one measure by field and track, one for each budget and limit.

    Cells are means over seeds.
    """
    lines = []
    for (budget, limit), group in sorted(
        _grouped(final(rows), lambda row: (row.budget, row.limit)).items()
    ):
        tracks = list(dict.fromkeys(row.track for row in group))
        lines += [f"**{budget:,} parameters, {limit}**: {measure.head}", ""]
        lines += ["| field | " + " | ".join(tracks) + " |", "|" + "---|" * (len(tracks) + 1)]
        for field, own in _grouped(group, lambda row: row.field).items():
            means = [
                mean_of([row for row in own if row.track == track], measure.name)
                for track in tracks
            ]
            lines.append(f"| {field} | " + " | ".join(map(measure.text, means)) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(rows: Sequence[Row], folder: Path, measure: Measure = SURFACE[0]) -> list[Path]:
    """Plots ``measure`` against seconds, parameters and bytes; returns the files written.

    The plots are PNG and SVG files in ``folder`` and show means over tracks and seeds. Of each
    budget they show the races with the limit that has most rows, of timed races if there are any.
    Raises ModuleNotFoundError, with the package to install, without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Plots need matplotlib; install nstr3d[bench].") from error
    timed = _main(row for row in rows if row.limit.endswith(" s")) or _main(rows)
    fields = sorted({row.field for row in timed})
    written = []
    for x in ("seconds", "parameters", "bytes"):
        panels = _panels(timed, fields, x, measure)
        figure = Figure(figsize=(5.6 * len(panels) + 0.4, 4.2), layout="constrained")
        for axes, (budget, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items()
        ):
            axes.set(xscale="log", yscale="linear" if measure.rising else "log", xlabel=x)
            _draw(axes, curves)
            axes.set_title(f"{budget:,} parameters" if budget else "")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(True, which="both", alpha=0.2)
        figure.axes[0].set_ylabel(measure.axis)
        for suffix in (".png", ".svg"):
            written.append(folder / f"{measure.name}_{x}{suffix}")
            figure.savefig(
                written[-1], dpi=110, metadata={"Date": None} if suffix == ".svg" else None
            )
    return written


EARLY = 0.75  # share of the width; a curve that ends before it has its name beside its end
Curves = dict[str, list[tuple[float, float]]]  # points by the name of the field


def _panels(
    rows: Sequence[Row], fields: Sequence[str], x: str, measure: Measure
) -> dict[int, Curves]:
    """The curves against ``x``: by the budget against seconds, else all under 0.

    Of the budgets, those stay where at least two thirds of the fields have more than one point, or
    all if there are none: a panel of single points tells nothing of time.
    """
    panels = {}
    for budget in sorted({row.budget for row in rows}) if x == "seconds" else [0]:
        chosen = [row for row in rows if row.budget == budget] if budget else final(rows)
        curves = {
            field: _curve([row for row in chosen if row.field == field], x, measure)
            for field in fields
        }
        panels[budget] = {field: points for field, points in curves.items() if points}
    full = {
        budget: curves
        for budget, curves in panels.items()
        if sum(len(points) > 1 for points in curves.values()) >= len(curves) * 2 / 3
    }
    return full or panels


def _draw(axes: Any, shown: Curves) -> None:
    """Draws a curve for each field that has one, and its name, which a thin line ties to the end of
    the curve.

    Ours is strong, its variants are lighter, and the others are grey. A single point is larger.
    """
    for name, points in shown.items():
        colour, width, order = _style(name)
        size = 2.5 if len(points) > 1 else 5.0
        axes.plot(
            *zip(*points), color=colour, linewidth=width, marker="o", markersize=size, zorder=order
        )
    if not shown:
        return
    for fitted in (axes.get_xlim, axes.get_ylim):
        fitted()  # makes matplotlib fit the limits to the curves now
    ends = axes.transData.transform([points[-1] for points in shown.values()])
    shares = dict(zip(shown, axes.transAxes.inverted().transform(ends).tolist()))
    early = [name for name in shown if shares[name][0] < EARLY]
    for name in early:
        _name(axes, name, shown[name][-1], (7, 0), textcoords="offset points")
    names = sorted(shares.keys() - early, key=lambda name: (shares[name][1], name))
    gap = min(0.055, 1 / max(len(names), 1))
    free = -1.0
    for rank, name in enumerate(names):
        # Above the name below, and low enough for the names above.
        free = min(max(shares[name][1], free + gap), 1 - gap * (len(names) - 1 - rank))
        tie = {"arrowstyle": "-", "color": _style(name)[0], "linewidth": 0.5}
        tie |= {"relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0}
        place = {"textcoords": axes.transAxes, "arrowprops": tie}
        _name(axes, name, shown[name][-1], (1.06, free), **place)


def _name(
    axes: Any, name: str, end: tuple[float, float], at: tuple[float, float], **place: Any
) -> None:
    """Writes the name of the curve with this ``end`` in its colour."""
    colour, width, _ = _style(name)
    axes.annotate(
        name,
        end,
        at,
        color=colour,
        fontsize=7,
        fontweight="bold" if width > 2 else "normal",
        va="center",
        annotation_clip=False,
        **place,
    )


def _style(name: str) -> tuple[str, float, int]:
    """Colour, width and order of the curve of a field."""
    if name in ("nstr", "nstr, closed form"):
        return "#c8102e", 2.4, 3
    return ("#e58a97", 1.3, 2) if name.startswith("nstr") else ("#8a8f98", 1.1, 1)


def mean_of(rows: Sequence[Row], name: str) -> float:
    """The mean of a column or measure over ``rows``, NaN if a row lacks it or there are none."""
    values = [row.measures.get(name, getattr(row, name, math.nan)) for row in rows]
    return sum(values) / len(values) if values else math.nan


def _main(rows: Iterable[Row]) -> list[Row]:
    """The rows of each budget whose limit is the one with the most rows."""
    budgets = _grouped(list(rows), lambda row: row.budget).values()
    return [
        row
        for group in budgets
        for row in max(_grouped(group, lambda row: row.limit).values(), key=len)
    ]


def _curve(rows: Sequence[Row], x: str, measure: Measure) -> list[tuple[float, float]]:
    """Points of a curve: means of ``x`` and of the measure, sorted by x.

    Against seconds there is one point for each mark of the training, otherwise one for each budget.
    Means are geometric for values on a logarithmic scale.
    """
    marks = _grouped(rows, lambda row: row.done if x == "seconds" else row.budget)
    mean = _arithmetic if measure.rising else _geometric
    points = [
        (
            _geometric([mean_of([row], x) for row in own]),
            mean([mean_of([row], measure.name) for row in own]),
        )
        for own in marks.values()
    ]
    return sorted(points)


def _machine(rows: Sequence[Row]) -> str:
    """How fast the machine of the ``rows`` is, if they say it."""
    gemm, gather = mean_of(rows, "gemm"), mean_of(rows, "gather")
    if math.isnan(gemm + gather):
        return ""
    return f"; the machine multiplies at {gemm:.0f} Gflop/s and gathers {gather:.0f} M rows/s"


def _line(
    field: str, rows: Sequence[Row], base: Sequence[Row] | None, measures: Sequence[Measure]
) -> str:
    first = measures[0]
    per_seed = [mean_of(own, first.name) for own in _grouped(rows, lambda row: row.seed).values()]
    value = mean_of(rows, first.name)
    against = mean_of(base, first.name) if base else math.nan
    ratio = (value - against) / first.unit if first.rising else value / against
    notes = dict.fromkeys(row.note for row in rows if row.note)
    cells = [
        f"{field} ({', '.join(notes)})" if notes else field,
        f"{mean_of(rows, 'parameters'):,.0f}",
        f"{mean_of(rows, 'steps'):,.0f}",
        f"{mean_of(rows, 'seconds'):.1f}",
        "" if math.isnan(ratio) else f"{ratio:+.2f}" if first.rising else f"{ratio:.2f}",
        f"{first.text(value)} ± {(max(per_seed) - min(per_seed)) / 2 / first.unit:{first.form}}",
        *(measure.text(mean_of(rows, measure.name)) for measure in measures[1:]),
    ]
    return "| " + " | ".join(cells) + " |"


def _arithmetic(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def _grouped(rows: Sequence[Row], key: Callable) -> dict:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)
