"""Losses for points without normals, or sign: the field vanishes on the points and nowhere else, and its gradient has length 1.

That leaves the sign of every place open. What makes it spread from where it is known is a term on second derivatives, or on heat;
these were raced (`assets/results/points.md`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.losses import Objective
from nstr3d.types import Samples

ON, EIKONAL, AWAY = 30.0, 0.5, 1.0  # weights on the points, of the gradient's length, and off the points
SHARPNESS = 100.0  # per unit of the box: how near to zero the field may be off the points
FADING = (0.2, 0.5)  # progress between which a term on second derivatives fades: it smooths what is to be fine in the end
Term = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What spreads the sign: points ``(n, 3)``, values ``(n,)`` and gradients ``(n, 3)`` off the points -> ``(n,)``."""


def unsigned_objective(term: Term, weight: float) -> Objective:
    """For batches whose values are 0 on the points and their unsigned distances elsewhere; ``term`` fades with progress.

    The field must be differentiable twice in the points: a SIREN is, a grid is not.
    """

    def loss(field: Field, batch: Samples, progress: float) -> Tensor:
        on = batch.values[:, 0] == 0
        points = batch.points.detach().requires_grad_(True)
        value = field(points)[:, 0]
        slope = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
        length = slope.norm(dim=1)
        fixed = ON * value[on].abs().mean() + EIKONAL * (length - 1).abs().mean()
        fixed = fixed + AWAY * (-SHARPNESS * value[~on].abs()).exp().mean()
        share = weight * min(max((FADING[1] - progress) / (FADING[1] - FADING[0]), 0.0), 1.0)
        return fixed + share * term(points, value, slope)[~on].mean() if share else fixed

    return loss


def directional_divergence(points: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """How much the gradient's length changes along it: StEik (Yang et al., Stabilizing the eikonal equation for neural implicit
    shape representations, 2023)."""
    along = torch.autograd.grad((slope * slope.detach()).sum(), points, create_graph=True)[0]
    return ((along * slope).sum(dim=1) / (slope.detach().square().sum(dim=1) + 1e-6)).abs()


def divergence(points: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """The Laplacian: DiGS (Ben-Shabat et al., DiGS: divergence guided shape implicit neural representation, 2022)."""
    return _hessian(points, slope).diagonal(dim1=1, dim2=2).sum(dim=1).abs()


def singular_hessian(points: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """The determinant of the Hessian, which is 0 for a distance (Wang et al., Neural-singular-Hessian, 2023)."""
    return _hessian(points, slope).det().abs().clamp_max(1e4)


def heat_objective(weight: float = 0.2, coldest: float = 4.0, hottest: float = 40.0) -> Objective:
    """Heat that the points give off fades with distance; minimal energy keeps the field from vanishing elsewhere: HotSpot
    (Wang et al., HotSpot: signed distance function optimization with an asymptotically sufficient condition, 2025). The rate
    rises from ``coldest`` to ``hottest`` per unit of the box."""

    def loss(field: Field, batch: Samples, progress: float) -> Tensor:
        on = batch.values[:, 0] == 0
        points = batch.points.detach().requires_grad_(True)
        value = field(points)[:, 0]
        slope = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
        rate = coldest * (hottest / coldest) ** progress
        energy = (-2 * rate * value[~on].abs()).exp() * (slope[~on].square().sum(dim=1) + 1)
        straight = EIKONAL * (slope.norm(dim=1) - 1).square().mean()
        return ON * value[on].abs().mean() + straight + weight * rate / 8 * energy.mean()

    return loss


def _hessian(points: Tensor, slope: Tensor) -> Tensor:
    columns = [torch.autograd.grad(slope[:, axis].sum(), points, create_graph=True)[0] for axis in range(3)]
    return torch.stack(columns, dim=1)
