"""The analysis spectrum: complex waves fitted by least squares to the detail of any field.

The spectrum is a linear NSTR field. It reads fields that have no spectrum of their own, and checks
the spectrum of fields that have one. The detail of a field is its difference from a fitted
polynomial of low degree. On a surface the detail is the relief, which is analysed in a narrow band
about the surface. The frequencies of the waves fill a half ball, on a grid with overlapping
windows, so the spectrum can have any local frequency up to the ball's radius.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.waves import ComplexWaves
from nstr3d.spectrum.reading import TINY, LocalSpectrum, complex_spectrum, complex_waves
from nstr3d.training.fit import FitConfig
from nstr3d.training.losses import ValueObjective
from nstr3d.training.solve import least_squares
from nstr3d.types import Samples

CHUNK = 1 << 13
NEIGHBOURS = 16  # points of a cell over which a reading is averaged
COARSE_SAMPLES = 20_000  # samples to which the coarse polynomial is fitted, about


@dataclass(frozen=True)
class AnalysisConfig:
    """The frequencies of an analysis spectrum and the settings of its least squares.

    ``highest`` is the highest local frequency, in radians per unit length of the unit box. Each of
    the ``octaves`` below it has a level; the last level also has all lower frequencies. Waves below
    ``lowest`` help the fit but are not read. ``degree`` is that of the polynomial that is
    subtracted as the coarse part. ``ridge`` and ``iterations`` are those of the least squares.

    A level's cells hold ``periods`` wavelengths of the lowest frequency of its octave. With much
    less than a half, a window cannot tell a frequency from its negative. ``spacing`` of a level's
    frequencies is in units of 2 pi over a window's width, which is two cells. Below 1, windows and
    waves can represent anything in the band.

    Raises ValueError if a value is out of range.
    """

    highest: float = 40.0
    octaves: int = 2
    lowest: float = 0.0
    degree: int = 4
    periods: float = 0.75
    spacing: float = 0.85
    ridge: float = 3e-2
    iterations: int = 20

    def __post_init__(self):
        if (
            self.octaves < 1
            or self.iterations < 1
            or self.degree < 0
            or not 0 <= self.lowest < self.highest < math.inf
        ):
            raise ValueError(
                "An analysis needs octaves and iterations of at least 1, degree of 0 or more, and "
                "lowest < highest."
            )
        if not 0 < self.spacing <= 1 or not self.periods > 0:
            raise ValueError("An analysis needs a spacing in (0, 1] and positive periods per cell.")

    @property
    def cells(self) -> tuple[int, ...]:
        """Cells per axis of each level, finest first."""
        edges = [self.highest / 2 ** (octave + 1) for octave in range(self.octaves)]
        return tuple(max(1, round(2 * edge / (2 * math.pi * self.periods))) for edge in edges)

    def frequencies(self, dim: int) -> list[Tensor]:
        """The frequencies ``(k, dim)`` of each level, points of a cubic lattice.

        They fill half of a spherical shell, and in the last level half of a ball. No frequency is
        the negative of another.
        """
        lattices = []
        for octave, cells in enumerate(self.cells):
            high = self.highest / 2**octave
            gap = self.spacing * math.pi * cells / 2
            reach = math.ceil(high / gap)
            whole = np.arange(-reach, reach + 1)
            grid = np.meshgrid(*[whole] * (dim - 1), np.arange(reach + 1) + 0.5, indexing="ij")
            omega = np.stack(grid, axis=-1).reshape(-1, dim) * gap
            length = np.linalg.norm(omega, axis=1)
            # Half a step is added to the band at its fast end, so that the levels' bands have no
            # gap between them.
            within = length <= max(high + gap / 2, gap) * (1 + 1e-9)
            if octave + 1 < self.octaves:
                within &= length >= high / 2
            lattices.append(torch.from_numpy(omega[within].astype(np.float32)))
        return lattices


@dataclass(frozen=True)
class Analysis:
    """A fitted analysis spectrum.

    ``field`` is the linear field of the detail. ``explained`` is the fraction of the detail's
    energy that the field explains at the fitted samples (1 is all). ``detail`` is the root mean
    square of the detail.
    """

    config: AnalysisConfig
    field: Nstr
    explained: float
    detail: float

    def spectrum(self, points: Tensor) -> LocalSpectrum:
        """The waves at ``points (n, d)``; waves below ``config.lowest`` have no power."""
        whole = complex_spectrum(self.field, points)
        if not self.config.lowest:
            return whole
        return LocalSpectrum(
            whole.frequency, whole.power * (whole.frequency.norm(dim=2) >= self.config.lowest)
        )

    def frequency(self, points: Tensor) -> Tensor:
        """The local frequency ``(n, d)`` at ``points (n, d)``, a line field.

        It is ``sum |z|^2 grad arg z / sum |z|^2`` over the cell about each point. z is the analytic
        signal: the sum of the waves, each turned towards the principal axis of the local spectrum.
        Unlike the mean of the waves' frequencies, `LocalSpectrum.vector`, it includes the beating
        of neighbouring waves. A spectrum on a lattice represents frequencies between the lattice
        points by this beating.
        """
        return torch.cat([self._mean_frequency(part) for part in points.split(CHUNK // NEIGHBOURS)])

    def cell(self, points: Tensor) -> Tensor:
        """The size ``(n,)`` of the cells that hold the power at ``points (n, d)``.

        It is the power-weighted geometric mean over the levels.
        """
        power = self.spectrum(points).power
        sizes = [
            torch.full((level.config.features,), math.log(2 / level.config.resolution))
            for level in self.field.spectra
        ]
        return (power @ torch.cat(sizes) / power.sum(dim=1).clamp_min(TINY)).exp()

    def _mean_frequency(self, points: Tensor) -> Tensor:
        dim = points.shape[1]
        # Every point has the same Sobol points of its cell: an even cover without a generator.
        places = torch.quasirandom.SobolEngine(dim).draw(NEIGHBOURS + 1)[1:].to(points) - 0.5
        around = (
            (points[:, None] + places * self.cell(points)[:, None, None])
            .clamp(-1, 1)
            .reshape(-1, dim)
        )
        current, energy, vector = self._analytic(around)
        current, vector = (
            values.reshape(len(points), NEIGHBOURS, dim) for values in (current, vector)
        )
        energy = energy.reshape(len(points), NEIGHBOURS, 1)
        # Signs within a cell follow the principal axis of the cell.
        _, axes = torch.linalg.eigh(torch.einsum("nqi,nqj->nij", energy * vector, vector).double())
        against = (vector * axes[:, None, :, -1].to(vector)).sum(dim=2, keepdim=True) < 0
        return torch.where(against, -current, current).sum(dim=1) / energy.sum(dim=1).clamp_min(
            TINY
        )

    def _analytic(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``Im(conj(z) grad z)`` ``(n, d)``, ``|z|^2`` ``(n,)``, the mean frequency ``(n, d)``."""
        with torch.no_grad():
            local = self.spectrum(points)
            signs = (local.signs * (local.power > 0)).to(points)
            signal, slope = (
                torch.zeros(len(points), dtype=torch.complex64),
                torch.zeros_like(points, dtype=torch.complex64),
            )
            first = 0
            for omega, phase, value, gradient in complex_waves(self.field, points):
                turn = torch.polar(torch.ones_like(value.real), points @ omega.T + phase)
                wave, steep = (
                    value * turn,
                    (gradient + 1j * omega * value[:, :, None]) * turn[:, :, None],
                )
                sign = signs[:, first : first + len(omega)]
                first += len(omega)
                # Im(w) = Im(-conj(w)): the wave of the negative frequency has the same signal.
                signal = signal + (
                    wave.real * sign.abs() * torch.where(sign < 0, -1.0, 1.0)
                    + 1j * wave.imag * sign.abs()
                ).sum(1)
                real = steep.real * sign[:, :, None]
                slope = slope + (real + 1j * steep.imag * sign.abs()[:, :, None]).sum(1)
            return (signal.conj()[:, None] * slope).imag, signal.abs().square(), local.vector


