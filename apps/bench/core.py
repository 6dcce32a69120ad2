"""What each part of the field is worth: ``python apps/bench/core.py [MESH ...]``, on shapes with
drifting relief and on our meshes.

Everybody has the same parameters and the same seconds, by turns. Rows go to core.csv in --out,
tables to core.md; run it again to go on. Placed waves are the default field; the controls are
random waves, other numbers of them, waves of fixed frequency (amplitude and quadrature), none, and
Instant-NGP.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import KDTree

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import Contender, Row, race, read_rows, write_rows
from nstr3d.bench.contenders import NGP, sized_waveless
from nstr3d.bench.surfacewaves import SurfaceWavesConfig, fit_surface_waves
from nstr3d.bench.tables import SURFACE, Measure, by_track, final, mean_of, summary
from nstr3d.bench.tracks import TESTS, MeshTrack
from nstr3d.cli.command import guarded
from nstr3d.fields.base import Field
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.start.warm import warm_start
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.geometry.shapes.reliefs import RELIEFS
from nstr3d.io.atomic import atomic_path
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import sdf_objective
from nstr3d.training.presets import FAST, levels_for, sized_nstr
from nstr3d.types import Mesh, Samples

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(ROOT / "assets" / f"{name}.obj" for name in ("bunny", "bracket", "gyroid"))
NOTES = ROOT / "assets" / "results" / "core-notes.md"  # written by hand; the end of core.md
BASE = "nstr without waves"

HOLES, HOLES_BUDGET = "25% hidden", 50_000
# of a hidden patch; how far from the surface samples are looked at
HOLE_RADIUS, HOLE_BAND = 0.15, 0.03
HOLE_POOL = 500_000  # samples at most before any are hidden
SPLINE = "spline alone"
WAVES = {
    "surface waves, law": SurfaceWavesConfig(),
    **{
        f"surface waves, F = 0, weight {w:g}": SurfaceWavesConfig(weight=w, carry=False)
        for w in (0.03, 0.1)
    },
    **{f"surface waves, ridge {r:g}": SurfaceWavesConfig(weight=0, ridge=r) for r in (0.1, 1.0)},
    SPLINE: SurfaceWavesConfig(weight=0, ridge=1e6),
}
HOLE_WORDS = (
    f"A quarter of the surface hidden in patches of radius {HOLE_RADIUS}, of every sample too "
    "whose nearest point may lie there. "
    f"Mean error of the distance within {HOLE_BAND} of the hidden and of the seen surface. "
    "`fit_surface_waves` has one default, "
    "its controls the weights named; trained fields have {steps} steps on all that is seen. "
    "Seconds are of the processor."
)
START, WARM, COLD = "nearby shape", "from the unbent one's model", "from nothing"
START_WORDS = (
    "A mesh is twisted (radians per unit) and widened, and fitted anew, from the model of what it "
    "was (`warm_start`) and from "
    "nothing, which is the least-squares start."
)
BENDS = 0.05, 0.2
TRAINED = {"nstr": sized_nstr, "nstr without waves": sized_waveless}


def with_waves(waves: Any, plain: int) -> Callable[[int], tuple[LevelConfig, ...]]:
    """The default levels with ``waves`` and ``plain`` channels on the finest."""

    def levels(finest: int) -> tuple[LevelConfig, ...]:
        *coarser, last = levels_for(finest)
        return *coarser, replace(last, plain=plain, waves=waves)

    return levels


def finer(finest: int) -> tuple[LevelConfig, ...]:
    """The default levels on coarser grids, and one of three plain channels as fine as the budget
    allows."""
    return *levels_for(max(8, round(finest * 0.6))), LevelConfig(max(10, finest), plain=3, order=2)


def contenders() -> list[Contender]:
    """The default field, its controls, and the baseline."""
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
    """Races what has not been raced, and writes the rows and the tables."""
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
            left = [c for c in everybody if (label, c.name, budget, limit, seed) not in done]
            if left:
                track = track or replace(make(), name=label, meshed=False)
                rows += race(
                    left,
                    track,
                    budget,
                    seed,
                    **length,
                    marks=(),
                    pool=options.pool,
                    commit=commit,
                    on_row=_tell,
                )
                write_rows(results, rows)
    for name, seed in product(options.holes, options.seeds):
        rows += holes(name, seed, options, {row.key for row in rows}, commit)
        write_rows(results, rows)
    for path, bend, seed in product(options.starts, BENDS, options.seeds):
        rows += starts(path, bend, seed, options, {row.key for row in rows}, commit)
        write_rows(results, rows)
    text = table(rows, options)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)


def relief(name: str, tests: int) -> MeshTrack:
    """The track of a shape with drifting relief."""
    return MeshTrack.around(name, RELIEFS[name](), tests)


def starts(
    path: Path, bend: float, seed: int, options: argparse.Namespace, done: set[tuple], commit: str
) -> list[Row]:
    """Fits of a mesh after it was bent: from the model of the unbent one, and from nothing, in
    several numbers of steps."""
    label, budget, training = f"{path.stem} bent by {bend:g}, start", options.budget, FAST.training
    counts = {WARM: options.warm_steps, COLD: options.cold_steps}
    names = {f"{word}, {steps} steps": (word, steps) for word in counts for steps in counts[word]}
    left = {
        field: how
        for field, how in names.items()
        if (label, field, budget, START, seed) not in done
    }
    if not left:
        return []
    before = MeshTrack.of(path, options.tests)
    after = MeshTrack.around(label, bent(before.near, bend), options.tests)
    config = FitConfig(seed=seed, pool=min(training.pool, options.pool))
    pool, earlier = (track.pool(config) for track in (after, before))
    first = sized_nstr(budget, before.near).build(
        3, 1, before.near, torch.Generator().manual_seed(seed)
    )
    drained(first, earlier, options.steps or training.steps, seed)
    found = []
    for field, (word, steps) in left.items():
        generator = torch.Generator().manual_seed(seed)
        module = (
            warm_start(first, after.near)
            if word == WARM
            else first.config.build(3, 1, after.near, generator)
        )
        started = time.process_time()
        drained(module, pool, steps, seed)
        spent, measures = time.process_time() - started, after.measure(module)
        place = (commit, "cpu", torch.get_num_threads(), label, field, budget, START, seed)
        found.append(Row(*place, 1.0, module.parameter_count, 0, steps, spent, measures))
        _tell(found[-1])
    return found


def bent(mesh: Mesh, bend: float) -> Mesh:
    """The mesh twisted by ``bend`` radians per unit along y, and wider by a quarter of that
    share."""
    x, y, z = mesh.vertices.T
    cosine, sine = np.cos(bend * y), np.sin(bend * y)
    return Mesh(
        np.stack([(1 + bend / 4) * (x * cosine - z * sine), y, x * sine + z * cosine], axis=1),
        mesh.faces,
    )


def drained(field: Field, pool: Samples, steps: int, seed: int) -> None:
    """Trains ``field`` in place."""
    for _ in fit_steps(
        field, pool, sdf_objective(), FitConfig(steps=steps, pool=len(pool), seed=seed)
    ):
        pass


def holes(
    name: str, seed: int, options: argparse.Namespace, done: set[tuple], commit: str
) -> list[Row]:
    """A quarter of a relief's surface hidden in patches: mean errors of the distance over them
    (``near``) and where samples are (``seen``), of `fit_surface_waves`, its controls at several
    weights, and trained fields."""
    found, label = [], f"{name}, holes"
    names = (*WAVES, *TRAINED)
    if all((label, field, HOLES_BUDGET, HOLES, seed) in done for field in names):
        return []
    track = relief(name, options.tests)
    pool = track.pool(FitConfig(seed=seed, pool=min(HOLE_POOL, options.pool)))
    points, values = pool.points.numpy(), pool.values.numpy()[:, 0]
    centres = patches(track.surface_points[0], seed)
    known, band = ~hidden(points, values, centres), np.abs(values) < HOLE_BAND
    at, truth = track.near_points
    near = np.abs(truth) < HOLE_BAND
    inner = near & (KDTree(centres).query(at)[0] < HOLE_RADIUS - 0.01)
    places = {"near": inner, "seen": near & ~hidden(at, truth, centres)}
    for field in names:
        if (label, field, HOLES_BUDGET, HOLES, seed) in done:
            continue
        started = time.process_time()
        if field in WAVES:
            given, generator = known & band, np.random.default_rng(seed)
            model = fit_surface_waves(
                points[given], values[given], points[band][:60_000], WAVES[field], generator
            )
            answer, size = model, model.spline.size + 2 * model.amplitudes.size
        else:
            answer, size = trained(
                TRAINED[field](HOLES_BUDGET, track.near),
                track.near,
                pool,
                known,
                options.hole_steps,
                seed,
            )
        spent = time.process_time() - started
        measures = {
            key: float(np.abs(answer(at[part]) - truth[part]).mean())
            for key, part in places.items()
        }
        place = (commit, "cpu", torch.get_num_threads(), label, field, HOLES_BUDGET, HOLES, seed)
        found.append(
            Row(*place, 1.0, size, 0, 0 if field in WAVES else options.hole_steps, spent, measures)
        )
        _tell(found[-1])
    return found


def patches(surface: np.ndarray, seed: int) -> np.ndarray:
    """Centres of balls, apart from each other, that hide a quarter of the ``surface`` points."""
    tree, chosen, gone = KDTree(surface), [], np.zeros(len(surface), bool)
    for index in np.random.default_rng([seed, 5]).permutation(len(surface)):
        if gone.mean() >= 0.25:
            break
        if (
            not chosen
            or np.linalg.norm(surface[chosen] - surface[index], axis=1).min() >= 2.3 * HOLE_RADIUS
        ):
            chosen.append(index)
            gone[tree.query_ball_point(surface[index], HOLE_RADIUS)] = True
    return surface[chosen]


def hidden(points: np.ndarray, distances: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which samples could know of a hidden patch: those nearer to it than their distance."""
    return KDTree(centres).query(points)[0] < HOLE_RADIUS + np.abs(distances)


