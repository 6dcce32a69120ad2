"""The analysis spectrum: a linear NSTR of complex waves, fitted by least squares to what any field
says.

It reads fields that have no spectrum of their own, and checks those that have. The detail of a
field is what a polynomial of low degree, fitted to it, leaves over: on a surface the relief, in a
narrow band about it. Waves whose frequencies fill a half ball, on a grid with overlapping windows,
can have any local frequency up to the ball's radius.
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
from nstr3d.training.losses import value_objective
from nstr3d.training.solve import least_squares
from nstr3d.types import Samples

CHUNK = 1 << 13
NEIGHBOURS = 16  # places of a cell over which a reading is averaged
COARSE_SAMPLES = 20_000


@dataclass(frozen=True)
class AnalysisConfig:
    """``highest`` local frequency in radians per unit length of the unit box, ``octaves`` below it
    with a level each (the last takes all that is slower), ``degree`` of the polynomial that is
    taken away as coarse, ``ridge`` and ``iterations`` of the least squares. Waves below ``lowest``
    help to fit but are not read.

    A level's cells hold ``periods`` wavelengths of the lowest frequency of its octave: with much
    less than a half, a window cannot tell a frequency from its negative. ``spacing`` of a level's
    frequencies is in units of 2 pi over a window's width, two cells: below 1, windows and waves can
    represent anything in the band.
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
        """Cells per axis of each level, fine to coarse."""
        edges = [self.highest / 2 ** (octave + 1) for octave in range(self.octaves)]
        return tuple(max(1, round(2 * edge / (2 * math.pi * self.periods))) for edge in edges)

    def frequencies(self, dim: int) -> list[Tensor]:
        """Each level's frequencies ``(k, dim)``: a cubic lattice's points in half of a shell, in
        the last of a ball, none of them the negative of another."""
        found = []
        for octave, cells in enumerate(self.cells):
            high = self.highest / 2**octave
            gap = self.spacing * math.pi * cells / 2
            reach = math.ceil(high / gap)
            whole = np.arange(-reach, reach + 1)
            grid = np.meshgrid(*[whole] * (dim - 1), np.arange(reach + 1) + 0.5, indexing="ij")
            omega = np.stack(grid, axis=-1).reshape(-1, dim) * gap
            length = np.linalg.norm(omega, axis=1)
            # A step more than the band at its fast end, so that the levels' bands have no gap
            # between them.
            within = length <= max(high + gap / 2, gap) * (1 + 1e-9)
            if octave + 1 < self.octaves:
                within &= length >= high / 2
            found.append(torch.from_numpy(omega[within].astype(np.float32)))
        return found


