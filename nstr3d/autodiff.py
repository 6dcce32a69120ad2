"""Spatial derivatives of fields: the one place that calls autograd on points."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

_LEVEL = threading.RLock()  # torch has one forward-mode level for all threads


def gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Gradient ``(n, d)`` of a scalar ``function``, ``(n, d) -> (n,)`` or ``(n, 1)``: one reverse
    pass, detached."""
    with torch.enable_grad():
        at = points.detach().requires_grad_(True)
        return torch.autograd.grad(function(at).sum(), at)[0]


def jacobian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Jacobian ``(n, c, d)`` of ``function (n, d) -> (n, c)``: d forward-mode tangents,
    differentiable in the parameters.

    Forward mode costs d passes whatever c is; reverse mode would need c of them. Threads take
    turns.
    """
    columns = []
    for axis in range(points.shape[1]):
        tangent = torch.zeros_like(points)
        tangent[:, axis] = 1.0
        with _LEVEL, dual_level():
            column = unpack_dual(function(make_dual(points, tangent))).tangent
        columns.append(torch.zeros_like(function(points)) if column is None else column)
    return torch.stack(columns, dim=-1)
