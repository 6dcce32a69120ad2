"""Nearest-neighbour search in a point cloud."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstr3d.kernels.threads import thread_count


class Neighbours:
    """A k-d tree over ``points (n, 3)`` whose queries use `thread_count` threads."""

    def __init__(self, points: np.ndarray):
        from scipy.spatial import KDTree

        self.points, self.count = points, len(points)
        self.tree = KDTree(points)

    @classmethod
    def of(cls, points: np.ndarray | Neighbours) -> Neighbours:
        """The tree over ``points (n, 3)``: a new one, or ``points`` itself if it is a tree."""
        return points if isinstance(points, Neighbours) else cls(points)

    def __call__(self, at: np.ndarray, size: int, skip: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The ``size`` points nearest to each of ``at (m, 3)``, without the first ``skip`` of them.

        Returns distances and indices, both ``(m, size - skip)``, the nearest point first. If the
        cloud has fewer than ``size`` points, all of them are used.
        """
        ranks: Any = np.arange(skip + 1, min(size, self.count) + 1)
        reach, near = self.tree.query(at, k=ranks, workers=thread_count())
        return np.asarray(reach), np.asarray(near)

    def nearest(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and index ``(m,)`` of the point nearest to each of ``at (m, 3)``."""
        reach, near = self(at, 1)
        return reach[:, 0], near[:, 0]

    def pairs(self, radius: float) -> np.ndarray:
        """Indices ``(m, 2)`` of all pairs of points at most ``radius`` apart.

        Each pair occurs once.
        """
        return self.tree.query_pairs(radius, output_type="ndarray")
