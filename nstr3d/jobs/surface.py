"""The stages that jobs on meshes and on point clouds share: sampling, fitting, extraction and
publishing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.vicinity import Vicinity
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.pose import guess_up
from nstr3d.geometry.mesh.repair import structure
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import save_image, save_mesh
from nstr3d.jobs.colour import Coloured, Shades, away_warnings, fit_colours, poor_warnings
from nstr3d.jobs.doubts import thin_warnings
from nstr3d.jobs.fitting import (
    Beginning,
    Placed,
    begin,
    build_field,
    draw_samples,
    identity_of,
    train,
)
from nstr3d.jobs.messages import Message, sentence
from nstr3d.jobs.options import SurfaceJob
from nstr3d.jobs.results import MESH, MODEL, OWNED, PICTURE, check_files, remove_unfinished
from nstr3d.jobs.stages import Listener, machine
from nstr3d.jobs.walk import REPORT, Run, Stages
from nstr3d.model.checkpoint import save
from nstr3d.model.tags import encode_config
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import Extraction, extract
from nstr3d.surface.vertices import vertex_colours, vertex_normals
from nstr3d.training.choice import choose
from nstr3d.training.fit import Fit
from nstr3d.types import Mesh, UnprovenError, Up

Job = TypeVar("Job", bound=SurfaceJob)


class SurfaceStages(Stages, Generic[Job]):
    """The stages of a job that fits a field to a surface.

    The search tree over the surface is built once, in the unit box. `MeshDistance.placed` answers
    queries in world units from the same tree.
    """

    def __init__(
        self,
        job: Job,
        listener: Listener | None = None,
        import_seconds: float | None = None,
        sha256: str | None = None,
    ):
        job.check_memory()
        self.choice = choose(job.training.device, job.training.compute_path)
        self.device = self.choice.path.device
        super().__init__(Run(listener), job.folder)
        self.run.warn(self.choice.warnings)
        self.job, self.import_seconds, self.sha256 = job, import_seconds, sha256
        pictures = (PICTURE,) if job.extraction.picture else ()
        self.names = (MODEL, MESH, *pictures, REPORT)

    extracted: Mesh
    begun: Beginning
    coloured: Coloured | None = None
    thickness = 0.0  # of open surfaces that became sheets, in world units

    @property
    def owned(self) -> tuple[str, ...]:
        return OWNED

    def computing(self) -> AbstractContextManager[None]:
        return self.choice.path.using()

    def check(self, publishing: bool = False) -> None:
        check_files(self.job, publishing)

    def finish(self) -> None:
        remove_unfinished(self.begun.place)

    def place(self, mesh: Mesh) -> None:
        """Sets the surface to be fitted, the closed ``mesh`` in world units, and the distance to it
        in the unit box."""
        unit, frame = normalise(mesh)
        self.placed = Placed(mesh, unit, frame, Vicinity(unit))
        self.distance = MeshDistance(unit)

    @cached_property
    def own(self) -> MeshDistance:
        """The distance to the extracted mesh, shared by all measurements."""
        return MeshDistance(self.extracted)

    @cached_property
    def up(self) -> Up:
        """The axis that points up in pictures."""
        chosen = self.job.extraction.up
        if chosen != "auto":
            return chosen
        return guess_up(self.placed.mesh, self.job.path.suffix)

    @property
    def identity(self) -> dict[str, Any]:
        """The properties that a checkpoint must share with this run to be resumed."""
        return identity_of(self.job, self.sha256)

    def sample(self) -> None:
        job, placed = self.job, self.placed
        self.run.listener.stage("fit")
        self.begun = begin(job, placed, self.identity, self.device)
        if self.begun.resumed is not None:
            self.run.checkpoint = self.begun.place.checkpoint
        with self.run.clock("sample"):
            self.pool = draw_samples(placed.unit, self.distance, job.training.config)

    def fit(self) -> None:
        job, placed = self.job, self.placed
        with self.run.clock("build"):
            field = build_field(job, placed, self.begun, self.pool, self.device)
        cells = cells_of(field)
        finest = 2 * placed.frame.scale / cells[-1] if cells else None
        self.run.warn(thin_warnings(placed.mesh, finest, job.resolution))
        self.result = train(job, placed, self.begun, field, self.pool, self.run)
        provenance = {**self.result.provenance, "up": self.up}  # for later pictures
        self.result = replace(self.result, provenance=provenance)
        self.sdf = self.result.sdf()
        del self.pool  # it may be large
        self.begun = replace(self.begun, resumed=None, state={})
        if (shades := self.shades()) is not None:
            with self.run.stage("colour"):
                self.run.warn(self._fit_colours(shades))

    def shades(self) -> Shades | None:
        """The coloured points of the input; None if there are none or they are to be left out."""
        return None

    def _fit_colours(self, shades: Shades) -> list[str]:
        """Adds a field of colours to the result; returns warnings. A shape whose colours cannot be
        fitted stays without."""
        job, device = self.job, self.device
        try:
            self.coloured = fit_colours(
                shades,
                self.placed,
                self.distance,
                job.colours,
                job.training,
                device,
                self.thickness,
            )
        except (ValueError, FloatingPointError) as error:
            return [f"The colours were not fitted: {sentence(error).rstrip('.')}."]
        if self.coloured.interrupted:
            raise KeyboardInterrupt
        self.result = replace(self.result, colour_field=self.coloured.field)
        self.sdf = self.result.sdf()
        return away_warnings(self.coloured)

    def about_colours(self) -> dict[str, Any]:
        """The report's entry on colours; empty for a shape without."""
        coloured = self.coloured
        if coloured is None:
            return {}
        about = self.run.measure("colour", lambda: coloured.describe(self.sdf))
        self.run.warn(poor_warnings(about))
        return {"colour": about}

    def describe_mesh(self) -> None:
        """Makes the report's entry on the extracted mesh, with None for what cannot be measured."""
        about = self.run.measure("structure", lambda: structure(self.extracted))
        components, watertight = about or (None, None)
        self.described = {
            "vertices": len(self.extracted.vertices),
            "faces": len(self.extracted.faces),
            "components": components,
            "watertight": watertight,
            "resolution": self.job.resolution,
            "certificate": self.certificate and asdict(self.certificate),
        }

    def extracted_surface(self) -> Mesh:
        """The field's surface as the options say. Keeps what is proven of it."""
        job = self.job
        found = extract_surface(self.sdf, job.resolution, job.extraction.certified)
        self.certificate = found.certificate
        return found.mesh

    def write(self, folder: Path, picture: np.ndarray | None) -> dict[str, Any]:
        """Writes all files except the report; returns its entries on the field and the mesh."""
        save(folder / MODEL, self.result)
        normals = vertex_normals(self.sdf, self.extracted)
        save_mesh(folder / MESH, self.extracted, vertex_colours(self.sdf, self.extracted), normals)
        if picture is not None:
            save_image(folder / PICTURE, picture)
        size = (folder / MODEL).stat().st_size
        return {"field": describe_field(self.job, self.result, size), "mesh": self.described}

    def about_run(self) -> dict[str, Any]:
        """The report's entries on the run: times in seconds, machine and seed."""
        return {
            "seconds": {**self.run.seconds, "import": self.import_seconds},
            "machine": machine(self.choice),
            "seed": self.job.training.seed,
        }


def extract_surface(sdf: Sdf, resolution: int, certified: bool = False) -> Extraction:
    """The field's surface, ``certified`` or not; see `extract`.

    Raises ValueError if there is none or if it does not close within the bounds, as may happen
    after too little training, and UnprovenError if nothing is proven of the field.
    """
    try:
        return extract(sdf, resolution, certified=certified)
    except UnprovenError:
        raise
    except ValueError as error:
        raise ValueError(
            Message("The field has no closed surface yet; train for more <steps> or <seconds>.")
        ) from error


def cells_of(field: Field) -> tuple[int, ...]:
    """Cells per axis of the levels of an NSTR ``field``, coarse to fine; empty for other fields."""
    levels = field.config.levels if isinstance(field, Nstr) else ()
    return tuple(level.resolution for level in levels)


def describe_field(job: SurfaceJob, result: Fit, size: int) -> dict[str, Any]:
    """The report's entry on the field, whose file has ``size`` bytes."""
    return {
        "name": job.training.field,
        "config": encode_config(result.field.config),
        "parameters": result.field.parameter_count,
        "bytes": size,
        "lipschitz": result.lipschitz,
        "steps": result.steps,
    }
