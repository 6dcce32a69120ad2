"""Measure smoothness on analytic shapes: ``python apps/bench/smooth.py``, minutes on two cores.

The default field races its controls on four shapes whose normals and curvatures are known exactly.
Every finished race is written at once; run it again to go on. Writes smoothness.csv and
smoothness.md to --out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import Row, limit_of, race, read_rows, write_rows
from nstr3d.bench.contenders import SURFACES, only
from nstr3d.bench.smooth import SmoothTrack, smooth_shapes
from nstr3d.cli.command import guarded
from nstr3d.io.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[2]
# heading, measure, factor, digits
COLUMNS = (
    ("near x 1e-4", "near", 1e4, 2),
    ("box x 1e-4", "volume", 1e4, 1),
    ("normals", "true_normals_mean", 1.0, 3),
    ("p99", "true_normals_p99", 1.0, 2),
    ("ripple", "bands_mean", 1.0, 3),
    ("p99", "bands_p99", 1.0, 2),
    ("kink", "kink_mean", 1.0, 3),
    ("p99", "kink_p99", 1.0, 2),
    ("inside a cell", "control_p99", 1.0, 2),
    ("curvature", "curvature_mean", 1.0, 3),
    ("p99", "curvature_p99", 1.0, 2),
)


@dataclass(frozen=True)
class Options:
    """Measure the smoothness of fitted analytic shapes."""

    out: Path = Path("out/smoothness")
    """Folder of smoothness.csv and smoothness.md."""
    shapes: tuple[str, ...] = tuple(smooth_shapes())
    """Names of the shapes."""
    fields: tuple[str, ...] = ("nstr", "nstr, values alone", "nstr, multilinear", "grid", "ngp")
    """Names of the contenders."""
    params: int = 100_000
    """Parameters of each field."""
    steps: int | None = None
    """Training steps of each field; without them the races last --seconds."""
    seconds: float = 16.0
    """Seconds of training of each field."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds."""
    pool: int = 1_000_000
    """Training samples."""
    tests: int = 20_000
    """Test points of each kind."""


def run(options: Options) -> None:
    """Runs every race that is not in the CSV file yet and writes the tables."""
    shapes = smooth_shapes()
    if unknown := sorted(set(options.shapes) - set(shapes)):
        raise ValueError(f"There is no shape {unknown[0]}; choose from {', '.join(shapes)}.")
    limit = limit_of(None if options.steps else options.seconds, options.steps)
    path = options.out / "smoothness.csv"
    rows, contenders = read_rows(path), only(SURFACES, options.fields)
    for name in options.shapes:
        track = None
        for seed in options.seeds:
            done = {
                row.field
                for row in rows
                if row.key == (name, row.field, options.params, limit, seed)
            }
            missing = [each for each in contenders if each.name not in done]
            if missing:
                track = track or SmoothTrack.smooth(name, shapes[name], options.tests)
                rows += race(
                    missing,
                    track,
                    options.params,
                    seed,
                    seconds=None if options.steps else options.seconds,
                    steps=options.steps,
                    marks=(),
                    pool=options.pool,
                    commit=find_commit(ROOT),
                )
                write_rows(path, rows)
                print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
    with atomic_path(options.out / "smoothness.md") as temporary:
        temporary.write_text(page(rows))
    print(page(rows))


def page(rows: Sequence[Row]) -> str:
    """The tables in markdown: one per length of the races, means over seeds."""
    parts = [
        "# Smoothness on analytic shapes",
        "`python apps/bench/smooth.py`: races at equal parameters on finely tessellated shapes, "
        "measured against the analytic surface. Normals, ripples of the normals within 0.03 of the "
        "unit box, and kinks across cell faces (against the turn inside a cell) are in degrees; "
        "errors of the mean curvature in 1 / unit-box length. Columns p99 are 99th percentiles.",
    ]
    for limit in dict.fromkeys(row.limit for row in rows):
        chosen = [row for row in rows if row.limit == limit]
        commits = ", ".join(dict.fromkeys(row.commit for row in chosen))
        seeds = ", ".join(map(str, sorted({row.seed for row in chosen})))
        parts += [
            f"## {limit}",
            f"{chosen[0].threads} threads on {chosen[0].device}, seeds {seeds}, commit {commits}.",
            table(chosen),
        ]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """A line per shape and field."""
    heads = ["shape", "field", "parameters", "steps", *(heading for heading, *_ in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for place in dict.fromkeys((row.track, row.field) for row in rows):
        group = [row for row in rows if (row.track, row.field) == place]
        cells = [
            *place,
            f"{group[0].parameters:,}",
            f"{np.mean([row.steps for row in group]):,.0f}",
        ]
        for _, measure, factor, digits in COLUMNS:
            values = [row.measures[measure] for row in group if measure in row.measures]
            cells.append(f"{np.mean(values) * factor:.{digits}f}" if values else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Options, prog="smooth.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
