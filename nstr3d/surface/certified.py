"""Cells of a grid that may hold surface, by proof, and what is proven of a mesh of them.

A box is left out if the bounds of the signed distance over it exclude the level
(`nstr3d.surface.bounds`). What is left is cut in eight, down to the cells.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from nstr3d.kernels.field.enclosure import HALVES
from nstr3d.sdf import Sdf
from nstr3d.surface.bounds import enclose_halves
from nstr3d.surface.bricks import Grid, is_among
from nstr3d.types import Box, expect

COARSEST = 8  # boxes along the longest axis at which the search begins
DEEPEST = 4  # times that a cell with all corners on one side is cut
STEPS = np.array(HALVES)


@dataclass(frozen=True)
class Certificate:
    """What is proven of the surface of a signed distance on a grid, within the grid.

    The surface is within ``cells`` cells: the bounds of the distance exclude it from all others.
    ``crossed`` of them have corners on both sides, so that the mesh passes through them.
    ``beside`` of them have such a cell among their 26 neighbours: the surface may bulge into them,
    and the mesh may lack thin parts there. Of the rest, ``hidden`` hold a part of the surface that
    is thinner than a cell, which the mesh lacks, and nothing is known of ``unknown`` cells, which
    were cut ``DEEPEST`` times; the others were proven to be empty by cutting. ``within`` is a
    length in world units: if the certificate is ``complete``, no point of the surface, the boundary
    of the solid, is farther from the mesh, and none of the mesh farther from the surface.
    """

    cells: int
    crossed: int
    beside: int
    hidden: int
    unknown: int
    within: float

    @property
    def complete(self) -> bool:
        """Whether all of the surface is near the mesh."""
        return self.hidden == self.unknown == 0


def describe(certificate: Certificate) -> str:
    """A sentence on what is proven."""
    found = f"all of the surface is within {certificate.within:.3g} of the mesh"
    if not certificate.crossed:
        found = "no cell is crossed"
    rest = []
    if certificate.hidden:
        rest.append(f"parts thinner than a cell in {certificate.hidden:,} cells")
    if certificate.unknown:
        rest.append(f"what {certificate.unknown:,} cells may hold")
    return f"{found}, except {' and '.join(rest)}; try a finer resolution" if rest else found


@dataclass(frozen=True)
class Division:
    """A grid divided by proof: the ``cells (n, 3)`` that may hold surface, and the volume of the
    others that are ``inside``, in world units."""

    grid: Grid
    cells: np.ndarray
    inside: float


def divide(sdf: Sdf, grid: Grid, level: float) -> Division:
    """Divides a grid by the bounds of a signed distance less ``level``. Raises ValueError if
    nothing is proven of the signed distance."""
    size, inside = 2, 0
    while size * COARSEST < max(grid.shape):
        size *= 2
    counts = [-(-cells // size) for cells in grid.shape]
    boxes = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 3)
    boxes = boxes * size
    while size > 1:
        size //= 2
        ticks = np.minimum(boxes[:, :, None] + np.arange(3) * size, np.array(grid.shape)[:, None])
        bounds = enclose_halves(sdf, ticks * grid.cell + grid.origin[:, None])
        halves = boxes[:, None] + STEPS * size
        sides = np.minimum(halves + size, grid.shape) - np.minimum(halves, grid.shape)
        inside += int(sides.prod(axis=-1)[bounds[..., 1] < level].sum())
        boxes = halves[may_hold(bounds, level) & (sides > 0).all(axis=-1)]
    return Division(grid, boxes, inside * grid.cell**3)


def certify(
    sdf: Sdf, grid: Grid, level: float, cells: np.ndarray, crossed: np.ndarray
) -> Certificate:
    """The certificate for the ``cells (n, 3)`` of `divide`, of which ``crossed (n,)`` have
    corners on both sides."""
    beside = _beside(cells[~crossed], cells[crossed], grid)
    hidden, unknown = _searched(sdf, grid, level, cells[~crossed][~beside])
    counts = len(cells), int(crossed.sum()), int(beside.sum()), hidden, unknown
    # Any two points of two neighbouring cells are at most two diagonals apart.
    return Certificate(*counts, 2 * 3**0.5 * grid.cell)


def _beside(cells: np.ndarray, crossed: np.ndarray, grid: Grid) -> np.ndarray:
    """Which of ``cells (n, 3)`` have a neighbour in ``crossed (m, 3)``, along faces, edges or
    corners."""
    shape = np.array(grid.shape) + 2
    known = np.zeros(0, np.int64)
    if len(crossed):
        known = np.sort(np.ravel_multi_index(tuple((crossed + 1).T), tuple(shape)))
    found = np.zeros(len(cells), bool)
    for step in itertools.product((-1, 0, 1), repeat=3):
        keys = np.ravel_multi_index(tuple((cells + 1 + step).T), tuple(shape))
        found |= is_among(np.asarray(keys), known)
    return found


def _searched(sdf: Sdf, grid: Grid, level: float, cells: np.ndarray) -> tuple[int, int]:
    """How many of ``cells (n, 3)``, whose corners are on one side, hold surface for certain, and of
    how many nothing is known."""
    cell, hidden = np.arange(len(cells)), np.zeros(len(cells), bool)
    boxes, size = cells.astype(np.float64), 1.0
    for _ in range(DEEPEST):
        if not len(boxes):
            break
        size /= 2
        world = (boxes[:, :, None] + np.arange(3) * size) * grid.cell + grid.origin[:, None]
        may = may_hold(enclose_halves(sdf, world), level)
        boxes, cell = (boxes[:, None] + STEPS * size)[may], np.repeat(cell, may.sum(axis=1))
        sides = [
            sdf(points * grid.cell + grid.origin) < level
            for points in (boxes + size / 2, cells[cell])
        ]
        hidden[cell[sides[0] != sides[1]]] = True
        boxes, cell = boxes[~hidden[cell]], cell[~hidden[cell]]
    return int(hidden.sum()), len(np.unique(cell))


def may_hold(bounds: np.ndarray, level: float) -> np.ndarray:
    """Which boxes ``(...)`` may hold the surface of a ``level``, by ``bounds (..., 2)``."""
    return ~((bounds[..., 0] > level) | (bounds[..., 1] < level))  # so that NaN proves nothing


# ------------------------------------------------------------------------------
# questions
def proven_bounds(sdf: Sdf, resolution: int) -> Box:
    """See `nstr3d.sdf.queries.Queries.proven_bounds`."""
    division = divide(sdf, Grid.over(sdf.bounds, checked_resolution(resolution), 0.0), 0.0)
    if not len(division.cells):
        raise ValueError("the surface is empty, so it has no bounds")
    grid, cells = division.grid, division.cells
    lower, upper = cells.min(axis=0), cells.max(axis=0) + 1
    ends = (grid.origin + grid.cell * end for end in (lower, upper))
    return Box(*(tuple(end.tolist()) for end in ends))


def proven_volume(sdf: Sdf, resolution: int) -> tuple[float, float]:
    """See `nstr3d.sdf.queries.Queries.proven_volume`."""
    division = divide(sdf, Grid.over(sdf.bounds, checked_resolution(resolution), 0.0), 0.0)
    return division.inside, division.inside + len(division.cells) * division.grid.cell**3


def proven_apart(first: Sdf, second: Sdf, resolution: int) -> bool:
    """See `nstr3d.sdf.queries.Queries.proven_apart`."""
    expect(second, Sdf, "other")
    lower, upper = (
        choose([getattr(sdf.bounds, end) for sdf in (first, second)], axis=0)
        for choose, end in ((np.max, "lower"), (np.min, "upper"))
    )
    if (lower > upper).any():
        return True  # their bounds do not meet
    both = first.intersection(second)
    room = max(first.bounds.diagonal, second.bounds.diagonal) * 1e-6
    box = Box(tuple((lower - room).tolist()), tuple((upper + room).tolist()))
    division = divide(both, Grid.over(box, checked_resolution(resolution), 0.0), 0.0)
    return not len(division.cells) and not division.inside


def checked_resolution(resolution: int) -> int:
    """``resolution`` as an int. Raises TypeError or ValueError unless it is at least 2."""
    expect(resolution, (int, np.integer), "resolution")
    if resolution < 2:
        raise ValueError(f"resolution is {resolution}; bounds need at least 2 cells to an axis")
    return int(resolution)
