"""What each part of the field is worth: ``python apps/core.py [MESH ...]``, on shapes with drifting relief and on our meshes.

Everybody has the same parameters and the same seconds, by turns. Rows go to core.csv in --out, tables to core.md; run it again
to go on. Placed waves are the default field; the controls are random waves, other numbers of them, waves of fixed frequency
(amplitude and quadrature), none, and Instant-NGP.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nstr3d.cli import guarded
from nstr3d.compare import Contender, Row, race, read_rows, write_rows
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.spectrum import LevelConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.geometry.reliefs import RELIEFS
from nstr3d.io import atomic_path
from nstr3d.presets import levels_for, sized_nstr, sized_tuned_ngp, sized_waveless
from nstr3d.tables import SURFACE, by_track, final, mean_of, summary
from nstr3d.tracks import MeshTrack

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(ROOT / "assets" / f"{name}.obj" for name in ("bunny", "bracket", "gyroid"))
BASE = "nstr without waves"


def with_waves(waves: Any, plain: int) -> Callable[[int], tuple[LevelConfig, ...]]:
    """The default levels with ``waves`` and ``plain`` channels on the finest."""

    def levels(finest: int) -> tuple[LevelConfig, ...]:
        *coarser, last = levels_for(finest)
        return *coarser, replace(last, plain=plain, waves=waves)

    return levels


def finer(finest: int) -> tuple[LevelConfig, ...]:
    """The default levels on coarser grids, and one of three plain channels as fine as the budget allows."""
    return *levels_for(max(8, round(finest * 0.6))), LevelConfig(max(10, finest), plain=3)


def contenders() -> list[Contender]:
    """The default field, its controls, and the baseline."""
    fixed = {f"amplitude waves, {k}": with_waves(AmplitudeWaves(k, (0.3, 2.5)), 6) for k in (8, 16)}
    fixed |= {f"quadrature waves, {k}": with_waves(ComplexWaves(k, (0.3, 2.5)), 6) for k in (8,)}
    counts = {f"nstr, {k} waves": with_waves(PhaseWaves(k), plain) for k, plain in ((4, 8), (12, 4))}
    counts |= {"nstr, finer levels": finer}
    return [
        Contender("nstr", sized_nstr),
        Contender("nstr, random waves", partial(sized_nstr, template=NstrConfig(placement=None))),
        Contender("nstr, decoder of 128", partial(sized_nstr, template=NstrConfig(hidden=128))),
        *(Contender(name, partial(sized_nstr, levels_for=levels)) for name, levels in (counts | fixed).items()),
        Contender(BASE, sized_waveless),
        Contender("ngp", sized_tuned_ngp),
    ]


def run(options: argparse.Namespace) -> None:
    """Races what has not been raced, and writes the rows and the tables."""
    results = options.out / "core.csv"
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    rows, commit = read_rows(results), git.stdout.strip()
    everybody = [c for c in contenders() if options.fields is None or c.name in options.fields]
    length = {"steps": options.steps} if options.steps else {"seconds": options.seconds}
    limit = f"{options.steps} steps" if options.steps else f"{options.seconds:g} s"
    jobs = [(name, "relief", options.relief_budget, partial(relief, name)) for name in options.reliefs]
    jobs += [(path.stem, "mesh", options.budget, partial(MeshTrack.of, path)) for path in options.meshes]
    for name, kind, budget, make in jobs:
        track = None
        for seed in options.seeds:
            done = {row.key for row in rows if row.done == 1}
            label = f"{name}, {kind}"
            left = [c for c in everybody if (label, c.name, budget, limit, seed) not in done]
            if left:
                track = track or replace(make(), name=label, meshed=False)
                rows += race(left, track, budget, seed, **length, marks=(), commit=commit, on_row=_tell)
                write_rows(results, rows)
    text = table(rows)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)


def relief(name: str) -> MeshTrack:
    """The track of a shape with drifting relief."""
    return MeshTrack.around(name, RELIEFS[name]())


def table(rows: Sequence[Row]) -> str:
    """Markdown: means over shapes and seeds of relief and of meshes, then shape by shape."""
    commits, threads = (", ".join(dict.fromkeys(str(value) for value in values)) for values in _places(rows))
    where = f"commit {commits}; {threads} threads on a CPU; spread over seeds"
    parts = [f"What each part of the field is worth, made by `python apps/core.py`: {where}.\n"]
    for words, kind in (("Shapes with drifting relief", "relief"), ("Meshes", "mesh")):
        own = [row for row in rows if row.track.endswith(f", {kind}")]
        if own:
            parts.append(f"## {words}\n\n{summary(own, BASE, SURFACE[:5])}\n{by_track(own)}")
    return "\n".join([*parts, lost(rows)])


def lost(rows: Sequence[Row]) -> str:
    """A line that names what does no better than the default field on relief, with the ratio of the near errors."""
    own = [row for row in final(rows) if row.track.endswith(", relief")]
    errors = {name: mean_of([row for row in own if row.field == name], "near") for name in dict.fromkeys(r.field for r in own)}
    best = errors.pop("nstr", math.nan)
    worse = [f"{name} ({error / best:.2f})" for name, error in errors.items() if error >= best]
    return f"On relief no better than the default field, and so not in it (near error over its): {', '.join(worse)}.\n"


def _places(rows: Sequence[Row]) -> tuple[list[str], list[int]]:
    return [row.commit for row in rows], [row.threads for row in rows]


def _tell(row: Row) -> None:
    if row.done == 1:
        print(f"{row.track} seed {row.seed} {row.field}: near {row.measures['near']:.4g}", file=sys.stderr, flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Parses options and runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="*", type=Path, default=list(OURS), help="meshes; ours by default")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the results")
    parser.add_argument("--reliefs", nargs="*", choices=list(RELIEFS), default=list(RELIEFS))
    parser.add_argument("--fields", nargs="+", help="only these contenders")
    parser.add_argument("--relief-budget", type=int, default=50_000, help="learned parameters for the relief shapes")
    parser.add_argument("--budget", type=int, default=100_000, help="learned parameters for meshes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int, help="race to a number of steps instead")
    options = parser.parse_args(args)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
