"""Readings of a fitted NSTR field: its waves at a point, their power, and how they vary in space.

A wave k of a phase field is ``A_k(x) sin(theta_k(x))`` with
``theta_k = omega_k . x + b_k + phi_k(x)``. A complex wave is
``Im(S_k(x) exp(i (omega_k . x + b_k)))``. The **local frequency** of a wave is the gradient of its
phase, ``k_k = omega_k + grad phi_k`` or ``omega_k + grad arg S_k``. Its **power** is ``A_k^2`` or
``|S_k|^2``. Frequencies are in radians per unit length of the unit box.

The **spectral flow** is ``v(x) = grad log kappa(x)``, with the centroid
``kappa = sum_k p_k |k_k| / sum_k p_k``. It is the direction in which spectral energy moves to
higher frequencies fastest as x moves, in nepers per unit length (divide by log 2 for octaves). It
is measured by differences over a stated distance. It has a sign, unlike the local frequency. It
does not give the direction of the waves, which may run across it. It is no motion in time, since
the signal is static.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.waves import ComplexWaves, PhaseWaves
from nstr3d.system import Message

TINY = 1e-30


@dataclass(frozen=True)
class LocalSpectrum:
    """The waves at n points: local ``frequency (n, waves, d)`` and ``power (n, waves)``.

    Frequencies are in radians per unit length. Signals are real, so the frequency of a wave is
    known up to its sign: k and -k are the same wave.
    """

    frequency: Tensor
    power: Tensor

    @property
    def energy(self) -> Tensor:
        """The total power ``(n,)`` of the waves."""
        return self.power.sum(dim=1)

    @property
    def tensor(self) -> Tensor:
        """The structure tensor ``sum_k p_k k_k k_k^T / sum_k p_k`` ``(n, d, d)``.

        It does not depend on the signs of the frequencies, so it can be averaged.
        """
        weighted = self._fractions[:, :, None] * self.frequency
        return torch.einsum("nki,nkj->nij", weighted, self.frequency)

    @property
    def axis(self) -> Tensor:
        """The unit principal axis ``(n, d)`` of the tensor, up to its sign.

        It is the line along which the waves oscillate most.
        """
        return torch.linalg.eigh(self.tensor.double())[1][:, :, -1].to(self.frequency)

    @property
    def vector(self) -> Tensor:
        """The local frequency ``(n, d)``: the power-weighted mean of ``s_k k_k``.

        The signs s_k turn every wave towards the principal axis. The result is a line field,
        defined up to one sign per point, and it is zero without power.
        """
        signed = self.frequency * self.signs[:, :, None]
        return torch.einsum("nk,nki->ni", self._fractions, signed)

    @property
    def signs(self) -> Tensor:
        """Signs ``(n, waves)``: +1 along the principal axis and -1 against it."""
        along = torch.einsum("nki,ni->nk", self.frequency, self.axis)
        return torch.where(along < 0, -1.0, 1.0).to(self.frequency)

    @property
    def centroid(self) -> Tensor:
        """The power-weighted mean ``(n,)`` of ``|k_k|``; zero without power."""
        return (self._fractions * self.frequency.norm(dim=2)).sum(dim=1)

    @property
    def bandwidth(self) -> Tensor:
        """The power-weighted standard deviation ``(n,)`` of ``s_k k_k`` about `vector`.

        It is zero if there is one wave.
        """
        signed = self.frequency * self.signs[:, :, None]
        mean = torch.einsum("nk,nki->ni", self._fractions, signed)
        spread = (signed - mean[:, None]).square().sum(dim=2)
        return (self._fractions * spread).sum(dim=1).sqrt()

    @property
    def entropy(self) -> Tensor:
        """The Shannon entropy ``(n,)`` of the fractions of power, in nats.

        It is 0 for one wave and log K for K equal waves.
        """
        return torch.special.entr(self._fractions).sum(dim=1)

    @property
    def _fractions(self) -> Tensor:
        return self.power / self.energy.clamp_min(TINY)[:, None]


Reading = Callable[[Tensor], LocalSpectrum]


def phase_spectrum(field: Field, points: Tensor) -> LocalSpectrum:
    """The local spectrum of a phase field's waves at ``points (n, d)`` in the unit box.

    Raises ValueError if the field has no phase spectrum, as a baseline or an NSTR field of other
    waves.
    """
    with torch.no_grad():
        frequency, amplitude = _nstr(field).local_frequency(points)
    return LocalSpectrum(frequency, amplitude.square())


def complex_spectrum(field: Field, points: Tensor) -> LocalSpectrum:
    """The local spectrum of a field's complex waves at ``points (n, d)`` in the unit box.

    The local frequency is ``k_k = omega_k + Im(conj(S_k) grad S_k) / |S_k|^2``. Raises ValueError
    if the field has no complex waves.
    """
    frequencies, powers = [], []
    with torch.no_grad():
        for omega, _, value, slope in complex_waves(field, points):
            power = value.abs().square()
            turn = (value.conj()[:, :, None] * slope).imag / power.clamp_min(TINY)[:, :, None]
            frequencies.append(omega + turn)
            powers.append(power)
    return LocalSpectrum(torch.cat(frequencies, dim=1), torch.cat(powers, dim=1))


def complex_waves(field: Field, points: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The complex waves of each level that has them, at ``points (n, d)``.

    They are omega ``(k, d)``, phase ``(k,)``, and the complex S ``(n, k)`` and its gradient
    ``(n, k, d)``. Raises ValueError if the field has no complex waves.
    """
    found = []
    for level in _nstr(field).spectra:
        waves = level.config.waves
        if isinstance(waves, ComplexWaves):
            value, slope = level.spectrum_and_slope(points)
            real = slice(level.config.plain, level.config.plain + waves.count)
            imaginary = slice(real.stop, None)
            spectrum = torch.complex(value[:, real], value[:, imaginary])
            found.append(
                (
                    level.omega,
                    level.phase,
                    spectrum,
                    torch.complex(slope[:, real], slope[:, imaginary]),
                )
            )
    if not found:
        raise ValueError("This field has no complex waves to read; fit an analysis spectrum to it.")
    return found


