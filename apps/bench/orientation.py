"""Race ways to tell inside from outside on points without normals:
``python apps/bench/orientation.py SHAPES``.

Points are sampled from closed meshes and moved by noise; the winding number decides which side is
outside. Exact normals are one reference. Estimated normals with exact signs are another: they show
what wrong signs cost. Prints a table, each line as soon as it is measured.
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
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import area, face_normals, normalise, sample_surface
from nstr3d.geometry.mesh.trim import supported
from nstr3d.io import load_mesh
from nstr3d.surface.extract import extract
from nstr3d.surface.metrics import TAU, compare_surfaces
from nstr3d.types import Mesh, PointCloud

# of the longest side: how far from the surface the points near it are, in standard deviations, and
# beyond it "far"
BAND = 0.01
SHARES = ("normals", "sides", "box", "far", "near")
HEADER = (
    f"| shape | noise % | signs from | {' | '.join(f'{share} wrong %' for share in SHARES)} "
    "| Chamfer | CPU seconds |"
)
METHODS: dict[str, Callable[[Neighbours], np.ndarray]] = {
    "winding number": outward_normals,
}


@dataclass(frozen=True)
class Race:
    """Race ways to tell inside from outside on points without normals."""

    shapes: tyro.conf.Positional[tuple[Path, ...]]
    """Closed meshes to sample."""
    counts: tuple[int, ...] = (5000,)
    """Numbers of points."""
    noises: tuple[float, ...] = (0.0, 0.5)
    """Standard deviations of the noise, in per cent of the longest side."""
    seeds: tuple[int, ...] = (0,)
    """Of the points and the noise."""
    samples: int = 20_000
    """Places in the box and near the surface that are told a side, and points that the surface is
    measured with."""
    cells: int = 128
    """Cells along the longest side of the surface that is measured."""


def sample(mesh: Mesh, count: int, noise: float, seed: int) -> PointCloud:
    """``count`` points of ``mesh``, each coordinate moved by a Gaussian of ``noise`` per cent of
    the longest side, with the exact normals of where they were."""
    generator = np.random.default_rng(seed)
    points, faces = sample_surface(mesh, count, generator)
    shift = noise / 100 * mesh.bounds.extent.max() * generator.standard_normal(points.shape)
    return PointCloud(points + shift, face_normals(mesh)[faces])


def signed(cloud: PointCloud, points: Neighbours) -> np.ndarray:
    """The normals estimated for ``points (n, 3)``, with the signs of the exact ones of ``cloud``,
    in that order."""
    normals, exact = outward_normals(points), cloud.normals
    assert exact is not None
    return np.where(np.einsum("nd,nd->n", normals, exact)[:, None] < 0, -normals, normals)


def rows(options: Race) -> Iterator[str]:
    """Lines of the table, one per shape, noise and method."""
    for path in options.shapes:
        shape, _ = normalise(close_holes(repair(load_mesh(path))[0])[0])
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
    """Shares in per cent of normals more than 90 degrees off; of points told the wrong side, along
    whose normal the true distance falls (from as far before as behind: half a spacing, and the
    noise); and of places in the box, in the box but ``BAND`` off the surface, and near it, on the
    wrong side; Chamfer distance of the first surface in 1e-4 of the diagonal, and CPU seconds of
    the orientation."""
    started, exact = time.process_time(), cloud.normals
    assert exact is not None
    given = cloud if method is None else PointCloud(cloud.points)
    clean, frame, done = prepare(given, keep_outliers=True, outward=method or outward_normals)
    seconds, oriented = time.process_time() - started, clean.normals
    wrong = np.einsum("nd,nd->n", oriented, exact) < 0
    step = (
        np.hypot(np.sqrt(area(shape) / len(exact)) / 2, noise / 100 * shape.bounds.extent.max())
        * oriented
    )
    at = frame.to_world(clean.points)
    aside = distance(at + step) < distance(at - step)
    found = CloudDistance(fit_patches(clean.tree, oriented, done.measured))
    generator = np.random.default_rng(7)
    reach = BAND * float(shape.bounds.extent.max())
    box = generator.uniform(shape.bounds.lower, shape.bounds.upper, (options.samples, 3))
    near = sample_surface(shape, options.samples, generator)[0] + reach * generator.standard_normal(
        box.shape
    )
    true_box, true_near = distance(box), distance(near)
    box_wrong, near_wrong = (
        (found(frame.to_unit(at)) < 0) != (d < 0) for at, d in ((box, true_box), (near, true_near))
    )
    far = np.abs(true_box) > reach
    try:
        mesh = supported(extract(found.sdf(), options.cells).mesh, clean.points, FEW)
        mesh = Mesh(frame.to_world(mesh.vertices), mesh.faces)
        chamfer = compare_surfaces(
            mesh, shape, distance, generator, TAU * shape.bounds.diagonal, options.samples
        ).chamfer
    except ValueError:  # the signs enclose nothing
        chamfer = np.nan
    shares = (
        100 * float(np.mean(those))
        for those in (wrong, aside, box_wrong, box_wrong[far], near_wrong)
    )
    return *shares, 1e4 * chamfer / shape.bounds.diagonal, seconds


def _line(shape: str, noise: float, name: str, *found: float) -> str:
    *shares, chamfer, seconds = found
    wrong = " | ".join(f"{share:.3f}" for share in shares)
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
