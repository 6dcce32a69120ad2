"""Inside and outside away from the points, and across what they lack.

The points' winding number tells inside from outside but near holes, where it changes slowly from 1
to 0 and its level 1/2 is a flat lid. There a spline through a part of the points, with their
normals, says how the surface goes on: round parts round and flat ones flat. It knows no end, so
that what is far from everything, or beyond a box around the points, is outside.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from nstr3d.geometry.cloud.patches import thinned
from nstr3d.geometry.cloud.spline import HermiteSpline
from nstr3d.geometry.cloud.winding import CloudWinding

SURE = 0.05  # from 0 or 1: a winding number that is nearer is believed, one twice as far is not
# a winding number no farther from that on the points beside says nothing either, one twice as far
# does
LEVEL = 0.15
CLOSE = 1.5  # spacings: so far that counts in full, and twice as far not at all
SPLINED = 1000  # points of the spline at most
# Each point of the spline has a cell of its own. ``FINEST``: edge of the first try's cells, in
# units of the extent. ``COARSER``: ratio of that edge from try to try.
FINEST, COARSER = 1 / 64, 1.1
BULGE = 0.28  # of the extent: how far the surface may go on beyond the points' bounds


class Spanning:
    """Signed distance, rough but of the right sign, to the surface that the discs of ``winding``
    outline."""

    def __init__(self, winding: CloudWinding):
        self.winding = winding
        lower, upper = winding.points.min(axis=0), winding.points.max(axis=0)
        self.extent = float((upper - lower).max())
        self.middle, self.half = (lower + upper) / 2, (upper - lower) / 2 + BULGE * self.extent

    def __call__(self, at: np.ndarray, reach: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Distance ``(m,)`` of ``at (m, 3)``, no more than to the nearest point: ``near (m, k)``,
        ``reach (m, k)`` away, are the nearest ones in order."""
        number, most = self.winding(at), reach[:, 0]
        value = np.clip(1 - 2 * number, -1, 1) * most
        share = 1 / reach**2
        share /= share.sum(axis=1, keepdims=True)
        doubt = self._doubt(
            number, (share * self._level[near]).sum(axis=1), most / self.winding.spacing[near[:, 0]]
        )
        asked = np.flatnonzero(doubt)
        if len(asked):
            beyond = (np.abs(at[asked] - self.middle) - self.half).max(axis=1)
            missed = (share[asked] * self._missed[near[asked]]).sum(axis=1)
            found = np.maximum(self._spline(at[asked]) - missed, beyond)
            value[asked] += doubt[asked] * (
                np.clip(found, -most[asked], most[asked]) - value[asked]
            )
        return value

    def _doubt(self, number: np.ndarray, level: np.ndarray, gap: np.ndarray) -> np.ndarray:
        """How much the winding ``number (m,)`` leaves open, from 0 to 1: all between 0 and 1; all,
        too, where it is like the ``level (m,)`` on the points around, which is about 0 on open
        sheets, if those are but ``gap (m,)`` spacings away."""
        between = np.clip(np.minimum(number, 1 - number) / SURE - 1, 0, 1)
        beside = np.clip(2 - np.abs(number - level) / LEVEL, 0, 1) * np.clip(2 - gap / CLOSE, 0, 1)
        return np.maximum(between, beside)

    @cached_property
    def _level(self) -> np.ndarray:
        """The winding number on the points ``(n,)``: 1/2 on closed surfaces."""
        return self.winding(self.winding.points)

    @cached_property
    def _missed(self) -> np.ndarray:
        """The spline at the points ``(n,)``, where it should be 0: without it the surface would
        have steps around them."""
        return self._spline(self.winding.points)

    @cached_property
    def _spline(self) -> HermiteSpline:
        cell = FINEST * self.extent
        chosen = thinned(self.winding.points, cell)
        while len(chosen) > SPLINED:
            cell *= COARSER
            chosen = chosen[thinned(self.winding.points[chosen], cell)]
        return HermiteSpline(self.winding.points[chosen], self.winding.normals[chosen])
