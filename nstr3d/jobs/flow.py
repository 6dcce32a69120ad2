"""From a model file to what its spectrum looks like: streamlines, segments, a picture and a
report."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.autodiff import gradient
from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io import save_image, save_json, save_lines, save_mesh
from nstr3d.jobs.messages import Message
from nstr3d.jobs.stages import (
    Clock,
    Listener,
    Outcome,
    check_output,
    machine,
    publish,
    slowness,
    tidy,
)
from nstr3d.model.checkpoint import load
from nstr3d.render.colours import GAMMA, colour_map, coloured
from nstr3d.render.drawing import draw_flat, draw_lines
from nstr3d.render.panels import beside, opaque, spectrograms
from nstr3d.render.shading import Studio
from nstr3d.render.traced import RenderConfig, render
from nstr3d.sdf import Sdf
from nstr3d.signals.signal import Signal
from nstr3d.spectrum.analysis import Analysis, AnalysisConfig, analyse
from nstr3d.spectrum.flow import StreamConfig, Streamlines, evenly_spaced, streamlines
from nstr3d.spectrum.gridfield import GridField
from nstr3d.spectrum.reading import (
    LocalSpectrum,
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
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Camera, Lattice, Mesh, Polylines

REPORT = "report.json"
SURFACE_NAMES = (
    "flow.png",
    "residual.png",
    "lines.ply",
    "lines.glb",
    "lines.vtp",
    "lines.json",
    "segments.ply",
    REPORT,
)
SIGNAL_NAMES = ("flow.png", "lines.json", REPORT)
CHUNK = 1 << 14
# points of a surface: analysed, where waves are read, and of slower statistics
SAMPLES, READ, SOME = 24_000, 4000, 1000
RESOLUTION = 128  # of the mesh that is sampled and coloured
OCTAVES = 3
LOWEST = 6.0  # radians per unit length: what is slower is the shape, not its relief
CELLS = 64  # of the grid on which the surface's line field is sampled
TICK = 12  # pixels of a picture from one arrow to the next


@dataclass(frozen=True)
class FlowJob:
    """What to read from a model, and where to put it."""

    path: Path
    """A model that nstr3d saved: of a shape, an image or a sound."""
    out: Path | None = None
    """Folder for the results; flow/ beside the model by default."""
    seeds: int = 1500
    """Lines to try; those that come too near others are left out."""
    separation: float = 0.03
    """How far lines keep apart, where the longest side of the box is 2."""
    length: float = 0.6
    """How far a line is followed to each side, in the same units."""
    segments: int = 4
    """Regions of alike spectrum."""
    phases: bool = False
    """Read a shape's own phase waves instead of what its relief does; the report says how far they
    are apart."""
    highest: float | None = None
    """The highest frequency of that spectrum, in radians per box unit."""
    size: int = 768
    """Width and height of the picture of a shape."""
    resolution: int = RESOLUTION
    """Cells along the longest side of the surface of a shape."""
    samples: int = SAMPLES
    """Points of that surface that are analysed."""
    read: int = READ
    """Points among them where waves are read."""
    seed: int = 0
    """Seed of the lines' starts."""
    overwrite: bool = False
    """Replace results that are already there."""

    def __post_init__(self):
        """Raises ValueError for options out of range."""
        if self.seeds < 1:
            raise ValueError(
                Message(
                    "There are no seeds, so there is no line to follow; <seeds> is at least 1, not "
                    "{}.",
                    self.seeds,
                )
            )
        if not (self.separation > 0 and self.length > 0 and self.segments >= 1 and self.size >= 16):
            raise ValueError(
                Message(
                    "<separation> and <length> are positive, <segments> at least 1 and <size> at "
                    "least 16."
                )
            )
        if not 1 <= self.read <= self.samples:
            raise ValueError(
                Message(
                    "<read> is 1 to the number of <samples>, {}, not {}.", self.samples, self.read
                )
            )
        if self.highest is not None and not 0 < self.highest < math.inf:
            raise ValueError(
                Message(
                    "<highest> is a positive frequency in radians per box unit, not {}.",
                    self.highest,
                )
            )

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or self.path.parent / "flow"


