"""Waves with global frequencies and a spectrum that varies in space: three forms of
``S_k(x) sin(omega_k . x + b_k)``.

Each form is a frozen config. It defines how many spectrum channels a wave has and how the channels
give a feature. Frequencies are in radians per unit length of the unit box. A band is in units of
the Nyquist frequency of the level's nodes, pi / h = pi R / 2, with cell size h and R cells per
axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.kernels.field.layout import AMPLITUDE, COMPLEX, PHASE

Waves = "AmplitudeWaves | ComplexWaves | PhaseWaves"


@dataclass(frozen=True)
class AmplitudeWaves:
    """``A_k(x) sin(omega_k . x + b_k)``, the form in the paper (arXiv 2511.18384).

    The feature is linear in the spectrum. The local frequency of a wave stays at omega_k.
    ``learned`` makes omega_k and b_k trainable. Raises ValueError if ``count`` is less than 1 or
    ``band`` is not (low, high) with 0 <= low <= high < inf.
    """

    count: int
    band: tuple[float, float] = (0.0, 1.0)
    learned: bool = False
    channels_per_wave = 1
    kind = AMPLITUDE

    def __post_init__(self):
        _check(self.count, self.band)

    def initial(self, nodes: int, generator: torch.Generator | None) -> Tensor:
        """The initial spectrum ``(nodes, count)``: random amplitudes."""
        return torch.randn(nodes, self.count, generator=generator) * 0.1

    def features(self, spectrum: Tensor, phase: Tensor) -> Tensor:
        """Features ``(n, count)`` from the local ``spectrum (n, count)`` and the waves' carrier
        phase omega . x + b ``(n, count)``."""
        return spectrum * torch.sin(phase)


@dataclass(frozen=True)
class ComplexWaves:
    """``Re S_k(x) sin(omega_k . x + b_k) + Im S_k(x) cos(omega_k . x + b_k)``: a sine and a cosine
    in quadrature.

    The feature is linear in the spectrum. ``learned`` and the errors are as for `AmplitudeWaves`.
    """

    count: int
    band: tuple[float, float] = (0.0, 1.0)
    learned: bool = False
    channels_per_wave = 2
    kind = COMPLEX

    def __post_init__(self):
        _check(self.count, self.band)

    def initial(self, nodes: int, generator: torch.Generator | None) -> Tensor:
        """The initial spectrum ``(nodes, 2 count)``: random real parts, then random imaginary
        parts."""
        return torch.randn(nodes, 2 * self.count, generator=generator) * 0.1

    def features(self, spectrum: Tensor, phase: Tensor) -> Tensor:
        """Features ``(n, count)`` from the local ``spectrum (n, 2 count)`` and the carrier phase
        ``(n, count)``."""
        real, imaginary = spectrum.split(self.count, dim=1)
        return real * torch.sin(phase) + imaginary * torch.cos(phase)


@dataclass(frozen=True)
class PhaseWaves:
    """``A_k(x) sin(omega_k . x + b_k + phi_k(x))``: the phase field phi_k shifts the local
    frequency to omega_k + grad phi_k.

    The table holds phi in units of ``radians``, so that amplitudes and phases can have the same
    learning rate. ``learned`` and the errors are as for `AmplitudeWaves`.
    """

    count: int
    band: tuple[float, float] = (0.3, 1.0)
    learned: bool = False
    radians: float = 8.0
    channels_per_wave = 2
    kind = PHASE

    def __post_init__(self):
        _check(self.count, self.band)

    def initial(self, nodes: int, generator: torch.Generator | None) -> Tensor:
        """The initial spectrum ``(nodes, 2 count)``: random amplitudes, then zero phases."""
        amplitude = torch.randn(nodes, self.count, generator=generator) * 0.1
        return torch.cat([amplitude, torch.zeros(nodes, self.count)], dim=1)

    def features(self, spectrum: Tensor, phase: Tensor) -> Tensor:
        """Features ``(n, count)`` from the local ``spectrum (n, 2 count)`` and the carrier phase
        ``(n, count)``."""
        amplitude, shift = spectrum.split(self.count, dim=1)
        return amplitude * torch.sin(torch.add(phase, shift, alpha=self.radians))


def _check(count: int, band: tuple[float, float]) -> None:
    if count < 1:
        raise ValueError(
            f"A set of waves needs a count of at least 1, not {count}; for a level without waves, "
            "set waves to None."
        )
    if not 0 <= band[0] <= band[1] < math.inf:
        raise ValueError(
            "A band is (low, high) with 0 <= low <= high, in units of the Nyquist frequency of "
            f"the nodes, not {band}."
        )


def draw_frequencies(
    count: int,
    dim: int,
    band: tuple[float, float],
    resolution: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Random frequencies ``(count, dim)`` and phases ``(count,)`` of waves on a level of
    ``resolution`` cells per axis.

    Frequencies are in radians per unit length, with random directions and |omega| uniform in
    ``band``, which is in units of the nodes' Nyquist frequency. In one dimension the frequencies
    are evenly spaced in the band. Phases are uniform in [0, 2 pi).
    """
    low, high = (edge * math.pi * resolution / 2 for edge in band)
    if dim == 1:
        ladder = low + (high - low) * (torch.arange(count) + 0.5) / count
        return ladder[:, None], 2 * math.pi * torch.rand(count, generator=generator)
    direction = torch.randn(count, dim, generator=generator)
    length = low + (high - low) * torch.rand(count, 1, generator=generator)
    omega = direction / direction.norm(dim=1, keepdim=True) * length
    return omega, 2 * math.pi * torch.rand(count, generator=generator)
