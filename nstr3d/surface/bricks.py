"""The grid of an isosurface extraction: bricks of cells, sparse node values, sets of brick keys."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from nstr3d.kernels.available import numba_found
from nstr3d.types import Box

if TYPE_CHECKING:
    from nstr3d.sdf import Sdf

PADDING = 0.03  # added to the bounds on every side, as a fraction of their longest side
BLOCKS = 64  # upper limit of the blocks along the longest axis
BRICK = 2  # cells along the edge of a brick
# This order is also that of the eight nodes that a brick owns.
OCTANTS = np.array(list(itertools.product((0, 1), repeat=3)))

Evaluate = Callable[[np.ndarray], np.ndarray]


def kernels() -> ModuleType:
    """The module of node search and marching cubes: numba, or numpy where numba is absent."""
    if numba_found():
        from nstr3d.kernels.geometry import cells
    else:
        from nstr3d.kernels.geometry import plaincells as cells
    return cells


@dataclass(frozen=True)
class Grid:
    """A grid of cubic cells with nodes at ``origin + cell * (i, j, k)``.

    ``origin (3,)`` and ``cell``, the edge length of a cell, are in world units. There are
    ``blocks`` blocks along each axis, and ``block`` cells along the edge of a block.
    """

    origin: np.ndarray
    cell: float
    blocks: tuple[int, int, int]
    block: int

    @staticmethod
    def over(bounds: Box, resolution: int, grow: float) -> Grid:
        """The grid with ``resolution`` cells along the longest side of the grown and padded bounds.

        The bounds grow by ``grow`` world units on every side. PADDING is then added. The grid
        consists of whole blocks and is centred on the bounds. Raises ValueError if the bounds
        are not finite, are inverted or have no size.
        """
        extent = bounds.extent + 2 * grow
        box = f"the bounds {bounds.lower} to {bounds.upper}"
        if not np.isfinite([*bounds.lower, *bounds.upper]).all():
            raise ValueError(f"{box} are not finite; give a finite box that holds the surface")
        if not bounds.extent.min() >= 0:
            raise ValueError(f"{box} have an upper corner below the lower one; exchange the two")
        if not 0 < extent.max() < np.inf:
            raise ValueError(f"{box} have no size; give a box that holds the surface")
        padded = extent + 2 * PADDING * extent.max()
        cell = float(padded.max() / resolution)
        block = BRICK
        while resolution > BLOCKS * block:
            block *= 2
        x, y, z = np.ceil(padded / (cell * block) - 1e-9).astype(int).tolist()
        return Grid(
            bounds.centre - np.array((x, y, z)) * (cell * block / 2), cell, (x, y, z), block
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along each axis."""
        x, y, z = (n * self.block for n in self.blocks)
        return x, y, z

    @property
    def bricks(self) -> np.ndarray:
        """Bricks along each axis."""
        return np.array(self.shape) // BRICK

    def keys(self, bricks: np.ndarray) -> np.ndarray:
        """One int64 key for each brick of ``bricks (..., 3)``.

        The layer of bricks just beyond the upper ends of the grid has keys too.
        """
        _, y, z = self.bricks + 1
        return (bricks[..., 0] * y + bricks[..., 1]) * z + bricks[..., 2]

    def coordinates(self, keys: np.ndarray) -> np.ndarray:
        """The bricks ``(n, 3)`` with the keys ``keys (n,)``."""
        return np.stack(np.unravel_index(keys, tuple((self.bricks + 1).tolist())), axis=-1)


class Counted:
    """Signed distance minus ``level`` at grid positions ``(n, 3)``, with a count of evaluations.

    Positions are in cells from the origin. ``chunk`` points are evaluated at a time. Raises
    ValueError if a distance is not finite.
    """

    def __init__(self, sdf: Sdf, level: float, grid: Grid, chunk: int) -> None:
        self.sdf, self.level, self.grid, self.chunk = sdf, level, grid, chunk
        self.count = 0

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        values = np.empty(len(positions))
        for start in range(0, len(positions), self.chunk):
            points = self.grid.origin + positions[start : start + self.chunk] * self.grid.cell
            values[start : start + self.chunk] = self.sdf(points)
        self.count += len(positions)
        values -= self.level
        if not np.isfinite(values).all():
            first = self.grid.origin + positions[np.argmin(np.isfinite(values))] * self.grid.cell
            raise ValueError(
                f"the signed distance at {first.tolist()} is not finite; the field cannot be "
                "extracted"
            )
        # Zeros become positive, so that all later tests of sign agree about them.
        values[values == 0] = np.finfo(np.float64).tiny
        return values