def run_flow(job: FlowJob, listener: Listener | None = None) -> Outcome:
    """Reads the model, follows its lines and writes the files; raises ValueError for a model
    without a spectrum to read."""
    listener, clock = listener or Listener(), Clock()
    model = load(job.path)
    surface = model.field.in_dim == 3
    names = SURFACE_NAMES if surface else SIGNAL_NAMES
    check_output(job.folder, names, job.overwrite)
    if surface and model.steps == 0:
        raise ValueError(f"{job.path} was not trained, so its waves mean nothing; fit it first.")
    if job.phases and not has_phases(model.field):
        name = type(model.field).__name__
        raise ValueError(
            Message(
                "{} is a {} field without phase waves: it has no spectrum of its own; leave out "
                "<phases>.",
                job.path,
                name,
            )
        )
    for warning in slowness():
        listener.warn(warning)
    with tidy(job.folder), publish(job.folder) as folder:
        found = (
            _surface(job, model, folder, clock, listener)
            if surface
            else _signal(job, model, folder, clock, listener)
        )
        report = {
            "model": str(job.path),
            "field": type(model.field).__name__,
            **found,
            "seconds": clock.seconds | {"total": clock.total},
            "machine": machine(torch.device("cpu")),
            "seed": job.seed,
        }
        save_json(folder / REPORT, report)
    return Outcome(report, tuple(job.folder / name for name in names))


def _surface(
    job: FlowJob, model: Fit, folder: Path, clock: Clock, listener: Listener
) -> dict[str, Any]:
    sdf, generator = model.sdf(), np.random.default_rng([job.seed, 1])
    scale = model.frame.scale
    listener.stage("extract")
    with clock("extract"):
        mesh = extract_mesh(sdf, job.resolution)
        unit = Mesh(model.frame.to_unit(mesh.vertices), mesh.faces)
        samples = sample_surface(unit, job.samples, generator)[0]
    listener.stage("analyse")
    with clock("analyse"):
        relief = surface_relief(model.field, samples, generator)
        config = AnalysisConfig(
            _fastest(job, model.field), OCTAVES, LOWEST, degree=0, periods=0.6, iterations=12
        )
        found = relief_waves(relief, config, job.read, generator)
        if job.phases:
            spectrum = _read(lambda at: phase_spectrum(model.field, at), found.points)
            vectors = across(spectrum.vector, found.relief.normals[: len(found.points)])
        else:
            spectrum, vectors = found.spectrum, found.waves.frequency
        known = vectors * found.clear[:, None]
    listener.stage("follow")
    with clock("follow"):
        flow = _surface_lines(
            job, model.field, found.points, known, unit, relief.points[: job.seeds]
        )
    size = (
        spread(found.points, vectors, torch.from_numpy(flow.lines.points).float())
        .norm(dim=1)
        .double()
        .numpy()
        / scale
    )
    lines = Polylines(model.frame.to_world(flow.lines.points), flow.lines.starts, size)
    colours = _colours(size)
    listener.stage("write")
    with clock("write"):
        for suffix in (".ply", ".glb", ".vtp", ".json"):
            save_lines(folder / f"lines{suffix}", lines, colours)
        camera = Camera.around(sdf.bounds, width=job.size, height=job.size)
        picture = draw_lines(
            render(sdf, camera), camera, sdf, lines, colours, max(1.5, job.size / 320)
        )
        save_image(folder / "flow.png", picture)
        save_image(folder / "residual.png", _residual_map(model, sdf, found, camera))
    with clock("segment"):
        labels = segment(spectrum, min(job.segments, len(found.points)))
        corners = labels[nearest(found.points, torch.from_numpy(unit.vertices).float())]
        save_mesh(
            folder / "segments.ply",
            mesh,
            _colours(corners.astype(float), 0, max(1, job.segments - 1)),
        )
    clear = found.clear.numpy()
    return {
        "unit": "radians per world unit",
        "reading": "the model's phases" if job.phases else "the relief's local waves",
        "lines": _about_lines(flow),
        "local_frequency": _summary(spectrum, vectors[clear] if clear.any() else vectors, scale),
        "clear": float(clear.mean()),
        "unexplained": _quantiles(1 - found.waves.share),
        "segments": _about_segments(labels, spectrum.centroid.numpy() / scale),
        "analysis": _about_analysis(found.analysis),
        "agreement": _agreement(model.field, found),
        "spectral_flow": {
            "unit": "nepers per box unit",
            "median": float(_flow_of(model.field, job, found).norm(dim=1).median()),
        },
        "mean_curvature_rank_correlation": _curvature_correlation(
            model.field, found.points[:SOME], vectors[:SOME]
        ),
        "transport_residual": _transport_residual(model.field, found.points[:SOME]),
    }


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
            return colour_map(spread(found.points, residual[:, None], unit.float())[:, 0]) ** GAMMA

        pictures.append(render(sdf, camera, RenderConfig(Studio(albedo=albedo))))
    return beside(pictures)


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


