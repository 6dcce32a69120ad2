"""One point cloud in; a model, a mesh, a picture and a report out.

The cloud is cleaned and oriented, its denoised signed distance (local quadratics near the points,
their winding number elsewhere) gives a first closed surface, and the field is fitted to that
surface's exact distance as to any mesh.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nstr3d.geometry.cloud.distance import CloudDistance
from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.patches import fit_patches
from nstr3d.geometry.cloud.prepare import FEW, Preparation, prepare
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.topology import genera
from nstr3d.geometry.mesh.trim import supported, trim
from nstr3d.io import load_cloud, load_mesh
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob, check_not_negative, check_positive
from nstr3d.jobs.stages import Listener, Outcome
from nstr3d.jobs.surface import SurfaceStages, check_size, extract_surface
from nstr3d.jobs.walk import walk
from nstr3d.kernels.available import need_numba
from nstr3d.render.points import splat
from nstr3d.render.traced import render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract
from nstr3d.surface.metrics import compare_cloud, one_sided, score
from nstr3d.types import Camera, Mesh, PointCloud

CELLS = (120, 640)  # of the first surface, at least and at most
CELLS_PER_SPACING = 2.0
CLOUDS = "Surfaces of point clouds"  # what needs numba
NORMALS = ("given", "estimate")
FEW_TURNED = 0.001  # share of given normals turned over, from which on it is worth a warning


@dataclass(frozen=True)
class PointsJob(SurfaceJob):
    """What to fit to points, and how."""

    path: Path
    """Points with or without normals: PLY, PCD, XYZ and other text of 3 or 6 columns, NPY, NPZ, or
    LAS with laspy."""
    normals: Literal["given", "estimate"] = "given"
    """given: use the file's normals, and estimate them where it has none. estimate: ignore the
    file's normals."""
    smooth: float | None = None
    """Standard deviation of the points' noise, in their units; estimated by default. 0 follows the
    points closely."""
    trim: float | None = None
    """Remove surface farther from every point than this many typical spacings, as open scans want
    it; 4 suits most."""
    reference: Path | None = None
    """A mesh to measure the result against."""
    keep_outliers: bool = False
    """Keep points that lie far from all others."""

    def __post_init__(self):
        super().__post_init__()
        if self.normals not in NORMALS:
            raise ValueError(
                Message("<normals> is one of {}, not {}.", ", ".join(NORMALS), self.normals)
            )
        check_not_negative(self, "smooth")
        check_positive(self, "trim")

    @property
    def surfacing(self) -> dict[str, Any]:
        """What decides the first surface, beside the file."""
        return {
            "estimate_normals": self.normals != "given",
            "smooth": self.smooth,
            "keep_outliers": self.keep_outliers,
        }


@dataclass(frozen=True)
class FirstSurface:
    """The surface that the points alone give, in world units: ``mesh``, the ``cloud`` it was made
    from, and what was found out: the ``noise`` and ``spacing`` of the points in world units, and
    the ``preparation``."""

    mesh: Mesh
    cloud: PointCloud
    noise: float
    spacing: float
    preparation: Preparation


def first_surface(
    cloud: PointCloud,
    estimate_normals: bool = False,
    smooth: float | None = None,
    keep_outliers: bool = False,
    cells: tuple[int, int] = CELLS,
) -> FirstSurface:
    """A closed surface from ``cloud``, without training: see `prepare`, `fit_patches` and
    `CloudDistance`.

    ``smooth`` is the standard deviation of the noise in the cloud's units, estimated where it is
    None; ``cells`` bounds the number of grid cells along the longest side. Raises ValueError for a
    cloud that `prepare` refuses, and where the points enclose nothing; ModuleNotFoundError where
    numba is missing.
    """
    need_numba(CLOUDS)
    clean, frame, preparation = prepare(cloud, estimate_normals, keep_outliers)
    noise = None if smooth is None else smooth / frame.scale
    distance = CloudDistance(fit_patches(clean.tree, clean.normals, preparation.measured, noise))
    spacing = float(np.median(distance.spacing))
    box = distance.sdf().bounds
    resolution = int(np.clip(CELLS_PER_SPACING * box.extent.max() / spacing, *cells))
    try:
        mesh = supported(extract(distance.sdf(), resolution).mesh, clean.points, FEW)
    except ValueError as error:
        raise ValueError(
            Message(
                "The points enclose no volume; check their normals, or estimate them with "
                "<normals> estimate."
            )
        ) from error
    world = PointCloud(frame.to_world(clean.points), clean.normals)
    placed = Mesh(frame.to_world(mesh.vertices), mesh.faces)
    return FirstSurface(
        placed, world, distance.patches.noise * frame.scale, spacing * frame.scale, preparation
    )


