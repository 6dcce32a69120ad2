"""The main job: fits a field to a mesh and writes a model, a mesh, a picture and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.paint import NearestPaint
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io import read_mesh
from nstr3d.io.paint import Paint
from nstr3d.io.paintfile import read_paint
from nstr3d.jobs.colour import Shades
from nstr3d.jobs.doubts import far_warnings
from nstr3d.jobs.meshwarnings import missing_warnings
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import MeshJob
from nstr3d.jobs.prepared import describe_far, describe_repairs, prepare_mesh, unite_overlap
from nstr3d.jobs.stages import Listener, Outcome, slowness
from nstr3d.jobs.surface import SurfaceStages, cells_of
from nstr3d.jobs.walk import walk
from nstr3d.render.camera import Camera
from nstr3d.render.framing import best_view
from nstr3d.render.ground import Ground
from nstr3d.render.labels import titled
from nstr3d.render.traced import RenderConfig, render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.surface.coverage import Coverage, measure_coverage
from nstr3d.surface.metrics import TAU, score
from nstr3d.surface.smoothness import Kink, measure_kink
from nstr3d.training.fit import Fit
from nstr3d.types import Mesh, Up

KINK_SAMPLES = 20_000  # surface points; kinks are measured at those near faces of cells


def run(
    job: MeshJob,
    listener: Listener | None = None,
    import_seconds: float | None = None,
    sha256: str | None = None,
) -> Outcome:
    """Runs the job. All files appear together at the end, or none appears.

    There are two exceptions. A run that fails or is stopped may leave a checkpoint, from which a
    resumed run continues. A run that is stopped during training also saves the best model so far.
    ``import_seconds`` is copied into the report. ``sha256`` is the hash of the input file; None
    computes it.

    Raises ValueError, OSError or FloatingPointError with one sentence for the user, and
    `Interrupted` after Ctrl-C.
    """
    stages = MeshStages
    if job.compressed:
        from nstr3d.jobs.compact import CompactMesh as stages
    return walk(stages(job, listener, import_seconds, sha256))


class MeshStages(SurfaceStages[MeshJob]):
    """The stages of a `MeshJob`. ``title`` names the result in the picture."""

    title = "neural surface"

    @property
    def identity(self) -> dict[str, Any]:
        # Checkpoints of earlier versions lack the options, so each is in the identity only if set.
        thickness, drop_far = self.prepared.thickness, self.job.parts.drop_far or None
        options = {"drop_far": drop_far, "thickness": thickness}
        return super().identity | {name: value for name, value in options.items() if value}

    def read(self) -> None:
        with self.run.stage("load"):
            self.original, notes = read_mesh(self.job.path)
            self.paint, told = self.read_paint()
        self.run.warn([*notes, *told])

    def read_paint(self) -> tuple[Paint | None, list[str]]:
        """The colours of the file, None if there are none or they are to be left out, and what is
        to be said of them."""
        colours = self.job.colours
        return (None, []) if colours.colour == "off" else read_paint(self.job.path, colours.texture)

    def prepare(self) -> None:
        with self.run.clock("load"):
            parts, cell = self.job.parts, 1 / self.job.resolution
            prepared = prepare_mesh(self.original, parts.drop_far, parts.sheets(cell))
            self.place(prepared.mesh)
            self.prepared = unite_overlap(prepared, self.distance)
            if self.prepared.mesh is not prepared.mesh:
                self.place(self.prepared.mesh)
        self.thickness = self.prepared.thickness or 0.0
        self.run.warn([*slowness(), *self.prepared.warnings])

    def shades(self) -> Shades | None:
        return None if self.paint is None else Shades.of_paint(self.paint, self.job.training.seed)

    def extract(self) -> None:
        with self.run.stage("extract"):
            try:
                self.extracted = self.extracted_surface()
            except ValueError as error:
                causes = far_warnings(self.prepared.far, ())
                if not causes:
                    raise
                raise ValueError(Message("{} {}", error.args[0], causes[0])) from error

    def measure(self) -> None:
        job, placed, run = self.job, self.placed, self.run
        distance, size = self.distance.placed(placed.mesh, placed.frame), job.extraction.picture
        with run.stage("render"):
            self.picture = None
            if size:
                views = {"input": self._input(distance), self.title: self.sdf}
                self.picture = run.measure(
                    "picture", lambda: _picture(views, placed.mesh, size, self.up)
                )
        with run.stage("score"):
            generator = np.random.default_rng([job.training.seed, 1])
            self.accuracy = run.measure(
                "accuracy",
                lambda: score(
                    self.sdf,
                    self.extracted,
                    placed.mesh,
                    distance,
                    placed.frame,
                    generator,
                    samples=job.extraction.scored,
                    own=self.own,
                ),
            )
            self.kink = run.measure("kink", self._kink)
            self.coverage = run.measure("coverage", lambda: self._coverage(distance))
        run.warn(missing_warnings(self.coverage))
        self.describe_mesh()
        self.transport = run.measure("transport", lambda: _transport(job, self.result))
        self.colours = self.about_colours()

    def publish(self, folder: Path) -> dict[str, Any]:
        described = self.write(folder, self.picture)
        prepared = self.prepared
        about = self.about_run()
        return {
            "input": {
                "path": str(self.job.path),
                "vertices": len(self.original.vertices),
                "faces": len(self.original.faces),
                "components": prepared.repairs.components,
                "watertight": prepared.repairs.watertight,
                "repairs": describe_repairs(prepared),
                "account": dataclasses.asdict(prepared.account),
                "far": describe_far(prepared),
                "thickness": self.prepared.thickness,
                "up": self.up,
                "coverage": self.coverage and dataclasses.asdict(self.coverage),
                "warnings": self.run.warnings,
            },
            **described,
            **self.colours,
            "seconds": about["seconds"],
            "accuracy": self._about_accuracy(),
            "transport": self.transport,
            "machine": about["machine"],
            "seed": about["seed"],
        }

    def _coverage(self, distance: MeshDistance) -> Coverage:
        """The share of the input's surface that the extracted mesh lacks."""
        job, bounds = self.job, self.placed.mesh.bounds
        cell = float(bounds.extent.max()) / job.resolution
        tolerance = max(TAU * bounds.diagonal, 2 * cell) + (self.prepared.thickness or 0.0) / 2
        generator = np.random.default_rng([job.training.seed, 4])
        samples = job.extraction.scored
        return measure_coverage(self.original, self.own, distance, tolerance, generator, samples)

    def _input(self, distance: MeshDistance) -> Sdf:
        """The input as it is drawn, with its colours if they were fitted."""
        if self.coloured is None or self.paint is None:
            return distance.sdf()
        return replace(distance.sdf(), paint=NearestPaint(self.paint).colour)

    def _kink(self) -> Kink | None:
        """The angles by which the field's gradient turns where cells meet; None without cells."""
        levels, placed = cells_of(self.result.field), self.placed
        if not levels:
            return None
        generator = np.random.default_rng([self.job.training.seed, 3])
        points, _ = sample_surface(placed.unit, KINK_SAMPLES, generator)
        return measure_kink(lambda at: self.sdf.gradient(placed.frame.to_world(at)), points, levels)

    def _about_accuracy(self) -> dict[str, Any] | None:
        """The report's entry on accuracy and kinks.

        It is None if accuracy could not be measured. Its kinks are None if they could not be
        measured or the field has no cells.
        """
        if self.accuracy is None:
            return None
        nothing = dict.fromkeys(each.name for each in dataclasses.fields(Kink))
        kink = nothing if self.kink is None else dataclasses.asdict(self.kink)
        return self.accuracy.figures | kink


def _picture(views: Mapping[str, Sdf], mesh: Mesh, size: int, up: Up) -> np.ndarray:
    """The surfaces ``views`` by title from the camera that shows most of ``mesh``, beside each
    other, each ``size`` pixels square below its title, with the axis ``up`` upward."""
    camera = Camera.around(mesh.bounds, *best_view(mesh, up), width=size, height=size, up=up)
    config = RenderConfig(ground=Ground())
    return side_by_side([titled(render(sdf, camera, config), name) for name, sdf in views.items()])


def _transport(job: MeshJob, result: Fit) -> dict[str, Any]:
    """Whether the transport loss was used, and the `Nstr.transport_residual` over random points of
    the unit box; the residual is None for a field without a transport F."""
    field = result.field
    if not isinstance(field, Nstr) or field.transport is None:
        return {"loss": False, "weight": 0.0, "residual": None}
    generator = torch.Generator().manual_seed(job.training.seed)
    device = next(field.parameters()).device
    points = (torch.rand(1 << 14, field.in_dim, generator=generator) * 2 - 1).to(device)
    with torch.no_grad():
        residual = float(field.transport_residual(points))
    return {
        "loss": True,
        "weight": job.training.transport,
        "residual": residual,
        "points": len(points),
    }
