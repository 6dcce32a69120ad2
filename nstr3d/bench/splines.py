"""Sparse matrices of splines, differences and Gaussians, and the nodes that samples need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nstr3d.fields.lattice import lattice_nodes, sparse_rows


def stored_nodes(points: np.ndarray, cells: int) -> np.ndarray:
    """The row of each lattice node ``((cells + 1)^dim,)``, -1 for nodes of cells without points."""
    corners = np.unique(lattice_nodes(points, cells)[0])
    rows = np.full((cells + 1) ** points.shape[1], -1)
    rows[corners] = np.arange(len(corners))
    return rows


def spline_matrix(points: np.ndarray, cells: int) -> Any:
    """The sparse matrix ``(n, (cells + 3)^dim)`` of uniform cubic B-splines at ``points``."""
    dim = points.shape[1]
    scaled = (points + 1) * (cells / 2)
    cell = np.clip(np.floor(scaled), 0, cells - 1).astype(np.int64)
    u = scaled - cell
    pieces = (
        np.stack(
            [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=2
        )
        / 6
    )
    strides = (cells + 3) ** np.arange(dim - 1, -1, -1)
    columns, weights = [], []
    for shift in np.ndindex(*(4,) * dim):
        columns.append((cell + shift) @ strides)
        weights.append(math.prod(pieces[:, axis, s] for axis, s in enumerate(shift)))
    return sparse_rows(
        np.stack(columns, axis=1), np.stack(weights, axis=1).astype(np.float32), (cells + 3) ** dim
    )


def second_differences(cells: int, dim: int) -> Any:
    """The sparse matrix from a spline's coefficients to their second differences, for all axes."""
    grid, edge = np.arange((cells + 3) ** dim).reshape((cells + 3,) * dim), cells + 3
    lines = [
        np.stack(
            [np.take(grid, range(shift, edge - 2 + shift), axis).ravel() for shift in range(3)],
            axis=1,
        )
        for axis in range(dim)
    ]
    columns = np.concatenate(lines)
    return sparse_rows(
        columns, np.tile(np.array([1, -2, 1], np.float32), (len(columns), 1)), grid.size
    )


def gaussian_matrix(places: np.ndarray, deviation: float) -> Any:
    """Gaussian weights ``(n, n)`` between ``places (n, dim)``, cut off at 2.5 ``deviation``."""
    from scipy.sparse import csr_array
    from scipy.spatial import KDTree

    pairs = KDTree(places).query_pairs(2.5 * deviation, output_type="ndarray")
    away = np.square(places[pairs[:, 0]] - places[pairs[:, 1]]).sum(axis=1)
    weight, same = np.exp(-0.5 * away / deviation**2), np.arange(len(places))
    entries = np.concatenate([weight, weight, np.ones(len(places))])
    rows, columns = (np.concatenate([pairs[:, a], pairs[:, 1 - a], same]) for a in range(2))
    return csr_array((entries, (rows, columns)), shape=(len(places),) * 2)
