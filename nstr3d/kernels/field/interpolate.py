"""Multilinear interpolation on a sparse node grid: the gather that dominates training, and its
fused CPU path.

A level of the spectrum is a regular grid of ``resolution`` cells per axis over [-1, 1]^d. ``rows``
maps each of its ``(resolution + 1)^d`` nodes (last axis fastest) to a row of ``table (m, c)``, or
to -1 where no node is stored; such a node counts as zero. ``interpolate`` is the plain-torch form:
differentiable to any order in points and table. Where only the table's gradient is asked for, on
the CPU in float32, the fused form (numba) gives the same values faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from nstr3d.kernels.available import numba_found

# whether the fused kernels are left out: of a thread, so that others keep them
_PLAIN: ContextVar[bool] = ContextVar("_PLAIN", default=False)


def corners(points: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """The cell of every point: flat index of its lowest node ``(n,)`` int64 and the offset within
    it ``(n, d)`` in [0, 1].

    Points outside the box belong to the nearest cell, with an offset outside [0, 1]: interpolation
    becomes extrapolation.
    """
    scaled = (points + 1) * (resolution / 2)
    cell = scaled.detach().floor().clamp(0, resolution - 1)
    index = torch.zeros_like(cell[:, 0], dtype=torch.int64)
    for axis in range(points.shape[1]):
        index = index * (resolution + 1) + cell[:, axis].long()
    return index, scaled - cell


def corner_offsets(dim: int, resolution: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """The 2^d corners of a cell as bits per axis, and how far each lies from the lowest node in
    flat index."""
    strides = [(resolution + 1) ** (dim - 1 - axis) for axis in range(dim)]
    bits = [tuple((k >> (dim - 1 - axis)) & 1 for axis in range(dim)) for k in range(2**dim)]
    return bits, [sum(b * s for b, s in zip(corner, strides)) for corner in bits]


def interpolate(points: Tensor, rows: Tensor, resolution: int, table: Tensor) -> Tensor:
    """Values ``(n, c)`` at ``points (n, d)``: the weighted sum over the 2^d corners, differentiable
    to any order."""
    index, offset = corners(points, resolution)
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    total = None
    for bits, step in zip(*corner_offsets(points.shape[1], resolution)):
        weight = torch.ones_like(offset[:, 0])
        for axis, bit in enumerate(bits):
            weight = weight * (offset[:, axis] if bit else 1 - offset[:, axis])
        term = weight[:, None] * rows_of(padded, rows[index + step])
        total = term if total is None else total + term
    assert total is not None
    return total


def interpolate_with_slope(
    points: Tensor, rows: Tensor, resolution: int, table: Tensor
) -> tuple[Tensor, Tensor]:
    """Values ``(n, c)`` and slopes d value / d x ``(n, c, d)`` from one gather, both in closed form
    and linear in the table."""
    index, offset = corners(points, resolution)
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    dim = points.shape[1]
    value = points.new_zeros(len(points), table.shape[1])
    slope = points.new_zeros(len(points), table.shape[1], dim)
    for bits, step in zip(*corner_offsets(dim, resolution)):
        factors = [offset[:, axis] if bit else 1 - offset[:, axis] for axis, bit in enumerate(bits)]
        content = rows_of(padded, rows[index + step])
        value = value + _product(factors, points)[:, None] * content
        gradient = [
            _product(factors[:axis] + factors[axis + 1 :], points)
            * (resolution / 2 if bits[axis] else -resolution / 2)
            for axis in range(dim)
        ]
        slope = slope + content[:, :, None] * torch.stack(gradient, dim=-1)[:, None, :]
    return value, slope


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """``table[rows]``, -1 being the last row. As an embedding: its gradient sums in a fixed order,
    an indexed one's does not."""
    return torch.nn.functional.embedding(rows.long() % len(table), table)


def _product(factors: list[Tensor], like: Tensor) -> Tensor:
    result = torch.ones_like(like[:, 0])
    for factor in factors:
        result = result * factor
    return result


def gather(points: Tensor, rows: Tensor, resolution: int, table: Tensor) -> Tensor:
    """`interpolate`, through the fused CPU kernel where it applies: values wanted, no derivative in
    the points."""
    if fused_applies(points, table):
        return _FusedGather.apply(points, rows, resolution, table)
    return interpolate(points, rows, resolution, table)


def fused_applies(points: Tensor, table: Tensor) -> bool:
    """Whether the fused CPU kernels may answer: 3D, float32, on the CPU, and nobody differentiates
    in the points, maps over them (their tensors are no arrays then), or traces the computation to
    export it."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    fits = (
        points.shape[1] == 3
        and points.dtype == table.dtype == torch.float32
        and points.device.type == "cpu"
    )
    return fits and not differentiated(points) and kernels_found()


def kernels_found() -> bool:
    """Whether there are kernels for the CPU: numba is installed, and nobody asked for plain
    torch."""
    return not _PLAIN.get() and numba_found()


def plain_wanted() -> bool:
    """Whether somebody asked for plain torch."""
    return _PLAIN.get()


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within it no fused kernel answers the calling thread: for comparisons."""
    before = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(before)


def differentiated(points: Tensor) -> bool:
    """Whether somebody differentiates in ``points``, backwards or in forward mode."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(points).tangent is not None:
        return True
    return points.requires_grad and torch.is_grad_enabled()


class _FusedGather(torch.autograd.Function):
    """The numba kernel as an autograd node: gradient in the table only, first order only (`gather`
    guards that)."""

    @staticmethod
    def forward(ctx, points: Tensor, rows: Tensor, resolution: int, table: Tensor) -> Tensor:
        from nstr3d.kernels.field.gather import gather_forward

        ctx.save_for_backward(points, rows)
        ctx.resolution, ctx.shape = resolution, table.shape
        return gather_forward(points, rows, resolution, table)

    @staticmethod
    def backward(ctx, grad: Tensor):
        from nstr3d.kernels.field.gather import gather_backward

        points, rows = ctx.saved_tensors
        return (
            None,
            None,
            None,
            gather_backward(points, rows, ctx.resolution, grad.contiguous(), ctx.shape),
        )
