"""Interpolation and hash encoding on the CPU (numba): compiled once, cached on disk, run on torch's
number of threads.

`kernels.field.interpolate` and `kernels.field.hashing` are the twins in plain torch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.interpolate import NodeGrid
from nstr3d.kernels.threads import parts, split_work


@njit(cache=True, fastmath=True, inline="always")
def _cell(x, resolution):
    scaled = (x + np.float32(1)) * np.float32(resolution * 0.5)
    cell = min(max(int(np.floor(scaled)), 0), resolution - 1)
    return cell, scaled - np.float32(cell)


@njit(cache=True, fastmath=True, inline="always")
def _taps(u, order):
    """Weights of the nodes along an axis; see `kernels.field.interpolate.tap_weights`."""
    one, half = np.float32(1), np.float32(0.5)
    if order == 1:
        return one - u, u, np.float32(0)
    return half * (one - u) * (one - u), half + u * (one - u), half * u * u


@njit(cache=True, fastmath=True, nogil=True)
def _forward(low, high, points, rows, resolution, order, table, out):
    channels, edge = out.shape[1], resolution + order
    for n in range(low, high):
        i, u = _cell(points[n, 0], resolution)
        j, v = _cell(points[n, 1], resolution)
        k, w = _cell(points[n, 2], resolution)
        across, along, up = _taps(u, order), _taps(v, order), _taps(w, order)
        for c in range(channels):
            out[n, c] = np.float32(0)
        base = (i * edge + j) * edge + k
        for a in range(order + 1):
            for b in range(order + 1):
                area = across[a] * along[b]
                for d in range(order + 1):
                    row = rows[base + (a * edge + b) * edge + d]
                    if row >= 0:
                        weight = area * up[d]
                        for c in range(channels):
                            out[n, c] += weight * table[row, c]


@njit(cache=True, fastmath=True, inline="always")
def _turns(u, order):
    """Derivatives of `_taps`; see `kernels.field.interpolate.tap_slopes`."""
    one, two = np.float32(1), np.float32(2)
    if order == 1:
        return -one, one, np.float32(0)
    return u - one, one - two * u, u


@njit(cache=True, fastmath=True, nogil=True)
def _forward_with_slope(low, high, points, rows, resolution, order, table, out, slope):
    channels, edge, half = out.shape[1], resolution + order, np.float32(resolution * 0.5)
    for n in range(low, high):
        i, u = _cell(points[n, 0], resolution)
        j, v = _cell(points[n, 1], resolution)
        k, w = _cell(points[n, 2], resolution)
        across, along, up = _taps(u, order), _taps(v, order), _taps(w, order)
        turn_x, turn_y, turn_z = _turns(u, order), _turns(v, order), _turns(w, order)
        out[n], slope[n] = np.float32(0), np.float32(0)
        base = (i * edge + j) * edge + k
        for a in range(order + 1):
            for b in range(order + 1):
                for d in range(order + 1):
                    row = rows[base + (a * edge + b) * edge + d]
                    if row >= 0:
                        weight = across[a] * along[b] * up[d]
                        x = half * turn_x[a] * along[b] * up[d]
                        y = half * across[a] * turn_y[b] * up[d]
                        z = half * across[a] * along[b] * turn_z[d]
                        for c in range(channels):
                            out[n, c] += weight * table[row, c]
                            slope[n, 0, c] += x * table[row, c]
                            slope[n, 1, c] += y * table[row, c]
                            slope[n, 2, c] += z * table[row, c]


@njit(cache=True, fastmath=True, nogil=True)
def _backward(low, high, points, rows, resolution, order, grad, out):
    channels, edge = grad.shape[1], resolution + order
    for n in range(low, high):
        i, u = _cell(points[n, 0], resolution)
        j, v = _cell(points[n, 1], resolution)
        k, w = _cell(points[n, 2], resolution)
        across, along, up = _taps(u, order), _taps(v, order), _taps(w, order)
        base = (i * edge + j) * edge + k
        for a in range(order + 1):
            for b in range(order + 1):
                area = across[a] * along[b]
                for d in range(order + 1):
                    row = rows[base + (a * edge + b) * edge + d]
                    if row >= 0:
                        weight = area * up[d]
                        for c in range(channels):
                            out[row, c] += weight * grad[n, c]


@njit(cache=True, fastmath=True, inline="always")
def _entry(i, j, k, resolution, size):
    edge = resolution + 1
    if edge * edge * edge <= size:
        return i + edge * (j + edge * k)
    mixed = np.uint32(i ^ (j * 2654435761) ^ (k * 805459861))
    return np.int64(
        mixed % np.uint32(size)
    )  # unsigned arithmetic of 32 bits: several times as fast as signed arithmetic of 64 bits


@njit(cache=True, fastmath=True, nogil=True)
def _hash_forward(low, high, points, resolutions, sizes, table, out):
    features = table.shape[1]
    start = 0
    for level in range(len(resolutions)):  # level by level, so that its entries stay in cache
        resolution, size = resolutions[level], sizes[level]
        column = level * features
        for n in range(low, high):
            i, u = _cell(points[n, 0], resolution)
            j, v = _cell(points[n, 1], resolution)
            k, w = _cell(points[n, 2], resolution)
            for f in range(features):
                out[n, column + f] = np.float32(0)
            for corner in range(8):
                a, b, c = corner & 1, corner >> 1 & 1, corner >> 2
                weight = (
                    (u if a else np.float32(1) - u)
                    * (v if b else np.float32(1) - v)
                    * (w if c else np.float32(1) - w)
                )
                entry = start + _entry(i + a, j + b, k + c, resolution, size)
                for f in range(features):
                    out[n, column + f] += weight * table[entry, f]
        start += size


@njit(cache=True, fastmath=True, nogil=True)
def _hash_backward(low, high, points, resolutions, sizes, grad, out):
    features = out.shape[1]
    start = 0
    for level in range(len(resolutions)):
        resolution, size = resolutions[level], sizes[level]
        column = level * features
        for n in range(low, high):
            i, u = _cell(points[n, 0], resolution)
            j, v = _cell(points[n, 1], resolution)
            k, w = _cell(points[n, 2], resolution)
            for corner in range(8):
                a, b, c = corner & 1, corner >> 1 & 1, corner >> 2
                weight = (
                    (u if a else np.float32(1) - u)
                    * (v if b else np.float32(1) - v)
                    * (w if c else np.float32(1) - w)
                )
                entry = start + _entry(i + a, j + b, k + c, resolution, size)
                for f in range(features):
                    out[entry, f] += weight * grad[n, column + f]
        start += size


# fastmath is limited to contraction, so that NaN and infinity propagate
@njit(cache=True, fastmath={"contract"}, nogil=True)
def _grid_vectors(low, high, points, lower, inverse, cells, signed, table, out):
    base, fraction, corner = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    for n in range(low, high):
        nearest = 0
        for axis in range(3):
            scaled = (points[n, axis] - lower[axis]) * inverse[axis]
            base[axis] = min(max(int(np.floor(scaled)), 0), cells[axis] - 1)
            fraction[axis] = scaled - np.float32(base[axis])
            nearest = (
                nearest * (cells[axis] + 1)
                + base[axis]
                + (1 if fraction[axis] > np.float32(0.5) else 0)
            )
        out[n] = np.float32(0)
        for k in range(8):
            row, weight = 0, np.float32(1)
            for axis in range(3):
                bit = k >> (2 - axis) & 1
                row = row * (cells[axis] + 1) + base[axis] + bit
                weight *= fraction[axis] if bit else np.float32(1) - fraction[axis]
            along = np.float32(0)
            for axis in range(3):
                corner[axis] = table[row, axis]
                along += corner[axis] * table[nearest, axis]
            if not signed and along < 0:
                weight = -weight
            for axis in range(3):
                out[n, axis] += weight * corner[axis]


def grid_vectors(
    points: Tensor, lower: Tensor, inverse: Tensor, cells: Tensor, signed: bool, table: Tensor
) -> Tensor:
    """Vectors ``(n, 3)`` interpolated between the nodes of a grid, all float32;
    `nstr3d.spectrum.gridfield.GridField` is the twin."""
    out = torch.empty(len(points), 3)
    grid = (
        lower.numpy(),
        inverse.numpy(),
        cells.numpy(),
        signed,
        table.detach().contiguous().numpy(),
    )
    arguments = points.detach().contiguous().numpy(), *grid, out.numpy()
    split_work(lambda part, low, high: _grid_vectors(low, high, *arguments), len(points))
    return out


def gather_forward(points: Tensor, grid: NodeGrid, table: Tensor) -> Tensor:
    """Values ``(n, c)`` of a sparse level at ``points (n, 3)``;
    `kernels.field.interpolate.interpolate` is the twin."""
    out = torch.empty(len(points), table.shape[1])
    # A second memory layout would compile the kernel a second time, which takes seconds.
    arguments = (
        points.detach().contiguous().numpy(),
        grid.rows.numpy(),
        grid.resolution,
        grid.order,
        table.detach().contiguous().numpy(),
        out.numpy(),
    )
    split_work(lambda part, low, high: _forward(low, high, *arguments), len(points))
    return out


def gather_with_slope(points: Tensor, grid: NodeGrid, table: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(n, c)`` and slopes ``(n, c, 3)`` of a sparse level at ``points (n, 3)``, detached;
    `kernels.field.interpolate.interpolate_with_slope` is the twin."""
    out = torch.empty(len(points), table.shape[1])
    slope = torch.empty(len(points), 3, table.shape[1])
    arguments = (
        points.detach().contiguous().numpy(),
        grid.rows.numpy(),
        grid.resolution,
        grid.order,
        table.detach().contiguous().numpy(),
        out.numpy(),
        slope.numpy(),
    )
    split_work(lambda part, low, high: _forward_with_slope(low, high, *arguments), len(points))
    return out, slope.transpose(1, 2)


