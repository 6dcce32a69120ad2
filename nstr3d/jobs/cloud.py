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
from nstr3d.geometry.cloud.orient import outward_normals
from nstr3d.geometry.cloud.patches import fit_patches
from nstr3d.geometry.cloud.prepare import FEW, Preparation, prepare
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.geometry.mesh.topology import genera
from nstr3d.geometry.mesh.trim import supported, trim
from nstr3d.io import load_cloud, load_mesh, save_image, save_json, save_mesh
from nstr3d.jobs.mesh import (
    CHECKPOINT,
    MESH,
    MODEL,
    PICTURE,
    REPORT,
    check_files,
    check_size,
    describe,
    extract_surface,
    train,
    written_files,
)
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob, check_not_negative, check_positive
from nstr3d.jobs.stages import Clock, Listener, Outcome, machine, pick_device, publish, tidy
from nstr3d.kernels.available import need_numba
from nstr3d.model.checkpoint import save
from nstr3d.render.points import splat
from nstr3d.render.traced import render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract
from nstr3d.surface.metrics import compare_cloud, one_sided, score
from nstr3d.training.unoriented import carried_normals
from nstr3d.types import Camera, Frame, Mesh, PointCloud

CELLS = (120, 640)  # of the first surface, at least and at most
CELLS_PER_SPACING = 2.0
CLOUDS = "Surfaces of point clouds"  # what needs numba
NORMALS = ("given", "estimate", "none")
FEW_TURNED = 0.001  # share of given normals turned over, from which on it is worth a warning


@dataclass(frozen=True)
class PointsJob(SurfaceJob):
    """What to fit to points, and how."""

    path: Path
    """Points with or without normals: PLY, PCD, XYZ and other text of 3 or 6 columns, NPY, NPZ, or
    LAS with laspy."""
    normals: Literal["given", "estimate", "none"] = "given"
    """Use the file's normals where it has them, or estimate all anew; with none a field trained on
    the points alone tells which way is out, slower and less often right than the winding number,
    which tells it otherwise."""
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
            "carried_signs": self.normals == "none",
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
    carried_signs: bool = False,
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
    outward = carried_normals if carried_signs else outward_normals
    clean, frame, preparation = prepare(
        cloud, estimate_normals or carried_signs, keep_outliers, outward
    )
    assert clean.normals is not None
    noise = None if smooth is None else smooth / frame.scale
    distance = CloudDistance(fit_patches(clean.points, clean.normals, preparation.measured, noise))
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
    job: PointsJob, listener: Listener | None = None, import_seconds: float | None = None
) -> Outcome:
    """Does the job. All files appear together at the end or not at all; only a checkpoint, which
    a resumed run goes on from, may be left by a run that failed or was stopped. The report gets the
    caller's ``import_seconds``.

    Raises ValueError, OSError, FloatingPointError or ModuleNotFoundError with one sentence for the
    user, and `Interrupted` after a Ctrl-C.
    """
    need_numba(CLOUDS)
    listener, clock = listener or Listener(), Clock()
    seed, size = job.training.seed, job.extraction.picture
    device = pick_device(job.training.device)
    check_files(job)
    with tidy(job.folder, job.folder / CHECKPOINT):
        listener.stage("load")
        with clock("load"):
            cloud = load_cloud(job.path)
            reference = (
                None
                if job.reference is None
                else close_holes(repair(load_mesh(job.reference))[0])[0]
            )
        listener.stage("surface")
        with clock("surface"):
            first = first_surface(cloud, **job.surfacing)
            check_size(first.mesh)
            mesh = close_holes(repair(first.mesh)[0])[0]
            unit, frame = normalise(mesh)
        warnings = _warnings(first)
        for warning in warnings:
            listener.warn(warning)
        listener.stage("fit")
        result = train(job, unit, frame, mesh, device, clock, listener, job.surfacing)

        sdf = result.sdf()
        listener.stage("extract")
        with clock("extract"):
            extracted = supported(
                extract_surface(sdf, job.extraction.resolution).mesh, first.cloud.points, FEW
            )
            if job.trim is not None:
                extracted = trim(extracted, first.cloud.points, job.trim * first.spacing)
        listener.stage("render")
        with clock("render"):
            picture = _picture(first.cloud, sdf, mesh, size) if size else None
        listener.stage("score")
        with clock("score"):
            generator = np.random.default_rng([seed, 1])
            fidelity = dataclasses.asdict(
                compare_cloud(extracted, first.cloud.points, mesh.bounds.diagonal, generator)
            )
            accuracy = (
                None if reference is None else _accuracy(sdf, extracted, reference, frame, job)
            )
        listener.stage("write")
        with publish(job.folder) as folder:
            save(folder / MODEL, result)
            save_mesh(folder / MESH, extracted)
            if picture is not None:
                save_image(folder / PICTURE, picture)
            stored = (folder / MODEL).stat().st_size
            described = describe(job, result, stored, extracted)
            described["mesh"]["genus"] = genera(extracted)
            report = {
                "input": _about(job, first, warnings),
                **described,
                "seconds": clock.seconds | {"total": clock.total, "import": import_seconds},
                "points": fidelity,
                "accuracy": accuracy,
                "machine": machine(device),
                "seed": seed,
            }
            save_json(folder / REPORT, report)
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return Outcome(report, written_files(job))


def _picture(cloud: PointCloud, sdf: Sdf, mesh: Mesh, size: int) -> np.ndarray:
    """The points left, the neural surface right."""
    camera = Camera.around(mesh.bounds, width=size, height=size)
    return side_by_side([splat(cloud, camera), render(sdf, camera)])


def _accuracy(
    sdf: Sdf, extracted: Mesh, reference: Mesh, frame: Frame, job: PointsJob
) -> dict[str, Any]:
    """The figures of `score` and, one-sided, accuracy (result to reference) and completeness
    (reference to result)."""
    distance = MeshDistance(reference)
    generators = [np.random.default_rng([job.training.seed, stream]) for stream in (2, 3)]
    figures = dataclasses.asdict(
        score(
            sdf, extracted, reference, distance, frame, generators[0], samples=job.extraction.scored
        )
    )
    sides = one_sided(extracted, reference, distance, generators[1], samples=job.extraction.scored)
    return figures | dataclasses.asdict(sides)


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