def _surface_lines(
    job: FlowJob, field: Field, places: Tensor, vectors: Tensor, unit: Mesh, seeds: Tensor
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
    field: Field, places: Tensor, vectors: Tensor, bounds: Box
) -> tuple[GridField, Callable[[Tensor], Tensor]]:
    """For `streamlines` on the surface of ``field``: the line field ``vectors (m, 3)``, known at
    ``places (m, 3)`` on it, on a grid over ``bounds``, zero far from the surface; and what puts
    points near the surface back on it."""
    near = 3 * float(bounds.extent.max()) / CELLS

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
        about_surface(lambda points: spread(places, vectors, points)), bounds, CELLS, signed=False
    )
    ways = GridField.sampled(about_surface(steepest), bounds, CELLS)
    return grid, lambda points: (points - field(points) * ways(points)).clamp(-1, 1)


def _signal(
    job: FlowJob, model: Fit, folder: Path, clock: Clock, listener: Listener
) -> dict[str, Any]:
    lattice = Lattice(tuple(round(length) for length in model.bounds.upper))
    values = Signal(model.field, lattice).raster()
    grey = values[..., : min(3, values.shape[-1])].mean(axis=-1)
    places = torch.from_numpy(lattice.points(np.arange(lattice.size))).float()
    listener.stage("analyse")
    with clock("analyse"):
        highest = job.highest or _highest(grey, lattice)
        flat = torch.from_numpy(np.ascontiguousarray(grey)).float().reshape(-1, 1)
        analysis = analyse(
            places,
            flat,
            AnalysisConfig(highest, 4 if grey.ndim == 2 else 6, degree=0, iterations=12),
        )
    about = {
        "unit": "radians per sample",
        "analysis": _about_analysis(analysis),
        "highest": highest / lattice.frame.scale,
    }
    draw = _picture if grey.ndim == 2 else _ridge
    listener.stage("follow")
    with clock("follow"):
        return about | draw(job, analysis, lattice, values, folder)


def _picture(
    job: FlowJob, analysis: Analysis, lattice: Lattice, values: np.ndarray, folder: Path
) -> dict[str, Any]:
    """Arrows and lines of the local frequency over a picture."""
    scale, generator = lattice.frame.scale, np.random.default_rng([job.seed, 1])
    half = np.array(lattice.shape) / 2 / scale
    box = Box(tuple((-half).tolist()), tuple(half.tolist()))
    rows, columns = (np.arange(TICK / 2, length, TICK) for length in lattice.shape)
    middles = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    at = torch.from_numpy(lattice.frame.to_unit(middles)).float()
    spectrum = _read(analysis.spectrum, at)
    vectors = analysis.frequency(at)
    vector = vectors.double().numpy()
    size = np.linalg.norm(vector, axis=1)
    loud = spectrum.energy.numpy() > 0.02 * float(spectrum.energy.mean())
    way = vector[loud] / np.maximum(size[loud, None], 1e-30) * TICK * 0.4
    ends = np.stack([middles[loud] - way, middles[loud] + way], axis=1).reshape(-1, 2)
    arrows = Polylines(ends[:, ::-1], np.arange(0, len(ends) + 1, 2))
    seeds = torch.from_numpy(generator.uniform(box.lower, box.upper, (job.seeds, 2))).float()
    field = GridField.sampled(
        analysis.frequency, box, min(96, 3 * analysis.config.cells[0]), signed=False
    )
    config = StreamConfig(
        job.length, 2 / scale, 0.05 / scale, 400, 1e-3 * float(field.table.norm(dim=1).max())
    )
    flow = evenly_spaced(
        streamlines(field, seeds, box, config, signed=False), job.separation, 2 * job.separation
    )
    along = field(torch.from_numpy(flow.lines.points).float()).norm(dim=1).double().numpy()
    world = Polylines(lattice.frame.to_world(flow.lines.points), flow.lines.starts, along / scale)
    save_lines(folder / "lines.json", world, _colours(along))
    base = np.ascontiguousarray(opaque(values) * 0.6 + 0.2)
    drawn = [
        draw_flat(base, arrows, _colours(size[loud]).repeat(2, axis=0)),
        draw_flat(base, Polylines(world.points[:, ::-1], world.starts), _colours(along)),
    ]
    save_image(folder / "flow.png", beside(drawn))
    labels = segment(spectrum, min(job.segments, len(at)))
    about = {
        "lines": _about_lines(flow),
        "local_frequency": _summary(spectrum, vectors[torch.from_numpy(loud)], scale),
    }
    return about | {"segments": _about_segments(labels, spectrum.centroid.numpy() / scale)}


