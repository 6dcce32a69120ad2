"""The multiresolution hash encoding (Müller et al., 2022, section 3): plain torch, and its fused
CPU path.

Each level is a grid of ``resolution`` cells per axis over [-1, 1]^d whose nodes share a table. A
node has an entry of its own if the table is large enough, else the entry of its hash. A level's
features at a point are interpolated multilinearly from the corners of the point's cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from nstr3d.kernels.field.interpolate import fused_applies, rows_of

# equation 4; the fourth is of the authors' code
PRIMES = 1, 2_654_435_761, 805_459_861, 3_674_653_429


@dataclass(frozen=True)
class HashGrid:
    """Cells per axis and table entries of each level. The levels' entries follow one another in one
    table."""

    resolutions: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """The first entry of each level."""
        return (0, *accumulate(self.sizes))[:-1]


def hash_encode(points: Tensor, grid: HashGrid, table: Tensor) -> Tensor:
    """Features ``(n, levels * f)`` at ``points (n, d)`` from ``table (entries, f)``.

    The fused form computes them in 3D, in float32, on the CPU, if no gradient in the points is
    wanted.
    """
    if fused_applies(points, table):
        return _FusedHash.apply(points, grid, table)
    return encode(points, grid, table)


def encode(points: Tensor, grid: HashGrid, table: Tensor) -> Tensor:
    """`hash_encode` in plain torch: differentiable to any order in points and table."""
    levels = zip(grid.resolutions, grid.sizes, grid.offsets)
    return torch.cat(
        [
            _level(points, resolution, table[start : start + size])
            for resolution, size, start in levels
        ],
        dim=1,
    )


def _level(points: Tensor, resolution: int, table: Tensor) -> Tensor:
    scaled = (points + 1) * (resolution / 2)
    cell = scaled.detach().floor().clamp(0, resolution - 1)
    offset, low = scaled - cell, cell.long()
    total = points.new_zeros(points.shape[0], table.shape[1])
    for corner in range(2 ** points.shape[1]):
        bits = [corner >> axis & 1 for axis in range(points.shape[1])]
        weight = torch.ones_like(offset[:, 0])
        for axis, bit in enumerate(bits):
            weight = weight * (offset[:, axis] if bit else 1 - offset[:, axis])
        entry = _entry(low + torch.tensor(bits, device=points.device), resolution, len(table))
        total = total + weight[:, None] * rows_of(table, entry)
    return total


def _entry(node: Tensor, resolution: int, size: int) -> Tensor:
    """Table entry ``(n,)`` of each node ``(n, d)``."""
    dim = node.shape[1]
    if (resolution + 1) ** dim <= size:
        return (
            node
            * torch.tensor([(resolution + 1) ** axis for axis in range(dim)], device=node.device)
        ).sum(dim=1)
    mixed = node[:, 0] * PRIMES[0]
    for axis in range(1, dim):
        mixed = mixed ^ (node[:, axis] * PRIMES[axis])
    return (mixed & 0xFFFFFFFF) % size


class _FusedHash(torch.autograd.Function):
    """The numba kernel as an autograd node: gradient in the table only, first order only."""

    @staticmethod
    def forward(ctx, points: Tensor, grid: HashGrid, table: Tensor) -> Tensor:
        from nstr3d.kernels.field.gather import hash_forward

        ctx.save_for_backward(points)
        ctx.grid, ctx.shape = grid, table.shape
        return hash_forward(points, grid.resolutions, grid.sizes, table)

    @staticmethod
    def backward(ctx, grad: Tensor):
        from nstr3d.kernels.field.gather import hash_backward

        (points,) = ctx.saved_tensors
        return (
            None,
            None,
            hash_backward(
                points, ctx.grid.resolutions, ctx.grid.sizes, grad.contiguous(), ctx.shape
            ),
        )
