"""Compare questions to a fitted field with those to its mesh: ``python apps/bench/queries.py``.

Closest points, inside tests and rays of a fitted mesh are asked of the field, and of its extracted
mesh by libigl, Open3D's RaycastingScene and trimesh, where they are installed. All answers run on
one thread, in turns. Errors are against the exact answers for a finer mesh of the field, which
`MeshDistance` gives, in units of the unit box. Writes queries.md to --out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.direct import fit_mesh
from nstr3d.model.checkpoint import load
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.types import Mesh

ROOT = Path(__file__).resolve().parents[2]
BAND = 0.01  # unit box: standard deviation of near points' distance from the surface
Answers = dict[str, Callable[[], np.ndarray]]


@dataclass(frozen=True)
class Options:
    """Measure closest points, inside tests and rays: the field's and those of meshes."""

    model: Path | None = None
    """A model.safetensors; a fit of the bunny by default."""
    out: Path = Path("out/queries")
    """Folder of queries.md."""
    points: int = 100_000
    """Number of points and rays in a question."""
    resolution: int = 256
    """Cells of the mesh that others ask; the reference has 1.5 times as many."""
    turns: int = 3
    """Measured turns of each method."""


@dataclass(frozen=True)
class Subject:
    """A field, its mesh, and the exact distance to a finer mesh of it."""

    sdf: Sdf
    mesh: Mesh
    exact: MeshDistance
    scale: float

    def closest(self, points: np.ndarray) -> Answers:
        """The distances from points to their closest points."""
        answers: Answers = {
            "field": lambda: _way(self.sdf.closest_points(points).points, points),
            "field, values": lambda: np.abs(self.sdf(points)),
        }
        tree = MeshDistance(self.mesh)
        answers["nstr3d on the mesh"] = lambda: tree.unsigned(points)
        answers["igl"] = self._igl(points)
        if scene := _scene(self.mesh):
            at = points.astype(np.float32)
            answers["Open3D"] = lambda: scene.compute_distance(at, nthreads=1).numpy()
        return answers

    def inside(self, points: np.ndarray) -> Answers:
        """Whether points are inside."""
        answers: Answers = {"field": lambda: self.sdf.contains(points)}
        if scene := _scene(self.mesh):
            at = points.astype(np.float32)
            answers["Open3D"] = lambda: scene.compute_occupancy(at, nthreads=1).numpy() > 0.5
        return answers

    def rays(self, origins: np.ndarray, along: np.ndarray) -> Answers:
        """Depths of the first hits."""
        answers: Answers = {"field": lambda: self.sdf.raycast(origins, along).distances}
        if scene := _scene(self.mesh):
            rays = np.concatenate([origins, along], axis=1).astype(np.float32)
            answers["Open3D"] = lambda: scene.cast_rays(rays, nthreads=1)["t_hit"].numpy()
        return answers

    def _igl(self, points: np.ndarray) -> Callable[[], np.ndarray]:
        import igl

        tree = igl.AABB()
        tree.init(self.mesh.vertices, self.mesh.faces)
        return lambda: np.sqrt(
            tree.squared_distance(self.mesh.vertices, self.mesh.faces, points)[0]
        )


def _way(closest: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(closest - points, axis=1)


def _scene(mesh: Mesh) -> Any:
    """Open3D's scene of the mesh; None if Open3D is not installed."""
    try:
        import open3d
    except ModuleNotFoundError:
        return None
    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    corners, faces = mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)
    scene.add_triangles(
        open3d.core.Tensor.from_numpy(corners), open3d.core.Tensor.from_numpy(faces)
    )
    return scene


def measure(answers: Answers, truth: np.ndarray, turns: int, scale: float) -> list[str]:
    """A row for each method: its best rate, its mean and largest error and its 99th percentile."""
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    found = {name: answer() for name, answer in answers.items()}
    for _ in range(turns):
        for name, answer in answers.items():
            started = time.process_time()
            answer()
            seconds[name].append(time.process_time() - started)
    rows = []
    for name, answer in found.items():
        rate = len(truth) / min(seconds[name]) / 1e6
        if truth.dtype == bool:
            rows.append(f"{name} | {rate:.3f} | {(answer != truth).mean():.1e} | |")
            continue
        both = np.isfinite(answer) & np.isfinite(truth)
        error = np.abs(answer - truth)[both] / scale
        missed = (np.isfinite(answer) != np.isfinite(truth)).mean()
        note = f"; {missed:.1e} hit or miss differ" if missed else ""
        tail = f"{np.percentile(error, 99):.1e}, {error.max():.1e}{note}"
        rows.append(f"{name} | {rate:.3f} | {error.mean():.1e} | {tail} |")
    return rows


def subject_of(options: Options) -> Subject:
    """The field that is asked, with its meshes."""
    fit = load(options.model) if options.model else fit_mesh(ROOT / "assets" / "bunny.obj")
    sdf = fit.sdf()
    fine = extract_mesh(sdf, options.resolution * 3 // 2)
    mesh = extract_mesh(sdf, options.resolution)
    return Subject(sdf, mesh, MeshDistance(fine), fit.frame.scale)


def run(options: Options) -> None:
    """Measures, prints and writes queries.md."""
    torch.set_num_threads(1)
    subject, generator = subject_of(options), np.random.default_rng(0)
    lower, upper = subject.sdf.bounds.lower, subject.sdf.bounds.upper
    places = sample_surface(subject.exact.mesh, options.points, generator)[0]
    near = places + BAND * subject.scale * generator.standard_normal(places.shape)
    far = generator.uniform(lower, upper, places.shape)
    origins = subject.sdf.bounds.centre + subject.sdf.bounds.diagonal * _unit(
        generator.standard_normal(places.shape)
    )
    along = _unit(far - origins)
    lines = ["| question | method | M answers/s | mean error | 99th percentile, largest |"]
    lines.append("|---" * 5 + "|")
    for name, points in (("closest, near", near), ("closest, in the bounds", far)):
        truth = subject.exact.unsigned(points)
        rows = measure(subject.closest(points), truth, options.turns, subject.scale)
        lines += [f"| {name} | {row}" for row in rows]
    rows = measure(subject.inside(near), subject.exact(near) < 0, options.turns, 1.0)
    lines += [f"| inside, near | {row}" for row in rows]
    answers = subject.rays(origins, along)
    truth = answers["Open3D"]() if "Open3D" in answers else answers["field"]()
    rows = measure(answers, truth.astype(np.float64), options.turns, subject.scale)
    lines += [f"| rays (errors against Open3D) | {row}" for row in rows]
    about = (
        f"`python apps/bench/queries.py`: {options.points:,} questions of one kind, one thread, "
        f"processor time, best of {options.turns} turns, commit {find_commit(ROOT)}. The field has "
        f"bounds {np.round(subject.sdf.bounds.extent, 3).tolist()}; its mesh has "
        f"{len(subject.mesh.faces):,} faces. Errors are in units of the unit box, or shares of "
        f"wrong answers. Near points are {BAND:g} off the surface (standard deviation)."
    )
    text = "\n".join(["# Questions", "", about, "", *lines, ""])
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out / "queries.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Options, prog="queries.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
