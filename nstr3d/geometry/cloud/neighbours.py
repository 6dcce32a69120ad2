"""Nearest points of a cloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def connected(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A label ``(count,)`` for each of ``count`` points, shared by those that edges ``start (m,)``
    to ``end (m,)`` connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


class Neighbours:
    """A search tree over ``points (n, 3)``, which works on as many threads as torch does."""

    def __init__(self, points: np.ndarray):
        from scipy.spatial import KDTree

        self.count = len(points)
        self.tree = KDTree(points)

    def __call__(self, at: np.ndarray, size: int, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Distances and indices ``(m, size - skip)`` of the ``size`` points nearest to each of ``at
        (m, 3)``, the nearest first, without the first ``skip``; of all where there are fewer."""
        ranks: Any = np.arange(skip + 1, min(size, self.count) + 1)
        reach, near = self.tree.query(at, k=ranks, workers=torch.get_num_threads())
        return np.asarray(reach), np.asarray(near)

    def nearest(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and index ``(m,)`` of the nearest point."""
        reach, near = self(at, 1)
        return reach[:, 0], near[:, 0]
