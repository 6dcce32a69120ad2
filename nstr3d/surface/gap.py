"""Lower bounds of the distance between two solids, by proof.

Boxes that may hold surface (`nstr3d.surface.certified`) are cut again and again. Of each solid,
those stay that may be among the nearest to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.sdf import Sdf
from nstr3d.surface.bounds import enclose_halves
from nstr3d.surface.bricks import Grid
from nstr3d.surface.certified import (
    COARSEST,
    STEPS,
    checked_resolution,
    divide,
    may_hold,
    proven_apart,
)
from nstr3d.surface.closest import polished
from nstr3d.surface.extract import EmptySurface

FINER = 3  # times that boxes are cut below the cells of the resolution
MOST = 20_000  # boxes of a surface that are cut once more
SEEN = 48  # cells of the meshes whose vertices tell how far the surfaces are apart at most
ACCURACY = 1e-6  # diagonals of the bounds: how far these vertices may be off the surface


def proven_gap(first: Sdf, second: Sdf, resolution: int) -> float:
    """See `nstr3d.sdf.queries.Queries.proven_gap`."""
    resolution = checked_resolution(resolution)
    if not proven_apart(first, second, resolution):
        return 0.0
    sides = []
    for sdf in (first, second):
        division = divide(sdf, Grid.over(sdf.bounds, COARSEST, 0.0), 0.0)
        corners = division.cells * division.grid.cell + division.grid.origin
        sides.append(Boxes(sdf, corners, division.grid.cell))
    # Boxes that are farther apart than two known points of the surfaces need no second look. The
    # proof does not rely on these points: it says no more than their distance.
    gap, most = 0.0, _seen_gap(first, second)
    for _ in range(max(1, math.ceil(math.log2(resolution / COARSEST)) + FINER)):
        if not all(len(side.lower) for side in sides):
            return most  # a solid without surface is empty: it is not all of space
        gap, sides = _nearest(sides, most)
        if max(len(side.lower) for side in sides) > MOST:
            break
        sides = [side.cut() for side in sides]
    return max(0.0, min(gap, most))


@dataclass(frozen=True)
class Boxes:
    """Boxes that may hold the surface of ``sdf``, with the edges ``size``, from their corners
    ``lower (n, 3)`` on, in world units."""

    sdf: Sdf
    lower: np.ndarray
    size: float

    @property
    def centres(self) -> np.ndarray:
        """The centres ``(n, 3)`` of the boxes."""
        return self.lower + self.size / 2

    def cut(self) -> Boxes:
        """The eighths of the boxes that may hold surface."""
        half = self.size / 2
        ticks = self.lower[:, :, None] + np.arange(3) * half
        may = may_hold(enclose_halves(self.sdf, ticks), 0.0)
        return Boxes(self.sdf, (self.lower[:, None] + STEPS * half)[may], half)


def _seen_gap(first: Sdf, second: Sdf) -> float:
    """The distance between two points of both surfaces; inf if one of them is not seen."""
    clouds = []
    for sdf in (first, second):
        try:
            clouds.append(polished(sdf, SEEN, ACCURACY * sdf.bounds.diagonal).vertices)
        except EmptySurface:
            return math.inf
    return float(Neighbours(clouds[0]).nearest(clouds[1])[0].min())


def _nearest(sides: list[Boxes], most: float) -> tuple[float, list[Boxes]]:
    """A lower bound of the distances between boxes of two sides, and the boxes of each side that
    may be less than ``most`` from the other side."""
    trees = [Neighbours(side.centres) for side in sides]
    # A box is in the ball about its centre whose diameter is the box's diagonal.
    room = 3**0.5 / 2 * sum(side.size for side in sides)
    away = [trees[1 - at].nearest(trees[at].points)[0] for at in range(2)]
    least = min(float(each.min()) for each in away)
    kept = [replace(side, lower=side.lower[each <= most + room]) for side, each in zip(sides, away)]
    return least - room, kept
