"""The loss of points without normals: the field is 0 on them and nowhere else, its gradient has
length 1, and its sign spreads.

Without the last, either sign fits anywhere. What spreads it is that a distance does not bend along
its gradient: the directional divergence of StEik (Yang et al., StEik: stabilizing the optimization
of neural signed distance functions and finer shape representation, 2023), which won a race of four
(`assets/results/points.md`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.training.losses import Objective
from nstr3d.types import Samples

# weights on the points, of the gradient's length, and off the points
ON, EIKONAL, AWAY = 30.0, 0.5, 1.0
SHARPNESS = 100.0  # per unit of the box: how near to zero the field may be off the points
# progress between which the spreading term fades: it smooths what is to be fine in the end
FADING = 0.2, 0.5
Term = Callable[[Tensor, Tensor], Tensor]
"""What spreads the sign: points ``(n, 3)`` and the field's gradients there ``(n, 3)`` -> penalty
``(n,)``."""


def unsigned_objective(term: Term, weight: float) -> Objective:
    """For batches whose values are 0 on the points and their unsigned distances elsewhere; ``term``
    counts there, and fades.

    The field must be differentiable twice in the points: a SIREN is, a grid is not.
    """

    def loss(field: Field, batch: Samples, progress: float) -> Tensor:
        on = batch.values[:, 0] == 0
        points = batch.points.detach().requires_grad_(True)
        value = field(points)[:, 0]
        slope = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
        fixed = ON * value[on].abs().mean() + EIKONAL * (slope.norm(dim=1) - 1).abs().mean()
        fixed = fixed + AWAY * (-SHARPNESS * value[~on].abs()).exp().mean()
        share = weight * min(max((FADING[1] - progress) / (FADING[1] - FADING[0]), 0.0), 1.0)
        return fixed + share * term(points, slope)[~on].mean() if share else fixed

    return loss


def directional_divergence(points: Tensor, slope: Tensor) -> Tensor:
    """The second derivative ``(n,)``, without its sign, of a field along its gradient ``slope (n,
    3)`` at ``points (n, 3)``."""
    along = torch.autograd.grad((slope * slope.detach()).sum(), points, create_graph=True)[0]
    return ((along * slope).sum(dim=1) / (slope.detach().square().sum(dim=1) + 1e-6)).abs()
