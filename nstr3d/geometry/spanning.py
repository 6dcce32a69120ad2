"""Inside and outside away from the points, and across what they lack.

The points' winding number tells inside from outside but near holes, where it changes slowly from 1 to 0 and its level 1/2 is a
flat lid. There a spline through a part of the points, with their normals, says how the surface goes on: round parts round and
flat ones flat. It knows no end, so that what is far from everything, or beyond a box around the points, is outside.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from nstr3d.geometry.cloudwinding import CloudWinding
from nstr3d.geometry.patches import thinned
from nstr3d.geometry.spline import HermiteSpline

SURE = 0.05  # from 0 or 1: a winding number that is nearer is believed, one twice as far is not
SPLINED = 1000  # points of the spline at most
FINEST, COARSER = 1 / 64, 1.1  # of the extent: cells of which one point each is in the spline, to begin with, and from try to try
BULGE = 0.28  # of the extent: how far the surface may go on beyond the points' bounds


class Spanning:
    """Signed distance, rough but of the right sign, to the surface that the discs of ``winding`` outline."""

    def __init__(self, winding: CloudWinding):
        self.winding = winding
        lower, upper = winding.points.min(axis=0), winding.points.max(axis=0)
        self.extent = float((upper - lower).max())
        self.middle, self.half = (lower + upper) / 2, (upper - lower) / 2 + BULGE * self.extent

    def __call__(self, at: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Distance ``(m,)`` of ``at (m, 3)``, no more than ``reach (m,)``, that to the nearest point."""
        number = self.winding(at)
        value = np.clip(1 - 2 * number, -1, 1) * reach
        doubt = np.clip(np.minimum(number, 1 - number) / SURE - 1, 0, 1)
        asked = np.flatnonzero(doubt)
        if len(asked):
            beyond = (np.abs(at[asked] - self.middle) - self.half).max(axis=1)
            found = np.clip(np.maximum(self._spline(at[asked]), beyond), -reach[asked], reach[asked])
            value[asked] += doubt[asked] * (found - value[asked])
        return value

    @cached_property
    def _spline(self) -> HermiteSpline:
        cell = FINEST * self.extent
        chosen = thinned(self.winding.points, cell)
        while len(chosen) > SPLINED:
            cell *= COARSER
            chosen = chosen[thinned(self.winding.points[chosen], cell)]
        return HermiteSpline(self.winding.points[chosen], self.winding.normals[chosen])