def analyse(
    points: Tensor, values: Tensor, config: AnalysisConfig, sparse: bool = True
) -> Analysis:
    """Fit an analysis spectrum to ``values (n, 1)`` at ``points (n, d)`` of the unit box.

    ``sparse`` stores only the cells that hold points. Raises ValueError if the shapes do not fit,
    there are fewer than two points, a point or value is not finite, or the values have no detail,
    so that a polynomial of ``config.degree`` represents them.
    """
    if len(points) < 2 or values.shape != (len(points), 1):
        raise ValueError(
            f"An analysis needs points (n, d) and values (n, 1), not {tuple(points.shape)} and "
            f"{tuple(values.shape)}."
        )
    if not (torch.isfinite(points).all() and torch.isfinite(values).all()):
        raise ValueError(
            "The samples to analyse hold values that are not finite; the field was not fitted, or "
            "its training diverged."
        )
    detail = values - coarse(points, values, config.degree)
    size = float(detail.square().mean().sqrt())
    if size <= 1e-6 * float(values.abs().max()) + 1e-12:
        raise ValueError(
            "There is no detail to analyse: the coarse polynomial already represents the values; "
            "analyse values with finer detail."
        )
    dim, omegas = points.shape[1], config.frequencies(points.shape[1])
    levels = [
        LevelConfig(n, waves=ComplexWaves(len(omega)), sparse=sparse)
        for n, omega in zip(config.cells, omegas)
    ]
    field = NstrConfig(tuple(levels), hidden=0).build(dim, 1, points.numpy())
    for level, omega in zip(field.spectra, omegas):
        level.omega.copy_(omega)
    data = Samples(points.float(), (detail / size).float())
    training = FitConfig(steps=config.iterations, batch=1, pool=1)
    for _ in least_squares(config.ridge, len(points))(field, data, ValueObjective(), training):
        pass
    with torch.no_grad():
        residual = torch.cat(
            [field(x) - y for x, y in zip(data.points.split(1 << 16), data.values.split(1 << 16))]
        )
        for level in field.spectra:
            level.table.mul_(size)
    return Analysis(config, field, 1 - float(residual.square().mean()), size)


