"""Fused CPU kernels (numba): compiled once, cached on disk, threaded like torch. Twins of `kernels.interpolate` and
`kernels.hashing`."""

from __future__ import annotations

import numpy as np
import torch
from numba import config, get_num_threads, njit, prange, set_num_threads
from torch import Tensor

# Where Open3D has loaded its old TBB, numba would warn of it instead of passing it by.
if config.THREADING_LAYER_PRIORITY[0] == "tbb":  # pyright: ignore[reportAttributeAccessIssue]
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # pyright: ignore[reportAttributeAccessIssue]


@njit(cache=True, fastmath=True, inline="always")
def _cell(x, resolution):
    scaled = (x + np.float32(1)) * np.float32(resolution * 0.5)
    cell = min(max(int(np.floor(scaled)), 0), resolution - 1)
    return cell, scaled - np.float32(cell)


@njit(cache=True, fastmath=True, parallel=True)
def _forward(points, rows, resolution, table, out, chunks):
    count, channels = out.shape
    edge = resolution + 1
    for chunk in prange(chunks):
        for n in range(count * chunk // chunks, count * (chunk + 1) // chunks):
            i, u = _cell(points[n, 0], resolution)
            j, v = _cell(points[n, 1], resolution)
            k, w = _cell(points[n, 2], resolution)
            for c in range(channels):
                out[n, c] = np.float32(0)
            base = (i * edge + j) * edge + k
            for a in range(2):
                wa = u if a else np.float32(1) - u
                for b in range(2):
                    wab = wa * (v if b else np.float32(1) - v)
                    for d in range(2):
                        row = rows[base + (a * edge + b) * edge + d]
                        if row >= 0:
                            weight = wab * (w if d else np.float32(1) - w)
                            for c in range(channels):
                                out[n, c] += weight * table[row, c]


@njit(cache=True, fastmath=True, parallel=True)
def _backward(points, rows, resolution, grad, out, chunks):
    count, channels = grad.shape
    edge = resolution + 1
    for chunk in prange(chunks):
        mine = out[chunk]
        for n in range(count * chunk // chunks, count * (chunk + 1) // chunks):
            i, u = _cell(points[n, 0], resolution)
            j, v = _cell(points[n, 1], resolution)
            k, w = _cell(points[n, 2], resolution)
            base = (i * edge + j) * edge + k
            for a in range(2):
                wa = u if a else np.float32(1) - u
                for b in range(2):
                    wab = wa * (v if b else np.float32(1) - v)
                    for d in range(2):
                        row = rows[base + (a * edge + b) * edge + d]
                        if row >= 0:
                            weight = wab * (w if d else np.float32(1) - w)
                            for c in range(channels):
                                mine[row, c] += weight * grad[n, c]


@njit(cache=True, fastmath=True, inline="always")
def _entry(i, j, k, resolution, size):
    edge = resolution + 1
    if edge * edge * edge <= size:
        return i + edge * (j + edge * k)
    return ((i ^ (j * 2654435761) ^ (k * 805459861)) & 0xFFFFFFFF) % size


@njit(cache=True, fastmath=True, parallel=True)
def _hash_forward(points, resolutions, sizes, table, out, chunks):
    count, features = len(points), table.shape[1]
    for chunk in prange(chunks):
        start = 0
        for level in range(len(resolutions)):  # level by level, so that its entries stay in cache
            resolution, size = resolutions[level], sizes[level]
            column = level * features
            for n in range(count * chunk // chunks, count * (chunk + 1) // chunks):
                i, u = _cell(points[n, 0], resolution)
                j, v = _cell(points[n, 1], resolution)
                k, w = _cell(points[n, 2], resolution)
                for f in range(features):
                    out[n, column + f] = np.float32(0)
                for corner in range(8):
                    a, b, c = corner & 1, corner >> 1 & 1, corner >> 2
                    weight = (u if a else np.float32(1) - u) * (v if b else np.float32(1) - v) * (w if c else np.float32(1) - w)
                    entry = start + _entry(i + a, j + b, k + c, resolution, size)
                    for f in range(features):
                        out[n, column + f] += weight * table[entry, f]
            start += size


@njit(cache=True, fastmath=True, parallel=True)
def _hash_backward(points, resolutions, sizes, grad, out, chunks):
    count, features = len(points), out.shape[2]
    for chunk in prange(chunks):
        mine = out[chunk]
        start = 0
        for level in range(len(resolutions)):
            resolution, size = resolutions[level], sizes[level]
            column = level * features
            for n in range(count * chunk // chunks, count * (chunk + 1) // chunks):
                i, u = _cell(points[n, 0], resolution)
                j, v = _cell(points[n, 1], resolution)
                k, w = _cell(points[n, 2], resolution)
                for corner in range(8):
                    a, b, c = corner & 1, corner >> 1 & 1, corner >> 2
                    weight = (u if a else np.float32(1) - u) * (v if b else np.float32(1) - v) * (w if c else np.float32(1) - w)
                    entry = start + _entry(i + a, j + b, k + c, resolution, size)
                    for f in range(features):
                        mine[entry, f] += weight * grad[n, column + f]
            start += size


def _threads() -> int:
    most = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba refuses more than it started with
    threads = min(torch.get_num_threads(), most)
    if get_num_threads() != threads:
        set_num_threads(threads)
    return threads


def gather_forward(points: Tensor, rows: Tensor, resolution: int, table: Tensor) -> Tensor:
    """Values ``(n, c)`` of a sparse level at ``points (n, 3)``; see `kernels.interpolate.interpolate`, its twin."""
    out = torch.empty(len(points), table.shape[1])
    # Another memory layout would compile the kernel anew, which takes seconds.
    inputs = points.detach().contiguous(), table.detach().contiguous()
    _forward(inputs[0].numpy(), rows.numpy(), resolution, inputs[1].numpy(), out.numpy(), _threads())
    return out


def gather_backward(points: Tensor, rows: Tensor, resolution: int, grad: Tensor, shape: torch.Size) -> Tensor:
    """Gradient ``(m, c)`` of the table: one private sum per thread, added in a fixed order, so runs repeat bit for bit."""
    threads = _threads()
    out = torch.zeros(threads, *shape)
    _backward(points.detach().contiguous().numpy(), rows.numpy(), resolution, grad.numpy(), out.numpy(), threads)
    return out.sum(dim=0) if threads > 1 else out[0]


def hash_forward(points: Tensor, resolutions: tuple[int, ...], sizes: tuple[int, ...], table: Tensor) -> Tensor:
    """Features ``(n, levels * f)`` at ``points (n, 3)``; see `kernels.hashing.encode`, its twin."""
    out = torch.empty(len(points), len(sizes) * table.shape[1])
    inputs = points.detach().contiguous(), table.detach().contiguous()
    _hash_forward(inputs[0].numpy(), np.array(resolutions), np.array(sizes), inputs[1].numpy(), out.numpy(), _threads())
    return out


def hash_backward(
    points: Tensor, resolutions: tuple[int, ...], sizes: tuple[int, ...], grad: Tensor, shape: torch.Size
) -> Tensor:
    """Gradient ``(entries, f)`` of the table, summed in a fixed order like `gather_backward`'s."""
    threads = _threads()
    out = torch.zeros(threads, *shape)
    inputs = points.detach().contiguous().numpy(), np.array(resolutions), np.array(sizes), grad.numpy()
    _hash_backward(*inputs, out.numpy(), threads)
    return out.sum(dim=0) if threads > 1 else out[0]
