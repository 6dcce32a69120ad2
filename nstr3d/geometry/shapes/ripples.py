"""Waves whose local frequency is known in closed form.

A `Chirp` is a phase with rising or falling frequency; `drifting_ripple` is a ball with such a
relief.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.geometry.shapes.combinators import displace
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.geometry.shapes.vectors import require_positive
from nstr3d.sdf import Sdf


@dataclass(frozen=True)
class Ripple:
    """A shape with relief of known spectrum.

    ``sdf`` is the shape. ``phase`` maps points ``(n, 3)`` to the phase ``(n,)`` in radians.
    ``frequency`` maps points to the gradient ``(n, 3)`` of the phase, the local frequency in
    radians per world unit.
    """

    sdf: Sdf
    phase: Callable[[Tensor], Tensor]
    frequency: Callable[[Tensor], Tensor]


def drifting_ripple(
    radius: float = 1.0, amplitude: float = 0.03, slow: float = 7.0, fast: float = 28.0
) -> Ripple:
    """A ball with sinusoidal relief whose frequency changes linearly along x.

    The frequency goes from ``slow`` at ``x = -radius`` to ``fast`` at ``x = radius``, both in
    radians per world unit; by default it grows by a factor of four. A fixed Fourier basis needs
    every frequency everywhere to represent this relief; a spatially varying spectrum needs one
    frequency at each point. Raises ``ValueError`` if an argument is not positive and finite.
    """
    require_positive(radius=radius, amplitude=amplitude, slow=slow, fast=fast)
    drift = Chirp(-radius, radius, slow, fast)

    def phase(points: Tensor) -> Tensor:
        return drift.phase(points[:, 0])

    def frequency(points: Tensor) -> Tensor:
        along = drift.frequency(points[:, 0])
        return torch.stack([along, torch.zeros_like(along), torch.zeros_like(along)], dim=-1)

    def relief(points: Tensor) -> Tensor:
        return torch.sin(phase(points))

    return Ripple(displace(sphere(radius), relief, amplitude, max(slow, fast)), phase, frequency)


@dataclass(frozen=True)
class Chirp:
    """A phase whose frequency goes linearly from ``slow`` at ``start`` to ``fast`` at ``end``.

    Before ``start`` and beyond ``end`` the frequency is constant. Frequencies are in radians per
    unit. Raises ``ValueError`` if a frequency is not positive and finite, or unless
    ``start < end``.
    """

    start: float
    end: float
    slow: float
    fast: float

    def __post_init__(self) -> None:
        require_positive(slow=self.slow, fast=self.fast)
        if not self.start < self.end:
            raise ValueError(
                f"a chirp must end after it starts, not go from {self.start} to {self.end}"
            )

    def phase(self, along: Tensor) -> Tensor:
        """The phase ``(n,)`` in radians at positions ``along (n,)``.

        It is continuously differentiable and zero at ``start``.
        """
        within = along.clamp(self.start, self.end)
        travelled = within - self.start
        rate = (self.fast - self.slow) / (self.end - self.start)
        return (
            self.slow * travelled
            + rate / 2 * travelled.square()
            + self.frequency(along) * (along - within)
        )

    def frequency(self, along: Tensor) -> Tensor:
        """The derivative ``(n,)`` of the phase at positions ``along (n,)``, in radians per unit."""
        fraction = (along.clamp(self.start, self.end) - self.start) / (self.end - self.start)
        return self.slow + (self.fast - self.slow) * fraction