def coarse(points: Tensor, values: Tensor, degree: int) -> Tensor:
    """Values ``(n, 1)`` of the least-squares polynomial of total ``degree`` at ``points (n, d)``.

    The polynomial is fitted to ``values (n, 1)`` at the same points.
    """
    return polynomial(points, values, degree)(points)


def polynomial(points: Tensor, values: Tensor, degree: int) -> Callable[[Tensor], Tensor]:
    """The least-squares polynomial of total ``degree`` through ``values (n, 1)``.

    The values are at ``points (n, d)`` of the unit box. The result maps points ``(m, d)`` to values
    ``(m, 1)``. From twice COARSE_SAMPLES points on, the fit uses every second, third, ... point.
    """
    apart = max(1, len(points) // COARSE_SAMPLES)
    few = _monomials(points[::apart].double(), degree)
    weights = torch.linalg.lstsq(few, values[::apart].double(), driver="gelsd").solution

    def at(places: Tensor) -> Tensor:
        return torch.cat(
            [_monomials(part.double(), degree) @ weights for part in places.split(1 << 16)]
        ).to(values)

    return at


def _monomials(points: Tensor, degree: int) -> Tensor:
    """Products ``(n, m)`` of Chebyshev polynomials of ``points (n, d)`` up to total ``degree``."""
    dim = points.shape[1]
    single = torch.cos(torch.arange(degree + 1)[:, None, None] * torch.arccos(points.clamp(-1, 1)))
    columns = [
        torch.stack([single[order, :, axis] for axis, order in enumerate(orders)]).prod(dim=0)
        for orders in itertools.product(range(degree + 1), repeat=dim)
        if sum(orders) <= degree
    ]
    return torch.stack(columns, dim=1)
