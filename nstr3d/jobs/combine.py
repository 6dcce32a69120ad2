"""The job that combines models of shapes: a model that holds them all, its mesh, a picture and a
report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nstr3d.geometry.mesh.repair import structure
from nstr3d.geometry.mesh.surface import area, volume
from nstr3d.io import save_image, save_mesh
from nstr3d.jobs.combineoptions import CombineJob
from nstr3d.jobs.messages import Message
from nstr3d.jobs.publishing import check_output
from nstr3d.jobs.ranges import check_surface
from nstr3d.jobs.results import MESH, MODEL, PICTURE
from nstr3d.jobs.stages import Listener, Outcome, machine, slowness
from nstr3d.jobs.walk import REPORT, Run, Stages, walk
from nstr3d.model.tree import load_sdf, save_sdf, up_of
from nstr3d.render.camera import Camera
from nstr3d.render.framing import best_view
from nstr3d.render.ground import Ground
from nstr3d.render.traced import RenderConfig, render
from nstr3d.surface.extract import EmptySurface, extract_mesh
from nstr3d.surface.vertices import vertex_normals
from nstr3d.types import Up


def run_combine(job: CombineJob, listener: Listener | None = None) -> Outcome:
    """Combines models and writes the files. All appear together at the end, or none appears.

    Raises ValueError if a file is no model of a shape or nothing is left of the shapes, OSError if
    a file cannot be read or written, and `Interrupted` after Ctrl-C.
    """
    return walk(CombineStages(job, listener))


class CombineStages(Stages):
    """The stages of a `CombineJob`."""

    def __init__(self, job: CombineJob, listener: Listener | None = None):
        check_surface(job.resolution)
        super().__init__(Run(listener), job.folder)
        self.job = job
        self.names = (MODEL, MESH, *((PICTURE,) if job.picture else ()), REPORT)

    @property
    def owned(self) -> tuple[str, ...]:
        return MODEL, MESH, PICTURE, REPORT

    def check(self, publishing: bool = False) -> None:
        check_output(self.job.folder, self.owned, self.job.overwrite)

    def read(self) -> None:
        with self.run.stage("load"):
            self.parts = [load_sdf(path) for path in self.job.paths]
        self.run.warn(slowness())

    def prepare(self) -> None:
        first, *others = self.parts
        operation = getattr(first, self.job.operation)
        self.sdf = operation(*others, radius=self.job.radius)
        self.up: Up = up_of(self.sdf) if self.job.up == "auto" else self.job.up

    def sample(self) -> None:
        """There is nothing to sample."""

    def fit(self) -> None:
        """There is nothing to fit."""

    def extract(self) -> None:
        with self.run.stage("extract"):
            try:
                self.extracted = extract_mesh(self.sdf, self.job.resolution)
            except EmptySurface as error:
                text = "The {} of {} is empty, so there is nothing to write."
                names = ", ".join(map(str, self.job.paths))
                raise ValueError(Message(text, self.job.operation, names)) from error

    def measure(self) -> None:
        with self.run.stage("render"):
            self.picture = None
            if self.job.picture:
                self.picture = self.run.measure("picture", self._picture)
        about = self.run.measure("structure", lambda: structure(self.extracted))
        self.components, self.watertight = about or (None, None)

    def publish(self, folder: Path) -> dict[str, Any]:
        save_sdf(folder / MODEL, self.sdf, None if self.job.up == "auto" else self.up)
        save_mesh(folder / MESH, self.extracted, normals=vertex_normals(self.sdf, self.extracted))
        if self.picture is not None:
            save_image(folder / PICTURE, self.picture)
        return {
            "input": {
                "paths": [str(path) for path in self.job.paths],
                "operation": self.job.operation,
                "radius": self.job.radius,
                "up": self.up,
                "warnings": self.run.warnings,
            },
            "field": {"name": "combination", "bytes": (folder / MODEL).stat().st_size},
            "mesh": {
                "vertices": len(self.extracted.vertices),
                "faces": len(self.extracted.faces),
                "components": self.components,
                "watertight": self.watertight,
                "resolution": self.job.resolution,
                "volume": volume(self.extracted),
                "area": area(self.extracted),
            },
            "seconds": self.run.seconds,
            "machine": machine(),
        }

    def _picture(self) -> Any:
        size, up = self.job.picture, self.up
        view = best_view(self.extracted, up)
        camera = Camera.around(self.extracted.bounds, *view, width=size, height=size, up=up)
        return render(self.sdf, camera, RenderConfig(ground=Ground()))
