"""Ranges of a level's channels and of their derivatives on boxes, in plain torch and in double
precision: the twin of `kernels.field.rangecpu`, which explains the method."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from nstr3d.kernels.field.interpolate import NodeGrid, tap_slopes


class Ranges(NamedTuple):
    """Of ``c`` channels on ``n`` boxes: the largest coefficient of a node, ``hull (n, c)``; the
    largest value, ``size (n, c)``; for each axis the largest
    ``fall``, ``rise`` and second derivative ``bend (n, 3, c)``; the sum over faces of cells
    of the largest jump of the first derivative, ``jump (n, 3, c)``. All but falls and rises are
    absolute values."""

    hull: Tensor
    size: Tensor
    fall: Tensor
    rise: Tensor
    bend: Tensor
    jump: Tensor

    def slope(self) -> Tensor:
        """The largest first derivatives ``(n, 3, c)``, as absolute values."""
        return torch.maximum(self.fall, self.rise)


def ranges(lower: Tensor, upper: Tensor, grid: NodeGrid, table: Tensor) -> Ranges:
    """The ranges of the channels of ``table (m, c)`` on boxes from ``lower (n, 3)`` to ``upper``,
    in the unit box."""
    rate, most = grid.resolution / 2, grid.resolution - 1
    first = ((lower + 1) * rate - 1e-4).floor().clamp(0, most)
    last = ((upper + 1) * rate + 1e-4).floor().clamp(0, most)
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])
    count = len(lower), 3, table.shape[1]
    size, least = table.new_zeros(count[0], count[2]), table.new_full(count, -torch.inf)
    found = Ranges(
        size.clone(), size, least, least.clone(), table.new_zeros(count), table.new_zeros(count)
    )
    wide = int((last - first).max()) + 1 if len(lower) else 0
    for step in itertools.product(range(wide), repeat=3):
        cell = first + torch.tensor(step, dtype=first.dtype)
        rows = torch.nonzero((cell <= last).all(dim=1)).squeeze(1)
        if len(rows):
            _join(found, rows, cell[rows], lower[rows], upper[rows], grid, padded)
    if grid.order == 1 and wide > 1:
        found.jump.copy_(_jumps(first.long(), last.long(), wide, grid, padded))
    return found


def _join(
    found: Ranges, rows: Tensor, cell: Tensor, lower: Tensor, upper: Tensor, grid: NodeGrid,
    padded: Tensor,
) -> None:  # fmt: skip
    """Joins the ranges of one cell of each box of ``rows`` with those ``found``."""
    rate, order = grid.resolution / 2, grid.order
    low = ((lower + 1) * rate - cell - 1e-5).clamp_min(0)
    high = ((upper + 1) * rate - cell + 1e-5).clamp_max(1)
    index = cell.long()[:, :, None] + torch.arange(order + 1)
    taps = padded[grid.rows[_flat(index, grid)].long()]
    weights = [_weights(low[:, axis], high[:, axis], grid) for axis in range(3)]

    def product(*kinds: int) -> Tensor:
        x, y, z = (weights[axis][kind] for axis, kind in enumerate(kinds))
        return torch.einsum("nai,nbj,nck,nijkd->nabcd", x, y, z, taps).flatten(1, 3)

    found.hull[rows] = torch.maximum(found.hull[rows], taps.abs().amax(dim=(1, 2, 3)))
    found.size[rows] = torch.maximum(found.size[rows], product(0, 0, 0).abs().amax(dim=1))
    for axis in range(3):
        slope = product(*(int(axis == other) for other in range(3)))
        curve = product(*(2 * int(axis == other) for other in range(3)))
        found.fall[rows, axis] = torch.maximum(found.fall[rows, axis], (-slope).amax(dim=1))
        found.rise[rows, axis] = torch.maximum(found.rise[rows, axis], slope.amax(dim=1))
        found.bend[rows, axis] = torch.maximum(found.bend[rows, axis], curve.abs().amax(dim=1))


def _weights(low: Tensor, high: Tensor, grid: NodeGrid) -> tuple[Tensor, Tensor, Tensor]:
    """The weights ``(n, coefficients, order + 1)`` of a cell's nodes in the Bernstein coefficients
    of value, first and second derivative between two offsets ``(n,)`` in the cell."""
    rate, order = grid.resolution / 2, grid.order
    slopes = [rate * torch.stack(tap_slopes(at, order), dim=1) for at in (low, high)]
    if order == 1:
        values = [torch.stack([1 - at, at], dim=1) for at in (low, high)]
        return torch.stack(values, 1), torch.stack(slopes, 1), low.new_zeros(len(low), 1, 2)
    values = [
        torch.stack([(1 - s) * (1 - t) / 2, 0.5 + (s + t) / 2 - s * t, s * t / 2], dim=1)
        for s, t in ((low, low), (low, high), (high, high))
    ]
    curve = rate**2 * low.new_tensor([1.0, -2.0, 1.0]).expand(len(low), 1, 3)
    return torch.stack(values, dim=1), torch.stack(slopes, dim=1), curve


def _flat(index: Tensor, grid: NodeGrid) -> Tensor:
    """The flat indices of nodes ``(n, w, w, w)`` from those along the axes ``(n, 3, w)``."""
    x, y, z = index.unbind(dim=1)
    return (x[:, :, None, None] * grid.edge + y[:, None, :, None]) * grid.edge + z[:, None, None]


def _jumps(first: Tensor, last: Tensor, wide: int, grid: NodeGrid, padded: Tensor) -> Tensor:
    """For each axis, the number of faces in a box times the largest jump there ``(n, 3, c)``."""
    index = first[:, :, None] + torch.arange(wide + 1)
    known = index <= last[:, :, None] + 1
    window = padded[grid.rows[_flat(torch.minimum(index, last[:, :, None] + 1), grid)].long()]
    jumps = []
    for axis in range(3):
        shape = [len(first), 1, 1, 1, 1]
        shape[axis + 1] = -1
        inner = window.diff(n=2, dim=axis + 1).abs() * known[:, axis, 2:].reshape(shape)
        jumps.append(grid.resolution / 2 * inner.amax(dim=(1, 2, 3)))
    return torch.stack(jumps, dim=1) * (last - first)[:, :, None]
