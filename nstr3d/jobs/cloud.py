"""The job that fits a field to a point cloud and writes a model, a mesh, a picture and a report.

The cloud is cleaned and its normals are oriented. A denoised signed distance to the cloud (from
local quadratics near the points, from the points' winding number elsewhere) gives a first closed
surface. The field is then fitted to the exact signed distance of that surface, as to any mesh.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.geometry.cloud.distance import CloudDistance
from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.patches import fit_patches
from nstr3d.geometry.cloud.prepare import FEW, MOST_POINTS, Preparation, prepare
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair
from nstr3d.geometry.mesh.solid import solid_distance
from nstr3d.geometry.mesh.topology import genera
from nstr3d.geometry.mesh.trim import supported, trim
from nstr3d.io import Reading, load_mesh, read_cloud
from nstr3d.jobs.colour import Shades, unknown_warnings
from nstr3d.jobs.meshwarnings import check_mesh
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import PointsJob
from nstr3d.jobs.stages import Listener, Outcome
from nstr3d.jobs.surface import SurfaceStages
from nstr3d.jobs.walk import walk
from nstr3d.kernels.available import need_numba
from nstr3d.render.camera import Camera
from nstr3d.render.framing import best_view
from nstr3d.render.ground import Ground
from nstr3d.render.labels import titled
from nstr3d.render.points import splat
from nstr3d.render.traced import RenderConfig, render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract
from nstr3d.surface.metrics import score
from nstr3d.surface.scans import compare_cloud, one_sided
from nstr3d.types import Mesh, PointCloud, Up

CELLS = (120, 640)  # fewest and most grid cells along the longest side of the first surface
CELLS_PER_SPACING = 2.0  # grid cells per typical spacing of the points
CLOUDS = "Surfaces of point clouds"  # the subject of the error message where numba is missing
CHANCE = 53.0  # degrees; normals that deviate more from the points say little (chance gives 60)
FEW_TURNED = 0.001  # warn if more than this fraction of the measured normals was turned outward


@dataclass(frozen=True)
class FirstSurface:
    """The closed surface ``mesh`` that is made from the points without training, in world units.

    ``cloud`` holds the prepared points and normals that the mesh was made from. ``noise`` is the
    standard deviation of the points' noise and ``spacing`` their typical spacing, both in world
    units. ``preparation`` counts what `prepare` did to the points.
    """

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
    keep_scans: bool = False,
    cells: tuple[int, int] = CELLS,
) -> FirstSurface:
    """A closed surface from ``cloud``, without training: see `prepare`, `fit_patches` and
    `CloudDistance`.

    ``estimate_normals`` ignores the cloud's normals. ``smooth`` is the standard deviation of the
    noise in the cloud's units; None estimates it. ``keep_outliers`` keeps points that lie far from
    all others, ``keep_scans`` leaves scans that lie beside each other where they are. ``cells``
    holds the fewest and the most grid cells along the longest side. Raises ValueError if `prepare`
    refuses the cloud or if the points enclose no volume, and ModuleNotFoundError if numba is
    missing.
    """
    need_numba(CLOUDS)
    clean, frame, preparation = prepare(cloud, estimate_normals, keep_outliers, keep_scans)
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
    """Runs the job. All files appear together at the end, or none appears.

    There are two exceptions. A run that fails or is stopped may leave a checkpoint, from which a
    resumed run continues. A run that is stopped during training also saves the best model so far.
    ``import_seconds`` is copied into the report. ``sha256`` is the hash of the input file; None
    computes it.

    Raises ValueError, OSError, FloatingPointError or ModuleNotFoundError with one sentence for the
    user, and `Interrupted` after Ctrl-C.
    """
    need_numba(CLOUDS)
    stages = PointsStages
    if job.compressed:
        from nstr3d.jobs.compact import CompactPoints as stages
    return walk(stages(job, listener, import_seconds, sha256))


class PointsStages(SurfaceStages[PointsJob]):
    """The stages of a `PointsJob`. ``title`` names the result in the picture."""

    title = "neural surface"

    @property
    def identity(self) -> dict[str, Any]:
        return super().identity | self.job.surfacing

    def read(self) -> None:
        job = self.job
        with self.run.stage("load"):
            (self.cloud, self.reading), self.reference = read_cloud(job.path), None
            if job.reference is not None:
                self.reference = solid_distance(load_mesh(job.reference))

    def prepare(self) -> None:
        self.run.warn(self.reading.warnings)
        with self.run.stage("surface"):
            self.first = first_surface(self.cloud, **self.job.surfacing)
            check_mesh(self.first.mesh)
            self.place(close_holes(repair(self.first.mesh)[0])[0])
        self.run.warn(points_warnings(self.first))

    def shades(self) -> Shades | None:
        if self.job.colours.colour == "off":
            return None
        self.run.warn(unknown_warnings(self.cloud))
        return Shades.of_cloud(self.cloud, self.job.training.seed)

    def extract(self) -> None:
        job, self.points = self.job, Neighbours(self.first.cloud.points)
        with self.run.stage("extract"):
            mesh = self.extracted_surface()
            self.extracted = supported(mesh, self.points.points, FEW)
            if job.trim is not None:
                self.extracted = trim(self.extracted, self.points, job.trim * self.first.spacing)
            if self.certificate and len(self.extracted.faces) < len(mesh.faces):
                self.certificate = None
                self.run.warn(["Parts of the surface were left out, so nothing of it is proven."])

    def measure(self) -> None:
        job, run, mesh = self.job, self.run, self.placed.mesh
        size, diagonal = job.extraction.picture, mesh.bounds.diagonal
        with run.stage("render"):
            self.picture = None
            if size:
                self.picture = run.measure(
                    "picture",
                    lambda: _picture(self._drawn(), self.sdf, mesh, size, self.up, self.title),
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
        self.colours = self.about_colours()

    def publish(self, folder: Path) -> dict[str, Any]:
        described = self.write(folder, self.picture)
        about = self.about_run()
        return {
            "input": {
                **_about(self.job, self.reading, self.first, self.run.warnings),
                "up": self.up,
            },
            **described,
            **self.colours,
            "seconds": about["seconds"],
            "points": self.fidelity,
            "accuracy": self.accuracy,
            "machine": about["machine"],
            "seed": about["seed"],
        }

    def _drawn(self) -> PointCloud:
        """The prepared points, with the colours of the nearest points that were read."""
        drawn, read = self.first.cloud, self.cloud
        if read.colours is None or self.job.colours.colour == "off":
            return drawn
        known = np.flatnonzero(np.isfinite(read.points).all(axis=1))
        known = known[:: len(known) // MOST_POINTS + 1]  # a search among all would take long
        _, nearest = Neighbours(read.points[known]).nearest(drawn.points)
        return replace(drawn, colours=read.colours[known[nearest]])

    def _accuracy(self) -> dict[str, Any] | None:
        """The figures of `score` and of `one_sided` against the reference; None without one."""
        if self.reference is None:
            return None
        distance, samples = self.reference, self.job.extraction.scored
        seed, mesh, reference = self.job.training.seed, self.extracted, distance.mesh
        first, second = (np.random.default_rng([seed, stream]) for stream in (2, 3))
        frame = self.placed.frame
        figures = score(self.sdf, mesh, reference, distance, frame, first, samples, self.own)
        sides = one_sided(mesh, reference, distance, second, samples, self.own)
        return figures.figures | dataclasses.asdict(sides)


def _picture(cloud: PointCloud, sdf: Sdf, mesh: Mesh, size: int, up: Up, title: str) -> np.ndarray:
    """A picture of the points (left) beside one of the field's surface (right), each ``size``
    pixels square below its title; ``title`` is that of the surface."""
    camera = Camera.around(mesh.bounds, *best_view(mesh, up), width=size, height=size, up=up)
    surface = render(sdf, camera, RenderConfig(ground=Ground()))
    count = f"{len(cloud.points):,} points"
    return side_by_side([titled(splat(cloud, camera), count), titled(surface, title)])


def _about(
    job: PointsJob, reading: Reading, first: FirstSurface, warnings: list[str]
) -> dict[str, Any]:
    return {
        "path": str(job.path),
        "columns": reading.columns,
        **dataclasses.asdict(first.preparation),
        "noise": first.noise,
        "noise_given": job.smooth is not None,
        "spacing": first.spacing,
        "trim": job.trim,
        "warnings": warnings,
    }


def points_warnings(first: FirstSurface) -> list[str]:
    done, messages = first.preparation, []
    if done.not_finite:
        messages.append(
            f"{done.not_finite} of {done.points} points are not finite and were left out."
        )
    if done.origins:
        messages.append(
            f"{done.origins} of {done.points} points are 0 0 0, as depth cameras write pixels "
            "without depth, and were left out."
        )
    if done.without_normal:
        messages.append(
            f"{done.without_normal} of {done.points} points have no normal, unlike the others, and "
            "were left out."
        )
    if done.outliers:
        messages.append(
            Message(
                "{} of {} points lie far from the others and were left out; "
                "<keep_outliers> keeps them.",
                done.outliers,
                done.points,
            )
        )
    if done.scans:
        messages.append(
            Message(
                "The points are {} scans that lay beside each other; they were moved onto each "
                "other, by {:.2g} in the mean. <keep_scans> leaves them where they are.",
                done.scans,
                done.shift,
            )
        )
    if done.measured and done.turned > FEW_TURNED * done.points:
        messages.append(f"{done.turned} normals pointed inward and were turned outward.")
    if done.deviation is not None and done.deviation > CHANCE:
        messages.append(
            Message(
                "The normals deviate by {:.0f} degrees (median) from the points' own, hardly less "
                "than by chance; if they are something else, use <normals> estimate.",
                done.deviation,
            )
        )
    return messages
