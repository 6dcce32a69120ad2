"""Compare our surfaces from points with screened Poisson reconstruction:
``python apps/bench/points.py SHAPES --out out/points``.

Points are sampled from meshes and moved by noise, with or without normals, all over the shape or
with a part missing. Our methods are the first surface and, with --field, the fitted field. The
reference is Open3D's screened Poisson reconstruction (pip install open3d); where points have no
normals, Open3D estimates them. A second run continues: it keeps the rows of points.csv.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.bench.srb import Result, deviation, scans, srb_table
from nstr3d.cli.command import guarded
from nstr3d.fields.nstr import TransportConfig
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.solid import solid_distance
from nstr3d.geometry.mesh.surface import face_normals, normalise, sample_surface
from nstr3d.io import load_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.io.interop import import_open3d
from nstr3d.jobs.cloud import first_surface
from nstr3d.surface.extract import extract_mesh
from nstr3d.surface.metrics import TAU, compare_surfaces
from nstr3d.training.fit import fit
from nstr3d.training.losses import SdfObjective, TransportPenalty
from nstr3d.training.presets import FAST, sized_nstr
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Mesh, PointCloud

ROOT = Path(__file__).resolve().parents[2]
SETTING = ("shape", "points", "noise", "normals", "missing", "method", "seed")
COLUMNS: tuple[str, ...] = (*SETTING, "chamfer", "normal_error", "f_score", "seconds")
Method = Callable[[PointCloud], Mesh]


@dataclass(frozen=True)
class Race:
    """Compare our surfaces from points with Open3D's screened Poisson reconstruction."""

    shapes: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Closed meshes to sample."""
    srb: Path | None = None
    """Folder of the Surface Reconstruction Benchmark: scans scan_NAME.ply and true surfaces
    NAME.off. They are measured in place of shapes, and srb.md is written."""
    out: Path = Path("out/points")
    """Folder of points.csv, whose rows are not measured again, and of points.md, the table."""
    counts: tuple[int, ...] = (5000, 20_000, 100_000)
    """Numbers of points."""
    noises: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0)
    """Standard deviations of the noise, in per cent of the shape's longest side."""
    normals: tuple[bool, ...] = (True, False)
    """True for points with normals, False for points without; both by default."""
    missing: tuple[float, ...] = (0.0, 0.3)
    """Fractions of the points that are missing, all on one side."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the points and their noise."""
    depths: tuple[int, ...] = (8, 9)
    """Octree depths of the Poisson reconstruction; without a depth it is left out."""
    samples: int = 50_000
    """Number of points on each surface for the measures."""
    field: bool = False
    """Fit the field too, with the fast preset."""
    steps: int = FAST.training.steps
    """Training steps of the field."""
    transport: float = 0.0
    """With --field and a positive weight: also fit the field with a transport loss of this weight,
    for F(x, S) and for F = 0."""


def sample(mesh: Mesh, count: int, noise: float, missing: float, seed: int) -> PointCloud:
    """``count`` points of ``mesh`` with exact normals. The fraction ``missing`` of the surface's
    points with the largest coordinate along (1, 1, 1) is left out. Gaussian noise with a standard
    deviation of ``noise`` per cent of the longest side is added to each coordinate."""
    generator = np.random.default_rng(seed)
    points, faces = sample_surface(mesh, round(count / (1 - missing)), generator)
    kept = np.argsort(points.sum(axis=1), kind="stable")[:count]
    shift = noise / 100 * mesh.bounds.extent.max() * generator.standard_normal((len(kept), 3))
    return PointCloud(points[kept] + shift, face_normals(mesh)[faces[kept]])


def ours(cloud: PointCloud) -> Mesh:
    """The first surface, which needs no training."""
    return first_surface(cloud).mesh


def fitted(steps: int, transport: TransportConfig | None = None, weight: float = 0.0) -> Method:
    """The method that fits a field to the first surface with the fast preset in ``steps``, with the
    ``transport`` loss of this ``weight`` if given."""
    objective = SdfObjective(transport=TransportPenalty(weight) if transport else None)

    def run(cloud: PointCloud) -> Mesh:
        unit, frame = normalise(close_holes(repair(ours(cloud))[0])[0])
        config = replace(sized_nstr(FAST.params, unit), transport=transport)
        field = config.build(3, 1, near=unit, generator=torch.Generator().manual_seed(0))
        result = fit(
            field,
            SurfaceBand(unit, MeshDistance(unit)),
            objective,
            replace(FAST.training, steps=steps),
            frame,
        )
        return extract_mesh(result.sdf(), 384)

    return run


def poisson(depth: int) -> Method:
    """The method of screened Poisson reconstruction with octree depth ``depth``. Raises
    ModuleNotFoundError if Open3D is not installed."""
    open3d = import_open3d()

    def run(cloud: PointCloud) -> Mesh:
        points = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.points))
        if cloud.normals is None:
            points.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(20))
            points.orient_normals_consistent_tangent_plane(20)
        else:
            points.normals = open3d.utility.Vector3dVector(cloud.normals)
        mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(points, depth=depth)
        return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.triangles, np.int64))

    return run