class Nodes:
    """The values at the evaluated nodes, stored sparsely by brick.

    Brick b owns the eight nodes ``2 b + {0, 1}^3``. NaN marks a node that is not evaluated.
    """

    def __init__(self, grid: Grid, field: Evaluate) -> None:
        self.grid, self.field = grid, field
        self.keys = np.empty(0, np.int64)
        self.values = np.empty((0, 8))

    def put_centres(self, bricks: np.ndarray, values: np.ndarray) -> None:
        """Store the known ``values (n,)`` at the centres of ``bricks (n, 3)``.

        The centre of a brick is the last of its eight nodes.
        """
        keys = self.grid.keys(bricks)
        self._own(keys)
        at = np.searchsorted(self.keys, keys)
        self.values[at, 7] = values

    def at(self, bricks: np.ndarray) -> np.ndarray:
        """Evaluate the unknown nodes of ``bricks (n, 3)``; return all values ``(n, 3, 3, 3)``."""
        index, flat = self.index(bricks), self.values.reshape(-1)
        new = kernels().unknown(index, flat)
        flat[new] = self.field(self.positions(new))
        return flat[index].reshape(-1, 3, 3, 3)

    def crossed(self, cells: np.ndarray) -> np.ndarray:
        """Whether each of ``cells (n, 3)`` has corners on both sides of the surface."""
        keys = self.grid.keys(cells // BRICK)
        bricks, which = np.unique(keys, return_inverse=True)
        inside = self.at(self.grid.coordinates(bricks)) < 0
        corners = (cells % BRICK)[:, None] + OCTANTS
        count = inside[which[:, None], corners[..., 0], corners[..., 1], corners[..., 2]].sum(
            axis=1
        )
        return (count > 0) & (count < 8)

    def index(self, bricks: np.ndarray) -> np.ndarray:
        """Indices ``(n, 27)`` of the nodes of each brick in the flattened values.

        The indices are valid until bricks are added.
        """
        keys, steps = self.grid.keys(bricks), self.grid.keys(OCTANTS)
        self._own((keys[:, None] + steps).ravel())
        return kernels().locate(keys, steps, self.keys)

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Grid positions ``(n, 3)`` of the nodes at ``index (n,)`` in the flattened values."""
        return self.grid.coordinates(self.keys[index // 8]) * BRICK + OCTANTS[index % 8]

    def _own(self, keys: np.ndarray) -> None:
        """Add storage for the nodes of the bricks with these keys."""
        new = without(distinct(keys), self.keys)
        if len(new):
            at = np.searchsorted(self.keys, new)
            self.keys = np.insert(self.keys, at, new)
            self.values = np.insert(self.values, at, np.nan, axis=0)


def index_triples(shape: tuple[int, int, int]) -> np.ndarray:
    """All index triples ``(n, 3)`` of an array of this shape, in row-major order."""
    return np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=-1)


def distinct(keys: np.ndarray) -> np.ndarray:
    """The sorted distinct ``keys``.

    Sorting is several times faster here than the hashing of np.unique.
    """
    ordered = np.sort(keys)
    return (
        ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered
    )


def without(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The elements of the sorted ``keys`` that are not in the sorted ``known``."""
    return keys[~is_among(keys, known)]


def is_among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which of ``keys`` are in the sorted ``known``."""
    if not len(known):
        return np.zeros(len(keys), bool)
    return known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys


def merged(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The sorted union of two sorted arrays that have no common element."""
    return np.insert(known, np.searchsorted(known, new), new)
