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
from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.sdf import Sdf
from nstr3d.surface.bricks import (
    BRICK,
    OCTANTS,
    Counted,
    Evaluate,
    Grid,
    Nodes,
    distinct,
    index_triples,
    kernels,
    merged,
    without,
)
from nstr3d.types import Box, Mesh

SAFETY = 1.1  # on the Lipschitz bound, when deciding what can hold surface
WIDENINGS = (
    1.0,
    2.0,
    4.0,
)  # of the stated Lipschitz bound, in turn, while samples show that it does not hold
# share of steps between samples that may be steeper: a few cracks are followed, and need no wider
# bound
TOLERATED = 1e-2


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
    grid = Grid.over(bounds or sdf.bounds, resolution, max(level, 0.0) if bounds is None else 0.0)
    field = Counted(sdf, level, grid, chunk)
    nodes = Nodes(grid, field)
    coarse = field(index_triples(grid.blocks) * grid.block + grid.block // 2).reshape(grid.blocks)
    lipschitz, bricks, rounds = _near_surface(sdf.lipschitz, coarse, grid, field, nodes)
    surface = _Surface(grid, nodes)
    surface.follow(bricks)
    while len(missed := _missed_blocks(coarse, surface.bricks(), grid)):
        per_block = grid.block // BRICK
        inner = index_triples((per_block, per_block, per_block))
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


class _Surface:
    """The bricks that the surface crosses, grown by following it from brick to brick."""

    def __init__(self, grid: Grid, nodes: Nodes) -> None:
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
        keys = without(distinct(self.grid.keys(bricks)), self.visited)
        while len(keys):
            self.rounds += 1
            self.visited = merged(self.visited, keys)
            bricks = self.grid.coordinates(keys)
            inside = self.nodes.at(bricks) < 0
            crossed = _mixed(inside.reshape(-1, 27))
            self.crossed = merged(self.crossed, keys[crossed])
            keys = without(
                distinct(self.grid.keys(self._beyond(bricks[crossed], inside[crossed]))),
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
    stated: float, coarse: np.ndarray, grid: Grid, field: Evaluate, nodes: Nodes
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
    coarse: np.ndarray, grid: Grid, field: Evaluate, bound: float
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


def _missed_blocks(coarse: np.ndarray, crossed: np.ndarray, grid: Grid) -> np.ndarray:
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


def _march(bricks: np.ndarray, nodes: Nodes, grid: Grid) -> Mesh:
    """Marching cubes over ``bricks (n, 3)``, vertices shared, in world units."""
    vertices, faces = kernels().march(nodes.index(bricks), nodes.values.reshape(-1), bricks * BRICK)
    return _without_grains(Mesh(grid.origin + vertices * grid.cell, faces))


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