def gather_backward(points: Tensor, grid: NodeGrid, grad: Tensor, shape: torch.Size) -> Tensor:
    """The gradient ``(m, c)`` in the table. Each thread has a private sum; the sums are added in a
    fixed order, so that runs repeat bit for bit."""
    out = torch.zeros(parts(len(points)), *shape)
    sums, at = out.numpy(), points.detach().contiguous().numpy()
    arguments = at, grid.rows.numpy(), grid.resolution, grid.order, grad.numpy()
    split_work(lambda part, low, high: _backward(low, high, *arguments, sums[part]), len(points))
    return out.sum(dim=0) if len(out) > 1 else out[0]


def hash_forward(
    points: Tensor, resolutions: tuple[int, ...], sizes: tuple[int, ...], table: Tensor
) -> Tensor:
    """Features ``(n, levels * f)`` at ``points (n, 3)``; `kernels.field.hashing.encode` is the
    twin."""
    out = torch.empty(len(points), len(sizes) * table.shape[1])
    levels = np.array(resolutions), np.array(sizes)
    arguments = (
        points.detach().contiguous().numpy(),
        *levels,
        table.detach().contiguous().numpy(),
        out.numpy(),
    )
    split_work(lambda part, low, high: _hash_forward(low, high, *arguments), len(points))
    return out


def hash_backward(
    points: Tensor,
    resolutions: tuple[int, ...],
    sizes: tuple[int, ...],
    grad: Tensor,
    shape: torch.Size,
) -> Tensor:
    """The gradient ``(entries, f)`` in the table, summed in a fixed order as in
    `gather_backward`."""
    out = torch.zeros(parts(len(points)), *shape)
    sums, arguments = (
        out.numpy(),
        (
            points.detach().contiguous().numpy(),
            np.array(resolutions),
            np.array(sizes),
            grad.numpy(),
        ),
    )
    split_work(
        lambda part, low, high: _hash_backward(low, high, *arguments, sums[part]), len(points)
    )
    return out.sum(dim=0) if len(out) > 1 else out[0]
