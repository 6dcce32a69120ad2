"""Images and sounds as fields: a fitted `Signal` to evaluate at any point, and
configs of fields to train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.fields.base import Field, largest
from nstr3d.fields.baselines.fourier import FourierConfig, sized_fourier
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import SirenConfig, sized_siren
from nstr3d.fields.closed.cosines import Cosines
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import AmplitudeWaves
from nstr3d.types import Lattice

CHUNK = 1 << 16


@dataclass(frozen=True)
class Signal:
    """A field over the samples of ``lattice``, evaluated at points in units of samples. Sample
    (i, j) is at (i + 1/2, j + 1/2)."""

    field: Field
    lattice: Lattice

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values ``(n, c)`` float32 at ``points (n, d)`` in units of samples. Raises ValueError for
        points of another dimension, outside the bounds, or not finite."""
        points = np.asarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != len(self.lattice.shape):
            raise ValueError(
                f"Points of this signal have shape (n, {len(self.lattice.shape)}), not "
                f"{points.shape}."
            )
        # NaN fails this test as well
        inside = ((points >= 0) & (points <= self.lattice.bounds.upper)).all(axis=1)
        if not inside.all():
            first, end = points[np.argmin(inside)].tolist(), list(self.lattice.bounds.upper)
            raise ValueError(
                f"{np.count_nonzero(~inside)} of {len(points)} points lie outside, first {first}; "
                f"the signal ends at {end}."
            )
        unit = torch.from_numpy(self.lattice.frame.to_unit(points))
        first = next(self.field.parameters())
        dtype = (
            torch.float64 if isinstance(self.field, Cosines) else first.dtype
        )  # its positions need double precision, its values do not
        with torch.no_grad():
            parts = [
                self.field(part.to(first.device, dtype)).float().cpu() for part in unit.split(CHUNK)
            ]
        return torch.cat(parts).numpy()

    def raster(self, factor: int = 1) -> np.ndarray:
        """Values ``(*shape * factor, c)`` float32 at the sample centres of a lattice that has
        ``factor`` times as many samples along each axis."""
        if isinstance(self.field, Cosines):
            return self.field.raster(factor)
        fine = Lattice(tuple(length * factor for length in self.lattice.shape))
        total = np.empty((fine.size, self.field.out_dim), np.float32)
        for start in range(0, fine.size, CHUNK):
            index = np.arange(start, min(start + CHUNK, fine.size))
            places = np.stack(np.unravel_index(index, fine.shape), axis=-1) + 0.5
            total[index] = self(places / factor)
        return total.reshape(*fine.shape, -1)


def sized_waves(params: int, lattice: Lattice, channels: int, count: int = 42) -> NstrConfig:
    """A config of an NSTR field with at most ``params`` parameters, to train on a signal.

    The field has one level of 4 plain channels and ``count`` waves with frequencies up to half the
    Nyquist frequency of the samples. With ``count`` 0, the control experiment, the level has 8
    plain channels and is finer. Raises ValueError if ``params`` is too small.
    """
    dim, plain = len(lattice.shape), 4 if count else 8

    def template(resolution: int) -> NstrConfig:
        nyquist = max(lattice.shape) / max(resolution, 1)  # of samples, relative to nodes
        waves = (
            AmplitudeWaves(count, band=(0.0, max(1.0, nyquist / 2)), learned=True)
            if count
            else None
        )
        level = LevelConfig(resolution, plain=plain, waves=waves, sparse=False)
        return NstrConfig((level,), table_rate=1e-1, decoder_rate=1e-2, table_decay=0.0, start=None)

    def cost(resolution: int) -> int:
        nodes = (plain + count) * (resolution + 1) ** dim
        return nodes + count * (dim + 1) + (plain + count + 1) * 64 + 65 * channels

    return template(largest(cost, params, 1))


def _sized_siren(params: int, lattice: Lattice, channels: int) -> SirenConfig:
    first = (
        30.0 if len(lattice.shape) == 2 else 3000.0
    )  # a sound has many more oscillations in [-1, 1]
    return replace(
        sized_siren(params, np.zeros((1, len(lattice.shape))), channels), first_omega=first
    )


def _sized_fourier(params: int, lattice: Lattice, channels: int) -> FourierConfig:
    return replace(
        sized_fourier(params, np.zeros((1, len(lattice.shape))), channels),
        deviation=max(lattice.shape) / 50,
    )


def _sized_ngp(params: int, lattice: Lattice, channels: int) -> NgpConfig:
    finest = max(16, max(lattice.shape) // 2)
    levels = max(2, min(16, round(math.log(finest / 16, 1.5)) + 1))
    template = NgpConfig(levels=levels, finest=finest)
    return sized_ngp(params, np.zeros((1, len(lattice.shape))), channels, template)


TRAINED: dict[str, Callable[[int, Lattice, int], Any]] = {
    "nstr": sized_waves,
    "siren": _sized_siren,
    "fourier": _sized_fourier,
    "ngp": _sized_ngp,
}
