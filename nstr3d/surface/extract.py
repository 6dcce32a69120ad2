"""Isosurface extraction: `Sdf` -> watertight `Mesh`, evaluating only near the surface.

The grid has cubic cells. Two cells to an edge make a brick, a power of two of bricks to an edge
makes a block, and there are at most about 64 blocks to an axis. One dense pass evaluates the block
centres; the Lipschitz bound then says which blocks, and by halving which bricks, can hold surface,
and every node of those bricks is evaluated once. The bound of a fitted field is an estimate, so
three checks follow. Where samples differ by more than the bound allows, it is widened and the
selection is repeated. Where the surface leaves a brick through a face, the neighbour is added until
none is left, so the mesh has no boundary. And where two neighbouring block centres differ in sign
with no surface found in either block, all of both is added.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.kernels.available import numba_found
from nstr3d.sdf import Sdf
from nstr3d.types import Box, Mesh

PADDING = 0.03  # of the longest side of the bounds, on every side
SAFETY = 1.1  # on the Lipschitz bound, when deciding what can hold surface
# of the stated Lipschitz bound, in turn, while samples show that it does not hold
WIDENINGS = 1.0, 2.0, 4.0
# share of steps between samples that may be steeper: a few cracks are followed, and need no wider
# bound
TOLERATED = 1e-2
BRICK = 2  # cells to the edge of a brick
BLOCKS = 64  # blocks to the longest axis, about

# also the order of the eight nodes that a brick owns
OCTANTS = np.array(list(itertools.product((0, 1), repeat=3)))
Evaluate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Extraction:
    """An isosurface, ``mesh`` in world units, and what it cost.

    ``cell`` is the edge length of a grid cell, ``shape`` the cells along each axis, ``evaluations``
    the distances computed, ``lipschitz`` the bound in use at the end, ``rounds`` how often bricks
    were added (1 where the stated bound was good).
    """

    mesh: Mesh
    cell: float
    shape: tuple[int, int, int]
    evaluations: int
    lipschitz: float
    rounds: int


def extract_mesh(
    sdf: Sdf, resolution: int = 512, level: float = 0.0, bounds: Box | None = None
) -> Mesh:
    """The surface ``sdf(p) = level`` as a closed mesh in world units; see `extract`."""
    return extract(sdf, resolution, level, bounds).mesh


def extract(
    sdf: Sdf,
    resolution: int = 512,
    level: float = 0.0,
    bounds: Box | None = None,
    chunk: int = 1 << 17,
) -> Extraction:
    """Marching cubes over the cells that ``sdf(p) = level`` crosses, found coarse to fine.

    ``resolution`` cells lie along the longest side of ``bounds`` (default: ``sdf.bounds``, grown by
    ``level`` where that is positive) padded by 3%; ``chunk`` points are evaluated at a time. A
    closed piece around a single node, smaller than the grid resolves, is left out unless it is all
    there is. The mesh is watertight, its faces counter-clockwise seen from where the distance is
    larger. Raises ValueError for a resolution below 2, a distance that is not finite, a level set
    that is empty, and a surface that reaches the padded bounds.
    """
    if resolution < 2:
        raise ValueError(
            f"resolution is {resolution}; isosurface extraction needs at least 2 cells to an axis"
        )
    if sdf.lipschitz <= 0:
        raise ValueError(
            f"the Lipschitz bound of the signed distance is {sdf.lipschitz}; it must be positive"
        )
    grid = _Grid.over(bounds or sdf.bounds, resolution, max(level, 0.0) if bounds is None else 0.0)
    field = _Counted(sdf, level, grid, chunk)
    nodes = _Nodes(grid, field)
    coarse = field(_lattice(grid.blocks) * grid.block + grid.block // 2).reshape(grid.blocks)
    lipschitz, bricks, rounds = _near_surface(sdf.lipschitz, coarse, grid, field, nodes)
    surface = _Surface(grid, nodes)
    surface.follow(bricks)
    while len(missed := _missed_blocks(coarse, surface.bricks(), grid)):
        per_block = grid.block // BRICK
        inner = _lattice((per_block, per_block, per_block))
        surface.follow((missed[:, None] * per_block + inner).reshape(-1, 3))
    if not len(found := surface.bricks()):
        raise ValueError(
            f"the level set {level:g} is empty: no sample in the bounds lies on its other side; "
            "check the bounds"
        )
    mesh = _march(found, nodes, grid)
    return Extraction(
        mesh, grid.cell, grid.shape, field.count, lipschitz, rounds + surface.rounds - 1
    )


@dataclass(frozen=True)
class _Grid:
    """Nodes at ``origin + cell * (i, j, k)``; ``blocks`` blocks along each axis, each ``block``
    cells to an edge."""

    origin: np.ndarray
    cell: float
    blocks: tuple[int, int, int]
    block: int

    @staticmethod
    def over(bounds: Box, resolution: int, grow: float) -> _Grid:
        """The grid of ``resolution`` cells along the longest side of the grown and padded bounds,
        whole blocks only."""
        extent = bounds.extent + 2 * grow
        if not (np.isfinite(extent).all() and extent.max() > 0 and extent.min() >= 0):
            raise ValueError(
                f"the bounds {bounds.lower} to {bounds.upper} have no size; give a box that holds "
                "the surface"
            )
        padded = extent + 2 * PADDING * extent.max()
        cell = float(padded.max() / resolution)
        block = BRICK
        while resolution > BLOCKS * block:
            block *= 2
        x, y, z = np.ceil(padded / (cell * block) - 1e-9).astype(int).tolist()
        return _Grid(
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
        """One int64 for each brick ``(..., 3)``; the layer of bricks just beyond the upper ends has
        keys too."""
        _, y, z = self.bricks + 1
        return (bricks[..., 0] * y + bricks[..., 1]) * z + bricks[..., 2]

    def coordinates(self, keys: np.ndarray) -> np.ndarray:
        """Bricks ``(n, 3)`` from their keys."""
        return np.stack(np.unravel_index(keys, tuple((self.bricks + 1).tolist())), axis=-1)


class _Counted:
    """Signed distance minus level at grid positions ``(n, 3)``, in chunks, counting the
    evaluations."""

    def __init__(self, sdf: Sdf, level: float, grid: _Grid, chunk: int) -> None:
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
        # A zero is made positive so that every later test of sign agrees about it.
        values[values == 0] = np.finfo(np.float64).tiny
        return values


class _Nodes:
    """The evaluated nodes, sparse: brick b owns the eight nodes ``2 b + {0, 1}^3``; not a number =
    not evaluated."""

    def __init__(self, grid: _Grid, field: Evaluate) -> None:
        self.grid, self.field = grid, field
        self.keys = np.empty(0, np.int64)
        self.values = np.empty((0, 8))

    def put_centres(self, bricks: np.ndarray, values: np.ndarray) -> None:
        """Take the values known at the centres of bricks, where the last of the eight nodes is."""
        keys = self.grid.keys(bricks)
        self._own(keys)
        at = np.searchsorted(self.keys, keys)
        self.values[at, 7] = values

    def at(self, bricks: np.ndarray) -> np.ndarray:
        """Values ``(n, 3, 3, 3)`` at the nodes of bricks ``(n, 3)``, evaluating those not known
        yet."""
        index, flat = self.index(bricks), self.values.reshape(-1)
        new = _kernels().unknown(index, flat)
        flat[new] = self.field(self.positions(new))
        return flat[index].reshape(-1, 3, 3, 3)

    def index(self, bricks: np.ndarray) -> np.ndarray:
        """Where in the flattened values the 27 nodes of each brick are, ``(n, 27)``; valid until
        bricks are added."""
        keys, steps = self.grid.keys(bricks), self.grid.keys(OCTANTS)
        self._own((keys[:, None] + steps).ravel())
        return _kernels().locate(keys, steps, self.keys)

    def positions(self, index: np.ndarray) -> np.ndarray:
        """Grid positions ``(n, 3)`` of the nodes at ``index`` in the flattened values."""
        return self.grid.coordinates(self.keys[index // 8]) * BRICK + OCTANTS[index % 8]

    def _own(self, keys: np.ndarray) -> None:
        """Make room for the nodes of these bricks."""
        new = _without(_distinct(keys), self.keys)
        if len(new):
            at = np.searchsorted(self.keys, new)
            self.keys = np.insert(self.keys, at, new)
            self.values = np.insert(self.values, at, np.nan, axis=0)


class _Surface:
    """The bricks that the surface crosses, grown by following it from brick to brick."""

    def __init__(self, grid: _Grid, nodes: _Nodes) -> None:
        self.grid, self.nodes = grid, nodes
        self.visited = np.empty(0, np.int64)
        self.crossed = np.empty(0, np.int64)
        self.rounds = 0

    def bricks(self) -> np.ndarray:
        """The crossed bricks ``(n, 3)``."""
        return self.grid.coordinates(self.crossed)

    def follow(self, bricks: np.ndarray) -> None:
        """Visit ``bricks (n, 3)``, and on from each to the neighbours that share a crossed face,
        until none is new."""
        keys = _without(_distinct(self.grid.keys(bricks)), self.visited)
        while len(keys):
            self.rounds += 1
            self.visited = _merged(self.visited, keys)
            bricks = self.grid.coordinates(keys)
            inside = self.nodes.at(bricks) < 0
            crossed = _mixed(inside.reshape(-1, 27))
            self.crossed = _merged(self.crossed, keys[crossed])
            keys = _without(
                _distinct(self.grid.keys(self._beyond(bricks[crossed], inside[crossed]))),
                self.visited,
            )

    def _beyond(self, bricks: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """The bricks ``(m, 3)`` across the faces on which ``inside (n, 3, 3, 3)`` changes."""
        found = []
        for axis, side in itertools.product(range(3), (-1, 1)):
            leaves = _mixed(inside.take(side + 1, axis=axis + 1).reshape(-1, 9))
            found.append(bricks[leaves])
            found[-1][:, axis] += side
        beyond = np.concatenate(found)
        if ((beyond < 0) | (beyond >= self.grid.bricks)).any():
            raise ValueError(
                "the surface reaches the border of the padded bounds, so it cannot be closed; "
                "give larger bounds"
            )
        return beyond


def _near_surface(
    stated: float, coarse: np.ndarray, grid: _Grid, field: Evaluate, nodes: _Nodes
) -> tuple[float, np.ndarray, int]:
    """The bricks ``(n, 3)`` that can hold surface, their nodes evaluated, under the stated bound or
    a wider one where the samples show that it does not hold; with the bound in use and how many
    rounds that took."""
    rounds = 0
    while True:
        lipschitz = stated * WIDENINGS[rounds]
        rounds += 1
        last = rounds == len(WIDENINGS)
        if not last and _steep(coarse, SAFETY * lipschitz * grid.cell * grid.block):
            continue
        bricks, centres = _select(coarse, grid, field, SAFETY * lipschitz)
        nodes.put_centres(bricks, centres)
        if last or not _steep(nodes.at(bricks), SAFETY * lipschitz * grid.cell):
            return lipschitz, bricks, rounds


def _select(
    coarse: np.ndarray, grid: _Grid, field: Evaluate, bound: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bricks ``(n, 3)`` whose circumscribed ball can meet the surface, and the values at their
    centres ``(n,)``."""
    size = grid.block
    near = np.abs(coarse) <= bound * grid.cell * size * math.sqrt(3) / 2
    kept, values = np.argwhere(near), coarse[near]
    while size > BRICK:
        size //= 2
        kept = (kept[:, None] * 2 + OCTANTS).reshape(-1, 3)
        values = field(kept * size + size // 2)
        near = np.abs(values) <= bound * grid.cell * size * math.sqrt(3) / 2
        kept, values = kept[near], values[near]
    return kept, values


def _missed_blocks(coarse: np.ndarray, crossed: np.ndarray, grid: _Grid) -> np.ndarray:
    """Blocks ``(n, 3)`` on both sides of a change of sign between block centres where neither holds
    crossed bricks."""
    holds = np.zeros(grid.blocks, bool)
    holds[tuple((crossed // (grid.block // BRICK)).T)] = True
    missed = np.zeros(grid.blocks, bool)
    for axis in range(3):
        lower = [slice(None)] * 3
        upper = [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(lower), tuple(upper)
        unseen = ((coarse[a] < 0) != (coarse[b] < 0)) & ~holds[a] & ~holds[b]
        missed[a] |= unseen
        missed[b] |= unseen
    return np.argwhere(missed)


def _march(bricks: np.ndarray, nodes: _Nodes, grid: _Grid) -> Mesh:
    """Marching cubes over ``bricks (n, 3)``, vertices shared, in world units."""
    vertices, faces = _kernels().march(
        nodes.index(bricks), nodes.values.reshape(-1), bricks * BRICK
    )
    return _without_grains(Mesh(grid.origin + vertices * grid.cell, faces))


def _kernels() -> ModuleType:
    """What finds nodes and marches over bricks: compiled, or its twin where numba is absent."""
    if numba_found():
        from nstr3d.kernels.geometry import cells
    else:
        from nstr3d.kernels.geometry import plaincells as cells
    return cells


def _without_grains(mesh: Mesh) -> Mesh:
    """Without the closed pieces around a single node: smaller than the grid resolves, they are
    noise, unless all there is.

    Each is an octahedron, and as V - E + F = 2 shows, a closed piece whose vertices all have four
    faces can be nothing else.
    """
    grains, count = np.arange(len(mesh.faces)), -1
    valence = np.bincount(mesh.faces.ravel(), minlength=len(mesh.vertices))
    while len(grains) != count:
        count = len(grains)
        grains = grains[(valence[mesh.faces[grains]] == 4).all(axis=1)]
        valence = np.bincount(mesh.faces[grains].ravel(), minlength=len(mesh.vertices))
    if len(grains) in (0, len(mesh.faces)):
        return mesh
    return drop_unused_vertices(Mesh(mesh.vertices, np.delete(mesh.faces, grains, axis=0)))


def _lattice(shape: tuple[int, int, int]) -> np.ndarray:
    """All index triples ``(n, 3)`` of an array of this shape, in its order."""
    return np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=-1)


def _steep(values: np.ndarray, step: float) -> bool:
    """Whether neighbours along the last three axes of ``values`` differ by more than ``step`` more
    often than is tolerated."""
    steps = [np.abs(np.diff(values, axis=axis)) > step for axis in (-3, -2, -1)]
    return sum(int(np.count_nonzero(each)) for each in steps) > TOLERATED * sum(
        each.size for each in steps
    )


def _mixed(inside: np.ndarray) -> np.ndarray:
    """Rows ``(n,)`` of ``inside (n, m)`` that hold both true and false."""
    count = np.count_nonzero(inside, axis=1)
    return (count > 0) & (count < inside.shape[1])


def _distinct(keys: np.ndarray) -> np.ndarray:
    """The sorted distinct ``keys``; by sorting, which is several times faster here than the hashing
    of np.unique."""
    ordered = np.sort(keys)
    return (
        ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered
    )


def _without(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Those of the sorted ``keys`` that the sorted ``known`` lacks."""
    if not len(known):
        return keys
    return keys[known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] != keys]


def _merged(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Two sorted arrays without common elements as one."""
    return np.insert(known, np.searchsorted(known, new), new)
