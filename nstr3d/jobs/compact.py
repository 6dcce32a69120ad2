"""A mesh or points as a compressed model: a closed form instead of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.fields.closed.codedpyramid import CodedPyramid
from nstr3d.geometry.mesh.repair import structure
from nstr3d.io import save_image, save_mesh
from nstr3d.io.paint import Paint
from nstr3d.jobs.cloud import PointsStages
from nstr3d.jobs.colour import Shades
from nstr3d.jobs.compressing import COLOURLESS, compress, surface_error, surface_target
from nstr3d.jobs.doubts import thin_warnings
from nstr3d.jobs.mesh import MeshStages
from nstr3d.jobs.messages import Message
from nstr3d.jobs.results import COMPRESSED, MESH, PICTURE
from nstr3d.jobs.surface import Job, SurfaceStages
from nstr3d.jobs.walk import REPORT
from nstr3d.kernels.available import need_numba
from nstr3d.kernels.pyramidwalk import MOST_CELLS
from nstr3d.model.checkpoint import save
from nstr3d.model.pyramidcodec import CODE
from nstr3d.model.tags import encode_config
from nstr3d.surface.vertices import vertex_normals
from nstr3d.training.fit import Fit
from nstr3d.types import Mesh


class CompactStages(SurfaceStages[Job]):
    """The stages of a job whose result is compressed, without those that read the input."""

    title = "compressed surface"
    surface_error: float | None = None  # as it was measured for the option, in the unit box

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        need_numba(CODE)
        pictures = (PICTURE,) if self.job.extraction.picture else ()
        self.names = (COMPRESSED, MESH, *pictures, REPORT)

    def sample(self) -> None:
        self.run.listener.stage("fit")
        placed = self.placed
        with self.run.clock("sample"):
            self.target = surface_target(
                placed.unit, self.distance, placed.frame, self.up, self.job.training.seed
            )

    def fit(self) -> None:
        placed, how = self.placed, self.job.compression
        with self.run.clock("fit"):
            result = compress(how, self.target, self._measured)
        cells = result.field.config.plan.cells
        self.advice = _advice(how.cause, cells)
        finest = 2 * placed.frame.scale / cells
        self.run.warn(thin_warnings(placed.mesh, finest, self.job.resolution, self.advice))
        about = {"input": self.job.path.name, "up": self.up}
        self.result = replace(result, provenance=about)
        self.sdf = self.result.sdf()

    def _measured(self, fit: Fit) -> float:
        seed = self.job.training.seed
        self.surface_error = surface_error(fit, self.placed.unit, self.distance, seed)
        return self.surface_error

    def extracted_surface(self) -> Mesh:
        try:
            return super().extracted_surface()
        except ValueError as error:
            text = f"No closed surface is left in the compressed model; {self.advice}."
            raise ValueError(Message(text)) from error

    def describe_mesh(self) -> None:
        super().describe_mesh()
        parts, before = self.described["components"], structure(self.placed.mesh)[0]
        if parts is not None and parts != before:
            text = (
                "The surface has {} part(s), that of the input {}: in a compressed model thin "
                f"parts may be lost, joined or torn; {self.advice}."
            )
            self.run.warn([Message(text, parts, before)])

    def finish(self) -> None:
        """Nothing is unfinished: there are no checkpoints."""

    def write(self, folder: Path, picture: np.ndarray | None) -> dict[str, Any]:
        save(folder / COMPRESSED, self.result)
        save_mesh(folder / MESH, self.extracted, normals=vertex_normals(self.sdf, self.extracted))
        if picture is not None:
            save_image(folder / PICTURE, picture)
        return {"field": self._describe_field(folder / COMPRESSED), "mesh": self.described}

    def _describe_field(self, path: Path) -> dict[str, Any]:
        assert isinstance(self.result.field, CodedPyramid)
        measured = {} if self.surface_error is None else {"error": self.surface_error}
        return {
            "name": "pyramid",
            "config": encode_config(self.result.field.config),
            "cells": self.result.field.config.plan.cells,
            "parameters": None,
            "bytes": path.stat().st_size,
            "lipschitz": self.result.lipschitz,
            "steps": 0,
            **measured,
        }


class CompactMesh(CompactStages, MeshStages):
    """The stages of a `MeshJob` whose result is compressed."""

    def read_paint(self) -> tuple[Paint | None, list[str]]:
        paint, told = super().read_paint()
        return None, told if paint is None else [COLOURLESS]


class CompactPoints(CompactStages, PointsStages):
    """The stages of a `PointsJob` whose result is compressed."""

    def prepare(self) -> None:
        super().prepare()
        if self.cloud.colours is not None and self.job.colours.colour != "off":
            self.run.warn([COLOURLESS])

    def shades(self) -> Shades | None:
        return None


def _advice(cause: str | None, cells: int) -> str:
    """How more of the shape is kept, where its grid has so many ``cells``."""
    if cause == "<error>":
        return "ask for a smaller <error>"
    if cause == "<bytes>" and cells < MOST_CELLS:
        return "allow more <bytes>"
    return "leave out <bytes>" if cause else "choose another <preset>"
