"""The flow job on an image or a sound: streamlines over the image, or the local frequency over the
sound's spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstr3d.io import save_image, save_lines
from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.flowreport import (
    FlowStages,
    about_analysis,
    about_lines,
    about_segments,
    colours_of,
    read,
    summarise,
)
from nstr3d.jobs.walk import REPORT
from nstr3d.render.drawing import draw_flat
from nstr3d.render.labels import titled
from nstr3d.render.panels import SoundAxes, beside, opaque, spectrogram
from nstr3d.signals.signal import Signal
from nstr3d.spectrum.analysis import Analysis, AnalysisConfig, analyse
from nstr3d.spectrum.flow import StreamConfig, streamlines
from nstr3d.spectrum.gridfield import GridField
from nstr3d.spectrum.segments import segment
from nstr3d.spectrum.spacing import evenly_spaced
from nstr3d.types import Box, Lattice, Polylines

TICK = 12  # pixels between neighbouring arrows of an image


@dataclass(frozen=True)
class Drawing:
    """How a spectrum is shown: ``lines`` with ``colours (m, 3)`` of their points, the ``picture``,
    and the report's entries ``about`` it."""

    about: dict[str, Any]
    lines: Polylines
    colours: np.ndarray | None
    picture: np.ndarray


class SignalFlow(FlowStages):
    """The stages of a `FlowJob` on an image or a sound."""

    names = ("flow.png", "lines.json", REPORT)

    def prepare(self) -> None:
        self.lattice = Lattice(tuple(round(length) for length in self.model.bounds.upper))
        self.values = Signal(self.model.field, self.lattice).raster()

    def sample(self) -> None:
        grey = self.values[..., : min(3, self.values.shape[-1])].mean(axis=-1)
        places = self.lattice.points(np.arange(self.lattice.size))
        self.grey, self.places = grey, torch.from_numpy(places).float()

    def fit(self) -> None:
        grey = self.grey
        with self.run.stage("analyse"):
            self.highest = self.job.highest or _highest(grey, self.lattice)
            flat = torch.from_numpy(np.ascontiguousarray(grey)).float().reshape(-1, 1)
            octaves = 4 if grey.ndim == 2 else 6
            config = AnalysisConfig(self.highest, octaves, degree=0, iterations=12)
            self.analysis = analyse(self.places, flat, config)

    def extract(self) -> None:
        draw = _picture if self.grey.ndim == 2 else _ridge
        with self.run.stage("follow"):
            self.drawing = draw(self.job, self.analysis, self.lattice, self.values)

    def measure(self) -> None:
        """Does nothing: the analysis already measures how much of the signal it explains."""

    def publish(self, folder: Path) -> dict[str, Any]:
        save_lines(folder / "lines.json", self.drawing.lines, self.drawing.colours)
        save_image(folder / "flow.png", self.drawing.picture)
        return self.report(
            {
                "unit": "radians per sample",
                "analysis": about_analysis(self.analysis),
                "highest": self.highest / self.lattice.frame.scale,
                **self.drawing.about,
            }
        )


def _picture(job: FlowJob, analysis: Analysis, lattice: Lattice, values: np.ndarray) -> Drawing:
    """Arrows and streamlines of the local frequency over an image."""
    scale, generator = lattice.frame.scale, np.random.default_rng([job.seed, 1])
    half = np.array(lattice.shape) / 2 / scale
    box = Box(tuple((-half).tolist()), tuple(half.tolist()))
    rows, columns = (np.arange(TICK / 2, length, TICK) for length in lattice.shape)
    middles = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    at = torch.from_numpy(lattice.frame.to_unit(middles)).float()
    spectrum = read(analysis.spectrum, at)
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
    base = np.ascontiguousarray(opaque(values) * 0.6 + 0.2)
    drawn = [
        titled(
            draw_flat(base, arrows, colours_of(size[loud]).repeat(2, axis=0)), "local frequency"
        ),
        titled(
            draw_flat(base, Polylines(world.points[:, ::-1], world.starts), colours_of(along)),
            "streamlines",
        ),
    ]
    labels = segment(spectrum, min(job.segments, len(at)))
    about: dict[str, Any] = {
        "lines": about_lines(flow),
        "local_frequency": summarise(spectrum, vectors[torch.from_numpy(loud)], scale),
    }
    about["segments"] = about_segments(labels, spectrum.centroid.numpy() / scale)
    return Drawing(about, world, colours_of(along), beside(drawn))


def _ridge(job: FlowJob, analysis: Analysis, lattice: Lattice, values: np.ndarray) -> Drawing:
    """The local frequency over the spectrogram, wherever the sound is not silent."""
    scale, length = lattice.frame.scale, lattice.shape[0]
    moments = np.linspace(0.5, length - 0.5, min(length, 2000))
    at = torch.from_numpy(lattice.frame.to_unit(moments[:, None])).float()
    spectrum = read(analysis.spectrum, at)
    vectors = analysis.frequency(at)
    frequency = vectors.abs()[:, 0].double().numpy() / scale
    loud = spectrum.energy.numpy() > 1e-4 * float(spectrum.energy.max())
    axes, picture = SoundAxes(length), spectrogram(values)
    rows = axes.row(frequency / (2 * math.pi))
    points = np.stack([moments / length * picture.shape[1], rows], axis=1)[loud]
    gaps = np.flatnonzero(np.diff(np.flatnonzero(loud)) > 1) + 1
    starts = np.concatenate([[0], gaps, [len(points)]])
    white = np.ones((len(points), 3))
    ridge = Polylines(np.stack([moments, frequency], axis=1)[loud], starts)
    labels = segment(spectrum, min(job.segments, len(at)))
    about: dict[str, Any] = {
        "local_frequency": summarise(spectrum, vectors[torch.from_numpy(loud)], scale),
        "segments": about_segments(labels, spectrum.centroid.numpy() / scale),
    }
    about["ridge"] = {"axes": ["sample", "radians per sample"], "moments": int(loud.sum())}
    drawn = draw_flat(picture, Polylines(points, starts), white)
    return Drawing(about, ridge, None, axes.framed(drawn, "local frequency (white) on the sound"))


def _highest(grey: np.ndarray, lattice: Lattice) -> float:
    """The highest frequency to look for, in radians per box unit: at least 20.

    It is 1.2 times the frequency below which 99.9% of the energy of the samples lies, after their
    mean is subtracted. For images it is at most 250, above which the least squares would take
    minutes. Raises ValueError if the signal is constant.
    """
    energy = np.abs(np.fft.fftn(grey - grey.mean())) ** 2
    grids = np.meshgrid(*[2 * np.pi * np.fft.fftfreq(n) for n in grey.shape], indexing="ij")
    size = np.sqrt(sum(np.square(g) for g in grids)).ravel()
    order = np.argsort(size)
    total = np.cumsum(energy.ravel()[order])
    if not total[-1] > 0:
        raise ValueError("The signal is constant, so it has no spectrum to follow.")
    cutoff = (
        float(size[order][np.searchsorted(total, 0.999 * total[-1])]) * lattice.frame.scale * 1.2
    )
    return max(20.0, min(cutoff, 250.0 if grey.ndim == 2 else math.inf))
