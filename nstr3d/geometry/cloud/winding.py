"""The winding number of an oriented point cloud.

Each point represents a small disc of the surface (Barill et al., Fast winding numbers for soups and
clouds, 2018).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours

if TYPE_CHECKING:
    from nstr3d.kernels.geometry.dipoles import Dipoles

AREA_NEIGHBOURS = 10  # neighbours within the disc that estimates the area of a point
WIDEST = 4.0  # times the median radius of these discs: the largest radius
TOUCHING = 1e-5  # of the points' extent: smoothing width, which keeps values at points finite


class CloudWinding:
    """The winding number of discs at ``points (n, 3)`` with unit ``normals (n, 3)``.

    It is 1 inside, 0 outside, and smooth across holes. ``points`` may be a search tree over the
    points; ``near`` is that tree, or a new one.
    """

    def __init__(self, points: np.ndarray | Neighbours, normals: np.ndarray):
        self.near = Neighbours.of(points)
        self.points = np.ascontiguousarray(self.near.points, np.float64)
        self.normals = np.ascontiguousarray(normals, np.float64)

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Winding number ``(m,)`` at points ``(m, 3)``."""
        return self._dipoles.number(self.areas[:, None] * self.normals, TOUCHING * self._size, at)

    @cached_property
    def areas(self) -> np.ndarray:
        """The area ``(n,)`` of each point's disc, in squared units of the points.

        It is one tenth of the area of a disc that reaches the tenth neighbour. The radius is at
        most `WIDEST` times the median radius.
        """
        size = min(AREA_NEIGHBOURS, len(self.points) - 1)
        reach = self.near(self.points, size + 1, skip=size)[0][:, 0]
        # A point far from all others must not count as a large piece of surface.
        widest = WIDEST * np.median(reach)
        return np.pi * np.clip(reach, 1e-12, max(widest, 1e-12)) ** 2 / size

    @cached_property
    def spacing(self) -> np.ndarray:
        """Diameters ``(n,)`` of the discs."""
        return 2 * np.sqrt(self.areas / np.pi)

    def side(self, rows: np.ndarray) -> float:
        """Mean winding number at the centres of the discs ``rows``.

        It is about 1/2 if the discs face outward and -1/2 if they face inward, provided that they
        enclose a volume. A disc contributes 0 at its own centre, so thin parts count as much as
        thick ones.
        """
        return float(np.mean(self(self.points[rows])))

    @cached_property
    def _dipoles(self) -> Dipoles:
        from nstr3d.kernels.geometry.dipoles import Dipoles

        return Dipoles(self.points)

    @cached_property
    def _size(self) -> float:
        return max(float(np.ptp(self.points, axis=0).max()), 1e-12)
