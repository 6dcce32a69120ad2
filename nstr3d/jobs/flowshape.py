"""The flow job on a shape: streamlines and segments of the spectrum on its surface."""

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
from nstr3d.fields.closed.pyramid import Pyramid
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
from nstr3d.render.camera import Camera
from nstr3d.render.colours import GAMMA, colour_map
from nstr3d.render.drawing import draw_lines
from nstr3d.render.framing import best_view
from nstr3d.render.ground import Ground
from nstr3d.render.labels import scale_bar, titled
from nstr3d.render.panels import beside
from nstr3d.render.shading import Studio
from nstr3d.render.traced import RenderConfig, render
from nstr3d.sdf import Sdf
from nstr3d.spectrum.analysis import AnalysisConfig
from nstr3d.spectrum.flow import StreamConfig, Streamlines, streamlines
from nstr3d.spectrum.gridfield import GridField
from nstr3d.spectrum.reading import (
    Reading,
    difference,
    has_phases,
    phase_spectrum,
    rank_correlation,
    spectral_flow,
    transport_map,
    transport_residuals,
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
from nstr3d.spectrum.spacing import evenly_spaced
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Mesh, Polylines

SOME = 1000  # surface points of the slower statistics
OCTAVES = 3
LOWEST = 6.0  # radians per box unit; slower waves belong to the coarse shape
CELLS = 64  # along the longest side of the grid that samples the surface's line field
LINES = ("lines.ply", "lines.glb", "lines.vtp", "lines.json")


class ShapeFlow(FlowStages):
    """The stages of a `FlowJob` on a shape."""

    names = ("flow.png", "residual.png", *LINES, "segments.ply", REPORT)

    def read(self) -> None:
        if self.model.steps == 0 and not isinstance(self.model.field, Pyramid):
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
            readings = self.readings = relief_waves(relief, config, job.read, generator)
            self.spectrum, self.vectors = readings.spectrum, readings.waves.frequency
            if job.phases:
                normals = relief.normals[: len(readings.points)]
                self.spectrum = read(lambda at: phase_spectrum(field, at), readings.points)
                self.vectors = across(self.spectrum.vector, normals)

    def extract(self) -> None:
        job, readings, frame = self.job, self.readings, self.model.frame
        with self.run.stage("follow"):
            known = self.vectors * readings.clear[:, None]
            seeds = readings.relief.points[: job.seeds]
            self.flow = _surface_lines(
                job, self.model.field, readings.sites, known, self.unit, seeds
            )
        points, starts = self.flow.lines.points, self.flow.lines.starts
        along = spread(readings.sites, self.vectors, torch.from_numpy(points).float())
        size = along.norm(dim=1).double().numpy() / frame.scale
        self.lines = Polylines(frame.to_world(points), starts, size)
        with self.run.clock("segment"):
            self.labels = segment(self.spectrum, min(job.segments, len(readings.points)))

    def measure(self) -> None:
        field, readings, measure = self.model.field, self.readings, self.run.measure
        some, vectors = readings.points[:SOME], self.vectors[:SOME]
        self.agreement = measure("agreement", lambda: _agreement(field, readings))
        self.moving = measure(
            "spectral_flow",
            lambda: float(_flow_of(field, self.job, readings).norm(dim=1).median()),
        )
        self.correlation = measure(
            "mean_curvature_rank_correlation",
            lambda: _curvature_correlation(field, some, vectors),
        )
        self.residual = measure("transport_residual", lambda: _transport_residual(field, some))

    def publish(self, folder: Path) -> dict[str, Any]:
        with self.run.clock("write"):
            self._write(folder)
        scale, readings, vectors = self.model.frame.scale, self.readings, self.vectors
        clear = readings.clear.numpy()
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
                "unexplained": quantiles(1 - readings.waves.share),
                "segments": about_segments(self.labels, self.spectrum.centroid.numpy() / scale),
                "analysis": about_analysis(readings.analysis),
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
        for name in LINES:
            save_lines(folder / name, lines, colours)
        up, size = self.model.up, job.size
        view = best_view(self.mesh, up)
        camera = Camera.around(self.sdf.bounds, *view, width=size, height=size, up=up)
        shape = render(self.sdf, camera, RenderConfig(ground=Ground()))
        picture = draw_lines(shape, camera, self.sdf, lines, colours, max(1.5, size / 320))
        low, high = np.quantile(lines.values, [0.02, 0.98])
        ticks = [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]
        picture = np.concatenate([picture, scale_bar(size, ticks, "rad / unit")], axis=1)
        save_image(folder / "flow.png", titled(picture, "streamlines of the local frequency"))
        save_image(
            folder / "residual.png", _residual_map(self.model, self.sdf, self.readings, camera)
        )
        corners = torch.from_numpy(self.unit.vertices).float()
        labels = self.labels[nearest(self.readings.sites, corners)].astype(float)
        save_mesh(
            folder / "segments.ply", self.mesh, colours_of(labels, 0, max(1, job.segments - 1))
        )


def _residual_map(model: Fit, sdf: Sdf, readings: ReliefWaves, camera: Camera) -> np.ndarray:
    """A picture of the surface, coloured by the fraction of the relief that the local plane wave
    leaves unexplained: dark violet is 0, yellow is 1.

    A field with a transport law has a second picture beside it, coloured by |h dS/dx - F|^2 over
    the mean of |h dS/dx|^2, where h is a cell's width: yellow is 1 or more.
    """
    residuals = {"relief left unexplained": 1 - readings.waves.share}
    if isinstance(model.field, Nstr) and model.field.transport is not None:
        residuals["transport residual"] = transport_residuals(model.field, readings.points, CHUNK)
    pictures = []
    for title, residual in residuals.items():

        def albedo(points: Tensor, residual: Tensor = residual) -> Tensor:
            unit = (points - points.new_tensor(model.frame.centre)) / model.frame.scale
            near = spread(readings.sites, residual[:, None], unit.float())
            return colour_map(near[:, 0]) ** GAMMA

        pictures.append(titled(render(sdf, camera, RenderConfig(Studio(albedo=albedo))), title))
    return beside([*pictures, scale_bar(len(pictures[0]), [(0.0, "0"), (1.0, "1")], "share")])


def _surface_lines(
    job: FlowJob, field: Field, places: Tensor | Sites, vectors: Tensor, unit: Mesh, seeds: Tensor
) -> Streamlines:
    """Evenly spaced streamlines on the surface along the line field ``vectors (m, 3)``, which is
    known at ``places (m, 3)`` on it.

    ``unit`` is the surface in the unit box, ``seeds (k, 3)`` are points on it. Raises ValueError if
    no line is long enough to keep.
    """
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
                "No line is as long as twice the <separation>; lower <separation> or raise <seeds>."
            )
        )
    return flow


