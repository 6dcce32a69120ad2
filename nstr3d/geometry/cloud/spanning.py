"""Signed distance away from the points and across holes in a point cloud.

The winding number of the points separates inside from outside, except near holes. There it changes
slowly from 1 to 0, and its level set 1/2 is a flat lid. Near holes, a spline through a subset of
the points and their normals extrapolates the surface: round parts stay round and flat parts stay
flat. The spline has no boundary of its own, so points far from every point of the cloud, or beyond
a box around the cloud, are outside.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from nstr3d.geometry.cloud.patches import thinned
from nstr3d.geometry.cloud.spline import HermiteSpline
from nstr3d.geometry.cloud.winding import CloudWinding

# A winding number within ``SURE`` of 0 or 1 is decided; one farther than twice ``SURE`` from both
# is undecided.
SURE = 0.05
# A winding number within ``LEVEL`` of that on the nearby points is undecided too; one farther than
# twice ``LEVEL`` is decided.
LEVEL = 0.15
CLOSE = 1.5  # spacings: up to here ``LEVEL`` applies fully, beyond twice this not at all
SPLINED = 1000  # most points of the spline
# The spline has one point per occupied cell. ``FINEST``: edge of the first cells, in units of the
# extent. ``COARSER``: factor by which the edge grows until there are few enough points.
FINEST, COARSER = 1 / 64, 1.1
BULGE = 0.28  # of the extent: how far the surface may extend beyond the points' bounds


class Spanning:
    """A rough signed distance, with the correct sign, to the surface that ``winding`` outlines."""

    def __init__(self, winding: CloudWinding):
        self.winding = winding
        lower, upper = winding.points.min(axis=0), winding.points.max(axis=0)
        self.extent = float((upper - lower).max())
        self.middle, self.half = (lower + upper) / 2, (upper - lower) / 2 + BULGE * self.extent

    def __call__(self, at: np.ndarray, reach: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Signed distance ``(m,)`` at ``at (m, 3)``.

        Its magnitude is at most the distance to the nearest point. ``near (m, k)`` are the indices
        of the nearest points in order, and ``reach (m, k)`` their distances.
        """
        number, most = self.winding(at), reach[:, 0]
        value = np.clip(1 - 2 * number, -1, 1) * most
        weight = 1 / reach**2
        weight /= weight.sum(axis=1, keepdims=True)
        doubt = self._doubt(
            number,
            (weight * self._level[near]).sum(axis=1),
            most / self.winding.spacing[near[:, 0]],
        )
        asked = np.flatnonzero(doubt)
        if len(asked):
            beyond = (np.abs(at[asked] - self.middle) - self.half).max(axis=1)
            missed = (weight[asked] * self._missed[near[asked]]).sum(axis=1)
            extension = np.maximum(self._spline(at[asked]) - missed, beyond)
            value[asked] += doubt[asked] * (
                np.clip(extension, -most[asked], most[asked]) - value[asked]
            )
        return value

    def _doubt(self, number: np.ndarray, level: np.ndarray, gap: np.ndarray) -> np.ndarray:
        """How undecided the winding ``number (m,)`` is, from 0 to 1.

        It is 1 where the number is clearly between 0 and 1. It is also 1 where the number is close
        to the ``level (m,)`` on the nearby points, if these are at most `CLOSE` spacings away: on
        open sheets that level is about 0. ``gap (m,)`` is the distance to the nearest point in
        spacings.
        """
        between = np.clip(np.minimum(number, 1 - number) / SURE - 1, 0, 1)
        beside = np.clip(2 - np.abs(number - level) / LEVEL, 0, 1) * np.clip(2 - gap / CLOSE, 0, 1)
        return np.maximum(between, beside)

    @cached_property
    def _level(self) -> np.ndarray:
        """The winding number ``(n,)`` at the points: 1/2 on closed surfaces."""
        return self.winding(self.winding.points)

    @cached_property
    def _missed(self) -> np.ndarray:
        """The values ``(n,)`` of the spline at all points, where it should be 0.

        They are subtracted; otherwise the surface would have steps around the points.
        """
        return self._spline(self.winding.points)

    @cached_property
    def _spline(self) -> HermiteSpline:
        cell = FINEST * self.extent
        chosen = thinned(self.winding.points, cell)
        while len(chosen) > SPLINED:
            cell *= COARSER
            chosen = chosen[thinned(self.winding.points[chosen], cell)]
        return HermiteSpline(self.winding.points[chosen], self.winding.normals[chosen])
