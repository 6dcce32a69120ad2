"""Global sinusoids whose spectrum varies in space: the three forms of ``S_k(x) sin(omega_k . x +
b_k)``.

Each form is a frozen config and knows how many spectrum channels a wave takes and how they make a
feature. Frequencies are in radians per unit length of the unit box. A band is given in units of the
level's node Nyquist frequency pi / h = pi R / 2.
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
    """``A_k(x) sin(omega_k . x + b_k)``: the paper's form. Linear in the spectrum; cannot move a
    frequency."""

    count: int
    band: tuple[float, float] = (0.0, 1.0)
    learned: bool = False
    channels_per_wave = 1
    kind = AMPLITUDE

    def __post_init__(self):
        _check(self.count, self.band)

    def initial(self, nodes: int, generator: torch.Generator | None) -> Tensor:
        """Starting spectrum ``(nodes, channels)``."""
        return torch.randn(nodes, self.count, generator=generator) * 0.1

    def features(self, spectrum: Tensor, phase: Tensor) -> Tensor:
        """Features ``(n, count)`` from the local spectrum and the waves' carrier phase omega . x +
        b ``(n, count)``."""
        return spectrum * torch.sin(phase)


@dataclass(frozen=True)
class ComplexWaves:
    """``Re S_k(x) sin(omega_k . x + b_k) + Im S_k(x) cos(...)``: waves in quadrature. Linear in the
    spectrum."""

    count: int
    band: tuple[float, float] = (0.0, 1.0)
    learned: bool = False
    channels_per_wave = 2
    kind = COMPLEX

    def __post_init__(self):
        _check(self.count, self.band)

    def initial(self, nodes: int, generator: torch.Generator | None) -> Tensor:
        """Starting spectrum ``(nodes, 2 count)``: real parts, then imaginary parts."""
        return torch.randn(nodes, 2 * self.count, generator=generator) * 0.1

    def features(self, spectrum: Tensor, phase: Tensor) -> Tensor:
        """Features ``(n, count)``."""
        real, imaginary = spectrum.split(self.count, dim=1)
        return real * torch.sin(phase) + imaginary * torch.cos(phase)


@dataclass(frozen=True)
class PhaseWaves:
    """``A_k(x) sin(omega_k . x + b_k + phi_k(x))``: the phase field moves the local frequency to
    omega_k + grad phi_k.

    The table holds phi in units of ``radians`` so that one learning rate serves amplitudes and
    phases.
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
        """Starting spectrum ``(nodes, 2 count)``: random amplitudes, then zero phases."""
        amplitude = torch.randn(nodes, self.count, generator=generator) * 0.1
        return torch.cat([amplitude, torch.zeros(nodes, self.count)], dim=1)

    def features(self, spectrum: Tensor, phase: Tensor) -> Tensor:
        """Features ``(n, count)``."""
        amplitude, shift = spectrum.split(self.count, dim=1)
        return amplitude * torch.sin(torch.add(phase, shift, alpha=self.radians))


def _check(count: int, band: tuple[float, float]) -> None:
    if count < 1:
        raise ValueError(
            f"A set of waves needs a count of at least 1, not {count}; for a level without waves "
            "leave them out."
        )
    if not 0 <= band[0] <= band[1] < math.inf:
        raise ValueError(
            "A band is (low, high) with 0 <= low <= high, in units of the node Nyquist "
            f"frequency, not {band}."
        )


def draw_frequencies(
    count: int,
    dim: int,
    band: tuple[float, float],
    resolution: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Frequencies ``(count, dim)`` with random directions and |omega| uniform in the band, and
    random phases ``(count,)``.

    In one dimension, where directions are no help, they are a ladder: evenly spaced in the band.
    """
    low, high = (share * math.pi * resolution / 2 for share in band)
    if dim == 1:
        ladder = low + (high - low) * (torch.arange(count) + 0.5) / count
        return ladder[:, None], 2 * math.pi * torch.rand(count, generator=generator)
    direction = torch.randn(count, dim, generator=generator)
    length = low + (high - low) * torch.rand(count, 1, generator=generator)
    omega = direction / direction.norm(dim=1, keepdim=True) * length
    return omega, 2 * math.pi * torch.rand(count, generator=generator)
