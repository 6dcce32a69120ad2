"""Interpolation on a sparse node grid, and its fused CPU path.

A level of the spectrum is a regular grid of ``resolution`` cells per axis over [-1, 1]^d. Its
values are sums of B-splines of degree 1 (multilinear) or 2 (quadratic, C1). `NodeGrid.rows` maps
each node to a row of ``table (m, c)``, or to -1 for a node that is not stored and counts as zero.
`interpolate` is the form in plain torch, differentiable to any order in points and table. On the
CPU in float32, if only the table's gradient is wanted, the fused form (numba) gives the same
values faster.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from nstr3d.kernels.available import numba_found

# Whether the fused kernels are off. Per thread, so that other threads keep them.
_PLAIN: ContextVar[bool] = ContextVar("_PLAIN", default=False)


def nodes_per_axis(resolution: int, order: int) -> int:
    """The number of nodes of a level along each axis."""
    return resolution + order


class NodeGrid(NamedTuple):
    """The nodes of a level of ``resolution`` cells per axis.

    ``rows ((resolution + order)^d,)`` is int32, last axis fastest. ``order`` is the degree of the
    B-splines. The nodes of degree 1 are the cells' corners; the nodes of degree 2 are the cells'
    centres and one more layer around them.
    """

    rows: Tensor
    resolution: int
    order: int = 1

    @property
    def edge(self) -> int:
        """Nodes per axis."""
        return nodes_per_axis(self.resolution, self.order)


def tap_weights(offset: Tensor, order: int) -> list[Tensor]:
    """Weights of the ``order + 1`` nodes of a cell along an axis, at ``offset`` in [0, 1] within
    the cell: the pieces of the uniform B-spline (de Boor, 1978)."""
    if order == 1:
        return [1 - offset, offset]
    return [0.5 * (1 - offset).square(), 0.5 + offset * (1 - offset), 0.5 * offset.square()]


def tap_slopes(offset: Tensor, order: int) -> list[Tensor]:
    """Derivatives of `tap_weights` in the offset."""
    if order == 1:
        return [-torch.ones_like(offset), torch.ones_like(offset)]
    return [offset - 1, 1 - 2 * offset, offset]


def corners(points: Tensor, grid: NodeGrid) -> tuple[Tensor, Tensor]:
    """Each point's cell: the flat index ``(n,)`` int64 of the cell's lowest node, and the offset
    ``(n, d)`` within the cell in [0, 1].

    A point outside the box belongs to the nearest cell and has an offset outside [0, 1]:
    interpolation becomes extrapolation. A point that is not a number is in the first cell and has
    an offset that is none.
    """
    scaled = (points + 1) * (grid.resolution / 2)
    cell = scaled.detach().floor().nan_to_num(0.0).clamp(0, grid.resolution - 1)
    index = torch.zeros_like(cell[:, 0], dtype=torch.int64)
    for axis in range(points.shape[1]):
        index = index * grid.edge + cell[:, axis].long()
    return index, scaled - cell


def taps(dim: int, grid: NodeGrid) -> Iterator[tuple[tuple[int, ...], int]]:
    """The ``(order + 1)^d`` nodes of a cell: their places along the axes, and their distances in
    flat index from the cell's lowest node."""
    for places in itertools.product(range(grid.order + 1), repeat=dim):
        step = 0
        for place in places:
            step = step * grid.edge + place
        yield places, step


def interpolate(points: Tensor, grid: NodeGrid, table: Tensor) -> Tensor:
    """Values ``(n, c)`` at ``points (n, d)``: the weighted sum over the nodes of each point's cell,
    differentiable to any order."""
    index, offset = corners(points, grid)
    weights = [tap_weights(offset[:, axis], grid.order) for axis in range(points.shape[1])]
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    total = None
    for places, step in taps(points.shape[1], grid):
        weight = _product([weights[axis][place] for axis, place in enumerate(places)], points)
        term = weight[:, None] * rows_of(padded, grid.rows[index + step])
        total = term if total is None else total + term
    assert total is not None
    return total