def run_points(
    job: PointsJob,
    listener: Listener | None = None,
    import_seconds: float | None = None,
    sha256: str | None = None,
) -> Outcome:
    """Does the job. All files appear together at the end or not at all; only a checkpoint, which
    a resumed run goes on from, may be left by a run that failed or was stopped. The report gets the
    caller's ``import_seconds``; ``sha256`` of the input is computed unless the caller knows it.

    Raises ValueError, OSError, FloatingPointError or ModuleNotFoundError with one sentence for the
    user, and `Interrupted` after a Ctrl-C.
    """
    need_numba(CLOUDS)
    return walk(PointsStages(job, listener, import_seconds, sha256))


class PointsStages(SurfaceStages[PointsJob]):
    """The stages of a `PointsJob`."""

    @property
    def identity(self) -> dict[str, Any]:
        return super().identity | self.job.surfacing

    def read(self) -> None:
        job = self.job
        with self.run.stage("load"):
            self.cloud, self.reference = load_cloud(job.path), None
            if job.reference is not None:
                self.reference = close_holes(repair(load_mesh(job.reference))[0])[0]

    def prepare(self) -> None:
        with self.run.stage("surface"):
            self.first = first_surface(self.cloud, **self.job.surfacing)
            check_size(self.first.mesh)
            self.place(close_holes(repair(self.first.mesh)[0])[0])
        self.run.warn(_warnings(self.first))

    def extract(self) -> None:
        job, self.points = self.job, Neighbours(self.first.cloud.points)
        with self.run.stage("extract"):
            mesh = extract_surface(self.sdf, job.extraction.resolution).mesh
            self.extracted = supported(mesh, self.points.points, FEW)
            if job.trim is not None:
                self.extracted = trim(self.extracted, self.points, job.trim * self.first.spacing)

    def measure(self) -> None:
        job, run, mesh = self.job, self.run, self.placed.mesh
        size, diagonal = job.extraction.picture, mesh.bounds.diagonal
        with run.stage("render"):
            self.picture = None
            if size:
                self.picture = run.measure(
                    "picture", lambda: _picture(self.first.cloud, self.sdf, mesh, size)
                )
        with run.stage("score"):
            generator = np.random.default_rng([job.training.seed, 1])
            self.fidelity = run.measure(
                "points",
                lambda: dataclasses.asdict(
                    compare_cloud(self.extracted, self.points, diagonal, generator, own=self.own)
                ),
            )
            self.accuracy = run.measure("accuracy", self._accuracy)
        self.describe_mesh()
        self.described["genus"] = run.measure("genus", lambda: genera(self.extracted))

    def publish(self, folder: Path) -> dict[str, Any]:
        described = self.write(folder, self.picture)
        about = self.about_run()
        return {
            "input": _about(self.job, self.first, self.run.warnings),
            **described,
            "seconds": about["seconds"],
            "points": self.fidelity,
            "accuracy": self.accuracy,
            "machine": about["machine"],
            "seed": about["seed"],
        }

    def _accuracy(self) -> dict[str, Any] | None:
        """The figures of `score` and, one-sided, accuracy (result to reference) and completeness
        (reference to result); None without a reference."""
        if self.reference is None:
            return None
        distance, samples = MeshDistance(self.reference), self.job.extraction.scored
        seed, mesh, reference = self.job.training.seed, self.extracted, self.reference
        first, second = (np.random.default_rng([seed, stream]) for stream in (2, 3))
        frame = self.placed.frame
        figures = score(self.sdf, mesh, reference, distance, frame, first, samples, self.own)
        sides = one_sided(mesh, reference, distance, second, samples, self.own)
        return dataclasses.asdict(figures) | dataclasses.asdict(sides)


def _picture(cloud: PointCloud, sdf: Sdf, mesh: Mesh, size: int) -> np.ndarray:
    """The points left, the neural surface right."""
    camera = Camera.around(mesh.bounds, width=size, height=size)
    return side_by_side([splat(cloud, camera), render(sdf, camera)])


def _about(job: PointsJob, first: FirstSurface, warnings: list[str]) -> dict[str, Any]:
    return {
        "path": str(job.path),
        **dataclasses.asdict(first.preparation),
        "noise": first.noise,
        "noise_given": job.smooth is not None,
        "spacing": first.spacing,
        "trim": job.trim,
        "warnings": warnings,
    }


def _warnings(first: FirstSurface) -> list[str]:
    done, found = first.preparation, []
    if done.outliers:
        found.append(
            Message(
                "{} of {} points lie far from the others and were left out; "
                "<keep_outliers> keeps them.",
                done.outliers,
                done.points,
            )
        )
    if done.measured and done.turned > FEW_TURNED * done.points:
        found.append(f"{done.turned} normals looked inward and were turned over.")
    return found
