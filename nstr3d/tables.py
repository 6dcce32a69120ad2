"""Tables and plots of benchmark rows: markdown, and pictures through matplotlib (the ``bench`` extra)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from nstr3d.compare import Row

COLUMNS = ("near", "surface", "volume", "normals", "iou_near", "iou_volume", "hausdorff")
HEADS = ("near x 1e-4", "on x 1e-4", "box x 1e-4", "normals", "IoU near", "IoU", "Hausdorff")


def final(rows: Sequence[Row]) -> list[Row]:
    """The rows that end a contender's training."""
    return [row for row in rows if row.done == 1]


def summary(rows: Sequence[Row], base: str) -> str:
    """Markdown: for each limit and budget a line per field, means over shapes and seeds, and the ratio of the mean near-surface
    error to that of ``base``. The spread is half the range of a seed's mean over shapes.

    Only shapes and seeds that every field of the group has finished count.
    """
    lines = []
    for (limit, budget), group in sorted(_grouped(final(rows), lambda row: (row.limit, row.budget)).items()):
        fields = list(dict.fromkeys(row.field for row in group))
        places = [{(row.shape, row.seed) for row in group if row.field == field} for field in fields]
        common = set.intersection(*places)
        group = [row for row in group if (row.shape, row.seed) in common]
        if not group:
            continue
        shapes, seeds = len({shape for shape, _ in common}), len({seed for _, seed in common})
        means = {field: _means([row for row in group if row.field == field]) for field in fields}
        head = ("field", "parameters", "steps", "seconds", f"near / {base}", *HEADS)
        lines += [f"**{budget:,} parameters, {limit}**, mean over {shapes} shapes and {seeds} seeds", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for field in sorted(fields, key=lambda name: means[name]["near"]):
            lines.append(_line(field, [row for row in group if row.field == field], means[field], means.get(base)))
        lines.append("")
    return "\n".join(lines)


def by_shape(rows: Sequence[Row]) -> str:
    """Markdown: the mean near-surface error x 1e-4 over seeds of each field on each shape."""
    lines = []
    for (limit, budget), group in sorted(_grouped(final(rows), lambda row: (row.limit, row.budget)).items()):
        shapes = list(dict.fromkeys(row.shape for row in group))
        lines += [f"**{budget:,} parameters, {limit}**: near x 1e-4", ""]
        lines += ["| field | " + " | ".join(shapes) + " |", "|" + "---|" * (len(shapes) + 1)]
        for field, own in _grouped(group, lambda row: row.field).items():
            cells = [_mean([row.near * 1e4 for row in own if row.shape == shape]) for shape in shapes]
            lines.append(f"| {field} | " + " | ".join("" if math.isnan(cell) else f"{cell:.2f}" for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def plot(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Near-surface error against seconds, parameters and bytes, geometric means over shapes and seeds, as PNG and SVG."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Plots need matplotlib; install nstr3d[bench].") from error
    timed = [row for row in rows if row.limit.endswith(" s")] or list(rows)
    written = []
    for x in ("seconds", "parameters", "bytes"):
        budgets = sorted({row.budget for row in timed}) if x == "seconds" else [0]
        figure = Figure(figsize=(5 * len(budgets), 4), layout="constrained")
        for axes, budget in zip(figure.subplots(1, len(budgets), squeeze=False)[0], budgets):
            chosen = [row for row in timed if row.budget == budget] if x == "seconds" else final(timed)
            for field, own in sorted(_grouped(chosen, lambda row: row.field).items()):
                points = _curve(own, x)
                axes.plot(*zip(*points), marker="o", markersize=3, label=field)
            axes.set(xscale="log", yscale="log", xlabel=x, ylabel="mean |f - d| near the surface", title=budget or None)
            axes.grid(True, which="both", alpha=0.2)
        figure.axes[0].legend(fontsize=7)
        for suffix in (".png", ".svg"):
            written.append(folder / f"near_{x}{suffix}")
            figure.savefig(written[-1], dpi=110)
    return written


def _curve(rows: Sequence[Row], x: str) -> list[tuple[float, float]]:
    """Geometric means of x and error at each mark of the training (over seconds) or each budget (over anything else)."""
    marks = _grouped(rows, lambda row: row.done if x == "seconds" else row.budget)
    points = [(_geometric([getattr(row, x) for row in own]), _geometric([row.near for row in own])) for own in marks.values()]
    return sorted(points)


def _line(field: str, rows: Sequence[Row], means: dict[str, float], base: dict[str, float] | None) -> str:
    seeds = _grouped(rows, lambda row: row.seed).values()
    per_seed = [_mean([row.near for row in own]) * 1e4 for own in seeds]
    ratio = f"{means['near'] / base['near']:.2f}" if base else ""
    cells = [
        field,
        f"{means['parameters']:,.0f}",
        f"{means['steps']:,.0f}",
        f"{means['seconds']:.1f}",
        ratio,
        f"{means['near'] * 1e4:.2f} ± {(max(per_seed) - min(per_seed)) / 2:.2f}",
        f"{means['surface'] * 1e4:.2f}",
        f"{means['volume'] * 1e4:.1f}",
        f"{means['normals']:.2f}",
        f"{means['iou_near']:.4f}",
        f"{means['iou_volume']:.4f}",
        "" if math.isnan(means["hausdorff"]) else f"{means['hausdorff']:.2%}",
    ]
    return "| " + " | ".join(cells) + " |"


def _means(rows: Sequence[Row]) -> dict[str, float]:
    names = ("parameters", "steps", "seconds", *COLUMNS)
    return {name: _mean([getattr(row, name) for row in rows]) for name in names}


def _mean(values: Sequence[float | None]) -> float:
    """The mean; not a number where there is nothing, or where something is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else math.nan


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def _grouped(rows: Sequence[Row], key: Callable) -> dict:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)