def trained(
    config: NstrConfig, near: Mesh, pool: Samples, known: np.ndarray, steps: int, seed: int
) -> tuple[Callable, int]:
    """A field trained for ``steps`` on the samples that are known, and its size."""
    field = config.build(3, 1, near, torch.Generator().manual_seed(seed))
    chosen = torch.from_numpy(known)
    left = pool.map(lambda tensor: tensor[chosen])
    drained(field, left, steps, seed)

    def answer(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return field(torch.from_numpy(points.astype(np.float32)))[:, 0].numpy()

    return answer, field.parameter_count


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Markdown: means over shapes and seeds of relief and of meshes, then shape by shape."""
    commits, threads = (
        ", ".join(dict.fromkeys(str(value) for value in values)) for values in _places(rows)
    )
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
        parts.append(
            "## Relief with "
            f"holes\n\n{words}\n\n{summary(own, SPLINE, columns)}\n{by_track(own, columns[0])}"
        )
    return "\n".join([*parts, choice(rows), lost(rows), NOTES.read_text(encoding="utf-8")])


def choice(rows: Sequence[Row]) -> str:
    """A line that says what choosing the number of waves shape by shape could gain at most."""
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
    errors = [several for several in errors if not any(map(math.isnan, several))]
    if not errors:
        return ""
    gain = sum(map(min, errors)) / sum(several[list(counts).index("nstr")] for several in errors)
    return (
        "The best of 0, 4, 8 and 12 waves, chosen shape by shape after the fact: "
        f"{gain:.2f} of the error of always 8.\n"
    )


def lost(rows: Sequence[Row]) -> str:
    """A line that names what does no better than the default field on relief, with the ratio of the
    near errors."""
    own = [row for row in final(rows) if row.track.endswith(", relief")]
    errors = {
        name: mean_of([row for row in own if row.field == name], "near")
        for name in dict.fromkeys(r.field for r in own)
    }
    best = errors.pop("nstr", math.nan)
    worse = [f"{name} ({error / best:.2f})" for name, error in errors.items() if error >= best]
    return (
        "On relief no better than the default field, and so not in it (near error over its): "
        f"{', '.join(worse)}.\n"
    )


def _places(rows: Sequence[Row]) -> tuple[list[str], list[int]]:
    return [row.commit for row in rows], [row.threads for row in rows]


def _tell(row: Row) -> None:
    if row.done == 1:
        print(
            f"{row.track} seed {row.seed} {row.field}: near {row.measures['near']:.4g}",
            file=sys.stderr,
            flush=True,
        )


def main(args: Sequence[str] | None = None) -> int:
    """Parses options and runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "meshes", nargs="*", type=Path, default=list(OURS), help="meshes; ours by default"
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
        help="reliefs to hide parts of",
    )
    parser.add_argument(
        "--starts", nargs="*", type=Path, default=[OURS[0]], help="meshes to bend and start from"
    )
    parser.add_argument("--fields", nargs="+", help="only these contenders")
    parser.add_argument(
        "--relief-budget", type=int, default=50_000, help="learned parameters for the relief shapes"
    )
    parser.add_argument("--budget", type=int, default=100_000, help="learned parameters for meshes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--pool", type=int, default=FitConfig.pool, help="training samples of a mesh"
    )
    parser.add_argument(
        "--tests",
        type=int,
        default=TESTS,
        help="points of each kind that a mesh's errors are measured at",
    )
    parser.add_argument(
        "--steps", type=int, help="race to a number of steps instead; of models to start from, too"
    )
    parser.add_argument(
        "--hole-steps",
        type=int,
        default=500,
        help="of the fields that are trained on what holes leave",
    )
    parser.add_argument(
        "--warm-steps", nargs="+", type=int, default=[100, 200], help=f"of fits {WARM}"
    )
    parser.add_argument(
        "--cold-steps", nargs="+", type=int, default=[200, 350, 700], help=f"of fits {COLD}"
    )
    options = parser.parse_args(args)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
