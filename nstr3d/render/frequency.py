"""The local frequency of a phase field as a colour of the surface."""

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
    """Mean length ``(n,)`` of the local frequencies omega_k + grad phi_k at ``points (n, 3)``.

    The points are in world units. The mean is weighted by |A_k|, in radians per unit length of the
    unit box. It is 0 where no wave has an amplitude. Raises ValueError if the field has no phase
    waves.
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
    """The 2nd and 98th percentile of `mean_frequency` near the surface.

    Of SAMPLES random points in the bounds, the NEAREST points closest to the surface are used.
    """
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
    """An albedo for `render.shading.Studio` that shows the local frequency.

    It maps world points ``(n, 3)`` to linear RGB ``(n, 3)``: dark violet for the lowest and yellow
    for the highest local frequencies near the surface. Raises ValueError if the field has no phase
    waves.
    """
    low, high = frequency_range(fit)
    return lambda points: colour_map((mean_frequency(fit, points) - low) / (high - low)) ** GAMMA