def surface_grid(
    field: Field, places: Tensor | Sites, vectors: Tensor, bounds: Box
) -> tuple[GridField, Callable[[Tensor], Tensor]]:
    """A line field on the surface of ``field`` as a grid, and a projection onto the surface, for
    `streamlines`.

    The line field is ``vectors (m, 3)`` at ``places (m, 3)`` on the surface. The grid covers
    ``bounds`` with CELLS cells along the longest side; it is zero farther than three cells from the
    surface. The projection moves points ``(n, 3)`` near the surface onto it.
    """
    sites, near = Sites.of(places), 3 * float(bounds.extent.max()) / CELLS

    def about_surface(vector: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def sampled(points: Tensor) -> Tensor:
            readings = torch.zeros_like(points)
            chosen = (field(points)[:, 0].abs() < near).nonzero()[:, 0]
            if len(chosen):
                readings[chosen] = vector(points[chosen])
            return readings

        return sampled

    def steepest(points: Tensor) -> Tensor:
        with torch.enable_grad():
            slope = gradient(field, points).detach()
        return slope / slope.square().sum(dim=1, keepdim=True).clamp_min(0.05)

    # A step along gradients interpolated from a grid is nearly a Newton step, and needs no
    # derivative of the field.
    grid = GridField.sampled(
        about_surface(lambda points: spread(sites, vectors, points)), bounds, CELLS, signed=False
    )
    ways = GridField.sampled(about_surface(steepest), bounds, CELLS)
    return grid, lambda points: (points - field(points) * ways(points)).clamp(-1, 1)


def _fastest(job: FlowJob, field: Field) -> float:
    """The highest frequency to look for, in radians per box unit.

    The default is 1.2 times the Nyquist frequency of the finest nodes of an NSTR field, limited to
    20 to 60; it is 60 for other fields.
    """
    if job.highest is not None:
        return max(job.highest, 1.01 * LOWEST)
    finest = (
        max(level.config.resolution for level in field.spectra) * math.pi / 2
        if isinstance(field, Nstr)
        else 60.0
    )
    return max(20.0, min(1.2 * finest, 60.0))


def _agreement(field: Field, readings: ReliefWaves) -> dict[str, float] | None:
    """Median differences of the model's phase waves from the relief's clear waves; None if there
    are no phase waves or no clear waves."""
    if not has_phases(field) or not readings.clear.any():
        return None
    at, normals = (
        readings.points[readings.clear],
        readings.relief.normals[: len(readings.points)][readings.clear],
    )
    own = across(read(lambda places: phase_spectrum(field, places), at).vector, normals)
    error, angle = difference(own, readings.waves.frequency[readings.clear])
    return {
        "median_relative_difference": float(error.median()),
        "median_angle_degrees": float(angle.median()),
    }


def _flow_of(field: Field, job: FlowJob, readings: ReliefWaves) -> Tensor:
    reading: Reading = (
        (lambda at: phase_spectrum(field, at)) if job.phases else readings.analysis.spectrum
    )
    return spectral_flow(reading, readings.points[:SOME], 1 / readings.analysis.config.cells[0])


def _transport_residual(field: Field, points: Tensor) -> float | None:
    if not isinstance(field, Nstr) or field.transport is None:
        return None
    return float(transport_map(field, points).residual.mean())


def _curvature_correlation(
    field: Field, points: Tensor, vectors: Tensor, distance: float = 0.02
) -> float | None:
    """Spearman's rank correlation of the lengths of ``vectors (n, 3)`` with |mean curvature|.

    The mean curvature, half the divergence of the normals, is taken at ``points (n, 3)`` in the
    unit box by central differences over ``distance`` to each side. The displaced points are clamped
    to the unit box. The result is None if it is not defined: for fewer than 3 points, and if all
    lengths or all curvatures are equal.
    """
    divergence = torch.zeros(len(points))
    for axis in range(3):
        ends = []
        for side in (-1, 1):
            moved = points.clone()
            moved[:, axis] = (moved[:, axis] + side * distance).clamp(-1, 1)
            normal = torch.nn.functional.normalize(gradient(field, moved), dim=1)
            ends.append((moved[:, axis], normal[:, axis]))
        (low, before), (high, after) = ends
        divergence += (after - before) / (high - low)
    return rank_correlation(divergence.abs(), vectors.norm(dim=1))
