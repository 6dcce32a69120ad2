"""Spatial derivatives of fields: the one place that calls autograd on points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Gradient ``(n, d)`` of a scalar ``function``, ``(n, d) -> (n,)`` or ``(n, 1)``: one reverse pass, detached."""
    with torch.enable_grad():
        at = points.detach().requires_grad_(True)
        return torch.autograd.grad(function(at).sum(), at)[0]


def jacobian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Jacobian ``(n, c, d)`` of ``function (n, d) -> (n, c)``: d forward-mode tangents, differentiable in the parameters.

    Forward mode costs d passes whatever c is; reverse mode would need c of them.
    """
    columns = []
    for axis in range(points.shape[1]):
        tangent = torch.zeros_like(points)
        tangent[:, axis] = 1.0
        columns.append(torch.func.jvp(function, (points,), (tangent,))[1])
    return torch.stack(columns, dim=-1)
