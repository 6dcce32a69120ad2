"""What jobs on meshes and on points share: how a surface's field is sampled, fitted, extracted and
published."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.vicinity import Vicinity
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.repair import structure
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import save_image, save_mesh
from nstr3d.jobs.fitting import Placed, begin, build_field, draw_samples, identity_of, train
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob
from nstr3d.jobs.results import CHECKPOINT, MESH, MODEL, PICTURE, check_files
from nstr3d.jobs.stages import Listener, machine, pick_device
from nstr3d.jobs.walk import REPORT, Run, Stages
from nstr3d.model.checkpoint import save
from nstr3d.model.tags import encode_config
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import Extraction, extract
from nstr3d.training.fit import Fit
from nstr3d.types import Mesh

Job = TypeVar("Job", bound=SurfaceJob)
SIZES = (1e-30, 1e30)  # beyond, squares and cubes of lengths leave double precision


class SurfaceStages(Stages, Generic[Job]):
    """The stages of a job that ends with a field of a surface. Its tree of the surface is built
    once, in the unit box, and answers in world units too (`MeshDistance.placed`)."""

    def __init__(
        self,
        job: Job,
        listener: Listener | None = None,
        import_seconds: float | None = None,
        sha256: str | None = None,
    ):
        self.device = pick_device(job.training.device)
        check_files(job)
        super().__init__(Run(listener), job.folder, job.folder / CHECKPOINT)
        self.job, self.import_seconds, self.sha256 = job, import_seconds, sha256
        pictures = (PICTURE,) if job.extraction.picture else ()
        self.names = (MODEL, MESH, *pictures, REPORT)

    extracted: Mesh

    def place(self, mesh: Mesh) -> None:
        """Takes the closed ``mesh``, in world units, for the surface."""
        unit, frame = normalise(mesh)
        self.placed = Placed(mesh, unit, frame, Vicinity(unit))

    @cached_property
    def own(self) -> MeshDistance:
        """The distance to the extracted mesh, for all measurements."""
        return MeshDistance(self.extracted)

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for a checkpoint to be of the same run."""
        return identity_of(self.job, self.sha256)

    def sample(self) -> None:
        job, placed = self.job, self.placed
        self.run.listener.stage("fit")
        self.begun = begin(job, placed, self.identity, self.device)
        with self.run.clock("sample"):
            self.distance = MeshDistance(placed.unit)
            self.pool = draw_samples(placed.unit, self.distance, job.training.config)

    def fit(self) -> None:
        job, placed = self.job, self.placed
        with self.run.clock("build"):
            field = build_field(job, placed, self.begun, self.pool, self.device)
        self.result = train(job, placed, self.begun, field, self.pool, self.run)
        self.sdf = self.result.sdf()
        del self.pool, self.begun  # which may be large

    def describe_mesh(self) -> None:
        """Finds what a report says of the extracted mesh: nulls where that fails."""
        about = self.run.measure("structure", lambda: structure(self.extracted))
        components, watertight = about or (None, None)
        self.described = {
            "vertices": len(self.extracted.vertices),
            "faces": len(self.extracted.faces),
            "components": components,
            "watertight": watertight,
            "resolution": self.job.extraction.resolution,
        }

    def write(self, folder: Path, picture: np.ndarray | None) -> dict[str, Any]:
        """Writes all files but the report; returns what a report says of the field and the mesh."""
        save(folder / MODEL, self.result)
        save_mesh(folder / MESH, self.extracted)
        if picture is not None:
            save_image(folder / PICTURE, picture)
        size = (folder / MODEL).stat().st_size
        return {"field": describe_field(self.job, self.result, size), "mesh": self.described}

    def about_run(self) -> dict[str, Any]:
        """What a report says of how the job went, by key."""
        return {
            "seconds": {**self.run.seconds, "import": self.import_seconds},
            "machine": machine(self.device),
            "seed": self.job.training.seed,
        }


def check_size(mesh: Mesh) -> None:
    """Refuses a mesh whose measures could not be computed; one without size is left to `repair`."""
    limits = f"sizes from {SIZES[0]} to {SIZES[1]} units work, so scale it"
    reach = float(np.abs(mesh.vertices).max())
    if reach > SIZES[1]:
        raise ValueError(f"The mesh reaches out to {reach:.1e}; {limits} down.")
    size = float(mesh.bounds.extent.max())
    if 0 < size < SIZES[0]:
        raise ValueError(f"The mesh is only {size:.1e} long; {limits} up.")


def extract_surface(sdf: Sdf, resolution: int) -> Extraction:
    """The neural surface; a field that was trained too briefly may have none, or none that closes
    within the bounds."""
    try:
        return extract(sdf, resolution)
    except ValueError as error:
        raise ValueError(
            Message("The field has no closed surface yet; train for more <steps> or <seconds>.")
        ) from error


def cells_of(field: Field) -> tuple[int, ...]:
    """Cells per axis of the levels of an NSTR ``field``, coarse to fine; none of other fields."""
    levels = field.config.levels if isinstance(field, Nstr) else ()
    return tuple(level.resolution for level in levels)


def describe_field(job: SurfaceJob, result: Fit, size: int) -> dict[str, Any]:
    """What a report says of the field, whose file has ``size`` bytes."""
    return {
        "name": job.training.field,
        "config": encode_config(result.field.config),
        "parameters": result.field.parameter_count,
        "bytes": size,
        "lipschitz": result.lipschitz,
        "steps": result.steps,
    }
