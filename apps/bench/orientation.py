"""Compare ways to orient the normals of points that have none:
``python apps/bench/orientation.py SHAPES``.

Points are sampled from closed meshes and moved by noise; a method estimates their outward normals.
There are two references: the exact normals, and estimated normals with exact signs, which show the
cost of wrong signs. Prints a table, each line as soon as it is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro

from nstr3d.cli.command import guarded
from nstr3d.geometry.cloud.distance import CloudDistance
from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.orient import outward_normals
from nstr3d.geometry.cloud.patches import fit_patches
from nstr3d.geometry.cloud.prepare import FEW, prepare
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.solid import solid_distance
from nstr3d.geometry.mesh.surface import area, face_normals, normalise, sample_surface
from nstr3d.geometry.mesh.trim import supported
from nstr3d.io import load_mesh
from nstr3d.surface.extract import extract
from nstr3d.surface.metrics import TAU, compare_surfaces
from nstr3d.types import Mesh, PointCloud

# Standard deviation of the distance of "near" points from the surface, and least distance of "far"
# points, as a fraction of the shape's longest side.
BAND = 0.01
SHARES = ("normals", "sides", "box", "far", "near")
HEADER = (
    f"| shape | noise % | signs from | {' | '.join(f'{name} wrong %' for name in SHARES)} "
    "| Chamfer | CPU seconds |"
)
METHODS: dict[str, Callable[[Neighbours], np.ndarray]] = {
    "winding number": outward_normals,
}


@dataclass(frozen=True)
class Race:
    """Compare ways to orient the normals of points that have none."""

    shapes: tyro.conf.Positional[tuple[Path, ...]]
    """Closed meshes to sample."""
    counts: tuple[int, ...] = (5000,)
    """Numbers of points."""
    noises: tuple[float, ...] = (0.0, 0.5)
    """Standard deviations of the noise, in per cent of the shape's longest side."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the points and the noise."""
    samples: int = 20_000
    """Number of places in the box, and near the surface, where the side is checked; also the number
    of points for the Chamfer distance."""
    cells: int = 128
    """Cells along the longest side of the grid from which the measured surface is extracted."""


def sample(mesh: Mesh, count: int, noise: float, seed: int) -> PointCloud:
    """``count`` points of ``mesh`` with exact normals. Gaussian noise with a standard deviation of
    ``noise`` per cent of the longest side is added to each coordinate; the normals are those of the
    points before it."""
    generator = np.random.default_rng(seed)
    points, faces = sample_surface(mesh, count, generator)
    shift = noise / 100 * mesh.bounds.extent.max() * generator.standard_normal(points.shape)
    return PointCloud(points + shift, face_normals(mesh)[faces])


def signed(cloud: PointCloud, points: Neighbours) -> np.ndarray:
    """Estimated normals ``(n, 3)`` of ``points``, with the signs of the exact normals of ``cloud``,
    whose points have the same order."""
    normals, exact = outward_normals(points), cloud.normals
    assert exact is not None
    return np.where(np.einsum("nd,nd->n", normals, exact)[:, None] < 0, -normals, normals)


def rows(options: Race) -> Iterator[str]:
    """Lines of the table, one for each shape, count, noise, seed and method."""
    for path in options.shapes:
        shape, _ = normalise(solid_distance(load_mesh(path)).mesh)
        distance = MeshDistance(shape)
        for count in options.counts:
            for noise in options.noises:
                for seed in options.seeds:
                    cloud = sample(shape, count, noise, seed)
                    yield _line(
                        path.stem,
                        noise,
                        "exact normals",
                        *figures(cloud, noise, shape, distance, None, options),
                    )
                    for name, method in {"exact signs": partial(signed, cloud), **METHODS}.items():
                        yield _line(
                            path.stem,
                            noise,
                            name,
                            *figures(cloud, noise, shape, distance, method, options),
                        )


def figures(
    cloud: PointCloud,
    noise: float,
    shape: Mesh,
    distance: MeshDistance,
    method: Callable[[Neighbours], np.ndarray] | None,
    options: Race,
) -> tuple[float, ...]:
    """Five error rates in per cent in the order of `SHARES`, the Chamfer distance of the first
    surface in 1e-4 of the diagonal, and the CPU seconds of the orientation.

    ``normals`` are off by more than 90 degrees. ``sides`` are points along whose normal the true
    distance decreases: it is compared at a step before and behind the point, and the square of the
    step is the sum of the squares of half a spacing and the noise. ``box``, ``far`` and ``near``
    are places on the wrong side of the first surface: in the box, in the box farther than `BAND`
    from the shape, and near the shape. If ``method`` is None, the exact normals of ``cloud`` are
    used. The Chamfer distance is NaN if the first surface encloses nothing.
    """
    started, exact = time.process_time(), cloud.normals
    assert exact is not None
    sampled = cloud if method is None else PointCloud(cloud.points)
    clean, frame, done = prepare(sampled, keep_outliers=True, outward=method or outward_normals)
    seconds, oriented = time.process_time() - started, clean.normals
    wrong = np.einsum("nd,nd->n", oriented, exact) < 0
    step = (
        np.hypot(np.sqrt(area(shape) / len(exact)) / 2, noise / 100 * shape.bounds.extent.max())
        * oriented
    )
    at = frame.to_world(clean.points)
    wrong_side = distance(at + step) < distance(at - step)
    signed_distance = CloudDistance(fit_patches(clean.tree, oriented, done.measured))
    generator = np.random.default_rng(7)
    reach = BAND * float(shape.bounds.extent.max())
    box = generator.uniform(shape.bounds.lower, shape.bounds.upper, (options.samples, 3))
    near = sample_surface(shape, options.samples, generator)[0] + reach * generator.standard_normal(
        box.shape
    )
    true_box, true_near = distance(box), distance(near)
    box_wrong, near_wrong = (
        (signed_distance(frame.to_unit(at)) < 0) != (d < 0)
        for at, d in ((box, true_box), (near, true_near))
    )
    far = np.abs(true_box) > reach
    try:
        mesh = supported(extract(signed_distance.sdf(), options.cells).mesh, clean.points, FEW)
        mesh = Mesh(frame.to_world(mesh.vertices), mesh.faces)
        chamfer = compare_surfaces(
            mesh, shape, distance, generator, TAU * shape.bounds.diagonal, options.samples
        ).chamfer
    except ValueError:  # the surface encloses nothing
        chamfer = np.nan
    rates = (
        100 * float(np.mean(mask))
        for mask in (wrong, wrong_side, box_wrong, box_wrong[far], near_wrong)
    )
    return *rates, 1e4 * chamfer / shape.bounds.diagonal, seconds


def _line(shape: str, noise: float, name: str, *values: float) -> str:
    *rates, chamfer, seconds = values
    wrong = " | ".join(f"{rate:.3f}" for rate in rates)
    return f"| {shape} | {noise} | {name} | {wrong} | {chamfer:.2f} | {seconds:.1f} |"


def run(options: Race) -> None:
    """Prints the table."""
    print(HEADER + "\n|" + "---|" * 10, flush=True)
    for line in rows(options):
        print(line, flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Race, prog="orientation.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