def interpolate_with_slope(points: Tensor, grid: NodeGrid, table: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(n, c)`` and slopes d value / d x ``(n, c, d)`` from one gather. Both are in closed
    form and linear in the table."""
    index, offset = corners(points, grid)
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    dim, half = points.shape[1], grid.resolution / 2
    weights = [tap_weights(offset[:, axis], grid.order) for axis in range(dim)]
    slopes = [
        [half * each for each in tap_slopes(offset[:, axis], grid.order)] for axis in range(dim)
    ]
    value = points.new_zeros(len(points), table.shape[1])
    slope = points.new_zeros(len(points), table.shape[1], dim)
    for places, step in taps(dim, grid):
        factors = [weights[axis][place] for axis, place in enumerate(places)]
        content = rows_of(padded, grid.rows[index + step])
        value = value + _product(factors, points)[:, None] * content
        gradient = [
            _product(factors[:axis] + factors[axis + 1 :], points) * slopes[axis][places[axis]]
            for axis in range(dim)
        ]
        slope = slope + content[:, :, None] * torch.stack(gradient, dim=-1)[:, None, :]
    return value, slope


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """``table[rows]``, where -1 means the last row. An embedding sums its gradient in a fixed
    order; indexing does not."""
    return torch.nn.functional.embedding(rows.long() % len(table), table)


def _product(factors: list[Tensor], like: Tensor) -> Tensor:
    result = torch.ones_like(like[:, 0])
    for factor in factors:
        result = result * factor
    return result


def gather(points: Tensor, grid: NodeGrid, table: Tensor) -> Tensor:
    """`interpolate`, by the fused CPU kernel if `fused_applies`."""
    if fused_applies(points, table):
        return _FusedGather.apply(points, grid, table)
    return interpolate(points, grid, table)


def spectrum_with_slope(points: Tensor, grid: NodeGrid, table: Tensor) -> tuple[Tensor, Tensor]:
    """`interpolate_with_slope`, by the CPU kernel if `fused_applies` and no gradient is wanted."""
    if (torch.is_grad_enabled() and table.requires_grad) or not fused_applies(points, table):
        return interpolate_with_slope(points, grid, table)
    from nstr3d.kernels.field.gather import gather_with_slope

    return gather_with_slope(points, grid, table)


def fused_applies(points: Tensor, table: Tensor) -> bool:
    """Whether the fused CPU kernels can serve ``points``: 3D, float32, on the CPU, no derivative in
    the points wanted, not inside vmap (whose tensors are no arrays), and not being traced for
    export."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    fits = (
        points.shape[1] == 3
        and points.dtype == table.dtype == torch.float32
        and points.device.type == "cpu"
    )
    return fits and not differentiated(points) and kernels_found()


def kernels_found() -> bool:
    """Whether the CPU kernels are available: numba is installed and `plain_torch` is not active."""
    return not _PLAIN.get() and numba_found()


def plain_wanted() -> bool:
    """Whether `plain_torch` is active."""
    return _PLAIN.get()


@contextmanager
def plain_torch() -> Iterator[None]:
    """A context in which the calling thread uses no fused kernel, for comparisons."""
    before = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(before)


def differentiated(points: Tensor) -> bool:
    """Whether a derivative in ``points`` is wanted, in reverse or forward mode."""
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(points).tangent is not None:
        return True
    return points.requires_grad and torch.is_grad_enabled()


class _FusedGather(torch.autograd.Function):
    """The numba kernel as an autograd node. Only first-order gradients, in the table alone;
    `gather` guards both limits."""

    @staticmethod
    def forward(ctx, points: Tensor, grid: NodeGrid, table: Tensor) -> Tensor:
        from nstr3d.kernels.field.gather import gather_forward

        ctx.save_for_backward(points)
        ctx.grid, ctx.shape = grid, table.shape
        return gather_forward(points, grid, table)

    @staticmethod
    def backward(ctx, grad: Tensor):
        from nstr3d.kernels.field.gather import gather_backward

        (points,) = ctx.saved_tensors
        return None, None, gather_backward(points, ctx.grid, grad.contiguous(), ctx.shape)
