"""Reading a fitted NSTR field: which waves it has at a point, how strong they are, and how that
changes from place to place.

A wave k of a phase field is ``A_k(x) sin(theta_k(x))`` with ``theta_k = omega_k . x + b_k +
phi_k(x)``, a complex one ``Im(S_k(x) exp(i (omega_k . x + b_k)))``. Its **local frequency** is the
gradient of its phase, ``k_k = omega_k + grad phi_k`` or ``omega_k + grad arg S_k``, and its
**power** ``A_k^2`` or ``|S_k|^2``. Frequencies are in radians per unit length of the unit box.

The **spectral flow** is ``v(x) = grad log kappa(x)``, with the centroid ``kappa = sum_k p_k |k_k| /
sum_k p_k``: the direction in which spectral energy moves to higher frequencies fastest as x moves,
in nepers per unit length (divide by log 2 for octaves). It is measured, by differences over a
stated distance. It has a sign, unlike the local frequency; it says nothing about the direction of
the waves, which may run across it, and is no motion in time: the signal stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.waves import ComplexWaves, PhaseWaves
from nstr3d.system import Message

TINY = 1e-30


@dataclass(frozen=True)
class LocalSpectrum:
    """The waves at n points: local ``frequency (n, waves, d)`` in radians per unit length, and
    ``power (n, waves)``.

    Signals are real, so a wave's frequency is known up to its sign only: k and -k are the same
    wave.
    """

    frequency: Tensor
    power: Tensor

    @property
    def energy(self) -> Tensor:
        """The waves' power together ``(n,)``."""
        return self.power.sum(dim=1)

    @property
    def tensor(self) -> Tensor:
        """The structure tensor ``sum_k p_k k_k k_k^T / sum_k p_k`` ``(n, d, d)``: blind to signs,
        so it can be averaged."""
        weighted = self._shares[:, :, None] * self.frequency
        return torch.einsum("nki,nkj->nij", weighted, self.frequency)

    @property
    def axis(self) -> Tensor:
        """Unit principal axis of the tensor ``(n, d)``, up to its sign: the line along which the
        waves oscillate most."""
        return torch.linalg.eigh(self.tensor.double())[1][:, :, -1].to(self.frequency)

    @property
    def vector(self) -> Tensor:
        """The local frequency ``(n, d)``: the power-weighted mean of ``s_k k_k``, with signs s_k
        that turn every wave towards the principal axis. A line field: it is defined up to one sign
        per point, and zero without power."""
        signed = self.frequency * self.signs[:, :, None]
        return torch.einsum("nk,nki->ni", self._shares, signed)

    @property
    def signs(self) -> Tensor:
        """+1 for waves along the principal axis and -1 for those against it ``(n, waves)``."""
        along = torch.einsum("nki,ni->nk", self.frequency, self.axis)
        return torch.where(along < 0, -1.0, 1.0).to(self.frequency)

    @property
    def centroid(self) -> Tensor:
        """The power-weighted mean of ``|k_k|`` ``(n,)``; zero without power."""
        return (self._shares * self.frequency.norm(dim=2)).sum(dim=1)

    @property
    def bandwidth(self) -> Tensor:
        """The power-weighted standard deviation of ``s_k k_k`` about `vector` ``(n,)``: zero where
        there is one wave."""
        signed = self.frequency * self.signs[:, :, None]
        mean = torch.einsum("nk,nki->ni", self._shares, signed)
        spread = (signed - mean[:, None]).square().sum(dim=2)
        return (self._shares * spread).sum(dim=1).sqrt()

    @property
    def entropy(self) -> Tensor:
        """Shannon entropy of the shares of power ``(n,)`` in nats: 0 for one wave, log K for K
        equal ones."""
        return torch.special.entr(self._shares).sum(dim=1)

    @property
    def _shares(self) -> Tensor:
        return self.power / self.energy.clamp_min(TINY)[:, None]


Reading = Callable[[Tensor], LocalSpectrum]


def phase_spectrum(field: Field, points: Tensor) -> LocalSpectrum:
    """The local spectrum of a phase field's waves at ``points (n, d)`` in the unit box.

    Raises ValueError for a field without a phase spectrum: a baseline, or an NSTR field of other
    waves.
    """
    with torch.no_grad():
        frequency, amplitude = _nstr(field).local_frequency(points)
    return LocalSpectrum(frequency, amplitude.square())


def complex_spectrum(field: Field, points: Tensor) -> LocalSpectrum:
    """The local spectrum of complex waves, ``k_k = omega_k + Im(conj(S_k) grad S_k) / |S_k|^2``.

    Raises ValueError for a field without complex waves.
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
    """For each level with complex waves: omega ``(k, d)``, phase ``(k,)``, S ``(n, k)`` and its
    gradient ``(n, k, d)``, complex.

    Raises ValueError for a field without complex waves.
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
    """``v = grad log kappa`` ``(n, d)`` in nepers per unit length, by central differences of the
    centroid over ``distance`` to each side, which should be about a cell of the spectrum; see the
    module's head. Points move no further than the unit box.

    Zero where a neighbour has no power. Raises ValueError for a distance that is not positive.
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
    """What the transport law says and what the spectrum does, per cell of each level: ``law`` F(x,
    S) and ``slope`` h dS/dx, both ``(n, channels, d)``, and ``residual (n,)``, ``|slope - law|^2``
    over the points' mean ``|slope|^2``."""

    law: Tensor
    slope: Tensor
    residual: Tensor


def transport_map(field: Field, points: Tensor) -> TransportMap:
    """The transport vector F, the measured dS/dx and their residual at ``points (n, d)``.

    Raises ValueError for a field that was fitted without a transport network.
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


def _nstr(field: Field) -> Nstr:
    if not isinstance(field, Nstr):
        name = type(field).__name__
        raise ValueError(
            f"A {name} field has no spectrum that varies in space; fit an analysis spectrum to "
            "what it says instead."
        )
    return field


def difference(found: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """How far two line fields ``(n, d)`` are apart: relative error of the length ``(n,)``, and the
    angle ``(n,)`` in degrees."""
    size = expected.norm(dim=1).clamp_min(TINY)
    cosine = (found * expected).sum(dim=1).abs() / (size * found.norm(dim=1).clamp_min(TINY))
    return (found.norm(dim=1) - size).abs() / size, torch.rad2deg(torch.arccos(cosine.clamp(max=1)))