@dataclass(frozen=True)
class Analysis:
    """A fitted analysis spectrum: the linear ``field`` of the detail, and the share of the detail's
    energy that it ``explained`` where it was fitted (1 is all). ``detail`` is the detail's root
    mean square."""

    config: AnalysisConfig
    field: Nstr
    explained: float
    detail: float

    def spectrum(self, points: Tensor) -> LocalSpectrum:
        """The waves at ``points (n, d)``; those below the config's ``lowest`` have no power."""
        whole = complex_spectrum(self.field, points)
        if not self.config.lowest:
            return whole
        return LocalSpectrum(
            whole.frequency, whole.power * (whole.frequency.norm(dim=2) >= self.config.lowest)
        )

    def frequency(self, points: Tensor) -> Tensor:
        """The local frequency ``(n, d)``, a line field: ``sum |z|^2 grad arg z / sum |z|^2`` over
        the cell about each point.

        z is the analytic signal, the waves' sum with every wave turned towards the principal axis
        of the local spectrum. Unlike the waves' own mean, `LocalSpectrum.vector`, it counts how
        neighbouring waves beat, which is where a spectrum on a grid keeps what lies between its
        frequencies.
        """
        return torch.cat([self._mean_frequency(part) for part in points.split(CHUNK // NEIGHBOURS)])

    def cell(self, points: Tensor) -> Tensor:
        """The size of the cells that hold the power at ``points (n, d)``, the levels' geometric
        mean ``(n,)``."""
        power = self.spectrum(points).power
        sizes = [
            torch.full((level.config.features,), math.log(2 / level.config.resolution))
            for level in self.field.spectra
        ]
        return (power @ torch.cat(sizes) / power.sum(dim=1).clamp_min(TINY)).exp()

    def _mean_frequency(self, points: Tensor) -> Tensor:
        dim = points.shape[1]
        # The same places of a cell for every point: an even cover of it, without a generator.
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
        # Signs within a cell follow the cell's own principal axis.
        _, axes = torch.linalg.eigh(torch.einsum("nqi,nqj->nij", energy * vector, vector).double())
        against = (vector * axes[:, None, :, -1].to(vector)).sum(dim=2, keepdim=True) < 0
        return torch.where(against, -current, current).sum(dim=1) / energy.sum(dim=1).clamp_min(
            TINY
        )

    def _analytic(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``Im(conj(z) grad z)`` ``(n, d)``, ``|z|^2`` ``(n,)`` and the waves' mean frequency ``(n,
        d)``."""
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
                # Im(w) = Im(-conj(w)): the same signal from the wave that runs the other way.
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
    """Fits an analysis spectrum to ``values (n, 1)`` at ``points (n, d)`` of the unit box.

    ``sparse`` keeps only the cells that hold points. Raises ValueError for values that are not
    finite, for none, and for values without detail: a polynomial of the config's degree says it
    all.
    """
    if len(points) < 2 or values.shape != (len(points), 1):
        raise ValueError(
            f"An analysis needs points (n, d) and values (n, 1), not {tuple(points.shape)} and "
            f"{tuple(values.shape)}."
        )
    if not (torch.isfinite(points).all() and torch.isfinite(values).all()):
        raise ValueError(
            "The samples to analyse hold values that are not finite; the field was not fitted, or "
            "diverged."
        )
    detail = values - coarse(points, values, config.degree)
    size = float(detail.square().mean().sqrt())
    if size <= 1e-6 * float(values.abs().max()) + 1e-12:
        raise ValueError(
            "There is no detail to analyse: a polynomial of the coarse degree already says all of "
            "it."
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
    for _ in least_squares(config.ridge, len(points))(field, data, value_objective(), training):
        pass
    with torch.no_grad():
        left = torch.cat(
            [field(x) - y for x, y in zip(data.points.split(1 << 16), data.values.split(1 << 16))]
        )
        for level in field.spectra:
            level.table.mul_(size)
    return Analysis(config, field, 1 - float(left.square().mean()), size)


def coarse(points: Tensor, values: Tensor, degree: int) -> Tensor:
    """The least-squares polynomial of total ``degree`` through ``values (n, 1)``, at the same
    ``points (n, d)``."""
    return polynomial(points, values, degree)(points)


def polynomial(points: Tensor, values: Tensor, degree: int) -> Callable[[Tensor], Tensor]:
    """The least-squares polynomial of total ``degree`` through ``values (n, 1)`` at ``points (n,
    d)`` of the unit box."""
    apart = max(1, len(points) // COARSE_SAMPLES)
    few = _monomials(points[::apart].double(), degree)
    weights = torch.linalg.lstsq(few, values[::apart].double(), driver="gelsd").solution

    def at(places: Tensor) -> Tensor:
        return torch.cat(
            [_monomials(part.double(), degree) @ weights for part in places.split(1 << 16)]
        ).to(values)

    return at


def _monomials(points: Tensor, degree: int) -> Tensor:
    """Products of Chebyshev polynomials up to the total ``degree`` ``(n, m)``."""
    dim = points.shape[1]
    single = torch.cos(torch.arange(degree + 1)[:, None, None] * torch.arccos(points.clamp(-1, 1)))
    columns = [
        torch.stack([single[order, :, axis] for axis, order in enumerate(orders)]).prod(dim=0)
        for orders in itertools.product(range(degree + 1), repeat=dim)
        if sum(orders) <= degree
    ]
    return torch.stack(columns, dim=1)
