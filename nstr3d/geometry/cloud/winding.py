"""The winding number of an oriented cloud: each point counts as a small disc of the surface (Barill
et al., Fast winding numbers for soups and clouds, 2018).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours

if TYPE_CHECKING:
    from nstr3d.kernels.geometry.dipoles import Dipoles

AREA_NEIGHBOURS = 10
WIDEST = 4.0  # times the median reach to that neighbour
TOUCHING = 1e-5  # of the points' extent: no closer to a point is its own winding number told


class CloudWinding:
    """Winding number of discs at ``points (n, 3)`` with unit ``normals (n, 3)``: 1 inside, 0
    outside, smooth across holes. ``near``, which points are nearest, is the tree that is given
    instead of points, or a new one."""

    def __init__(self, points: np.ndarray | Neighbours, normals: np.ndarray):
        self.near = Neighbours.of(points)
        self.points = np.ascontiguousarray(self.near.points, np.float64)
        self.normals = np.ascontiguousarray(normals, np.float64)

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Winding number ``(m,)`` at points ``(m, 3)``."""
        return self._dipoles.number(self.areas[:, None] * self.normals, TOUCHING * self._size, at)

    @cached_property
    def areas(self) -> np.ndarray:
        """Each point's share of the surface ``(n,)``: that of the disc which reaches its tenth
        neighbour, within limits."""
        size = min(AREA_NEIGHBOURS, len(self.points) - 1)
        reach = self.near(self.points, size + 1, skip=size)[0][:, 0]
        widest = WIDEST * np.median(
            reach
        )  # a point far from all others is no large piece of surface
        return np.pi * np.clip(reach, 1e-12, max(widest, 1e-12)) ** 2 / size

    @cached_property
    def spacing(self) -> np.ndarray:
        """Diameters ``(n,)`` of discs of these areas."""
        return 2 * np.sqrt(self.areas / np.pi)

    def side(self, rows: np.ndarray) -> float:
        """Mean winding number on the discs ``rows``: about 1/2 where they look outward and -1/2
        where inward, if they enclose anything. A disc's own share at its centre is 0: thin parts
        count as thick ones do."""
        return float(np.mean(self(self.points[rows])))

    @cached_property
    def _dipoles(self) -> Dipoles:
        from nstr3d.kernels.geometry.dipoles import Dipoles

        return Dipoles(self.points)

    @cached_property
    def _size(self) -> float:
        return max(float(np.ptp(self.points, axis=0).max()), 1e-12)
