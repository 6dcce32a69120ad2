"""The spectrum of a shape: streamlines and segments on its surface."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.autodiff import gradient
from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io import save_image, save_lines, save_mesh
from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.flowreport import (
    CHUNK,
    FlowStages,
    about_analysis,
    about_lines,
    about_segments,
    colours_of,
    quantiles,
    read,
    summarise,
)
from nstr3d.jobs.messages import Message
from nstr3d.jobs.walk import REPORT
from nstr3d.render.colours import GAMMA, colour_map
from nstr3d.render.drawing import draw_lines
from nstr3d.render.panels import beside
from nstr3d.render.shading import Studio
from nstr3d.render.traced import RenderConfig, render
from nstr3d.sdf import Sdf
from nstr3d.spectrum.analysis import AnalysisConfig
from nstr3d.spectrum.flow import StreamConfig, Streamlines, evenly_spaced, streamlines
from nstr3d.spectrum.gridfield import GridField
from nstr3d.spectrum.reading import (
    Reading,
    difference,
    has_phases,
    phase_spectrum,
    spectral_flow,
    transport_map,
)
from nstr3d.spectrum.relief import (
    ReliefWaves,
    across,
    nearest,
    relief_waves,
    spread,
    surface_relief,
)
from nstr3d.spectrum.segments import segment
from nstr3d.spectrum.sites import Sites
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Camera, Mesh, Polylines

SOME = 1000  # points of slower statistics
OCTAVES = 3
LOWEST = 6.0  # radians per unit length: what is slower is the shape, not its relief
CELLS = 64  # of the grid on which the surface's line field is sampled


class ShapeFlow(FlowStages):
    """The stages of a `FlowJob` on a shape."""

    names = (
        "flow.png",
        "residual.png",
        "lines.ply",
        "lines.glb",
        "lines.vtp",
        "lines.json",
        "segments.ply",
        REPORT,
    )

    def read(self) -> None:
        if self.model.steps == 0:
            raise ValueError(
                f"{self.job.path} was not trained, so its waves mean nothing; fit it first."
            )
        super().read()

    def prepare(self) -> None:
        self.sdf, self.generator = self.model.sdf(), np.random.default_rng([self.job.seed, 1])
        with self.run.stage("extract"):
            self.mesh = extract_mesh(self.sdf, self.job.resolution)
            self.unit = Mesh(self.model.frame.to_unit(self.mesh.vertices), self.mesh.faces)

    def sample(self) -> None:
        with self.run.clock("extract"):
            self.samples = sample_surface(self.unit, self.job.samples, self.generator)[0]

    def fit(self) -> None:
        job, field, generator = self.job, self.model.field, self.generator
        with self.run.stage("analyse"):
            relief = surface_relief(field, self.samples, generator)
            config = AnalysisConfig(
                _fastest(job, field), OCTAVES, LOWEST, degree=0, periods=0.6, iterations=12
            )
            found = self.found = relief_waves(relief, config, job.read, generator)
            self.spectrum, self.vectors = found.spectrum, found.waves.frequency
            if job.phases:
                normals = relief.normals[: len(found.points)]
                self.spectrum = read(lambda at: phase_spectrum(field, at), found.points)
                self.vectors = across(self.spectrum.vector, normals)

    def extract(self) -> None:
        job, found, frame = self.job, self.found, self.model.frame
        with self.run.stage("follow"):
            known = self.vectors * found.clear[:, None]
            seeds = found.relief.points[: job.seeds]
            self.flow = _surface_lines(job, self.model.field, found.sites, known, self.unit, seeds)
        points, starts = self.flow.lines.points, self.flow.lines.starts
        along = spread(found.sites, self.vectors, torch.from_numpy(points).float())
        size = along.norm(dim=1).double().numpy() / frame.scale
        self.lines = Polylines(frame.to_world(points), starts, size)
        with self.run.clock("segment"):
            self.labels = segment(self.spectrum, min(job.segments, len(found.points)))

    def measure(self) -> None:
        field, found, measure = self.model.field, self.found, self.run.measure
        some, vectors = found.points[:SOME], self.vectors[:SOME]
        self.agreement = measure("agreement", lambda: _agreement(field, found))
        self.moving = measure(
            "spectral_flow",
            lambda: float(_flow_of(field, self.job, found).norm(dim=1).median()),
        )
        self.correlation = measure(
            "mean_curvature_rank_correlation",
            lambda: _curvature_correlation(field, some, vectors),
        )
        self.residual = measure("transport_residual", lambda: _transport_residual(field, some))

    def publish(self, folder: Path) -> dict[str, Any]:
        with self.run.clock("write"):
            self._write(folder)
        scale, found, vectors = self.model.frame.scale, self.found, self.vectors
        clear = found.clear.numpy()
        return self.report(
            {
                "unit": "radians per world unit",
                "reading": (
                    "the model's phases" if self.job.phases else "the relief's local waves"
                ),
                "lines": about_lines(self.flow),
                "local_frequency": summarise(
                    self.spectrum, vectors[clear] if clear.any() else vectors, scale
                ),
                "clear": float(clear.mean()),
                "unexplained": quantiles(1 - found.waves.share),
                "segments": about_segments(self.labels, self.spectrum.centroid.numpy() / scale),
                "analysis": about_analysis(found.analysis),
                "agreement": self.agreement,
                "spectral_flow": {"unit": "nepers per box unit", "median": self.moving},
                "mean_curvature_rank_correlation": self.correlation,
                "transport_residual": self.residual,
            }
        )

    def _write(self, folder: Path) -> None:
        job, lines = self.job, self.lines
        assert lines.values is not None
        colours = colours_of(lines.values)
        for suffix in (".ply", ".glb", ".vtp", ".json"):
            save_lines(folder / f"lines{suffix}", lines, colours)
        camera = Camera.around(self.sdf.bounds, width=job.size, height=job.size)
        shape, width = render(self.sdf, camera), max(1.5, job.size / 320)
        picture = draw_lines(shape, camera, self.sdf, lines, colours, width)
        save_image(folder / "flow.png", picture)
        save_image(folder / "residual.png", _residual_map(self.model, self.sdf, self.found, camera))
        corners = torch.from_numpy(self.unit.vertices).float()
        labels = self.labels[nearest(self.found.sites, corners)].astype(float)
        save_mesh(
            folder / "segments.ply", self.mesh, colours_of(labels, 0, max(1, job.segments - 1))
        )


def _residual_map(model: Fit, sdf: Sdf, found: ReliefWaves, camera: Camera) -> np.ndarray:
    """A picture of where the plane wave says what the relief is, dark violet, and where it says
    nothing, yellow. Beside it, of a field with a transport law, where dS/dx is what the law says:
    yellow where they differ by as much as dS/dx is long."""
    residuals = [1 - found.waves.share]
    if isinstance(model.field, Nstr) and model.field.transport is not None:
        residuals.append(
            torch.cat(
                [transport_map(model.field, part).residual for part in found.points.split(CHUNK)]
            )
        )
    pictures = []
    for residual in residuals:

        def albedo(points: Tensor, residual: Tensor = residual) -> Tensor:
            unit = (points - points.new_tensor(model.frame.centre)) / model.frame.scale
            return colour_map(spread(found.sites, residual[:, None], unit.float())[:, 0]) ** GAMMA

        pictures.append(render(sdf, camera, RenderConfig(Studio(albedo=albedo))))
    return beside(pictures)


def _surface_lines(
    job: FlowJob, field: Field, places: Tensor | Sites, vectors: Tensor, unit: Mesh, seeds: Tensor
) -> Streamlines:
    """Lines along ``vectors``, the line field known at ``places`` on the surface."""
    grown = unit.bounds.scaled(1.1)
    bounds = Box(
        tuple(np.maximum(grown.lower, -1.0).tolist()), tuple(np.minimum(grown.upper, 1.0).tolist())
    )
    grid, back = surface_grid(field, places, vectors, bounds)
    least = 1e-2 * float(grid.table.norm(dim=1).max())
    config = StreamConfig(job.length, 0.02, 2e-3, 80, least)
    inside = seeds.clamp(seeds.new_tensor(bounds.lower), seeds.new_tensor(bounds.upper))
    flow = evenly_spaced(
        streamlines(grid, inside, bounds, config, signed=False, project=back),
        job.separation,
        2 * job.separation,
    )
    if not len(flow.lines):
        raise ValueError(
            Message(
                "No line is as long as twice the <separation>; make it smaller, or give more "
                "<seeds>."
            )
        )
    return flow


def surface_grid(
    field: Field, places: Tensor | Sites, vectors: Tensor, bounds: Box
) -> tuple[GridField, Callable[[Tensor], Tensor]]:
    """For `streamlines` on the surface of ``field``: the line field ``vectors (m, 3)``, known at
    ``places (m, 3)`` on it, on a grid over ``bounds``, zero far from the surface; and what puts
    points near the surface back on it."""
    sites, near = Sites.of(places), 3 * float(bounds.extent.max()) / CELLS

    def about_surface(vector: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def sampled(points: Tensor) -> Tensor:
            found = torch.zeros_like(points)
            chosen = (field(points)[:, 0].abs() < near).nonzero()[:, 0]
            if len(chosen):
                found[chosen] = vector(points[chosen])
            return found

        return sampled

    def steepest(points: Tensor) -> Tensor:
        with torch.enable_grad():
            slope = gradient(field, points).detach()
        return slope / slope.square().sum(dim=1, keepdim=True).clamp_min(0.05)

    # A step along the gradient of a grid is a Newton step but for a little of its direction, and
    # needs no derivative.
    grid = GridField.sampled(
        about_surface(lambda points: spread(sites, vectors, points)), bounds, CELLS, signed=False
    )
    ways = GridField.sampled(about_surface(steepest), bounds, CELLS)
    return grid, lambda points: (points - field(points) * ways(points)).clamp(-1, 1)


def _fastest(job: FlowJob, field: Field) -> float:
    """The highest frequency to look for, in radians per box unit: what the field's finest nodes can
    hold, within reason."""
    if job.highest is not None:
        return max(job.highest, 1.01 * LOWEST)
    finest = (
        max(level.config.resolution for level in field.spectra) * math.pi / 2
        if isinstance(field, Nstr)
        else 60.0
    )
    return max(20.0, min(1.2 * finest, 60.0))


def _agreement(field: Field, found: ReliefWaves) -> dict[str, float] | None:
    """How far the model's own reading is from the relief's waves, where it has one: medians."""
    if not has_phases(field) or not found.clear.any():
        return None
    at, normals = found.points[found.clear], found.relief.normals[: len(found.points)][found.clear]
    own = across(read(lambda places: phase_spectrum(field, places), at).vector, normals)
    error, angle = difference(own, found.waves.frequency[found.clear])
    return {
        "median_relative_difference": float(error.median()),
        "median_angle_degrees": float(angle.median()),
    }


def _flow_of(field: Field, job: FlowJob, found: ReliefWaves) -> Tensor:
    reading: Reading = (
        (lambda at: phase_spectrum(field, at)) if job.phases else found.analysis.spectrum
    )
    return spectral_flow(reading, found.points[:SOME], 1 / found.analysis.config.cells[0])


def _transport_residual(field: Field, points: Tensor) -> float | None:
    if not isinstance(field, Nstr) or field.transport is None:
        return None
    return float(transport_map(field, points).residual.mean())


def _curvature_correlation(
    field: Field, points: Tensor, vectors: Tensor, distance: float = 0.02
) -> float:
    """Spearman's rank correlation of the local frequency with |mean curvature|, half the divergence
    of the normals."""
    divergence = torch.zeros(len(points))
    for axis in range(3):
        ends = []
        for side in (-1, 1):
            moved = points.clone()
            moved[:, axis] += side * distance
            ends.append(
                torch.nn.functional.normalize(gradient(field, moved.clamp(-1, 1)), dim=1)[:, axis]
            )
        divergence += (ends[1] - ends[0]).detach() / (2 * distance)
    ranks = [
        values.argsort().argsort().double() for values in (divergence.abs(), vectors.norm(dim=1))
    ]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1]) if len(points) > 2 else 0.0
