"""One point cloud in; a model, a mesh, a picture and a report out.

The cloud is cleaned and oriented, its denoised signed distance (local quadratics near the points,
their winding number elsewhere) gives a first closed surface, and the field is fitted to that
surface's exact distance as to any mesh.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    MeshJob,
    check_files,
    check_size,
    describe,
    extract_surface,
    train,
    written_files,
)
from nstr3d.jobs.messages import Message
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
FEW_TURNED = 0.001  # share of given normals turned over, from which on it is worth a warning


@dataclass(frozen=True)
class PointsJob:
    """What to fit and how: ``surface`` holds the options that it shares with a mesh, whose path is
    that of the points.

    ``estimate_normals`` ignores the file's normals, and ``carried_signs`` does too and has a
    trained field tell which way is out (`carried_normals`); ``smooth`` is the standard deviation of
    the noise in the points' units, estimated where it is None; ``trim`` removes surface farther
    from every point than so many typical spacings; ``reference`` is a mesh file to measure the
    result against. Raises ValueError for options out of range.
    """

    surface: MeshJob
    estimate_normals: bool = False
    carried_signs: bool = False
    smooth: float | None = None
    trim: float | None = None
    reference: Path | None = None
    keep_outliers: bool = False

    def __post_init__(self):
        if self.smooth is not None and not 0 <= self.smooth < math.inf:
            raise ValueError(
                Message("<smooth> must be finite and not negative, not {}.", self.smooth)
            )
        if self.trim is not None and not 0 < self.trim < math.inf:
            raise ValueError(Message("<trim> must be positive and finite, not {}.", self.trim))

    @property
    def options(self) -> dict[str, Any]:
        """What decides the first surface, beside the file."""
        return {
            "estimate_normals": self.estimate_normals,
            "carried_signs": self.carried_signs,
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


def run_points(job: PointsJob, listener: Listener | None = None) -> Outcome:
    """Does the job. All files appear together at the end or not at all; only a checkpoint, which
    --resume goes on from, may be left by a run that failed or was stopped.

    Raises ValueError, OSError, FloatingPointError or ModuleNotFoundError with one sentence for the
    user, and `Interrupted` after a Ctrl-C.
    """
    need_numba(CLOUDS)
    listener, clock, options = listener or Listener(), Clock(), job.surface
    device = pick_device(options.device)
    check_files(options)
    with tidy(options.out, options.out / CHECKPOINT):
        listener.stage("load")
        with clock("load"):
            cloud = load_cloud(options.path)
            reference = (
                None
                if job.reference is None
                else close_holes(repair(load_mesh(job.reference))[0])[0]
            )
        listener.stage("surface")
        with clock("surface"):
            first = first_surface(cloud, **job.options)
            check_size(first.mesh)
            mesh = close_holes(repair(first.mesh)[0])[0]
            unit, frame = normalise(mesh)
        warnings = _warnings(first)
        for warning in warnings:
            listener.warn(warning)
        listener.stage("fit")
        result = train(options, unit, frame, mesh, device, clock, listener, job.options)

        sdf = result.sdf()
        listener.stage("extract")
        with clock("extract"):
            extracted = supported(
                extract_surface(sdf, options.resolution).mesh, first.cloud.points, FEW
            )
            if job.trim is not None:
                extracted = trim(extracted, first.cloud.points, job.trim * first.spacing)
        listener.stage("render")
        with clock("render"):
            picture = _picture(first.cloud, sdf, mesh, options.picture) if options.picture else None
        listener.stage("score")
        with clock("score"):
            generator = np.random.default_rng([options.seed, 1])
            fidelity = dataclasses.asdict(
                compare_cloud(extracted, first.cloud.points, mesh.bounds.diagonal, generator)
            )
            accuracy = (
                None if reference is None else _accuracy(sdf, extracted, reference, frame, options)
            )
        listener.stage("write")
        with publish(options.out) as folder:
            save(folder / MODEL, result)
            save_mesh(folder / MESH, extracted)
            if picture is not None:
                save_image(folder / PICTURE, picture)
            size = (folder / MODEL).stat().st_size
            described = describe(options, result, size, extracted)
            described["mesh"]["genus"] = genera(extracted)
            report = {
                "input": _about(job, first, warnings),
                **described,
                "seconds": clock.seconds | {"total": clock.total, "import": options.import_seconds},
                "points": fidelity,
                "accuracy": accuracy,
                "machine": machine(device),
                "seed": options.seed,
            }
            save_json(folder / REPORT, report)
        (options.out / CHECKPOINT).unlink(missing_ok=True)
    return Outcome(report, written_files(options))


def _picture(cloud: PointCloud, sdf: Sdf, mesh: Mesh, size: int) -> np.ndarray:
    """The points left, the neural surface right."""
    camera = Camera.around(mesh.bounds, width=size, height=size)
    return side_by_side([splat(cloud, camera), render(sdf, camera)])


def _accuracy(
    sdf: Sdf, extracted: Mesh, reference: Mesh, frame: Frame, options: MeshJob
) -> dict[str, Any]:
    """The figures of `score` and, one-sided, accuracy (result to reference) and completeness
    (reference to result)."""
    distance = MeshDistance(reference)
    generators = [np.random.default_rng([options.seed, stream]) for stream in (2, 3)]
    figures = dataclasses.asdict(
        score(sdf, extracted, reference, distance, frame, generators[0], samples=options.scored)
    )
    sides = one_sided(extracted, reference, distance, generators[1], samples=options.scored)
    return figures | dataclasses.asdict(sides)


def _about(job: PointsJob, first: FirstSurface, warnings: list[str]) -> dict[str, Any]:
    return {
        "path": str(job.surface.path),
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
