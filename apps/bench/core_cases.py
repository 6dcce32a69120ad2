"""Two cases of apps/bench/core.py: a surface with hidden parts, and a mesh near a fitted one."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree

from nstr3d.bench.compare import Row
from nstr3d.bench.contenders import sized_waveless
from nstr3d.bench.surfacewaves import SurfaceWavesConfig, fit_surface_waves
from nstr3d.bench.tracks import MeshTrack
from nstr3d.fields.base import Field
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.start.warm import warm_start
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import FAST, sized_nstr
from nstr3d.types import Mesh, Samples

HOLES, HOLES_BUDGET = "25% hidden", 50_000
HOLE_RADIUS = 0.15  # of a hidden patch, in unit-box units
HOLE_BAND = 0.03  # largest distance from the surface of the samples used, in unit-box units
HOLE_POOL = 500_000  # largest number of samples before any are hidden
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
    f"A quarter of the surface is hidden in patches of radius {HOLE_RADIUS}. Every sample whose "
    "nearest surface point may lie in a patch is hidden too. The columns give the mean error of "
    f"the distance within {HOLE_BAND} of the hidden and of the seen surface. "
    "`fit_surface_waves` runs at its defaults; its controls are named by their weights. Trained "
    "fields have {steps} steps on all samples that are not hidden. Seconds are processor time."
)
START, WARM, COLD = "nearby shape", "from the unbent one's model", "from nothing"
START_WORDS = (
    "A mesh is twisted (radians per unit), widened and fitted again: from the model of the "
    "unbent mesh (`warm_start`), and from nothing, which is the least-squares start."
)
TRAINED = {"nstr": sized_nstr, "nstr without waves": sized_waveless}


def starts(
    path: Path, bend: float, seed: int, options: argparse.Namespace, done: set[tuple], commit: str
) -> list[Row]:
    """New rows of fits to the mesh at ``path`` after `bend_mesh` bent it by ``bend``.

    Each fit starts from the model of the unbent mesh or from nothing. ``options.warm_steps`` and
    ``options.cold_steps`` give the numbers of steps. Rows whose key is in ``done`` are left out.
    """
    label, budget, training = f"{path.stem} bent by {bend:g}, start", options.budget, FAST.training
    counts = {WARM: options.warm_steps, COLD: options.cold_steps}
    names = {f"{word}, {steps} steps": (word, steps) for word in counts for steps in counts[word]}
    pending = {
        field: how
        for field, how in names.items()
        if (label, field, budget, START, seed) not in done
    }
    if not pending:
        return []
    before = MeshTrack.of(path, options.tests)
    after = MeshTrack.around(label, bend_mesh(before.near, bend), options.tests)
    config = FitConfig(seed=seed, pool=min(training.pool, options.pool))
    pool, earlier = (track.pool(config) for track in (after, before))
    first = sized_nstr(budget, before.near).build(
        3, 1, before.near, torch.Generator().manual_seed(seed)
    )
    train_field(first, earlier, options.steps or training.steps, seed)
    rows = []
    for field, (word, steps) in pending.items():
        generator = torch.Generator().manual_seed(seed)
        module = (
            warm_start(first, after.near)
            if word == WARM
            else first.config.build(3, 1, after.near, generator)
        )
        started = time.process_time()
        train_field(module, pool, steps, seed)
        seconds, measures = time.process_time() - started, after.measure(module)
        place = (commit, "cpu", torch.get_num_threads(), label, field, budget, START, seed)
        rows.append(Row(*place, 1.0, module.parameter_count, 0, steps, seconds, measures))
        print_row(rows[-1])
    return rows


def bend_mesh(mesh: Mesh, bend: float) -> Mesh:
    """``mesh`` twisted about the y axis by ``bend`` radians per unit along y; x is then scaled by
    1 + ``bend`` / 4."""
    x, y, z = mesh.vertices.T
    cosine, sine = np.cos(bend * y), np.sin(bend * y)
    return Mesh(
        np.stack([(1 + bend / 4) * (x * cosine - z * sine), y, x * sine + z * cosine], axis=1),
        mesh.faces,
    )


def train_field(field: Field, pool: Samples, steps: int, seed: int) -> None:
    """Trains ``field`` in place for ``steps`` on the samples of ``pool``."""
    for _ in fit_steps(
        field, pool, SdfObjective(), FitConfig(steps=steps, pool=len(pool), seed=seed)
    ):
        pass


def holes(
    name: str,
    make_track: Callable[[], MeshTrack],
    seed: int,
    options: argparse.Namespace,
    done: set[tuple],
    commit: str,
) -> list[Row]:
    """New rows of models fitted to the relief ``name`` while a quarter of its surface is hidden.

    The models are `fit_surface_waves`, its controls and the trained fields. The measures are the
    mean distance errors, in unit-box units, over the hidden patches (``near``) and over the seen
    surface (``seen``). Rows whose key is in ``done`` are left out; ``make_track`` is called only
    if a row is missing.
    """
    rows, label = [], f"{name}, holes"
    names = (*WAVES, *TRAINED)
    if all((label, field, HOLES_BUDGET, HOLES, seed) in done for field in names):
        return []
    track = make_track()
    pool = track.pool(FitConfig(seed=seed, pool=min(HOLE_POOL, options.pool)))
    points, values = pool.points.numpy(), pool.values.numpy()[:, 0]
    centres = patch_centres(track.surface_points[0], seed)
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
            used, generator = known & band, np.random.default_rng(seed)
            model = fit_surface_waves(
                points[used], values[used], points[band][:60_000], WAVES[field], generator
            )
            answer, size = model, model.spline.size + 2 * model.amplitudes.size
        else:
            answer, size = train_on_known(
                TRAINED[field](HOLES_BUDGET, track.near),
                track.near,
                pool,
                known,
                options.hole_steps,
                seed,
            )
        seconds = time.process_time() - started
        measures = {
            key: float(np.abs(answer(at[part]) - truth[part]).mean())
            for key, part in places.items()
        }
        place = (commit, "cpu", torch.get_num_threads(), label, field, HOLES_BUDGET, HOLES, seed)
        steps = 0 if field in WAVES else options.hole_steps
        rows.append(Row(*place, 1.0, size, 0, steps, seconds, measures))
        print_row(rows[-1])
    return rows


def patch_centres(surface: np.ndarray, seed: int) -> np.ndarray:
    """Centres ``(k, 3)`` of disjoint balls of `HOLE_RADIUS` that hide a quarter of the points
    ``surface (n, 3)``."""
    tree, chosen, covered = KDTree(surface), [], np.zeros(len(surface), bool)
    for index in np.random.default_rng([seed, 5]).permutation(len(surface)):
        if covered.mean() >= 0.25:
            break
        if (
            not chosen
            or np.linalg.norm(surface[chosen] - surface[index], axis=1).min() >= 2.3 * HOLE_RADIUS
        ):
            chosen.append(index)
            covered[tree.query_ball_point(surface[index], HOLE_RADIUS)] = True
    return surface[chosen]


def hidden(points: np.ndarray, distances: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Mask ``(n,)`` of the samples whose nearest surface point may lie in a patch: the distance to
    a centre is less than `HOLE_RADIUS` plus the distance to the surface."""
    return KDTree(centres).query(points)[0] < HOLE_RADIUS + np.abs(distances)


def train_on_known(
    config: NstrConfig, near: Mesh, pool: Samples, known: np.ndarray, steps: int, seed: int
) -> tuple[Callable, int]:
    """Trains a field for ``steps`` on the samples of the mask ``known (n,)``. Returns a function
    from points ``(m, 3)`` to distances ``(m,)``, and the number of parameters."""
    field = config.build(3, 1, near, torch.Generator().manual_seed(seed))
    mask = torch.from_numpy(known)
    train_field(field, pool.map(lambda tensor: tensor[mask]), steps, seed)

    def answer(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return field(torch.from_numpy(points.astype(np.float32)))[:, 0].numpy()

    return answer, field.parameter_count


def print_row(row: Row) -> None:
    """Prints the near error of a finished fit to stderr."""
    if row.done == 1:
        print(
            f"{row.track} seed {row.seed} {row.field}: near {row.measures['near']:.4g}",
            file=sys.stderr,
            flush=True,
        )
