"""The local frequency of a phase field as a colour: what the spectrum is doing, seen on the
surface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nstr3d.fields.nstr import Nstr
from nstr3d.render.colours import GAMMA, colour_map
from nstr3d.system import Message
from nstr3d.training.fit import Fit

SAMPLES, NEAREST = 1 << 16, 1 << 12


def mean_frequency(fit: Fit, points: Tensor) -> Tensor:
    """Mean length of the local frequencies omega_k + grad phi_k ``(n,)`` at world ``points (n,
    3)``, weighted by |A_k|.

    Radians per unit length of the unit box; 0 where no wave has an amplitude. Raises ValueError for
    a field without phase waves.
    """
    if not isinstance(fit.field, Nstr):
        raise ValueError(
            Message(
                "A {} field has no local frequency; fit one with <field> nstr.",
                type(fit.field).__name__,
            )
        )
    unit = (points - points.new_tensor(fit.frame.centre)) / fit.frame.scale
    with torch.no_grad():
        frequency, amplitude = fit.field.local_frequency(
            unit.clamp(-1, 1).to(next(fit.field.parameters()))
        )
    weight = amplitude.abs()
    return ((frequency.norm(dim=2) * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-9)).to(
        points
    )


def frequency_range(fit: Fit) -> tuple[float, float]:
    """The 2nd and 98th percentile of `mean_frequency` near the surface: among random points in the
    bounds, the nearest few."""
    generator = torch.Generator().manual_seed(0)
    lower, upper = torch.tensor(fit.bounds.lower), torch.tensor(fit.bounds.upper)
    points = lower + (upper - lower) * torch.rand(SAMPLES, 3, generator=generator)
    points = points.to(next(fit.field.parameters()).device)
    with torch.no_grad():
        near = fit.sdf()(points).abs().topk(NEAREST, largest=False).indices
    low, high = (
        mean_frequency(fit, points[near])
        .quantile(torch.tensor([0.02, 0.98], device=points.device))
        .tolist()
    )
    return low, max(high, low + 1e-6)


def frequency_colours(fit: Fit) -> Callable[[Tensor], Tensor]:
    """World points ``(n, 3)`` -> linear RGB ``(n, 3)``, dark violet for the lowest local
    frequencies near the surface, yellow for the highest: an albedo for `render.shading.Studio`.
    Raises ValueError for a field without phase waves."""
    low, high = frequency_range(fit)
    return lambda points: colour_map((mean_frequency(fit, points) - low) / (high - low)) ** GAMMA
