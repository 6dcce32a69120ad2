"""Measure what each part of the field is worth: ``python apps/bench/core.py [MESH ...]``.

Shapes with drifting relief, and the given meshes (ours by default), are fitted by all contenders
with the same number of parameters and for the same seconds, turn by turn. The default field has
placed waves. Its controls are random waves, other numbers of waves, waves of fixed frequency
(amplitude and quadrature) and no waves; the baseline is Instant-NGP. apps/bench/core_cases.py adds
surfaces with hidden parts and meshes near a fitted one. Rows go to core.csv and tables to core.md,
both in --out. A second run continues: it keeps finished rows.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import Contender, Row, race, read_rows, write_rows
from nstr3d.bench.contenders import NGP, sized_waveless
from nstr3d.bench.options import add_race_options
from nstr3d.bench.tables import SURFACE, Measure, by_track, final, mean_of, summary
from nstr3d.bench.tracks import MeshTrack
from nstr3d.cli.command import guarded
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.geometry.shapes.reliefs import RELIEFS
from nstr3d.io.atomic import atomic_path
from nstr3d.training.presets import levels_for, sized_nstr

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that this script can import apps

from apps.bench.core_cases import (
    COLD,
    HOLE_WORDS,
    SPLINE,
    START_WORDS,
    WARM,
    holes,
    print_row,
    starts,
)

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(ROOT / "assets" / f"{name}.obj" for name in ("bunny", "bracket", "gyroid"))
NOTES = ROOT / "assets" / "results" / "core-notes.md"  # written by hand, appended to core.md
BASE = "nstr without waves"

BENDS = 0.05, 0.2  # twists of the nearby shapes, in radians per unit


def with_waves(waves: Any, plain: int) -> Callable[[int], tuple[LevelConfig, ...]]:
    """The default levels with ``waves`` and ``plain`` channels on the finest."""

    def levels(finest: int) -> tuple[LevelConfig, ...]:
        *coarser, last = levels_for(finest)
        return *coarser, replace(last, plain=plain, waves=waves)

    return levels


def finer(finest: int) -> tuple[LevelConfig, ...]:
    """The default levels on coarser grids, and one level of three plain channels with ``finest``
    cells per axis (at least 10)."""
    return *levels_for(max(8, round(finest * 0.6))), LevelConfig(max(10, finest), plain=3, order=2)


def contenders() -> list[Contender]:
    """The default field, its controls and the baseline."""
    fixed = {f"amplitude waves, {k}": with_waves(AmplitudeWaves(k, (0.3, 2.5)), 6) for k in (8, 16)}
    fixed |= {f"quadrature waves, {k}": with_waves(ComplexWaves(k, (0.3, 2.5)), 6) for k in (8,)}
    counts = {
        f"nstr, {k} waves": with_waves(PhaseWaves(k), plain) for k, plain in ((4, 8), (12, 4))
    }
    counts |= {"nstr, finer levels": finer}
    return [
        Contender("nstr", sized_nstr),
        Contender("nstr, random waves", partial(sized_nstr, template=NstrConfig(placement=None))),
        Contender("nstr, random start", partial(sized_nstr, template=NstrConfig(start=None))),
        Contender("nstr, decoder of 128", partial(sized_nstr, template=NstrConfig(hidden=128))),
        *(
            Contender(name, partial(sized_nstr, levels_for=levels))
            for name, levels in (counts | fixed).items()
        ),
        Contender(BASE, sized_waveless),
        NGP,
    ]


def run(options: argparse.Namespace) -> None:
    """Runs the races and cases that core.csv lacks, and writes the rows and the tables."""
    results = options.out / "core.csv"
    rows, commit = read_rows(results), find_commit(ROOT)
    everybody = [c for c in contenders() if options.fields is None or c.name in options.fields]
    length = {"steps": options.steps} if options.steps else {"seconds": options.seconds}
    limit = f"{options.steps} steps" if options.steps else f"{options.seconds:g} s"
    jobs = [
        (name, "relief", options.relief_budget, partial(relief, name, options.tests))
        for name in options.reliefs
    ]
    jobs += [
        (path.stem, "mesh", options.budget, partial(MeshTrack.of, path, options.tests))
        for path in options.meshes
    ]
    for name, kind, budget, make in jobs:
        track = None
        for seed in options.seeds:
            done = {row.key for row in rows if row.done == 1}
            label = f"{name}, {kind}"
            pending = [c for c in everybody if (label, c.name, budget, limit, seed) not in done]
            if pending:
                track = track or replace(make(), name=label, meshed=False)
                rows += race(
                    pending,
                    track,
                    budget,
                    seed,
                    **length,
                    marks=(),
                    pool=options.pool,
                    commit=commit,
                    on_row=print_row,
                )
                write_rows(results, rows)
    for name, seed in product(options.holes, options.seeds):
        make = partial(relief, name, options.tests)
        rows += holes(name, make, seed, options, {row.key for row in rows}, commit)
        write_rows(results, rows)
    for path, bend, seed in product(options.starts, BENDS, options.seeds):
        rows += starts(path, bend, seed, options, {row.key for row in rows}, commit)
        write_rows(results, rows)
    text = table(rows, options)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)


def relief(name: str, tests: int) -> MeshTrack:
    """The track of the shape ``name`` with drifting relief, with ``tests`` points of each kind."""
    return MeshTrack.around(name, RELIEFS[name](), tests)


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """core.md: for each kind of row the means over shapes and seeds, then the errors of each
    shape; at the end the notes."""
    commits = ", ".join(dict.fromkeys(row.commit for row in rows))
    threads = ", ".join(dict.fromkeys(str(row.threads) for row in rows))
    where = f"commit {commits}; {threads} threads on a CPU; spread over seeds"
    parts = [
        f"What each part of the field is worth, made by `python apps/bench/core.py`: {where}.\n"
    ]
    for words, kind in (("Shapes with drifting relief", "relief"), ("Meshes", "mesh")):
        own = [row for row in rows if row.track.endswith(f", {kind}")]
        if own:
            parts.append(f"## {words}\n\n{summary(own, BASE, SURFACE[:5])}\n{by_track(own)}")
    own = [row for row in rows if row.track.endswith(", start")]
    if own:
        means = summary(own, f"{COLD}, {options.cold_steps[-1]} steps", SURFACE[:5])
        parts.append(f"## Nearby shapes\n\n{START_WORDS}\n\n{means}\n{by_track(own)}")
    own = [row for row in rows if row.track.endswith(", holes")]
    if own:
        words = HOLE_WORDS.format(steps=options.hole_steps)
        columns = (
            Measure("near", "in the holes x 1e-4", 1e-4),
            Measure("seen", "elsewhere x 1e-4", 1e-4),
        )
        means = summary(own, SPLINE, columns)
        parts.append(f"## Relief with holes\n\n{words}\n\n{means}\n{by_track(own, columns[0])}")
    return "\n".join([*parts, best_count(rows), no_better(rows), NOTES.read_text(encoding="utf-8")])


def best_count(rows: Sequence[Row]) -> str:
    """A line with the largest gain from choosing the number of waves for each shape separately;
    empty if no shape has been fitted with all numbers."""
    counts = {"nstr without waves": 0, "nstr, 4 waves": 4, "nstr": 8, "nstr, 12 waves": 12}
    own = [
        row
        for row in final(rows)
        if row.field in counts and row.track.endswith((", relief", ", mesh"))
    ]
    tracks = list(dict.fromkeys(row.track for row in own))
    errors = [
        [
            mean_of([r for r in own if (r.track, r.field) == (track, name)], "near")
            for name in counts
        ]
        for track in tracks
    ]
    errors = [row for row in errors if not any(map(math.isnan, row))]
    if not errors:
        return ""
    gain = sum(map(min, errors)) / sum(row[list(counts).index("nstr")] for row in errors)
    return (
        "The best of 0, 4, 8 and 12 waves, chosen for each shape after the fact: "
        f"{gain:.2f} of the error of 8 waves on every shape.\n"
    )


def no_better(rows: Sequence[Row]) -> str:
    """A line with the fields that are no better than the default one on relief, and the ratios of
    their near errors to its error."""
    own = [row for row in final(rows) if row.track.endswith(", relief")]
    errors = {
        name: mean_of([row for row in own if row.field == name], "near")
        for name in dict.fromkeys(r.field for r in own)
    }
    best = errors.pop("nstr", math.nan)
    worse = [f"{name} ({error / best:.2f})" for name, error in errors.items() if error >= best]
    return (
        "On relief no better than the default field (ratio of the near errors), and therefore not "
        "part of it: "
        f"{', '.join(worse)}.\n"
    )


def _parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "meshes", nargs="*", type=Path, default=list(OURS), help="meshes to fit; ours by default"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the results"
    )
    parser.add_argument("--reliefs", nargs="*", choices=list(RELIEFS), default=list(RELIEFS))
    parser.add_argument(
        "--holes",
        nargs="*",
        choices=list(RELIEFS),
        default=list(RELIEFS),
        help="reliefs whose parts are hidden",
    )
    parser.add_argument(
        "--starts",
        nargs="*",
        type=Path,
        default=[OURS[0]],
        help="meshes that are fitted, bent and fitted again",
    )
    _add_measures(parser)
    return parser


def _add_measures(parser: argparse.ArgumentParser) -> None:
    """Adds the options on what is raced, for how long, and how it is measured."""
    parser.add_argument("--fields", nargs="+", help="only the contenders of these names")
    parser.add_argument(
        "--relief-budget", type=int, default=50_000, help="learned parameters for reliefs"
    )
    parser.add_argument("--budget", type=int, default=100_000, help="learned parameters for meshes")
    add_race_options(parser, seconds=5.0)
    parser.add_argument(
        "--hole-steps",
        type=int,
        default=500,
        help="training steps of the fields on the samples outside the holes",
    )
    parser.add_argument(
        "--warm-steps",
        nargs="+",
        type=int,
        default=[100, 200],
        help=f"training steps of the fits {WARM}",
    )
    parser.add_argument(
        "--cold-steps",
        nargs="+",
        type=int,
        default=[200, 350, 700],
        help=f"training steps of the fits {COLD}",
    )


def main(args: Sequence[str] | None = None) -> int:
    """Parses the options ``args`` (the command line's by default), runs, and returns the exit
    code."""
    options = _parser().parse_args(args)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
