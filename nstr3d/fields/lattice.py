"""Multilinear interpolation on a lattice over the unit box, as sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np


def lattice_corners(points: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The lattice nodes around each of ``points (n, dim)`` and their multilinear weights, both
    ``(n, 2^dim)``."""
    dim = points.shape[1]
    scaled = (points + 1) * (cells / 2)
    cell = np.clip(np.floor(scaled), 0, cells - 1).astype(np.int64)
    inner = scaled - cell
    strides = (cells + 1) ** np.arange(dim - 1, -1, -1)
    nodes, weights = [], []
    for corner in np.ndindex(*(2,) * dim):
        nodes.append((cell + corner) @ strides)
        weights.append(np.where(corner, inner, 1 - inner).prod(axis=1))
    return np.stack(nodes, axis=1), np.stack(weights, axis=1).astype(np.float32)


def sparse_rows(columns: np.ndarray, weights: np.ndarray, width: int) -> Any:
    """The matrix of ``width`` columns whose row i has ``weights[i]`` at ``columns[i]``, both ``(n,
    k)``."""
    from scipy.sparse import csr_array

    starts = np.arange(0, columns.size + 1, columns.shape[1])
    return csr_array((weights.ravel(), columns.ravel(), starts), shape=(len(columns), width))


def touched_rows(points: np.ndarray, cells: int) -> Any:
    """The matrix ``(n, touched)`` of multilinear weights at ``points (n, dim)``, with a column for
    each node of a lattice of ``cells`` per axis that has a point in a cell beside it, in order."""
    corners, weights = lattice_corners(points, cells)
    nodes, columns = np.unique(corners, return_inverse=True)
    return sparse_rows(columns.reshape(corners.shape), weights, len(nodes))


def lattice_links(rows: np.ndarray) -> list[np.ndarray]:
    """For each axis the pairs ``(pairs, 2)`` of stored nodes that are neighbours along it;
    ``rows`` holds the row of every node of a lattice, below 0 where it is not stored."""
    links = []
    for axis, count in enumerate(rows.shape):
        first, second = (
            np.take(rows, indices, axis).ravel() for indices in (range(count - 1), range(1, count))
        )
        both = (first >= 0) & (second >= 0)
        links.append(np.stack([first[both], second[both]], axis=1))
    return links