def _ridge(
    job: FlowJob, analysis: Analysis, lattice: Lattice, values: np.ndarray, folder: Path
) -> dict[str, Any]:
    """The local frequency over the spectrogram, where the sound is not silent."""
    scale, length = lattice.frame.scale, lattice.shape[0]
    moments = np.linspace(0.5, length - 0.5, min(length, 2000))
    at = torch.from_numpy(lattice.frame.to_unit(moments[:, None])).float()
    spectrum = _read(analysis.spectrum, at)
    vectors = analysis.frequency(at)
    frequency = vectors.abs()[:, 0].double().numpy() / scale
    loud = spectrum.energy.numpy() > 1e-4 * float(spectrum.energy.max())
    picture = spectrograms([values])
    points = np.stack(
        [moments / length * picture.shape[1], (1 - frequency / math.pi) * picture.shape[0]], axis=1
    )[loud]
    gaps = np.flatnonzero(np.diff(np.flatnonzero(loud)) > 1) + 1
    starts = np.concatenate([[0], gaps, [len(points)]])
    white = np.ones((len(points), 3))
    save_image(folder / "flow.png", draw_flat(picture, Polylines(points, starts), white))
    ridge = Polylines(np.stack([moments, frequency], axis=1)[loud], starts)
    save_lines(folder / "lines.json", ridge)
    labels = segment(spectrum, min(job.segments, len(at)))
    about = {
        "local_frequency": _summary(spectrum, vectors[torch.from_numpy(loud)], scale),
        "segments": _about_segments(labels, spectrum.centroid.numpy() / scale),
    }
    return about | {"ridge": {"axes": ["sample", "radians per sample"], "moments": int(loud.sum())}}


def _highest(grey: np.ndarray, lattice: Lattice) -> float:
    """The frequency below which 99.9% of the samples' energy lies, but for the mean, in radians per
    box unit; of pictures at most 250, above which the least squares would take minutes."""
    energy = np.abs(np.fft.fftn(grey - grey.mean())) ** 2
    grids = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n) for n in grey.shape], indexing="ij")
    size = np.sqrt(sum(np.square(g) for g in grids)).ravel()
    order = np.argsort(size)
    total = np.cumsum(energy.ravel()[order])
    if not total[-1] > 0:
        raise ValueError("The signal is constant, so it has no spectrum to follow.")
    found = (
        float(size[order][np.searchsorted(total, 0.999 * total[-1])]) * lattice.frame.scale * 1.2
    )
    return max(20.0, min(found, 250.0 if grey.ndim == 2 else math.inf))


def _read(reading: Reading, points: Tensor) -> LocalSpectrum:
    parts = [reading(part) for part in points.split(CHUNK)]
    return LocalSpectrum(
        torch.cat([p.frequency for p in parts]), torch.cat([p.power for p in parts])
    )


def _colours(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    quantiles = np.quantile(values, [0.02, 0.98])
    ends = (
        float(quantiles[0]) if low is None else low,
        float(quantiles[1]) if high is None else high,
    )
    return coloured(values[None].astype(np.float64), *ends)[0].clip(0, 1)


def _summary(spectrum: LocalSpectrum, vectors: Tensor, scale: float) -> dict[str, Any]:
    """Median and quantiles of the readings; lengths per ``scale`` box units."""
    low, middle, high = np.quantile(
        vectors.norm(dim=1).double().numpy() / scale, [0.05, 0.5, 0.95]
    ).tolist()
    others = {
        name: float(getattr(spectrum, name).median()) / scale for name in ("centroid", "bandwidth")
    }
    return {
        "p5": low,
        "median": middle,
        "p95": high,
        **others,
        "entropy_nats": float(spectrum.entropy.median()),
    }


def _quantiles(values: Tensor) -> dict[str, float]:
    low, middle, high = np.quantile(values.double().numpy(), [0.05, 0.5, 0.95]).tolist()
    return {"p5": low, "median": middle, "p95": high, "mean": float(values.mean())}


def _about_lines(flow: Streamlines) -> dict[str, Any]:
    along = flow.lines.along()[flow.lines.starts[1:] - 1]
    return {
        "count": len(flow.lines),
        "points": len(flow.lines.points),
        "median_length_box": float(np.median(along)),
    }


def _about_segments(labels: np.ndarray, centroid: np.ndarray) -> list[dict[str, float]]:
    names = np.unique(labels)
    return [
        {
            "share": float((labels == n).mean()),
            "median_frequency": float(np.median(centroid[labels == n])),
        }
        for n in names
    ]


def _about_analysis(analysis: Analysis) -> dict[str, Any]:
    config = analysis.config
    return {
        "explained": analysis.explained,
        "detail_rms_box": analysis.detail,
        "waves": sum(level.config.features for level in analysis.field.spectra),
        "cells": config.cells,
        "highest_box": config.highest,
        "parameters": analysis.field.parameter_count,
    }


def _agreement(field: Field, found: ReliefWaves) -> dict[str, float] | None:
    """How far the model's own reading is from the relief's waves, where it has one: medians."""
    if not has_phases(field) or not found.clear.any():
        return None
    at, normals = found.points[found.clear], found.relief.normals[: len(found.points)][found.clear]
    own = across(_read(lambda places: phase_spectrum(field, places), at).vector, normals)
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
