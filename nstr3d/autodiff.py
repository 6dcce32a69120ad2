"""Spatial derivatives of functions of points, in reverse and in forward mode."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

_LEVEL = threading.RLock()  # torch has one forward-mode level for all threads


def gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Gradient ``(n, d)`` of a scalar ``function``, ``(n, d) -> (n,)`` or ``(n, 1)``, computed by
    one reverse pass and detached from the graph."""
    with torch.enable_grad():
        at = points.detach().requires_grad_(True)
        return torch.autograd.grad(function(at).sum(), at)[0]


def jacobian(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Jacobian ``(n, c, d)`` of ``function (n, d) -> (n, c)``, differentiable in the parameters.

    Forward mode costs d passes for any c; reverse mode would cost c passes. A lock lets one thread
    at a time use forward mode.
    """
    columns = []
    for axis in range(points.shape[1]):
        tangent = torch.zeros_like(points)
        tangent[:, axis] = 1.0
        with _LEVEL, dual_level():
            column = unpack_dual(function(make_dual(points, tangent))).tangent
        columns.append(torch.zeros_like(function(points)) if column is None else column)
    return torch.stack(columns, dim=-1)
