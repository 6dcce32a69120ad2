"""A mesh as a file of at most so many bytes: a closed form instead of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.geometry.mesh.repair import structure
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io import save_image, save_mesh
from nstr3d.io.paint import Paint
from nstr3d.jobs.doubts import thin_warnings
from nstr3d.jobs.mesh import MeshStages
from nstr3d.jobs.messages import Message
from nstr3d.jobs.results import COMPRESSED, MESH, PICTURE
from nstr3d.jobs.walk import REPORT
from nstr3d.kernels.available import need_numba
from nstr3d.model.codec import save_compressed
from nstr3d.model.pyramidcodec import CODE, Target, compress_shape, decompress_shape
from nstr3d.model.shapeheader import MOST_CELLS
from nstr3d.model.tags import encode_config
from nstr3d.surface.vertices import vertex_normals
from nstr3d.types import Mesh

JUDGED = 20_000  # surface points at which grids are compared


class CompactStages(MeshStages):
    """The stages of a `MeshJob` with a size in bytes."""

    title = "compressed surface"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        need_numba(CODE)
        pictures = (PICTURE,) if self.job.extraction.picture else ()
        self.names = (COMPRESSED, MESH, *pictures, REPORT)

    def read_paint(self) -> tuple[Paint | None, list[str]]:
        paint, told = super().read_paint()
        left = Message("The colours of the input were left out: <bytes> keeps the shape.")
        return None, told if paint is None else [left]

    def sample(self) -> None:
        self.run.listener.stage("fit")
        with self.run.clock("sample"):
            generator = np.random.default_rng([self.job.training.seed, 0])
            self.judged, _ = sample_surface(self.placed.unit, JUDGED, generator)

    def fit(self) -> None:
        unit, frame = self.placed.unit, self.placed.frame
        target = Target(self.distance, self.judged, unit.bounds, frame, self.up)
        with self.run.clock("fit"):
            self.code = compress_shape(target, self.job.bytes or 0)
        result = decompress_shape(self.code)
        cells = result.field.config.cells
        finest = 2 * frame.scale / cells
        self.advice = "allow more <bytes>" if cells < MOST_CELLS else "leave out <bytes>"
        self.run.warn(thin_warnings(self.placed.mesh, finest, self.job.resolution, self.advice))
        about = {"input": self.job.path.name, "up": self.up}
        self.result = replace(result, provenance=about)
        self.sdf = self.result.sdf()

    def extracted_surface(self) -> Mesh:
        try:
            return super().extracted_surface()
        except ValueError as error:
            text = f"No closed surface is left in so few bytes; {self.advice}."
            raise ValueError(Message(text)) from error

    def describe_mesh(self) -> None:
        super().describe_mesh()
        parts, before = self.described["components"], structure(self.placed.mesh)[0]
        if parts is not None and parts != before:
            text = (
                "The surface has {} part(s), that of the input {}: in so few bytes thin parts are "
                f"lost, joined or torn; {self.advice}."
            )
            self.run.warn([Message(text, parts, before)])

    def finish(self) -> None:
        """Nothing is unfinished: there are no checkpoints."""

    def write(self, folder: Path, picture: np.ndarray | None) -> dict[str, Any]:
        save_compressed(folder / COMPRESSED, self.code)
        save_mesh(folder / MESH, self.extracted, normals=vertex_normals(self.sdf, self.extracted))
        if picture is not None:
            save_image(folder / PICTURE, picture)
        field = {
            "name": "pyramid",
            "config": encode_config(self.result.field.config),
            "parameters": None,
            "bytes": len(self.code),
            "lipschitz": self.result.lipschitz,
            "steps": 0,
        }
        return {"field": field, "mesh": self.described}