def races(
    options: Race, methods: dict[str, Method], done: set[tuple[str, ...]]
) -> Iterator[dict[str, Any]]:
    """Measures and yields the rows whose setting is not in ``done``. If a method raises ValueError,
    the measures of its row are empty."""
    for path in options.shapes:
        shape, _ = normalise(solid_distance(load_mesh(path)).mesh)
        distance, diagonal = MeshDistance(shape), shape.bounds.diagonal
        settings = product(
            options.counts, options.noises, options.normals, options.missing, options.seeds
        )
        for count, noise, normals, missing, seed in settings:
            cloud = sample(shape, count, noise, missing, seed)
            for name, method in methods.items():
                key = (
                    path.stem,
                    str(count),
                    str(noise),
                    str(normals),
                    str(missing),
                    name,
                    str(seed),
                )
                if key in done:
                    continue
                started = time.perf_counter()
                try:
                    mesh = method(cloud if normals else PointCloud(cloud.points))
                except ValueError:
                    yield dict(zip(COLUMNS, (*key, "", "", "", "")))
                    continue
                seconds = time.perf_counter() - started
                measures = compare_surfaces(
                    mesh, shape, distance, np.random.default_rng(1), TAU * diagonal, options.samples
                )
                figures = (
                    measures.chamfer / diagonal,
                    measures.normal_error,
                    measures.f_score,
                    seconds,
                )
                yield dict(zip(COLUMNS, (*key, *(f"{figure:.6g}" for figure in figures))))


def run_srb(options: Race, folder: Path, methods: dict[str, Method]) -> None:
    """Measures the scans of ``folder``, with their normals and without, and writes srb.md."""
    results = []
    for scan in scans(folder):
        for normals in options.normals:
            cloud = scan.cloud if normals else PointCloud(scan.cloud.points)
            for name, method in methods.items():
                started = time.perf_counter()
                mesh = method(cloud)
                seconds = time.perf_counter() - started
                far = deviation(mesh, scan.truth), deviation(mesh, scan.seen)
                result = Result(scan.name, normals, name, *far, seconds)
                print(result.row(), flush=True)
                results.append(result)
        best = deviation(scan.seen, scan.truth), deviation(scan.seen, scan.seen)
        results.append(Result(scan.name, True, "truth as scanned", *best, 0.0))
    text = srb_table(results, "python apps/bench/points.py --srb DIR", find_commit(ROOT))
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out / "srb.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def run(options: Race) -> None:
    """Measures all settings, writes points.csv after each row and points.md at the end, and prints
    the table."""
    methods = {"ours": ours} | ({"field": fitted(options.steps)} if options.field else {})
    if options.field and options.transport:
        kinds = {"field, F(x, S)": TransportConfig(), "field, F = 0": TransportConfig(hidden=0)}
        methods |= {
            name: fitted(options.steps, kind, options.transport) for name, kind in kinds.items()
        }
    methods |= {f"poisson {depth}": poisson(depth) for depth in options.depths}
    if options.srb is not None:
        run_srb(options, options.srb, methods)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "points.csv"
    rows: list[dict[str, Any]] = []
    if path.exists():
        with open(path, newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    for row in races(options, methods, {tuple(row[name] for name in SETTING) for row in rows}):
        rows.append(row)
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS))
            writer.writeheader()
            writer.writerows(rows)
    text = table(rows)
    with atomic_path(options.out / "points.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: for each setting and method the geometric means, over shapes and seeds, of the
    ratios of Chamfer distance and normal error to the better Poisson reconstruction, and the
    arithmetic means of F-score and seconds."""
    settings = sorted({tuple(row[name] for name in SETTING[1:5]) for row in rows}, key=str)
    lines = [
        "| points | noise | normals | missing | method | Chamfer / Poisson | normals / Poisson | "
        "F-score | seconds |"
    ]
    lines.append("|" + "---|" * 9)
    for setting in settings:
        group = [
            row
            for row in rows
            if tuple(row[name] for name in SETTING[1:5]) == setting and row["chamfer"]
        ]
        best = {}
        for row in (row for row in group if row["method"].startswith("poisson")):
            for figure in ("chamfer", "normal_error"):
                key = row["shape"], row["seed"], figure
                best[key] = min(float(row[figure]), best.get(key, np.inf))
        for method in dict.fromkeys(row["method"] for row in group):
            own = [row for row in group if row["method"] == method]
            ratios = [_relative(own, best, figure) for figure in ("chamfer", "normal_error")]
            means = [
                float(np.mean([float(row[figure]) for row in own]))
                for figure in ("f_score", "seconds")
            ]
            lines.append(
                f"| {' | '.join(setting)} | {method} | {' | '.join(ratios)} | {means[0]:.4f} | "
                f"{means[1]:.1f} |"
            )
    return "\n".join(lines)


def _relative(
    rows: list[dict[str, Any]], best: dict[tuple[str, str, str], float], figure: str
) -> str:
    keys = [(row["shape"], row["seed"], figure) for row in rows]
    known = [float(row[figure]) / best[key] for row, key in zip(rows, keys) if key in best]
    return f"{np.exp(np.mean(np.log(known))):.2f}" if known else ""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Race, prog="points.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