def has_phases(field: Field) -> bool:
    """Whether `phase_spectrum` can read ``field``."""
    return isinstance(field, Nstr) and any(
        isinstance(level.config.waves, PhaseWaves) for level in field.spectra
    )


def spectral_flow(reading: Reading, points: Tensor, distance: float) -> Tensor:
    """The spectral flow ``v = grad log kappa`` ``(n, d)`` at ``points (n, d)``.

    It is in nepers per unit length; the module's docstring defines it. It is measured by central
    differences of the centroid over ``distance`` to each side, which should be about a cell of the
    spectrum. The displaced points are clamped to the unit box. The flow is zero along an axis where
    a displaced point has no power. Raises ValueError if the distance is not positive.
    """
    if not distance > 0:
        raise ValueError(f"Spectral flow is measured over a positive distance, not {distance}.")
    slopes = []
    for axis in range(points.shape[1]):
        ends = []
        for side in (-1, 1):
            moved = points.clone()
            moved[:, axis] = (moved[:, axis] + side * distance).clamp(-1, 1)
            ends.append((moved[:, axis], reading(moved).centroid))
        (low, before), (high, after) = ends
        known = (before > 0) & (after > 0)
        ratio = torch.where(known, after / before.clamp_min(TINY), 1.0)
        slopes.append(ratio.log() / (high - low))
    return torch.stack(slopes, dim=1)


@dataclass(frozen=True)
class TransportMap:
    """The transport law and the measured slope of the spectrum, per cell of each level.

    ``law`` is F(x, S) and ``slope`` is h dS/dx, both ``(n, channels, d)``. ``residual (n,)`` is
    ``|slope - law|^2`` over the points' mean ``|slope|^2``.
    """

    law: Tensor
    slope: Tensor
    residual: Tensor


def transport_map(field: Field, points: Tensor) -> TransportMap:
    """The transport F, the measured dS/dx and their residual at ``points (n, d)``.

    Raises ValueError if the field is no NSTR field, or was fitted without a transport network.
    """
    nstr = _nstr(field)
    if nstr.transport is None:
        raise ValueError(
            Message(
                "This field was built without a transport network; fit it with a positive "
                "<transport>."
            )
        )
    with torch.no_grad():
        spectrum, slope = nstr.spectrum(points)
        law = nstr.transport(points, spectrum)
        size = slope.square().sum(dim=(1, 2)).mean().clamp_min(TINY)
        return TransportMap(law, slope, (slope - law).square().sum(dim=(1, 2)) / size)


def transport_residuals(field: Field, points: Tensor, chunk: int) -> Tensor:
    """The `TransportMap.residual` ``(n,)`` at ``points (n, d)``, over the mean of all points.

    ``chunk`` points are read at a time, which bounds the memory and does not change the result.
    Raises ValueError like `transport_map`.
    """
    errors, sizes = [], []
    for part in points.split(chunk):
        here = transport_map(field, part)
        errors.append((here.slope - here.law).square().sum(dim=(1, 2)))
        sizes.append(here.slope.square().sum(dim=(1, 2)))
    return torch.cat(errors) / torch.cat(sizes).mean().clamp_min(TINY)


def _nstr(field: Field) -> Nstr:
    if not isinstance(field, Nstr):
        name = type(field).__name__
        raise ValueError(
            f"A {name} field has no spectrum that varies in space; fit an analysis spectrum to "
            "its values instead."
        )
    return field


def difference(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """The difference of two line fields ``(n, d)``, ``found`` from ``expected``.

    It is the relative error of the length ``(n,)``, and the angle ``(n,)`` in degrees.
    """
    size = expected.norm(dim=1).clamp_min(TINY)
    cosine = (found * expected).sum(dim=1).abs() / (size * found.norm(dim=1).clamp_min(TINY))
    return (found.norm(dim=1) - size).abs() / size, torch.rad2deg(torch.arccos(cosine.clamp(max=1)))


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's rank correlation of two sequences ``(n,)``. Equal values have equal ranks.

    It is None where it is not defined: for fewer than 3 values, and if all values of one sequence
    are equal.
    """
    from scipy.stats import spearmanr

    pair = first.double().numpy(), second.double().numpy()
    if len(first) < 3 or not all(np.ptp(values) for values in pair):
        return None
    result: Any = spearmanr(*pair)  # the stub does not know its attributes
    return float(result.statistic)
