"""Nearest points of a cloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Neighbours:
    """A search tree over ``points (n, 3)``, which works on as many threads as torch does."""

    def __init__(self, points: np.ndarray):
        from scipy.spatial import KDTree

        self.points, self.count = points, len(points)
        self.tree = KDTree(points)

    @classmethod
    def of(cls, points: np.ndarray | Neighbours) -> Neighbours:
        """The tree over ``points (n, 3)``: a new one, or ``points`` itself where it is one."""
        return points if isinstance(points, Neighbours) else cls(points)

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

    def pairs(self, radius: float) -> np.ndarray:
        """The indices ``(m, 2)`` of all pairs of points no farther than ``radius`` apart, each pair
        once."""
        return self.tree.query_pairs(radius, output_type="ndarray")
