"""The winding number of an oriented cloud: each point counts as a small disc of the surface (Barill et al., Fast winding numbers
for soups and clouds, 2018).

On a closed surface it is 1/2. Where part of the surface is missing it is less on what is left, and the level 1/2 cuts behind the
rim of the hole: a ball without a cap gets a flat lid. Balanced discs count for more, or less, than their areas so that it is 1/2
on all of them nevertheless, and the lid bulges.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nstr3d.geometry.neighbours import Neighbours

if TYPE_CHECKING:
    from nstr3d.kernels.dipoles import Dipoles

AREA_NEIGHBOURS = 10
WIDEST = 4.0  # times the median reach to that neighbour
BALANCED = 5000  # discs whose strengths are sought; the others follow the nearest of them
ROUNDS = 12  # of conjugate gradients: few, so that strengths stay near areas
LEAST, MOST = 0.0, 8.0  # of strengths, in areas
SURE = 0.1  # from 0 or 1: a winding number that is nearer is believed, one twice as far is not
TOUCHING = 1e-5  # of the points' extent: no closer to a point is its own winding number told


class CloudWinding:
    """Winding number of discs at ``points (n, 3)`` with unit ``normals (n, 3)``: 1 inside, 0 outside, smooth across holes."""

    def __init__(self, points: np.ndarray, normals: np.ndarray):
        self.points = np.ascontiguousarray(points, np.float64)
        self.normals = np.ascontiguousarray(normals, np.float64)

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Winding number ``(m,)`` at points ``(m, 3)``."""
        return self._dipoles.number(self.areas[:, None] * self.normals, TOUCHING * self._size, at)

    @cached_property
    def areas(self) -> np.ndarray:
        """Each point's share of the surface ``(n,)``: that of the disc which reaches its tenth neighbour, within limits."""
        size = min(AREA_NEIGHBOURS, len(self.points) - 1)
        reach = self.near(self.points, size + 1, skip=size)[0][:, 0]
        widest = WIDEST * np.median(reach)  # a point far from all others is no large piece of surface
        return np.pi * np.clip(reach, 1e-12, max(widest, 1e-12)) ** 2 / size

    def side(self, rows: np.ndarray) -> float:
        """Mean winding number on the discs ``rows``: about 1/2 where they look outward and -1/2 where inward, if they enclose
        anything. A disc's own share at its centre is 0: thin parts count as thick ones do."""
        return float(np.mean(self(self.points[rows])))

    def balanced(self, at: np.ndarray) -> np.ndarray:
        """Winding number ``(m,)`` at points ``(m, 3)`` of discs whose strengths make it about 1/2 on every disc; where the discs
        as they are leave no doubt, theirs: far from holes strengths can only err."""
        number = self(at)
        weight = np.clip(np.minimum(number, 1 - number) / SURE - 1, 0, 1)
        doubt = np.flatnonzero(weight)
        if len(doubt):
            vectors = (self.areas * self._strengths)[:, None] * self.normals
            balanced = self._dipoles.number(vectors, TOUCHING * self._size, at[doubt])
            number[doubt] += weight[doubt] * (balanced - number[doubt])
        return number

    @cached_property
    def _strengths(self) -> np.ndarray:
        """By how much each disc counts for more than its area ``(n,)``, by least squares from equal strengths on."""
        if len(self.points) > BALANCED:
            chosen = np.sort(np.random.default_rng(0).permutation(len(self.points))[:BALANCED])
            some = CloudWinding(self.points[chosen], self.normals[chosen])
            return some._strengths[some.near.nearest(self.points)[1]]
        vectors = self.areas[:, None] * self.normals
        width = 2 * float(np.sqrt(np.median(self.areas) / np.pi))
        there = self._dipoles.number(vectors, width)
        # Inside an overlapping component 3/2 is right; where it is not positive the disc faces inward or the sheet is open.
        rest = np.where(there > 0, np.floor(there) + 0.5 - there, 0)
        strengths = np.ones(len(self.points))
        slope = np.einsum("nd,nd->n", vectors, self._dipoles.adjoint(rest, width))
        step, steep = slope, slope @ slope
        for _ in range(ROUNDS):
            change = self._dipoles.number(step[:, None] * vectors, width)
            length = steep / max(change @ change, 1e-300)
            strengths += length * step
            rest = rest - length * change
            slope = np.einsum("nd,nd->n", vectors, self._dipoles.adjoint(rest, width))
            before, steep = steep, slope @ slope
            step = slope + steep / max(before, 1e-300) * step
        return np.clip(strengths, LEAST, MOST)

    @cached_property
    def near(self) -> Neighbours:
        """Which points are nearest."""
        return Neighbours(self.points)

    @cached_property
    def _dipoles(self) -> Dipoles:
        from nstr3d.kernels.dipoles import Dipoles

        return Dipoles(self.points)

    @cached_property
    def _size(self) -> float:
        return max(float(np.ptp(self.points, axis=0).max()), 1e-12)
