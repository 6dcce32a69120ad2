"""The report of the flow job, and the stages that shapes and signals share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.messages import Message
from nstr3d.jobs.publishing import check_output
from nstr3d.jobs.stages import Listener, machine, slowness
from nstr3d.jobs.walk import Run, Stages
from nstr3d.render.colours import coloured
from nstr3d.spectrum.analysis import Analysis
from nstr3d.spectrum.flow import Streamlines
from nstr3d.spectrum.reading import LocalSpectrum, Reading, has_phases
from nstr3d.training.fit import Fit

CHUNK = 1 << 14  # points whose spectrum is read at once


class FlowStages(Stages):
    """The stages of a `FlowJob` that shapes and signals have in common."""

    def __init__(self, job: FlowJob, model: Fit, listener: Listener | None):
        super().__init__(Run(listener), job.folder)
        self.job, self.model = job, model

    def check(self, publishing: bool = False) -> None:
        check_output(self.job.folder, self.names, self.job.overwrite)

    def read(self) -> None:
        """Warns if numba is missing. Raises ValueError if the job reads phase waves and the field
        has none."""
        job, field = self.job, self.model.field
        if job.phases and not has_phases(field):
            raise ValueError(
                Message(
                    "{} is a {} field without phase waves: it has no spectrum of its own; leave "
                    "out <phases>.",
                    job.path,
                    type(field).__name__,
                )
            )
        self.run.warn(slowness())

    def report(self, found: dict[str, Any]) -> dict[str, Any]:
        """The report: the entries ``found`` and those that all flow jobs have."""
        return {
            "model": str(self.job.path),
            "field": type(self.model.field).__name__,
            **found,
            "seconds": self.run.seconds,
            "machine": machine(),
            "seed": self.job.seed,
        }


def read(reading: Reading, points: Tensor) -> LocalSpectrum:
    """The ``reading`` at ``points (n, d)``, computed in chunks to bound the memory."""
    parts = [reading(part) for part in points.split(CHUNK)]
    return LocalSpectrum(
        torch.cat([p.frequency for p in parts]), torch.cat([p.power for p in parts])
    )


def colours_of(
    values: np.ndarray, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Colours ``(n, 3)`` in [0, 1] of ``values (n,)``, on a scale from ``low`` to ``high``; the
    defaults are the 2nd and the 98th percentile."""
    quantiles = np.quantile(values, [0.02, 0.98])
    ends = (
        float(quantiles[0]) if low is None else low,
        float(quantiles[1]) if high is None else high,
    )
    return coloured(values[None].astype(np.float64), *ends)[0].clip(0, 1)


def summarise(spectrum: LocalSpectrum, vectors: Tensor, scale: float) -> dict[str, Any]:
    """Statistics of the local frequencies ``vectors (n, d)`` and of the local ``spectrum``.

    Both are given in radians per box unit. ``scale`` is the length of a box unit in world units
    (samples, for a signal). Frequencies are returned in radians per world unit, the entropy in
    nats.
    """
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


def quantiles(values: Tensor) -> dict[str, float]:
    """The 5th, 50th and 95th percentile and the mean of ``values (n,)``."""
    low, middle, high = np.quantile(values.double().numpy(), [0.05, 0.5, 0.95]).tolist()
    return {"p5": low, "median": middle, "p95": high, "mean": float(values.mean())}


def about_lines(flow: Streamlines) -> dict[str, Any]:
    """The number of lines and of their points, and the median length in box units."""
    along = flow.lines.along()[flow.lines.starts[1:] - 1]
    return {
        "count": len(flow.lines),
        "points": len(flow.lines.points),
        "median_length_box": float(np.median(along)),
    }


def about_segments(labels: np.ndarray, centroid: np.ndarray) -> list[dict[str, float]]:
    """For each label, its fraction of ``labels (n,)`` and the median of its ``centroid (n,)``."""
    names = np.unique(labels)
    return [
        {
            "share": float((labels == n).mean()),
            "median_frequency": float(np.median(centroid[labels == n])),
        }
        for n in names
    ]


def about_analysis(analysis: Analysis) -> dict[str, Any]:
    """The size of the analysis spectrum, and the fraction of the detail's energy it explains."""
    config = analysis.config
    return {
        "explained": analysis.explained,
        "detail_rms_box": analysis.detail,
        "waves": sum(level.config.features for level in analysis.field.spectra),
        "cells": config.cells,
        "highest_box": config.highest,
        "parameters": analysis.field.parameter_count,
    }
