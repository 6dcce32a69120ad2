"""B-splines on a lattice over the unit box, as sparse matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nstr3d.kernels.field.interpolate import nodes_per_axis, tap_weights


def lattice_nodes(points: np.ndarray, cells: int, order: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices (int64) and weights (float32) of the lattice nodes whose B-splines are non-zero
    in the cell of each of ``points (n, dim)``, both ``(n, (order + 1)^dim)``.

    ``cells`` is the number of cells per axis and ``order`` the degree of the B-splines (1:
    multilinear, 2: quadratic). A point outside the unit box belongs to the nearest cell. See
    `kernels.field.interpolate.NodeGrid` for the order of the nodes.
    """
    dim = points.shape[1]
    scaled = (points + 1) * (cells / 2)
    cell = np.clip(np.floor(scaled), 0, cells - 1).astype(np.int64)
    inner = scaled - cell
    along = [each.numpy() for each in tap_weights(torch.from_numpy(inner), order)]
    strides = nodes_per_axis(cells, order) ** np.arange(dim - 1, -1, -1)
    nodes, weights = [], []
    for tap in np.ndindex(*(order + 1,) * dim):
        nodes.append((cell + tap) @ strides)
        weights.append(np.prod([along[place][:, axis] for axis, place in enumerate(tap)], axis=0))
    return np.stack(nodes, axis=1), np.stack(weights, axis=1).astype(np.float32)


def sparse_rows(columns: np.ndarray, weights: np.ndarray, width: int) -> Any:
    """The sparse matrix ``(n, width)`` whose row i has the entries ``weights[i]`` in the columns
    ``columns[i]``; both arguments are ``(n, k)``."""
    from scipy.sparse import csr_array

    starts = np.arange(0, columns.size + 1, columns.shape[1])
    return csr_array((weights.ravel(), columns.ravel(), starts), shape=(len(columns), width))


def touched_rows(points: np.ndarray, cells: int) -> Any:
    """The sparse matrix ``(n, touched)`` of multilinear weights at ``points (n, dim)`` on a lattice
    of ``cells`` per axis. Its columns are the nodes of the cells that contain a point, in ascending
    order of flat index."""
    corners, weights = lattice_nodes(points, cells)
    nodes, columns = np.unique(corners, return_inverse=True)
    return sparse_rows(columns.reshape(corners.shape), weights, len(nodes))


def lattice_links(rows: np.ndarray) -> list[np.ndarray]:
    """For each axis, the pairs ``(pairs, 2)`` of rows of stored nodes that are neighbours along it.
    ``rows (nodes along axis 0, ...)`` holds the row of every lattice node, negative for a node that
    is not stored."""
    links = []
    for axis, count in enumerate(rows.shape):
        first, second = (
            np.take(rows, indices, axis).ravel() for indices in (range(count - 1), range(1, count))
        )
        both = (first >= 0) & (second >= 0)
        links.append(np.stack([first[both], second[both]], axis=1))
    return links
