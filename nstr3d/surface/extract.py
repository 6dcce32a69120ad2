"""Isosurface extraction: `Sdf` -> watertight `Mesh`, evaluating only near the surface.

The grid has cubic cells. A brick has two cells along its edge. A block has a power of two of bricks
along its edge, and there are at most 64 blocks along an axis. One dense pass evaluates the centres
of the blocks. The Lipschitz bound then selects the blocks that can hold surface, and repeated
halving selects the bricks. Every node of the selected bricks is evaluated once.

The Lipschitz bound of a fitted field is an estimate, so three checks follow. If samples differ by
more than the bound allows, the bound is widened and the selection is repeated. If the surface
leaves a brick through a face, the neighbouring brick is added, and this continues until no
neighbour is new; the mesh therefore has no boundary. If two neighbouring block centres differ in
sign and neither block holds surface, all bricks of both blocks are added.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.kernels.field.fused import unchanged
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
from nstr3d.surface.certified import Certificate, certify, describe, divide
from nstr3d.types import Box, Mesh, expect

SAFETY = 1.1  # factor on the Lipschitz bound in the selection of blocks and bricks
# Factors on the stated Lipschitz bound, tried in turn while the samples contradict the bound.
WIDENINGS = (1.0, 2.0, 4.0)
# Fraction of the steps between samples that may exceed the bound. Following the surface finds a few
# cracks without a wider bound.
TOLERATED = 1e-2


class EmptySurface(ValueError):
    """Raised where there is no surface: all samples lie on one side of it."""


@dataclass(frozen=True)
class Extraction:
    """An isosurface, ``mesh`` in world units, and the cost of its extraction.

    ``cell`` is the edge length of a grid cell in world units, ``shape`` the number of cells along
    each axis, ``evaluations`` the number of computed distances but for those of proofs, and
    ``lipschitz`` the bound in use at the end. ``rounds`` counts the selections of bricks and the
    passes that added bricks; it is 1 where the stated bound was good. ``certificate`` says what is
    proven, if that was asked for.
    """

    mesh: Mesh
    cell: float
    shape: tuple[int, int, int]
    evaluations: int
    lipschitz: float
    rounds: int
    certificate: Certificate | None = None


def extract_mesh(
    sdf: Sdf, resolution: int = 512, level: float = 0.0, bounds: Box | None = None
) -> Mesh:
    """The surface ``sdf(p) = level`` as a closed mesh in world units; see `extract`."""
    return extract(sdf, resolution, level, bounds).mesh


@unchanged()
def extract(
    sdf: Sdf,
    resolution: int = 512,
    level: float = 0.0,
    bounds: Box | None = None,
    chunk: int = 1 << 17,
    certified: bool = False,
) -> Extraction:
    """Extract the surface ``sdf(p) = level`` by marching cubes over the cells that it crosses.

    The cells are found coarse to fine. ``resolution`` cells lie along the longest side of the
    padded bounds. ``bounds`` defaults to ``sdf.bounds``, grown by ``level`` if ``level`` is
    positive. The padding is 3% of the longest side on every side. ``chunk`` points are evaluated at
    a time. A closed piece around a single node is smaller than the grid resolves; it is left out
    unless the surface has no other pieces. The mesh is watertight, and its faces are
    counter-clockwise seen from the side of larger distance.

    With ``certified``, the cells are found by proven bounds of the distance in place of its
    Lipschitz bound, so that no cell is missed, small pieces stay, and the result has a
    `Certificate`.

    Raises TypeError for objects of other types, and ValueError if the resolution is below 2, the
    Lipschitz bound is not positive, the bounds have no size, a distance is not finite, the surface
    reaches the padded bounds, or nothing is proven of a distance that is to be certified; if the
    level set is empty, this is an `EmptySurface`.
    """
    expect(sdf, Sdf, "sdf")
    expect(resolution, (int, np.integer), "resolution")
    expect(level, (int, float, np.number), "level")
    if bounds is not None:
        expect(bounds, Box, "bounds")
    if resolution < 2:
        raise ValueError(
            f"resolution is {resolution}; isosurface extraction needs at least 2 cells to an axis"
        )
    if not sdf.lipschitz > 0:
        raise ValueError(
            f"the Lipschitz bound of the signed distance is {sdf.lipschitz}; it must be positive"
        )
    grid = Grid.over(bounds or sdf.bounds, resolution, max(level, 0.0) if bounds is None else 0.0)
    field = Counted(sdf, level, grid, chunk)
    nodes = Nodes(grid, field)
    surface, certificate = _Surface(grid, nodes), None
    if certified:
        cells = divide(sdf, grid, level).cells
        surface.follow(cells // BRICK)
        certificate = certify(sdf, grid, level, cells, nodes.crossed(cells))
        lipschitz, rounds = sdf.lipschitz, 1
    else:
        lipschitz, rounds = _find(surface, sdf.lipschitz, field)
    if not len(surface_bricks := surface.bricks()):
        if certificate and not certificate.complete:
            raise ValueError(
                "no cell has corners on both sides of the surface, but it is not proven to be "
                f"empty: {describe(certificate)}"
            )
        raise EmptySurface(
            f"the level set {level:g} is empty: all samples within the bounds lie on one side of "
            "it; check the bounds"
        )
    mesh = _march(surface_bricks, nodes, grid)
    return Extraction(
        mesh if certified else _without_grains(mesh),
        grid.cell,
        grid.shape,
        field.count,
        lipschitz,
        rounds + surface.rounds - 1,
        certificate,
    )


def _find(surface: _Surface, stated: float, field: Evaluate) -> tuple[float, int]:
    """Finds the surface by the Lipschitz bound. Returns the bound in use and the number of
    selections of bricks."""
    grid, nodes = surface.grid, surface.nodes
    coarse = field(index_triples(grid.blocks) * grid.block + grid.block // 2).reshape(grid.blocks)
    lipschitz, bricks, rounds = _near_surface(stated, coarse, grid, field, nodes)
    surface.follow(bricks)
    while len(missed := _missed_blocks(coarse, surface.bricks(), grid)):
        per_block = grid.block // BRICK
        inner = index_triples((per_block, per_block, per_block))
        surface.follow((missed[:, None] * per_block + inner).reshape(-1, 3))
    return lipschitz, rounds


class _Surface:
    """The bricks that the surface crosses, found by following it from brick to brick."""

    def __init__(self, grid: Grid, nodes: Nodes) -> None:
        self.grid, self.nodes = grid, nodes
        self.visited = np.empty(0, np.int64)
        self.crossed = np.empty(0, np.int64)
        self.rounds = 0

    def bricks(self) -> np.ndarray:
        """The crossed bricks ``(n, 3)``."""
        return self.grid.coordinates(self.crossed)

    def follow(self, bricks: np.ndarray) -> None:
        """Visit ``bricks (n, 3)``, then their neighbours across crossed faces until none is new."""
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
        """The bricks ``(m, 3)`` across the faces on which ``inside (n, 3, 3, 3)`` changes.

        Raises ValueError if such a brick lies outside the grid.
        """
        surface_bricks = []
        for axis, side in itertools.product(range(3), (-1, 1)):
            leaves = _mixed(inside.take(side + 1, axis=axis + 1).reshape(-1, 9))
            surface_bricks.append(bricks[leaves])
            surface_bricks[-1][:, axis] += side
        beyond = np.concatenate(surface_bricks)
        if ((beyond < 0) | (beyond >= self.grid.bricks)).any():
            raise ValueError(
                "the surface reaches the border of the padded bounds, so it cannot be closed; "
                "give larger bounds"
            )
        return beyond


def _near_surface(
    stated: float, coarse: np.ndarray, grid: Grid, field: Evaluate, nodes: Nodes
) -> tuple[float, np.ndarray, int]:
    """Select the bricks that can hold surface; widen the stated bound if the samples contradict it.

    Returns the bound in use, the bricks ``(n, 3)`` and the number of rounds. All nodes of the
    bricks are evaluated, except after the last widening, when only their centres are.
    """
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
    """Select the bricks whose circumscribed ball can meet the surface.

    Returns the bricks ``(n, 3)`` and the values ``(n,)`` at their centres.
    """
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
    """Neighbouring blocks ``(n, 3)`` of different sign at the centre and without crossed bricks."""
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
    """Marching cubes over ``bricks (n, 3)``: a mesh in world units with shared vertices."""
    vertices, faces = kernels().march(nodes.index(bricks), nodes.values.reshape(-1), bricks * BRICK)
    return Mesh(grid.origin + vertices * grid.cell, faces)


def _without_grains(mesh: Mesh) -> Mesh:
    """The mesh without the closed pieces around a single node, unless it has no other pieces.

    Such a piece is smaller than the grid resolves and counts as noise. It is an octahedron. By V -
    E + F = 2, a closed piece whose vertices all have four faces is always an octahedron.
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
    """Whether too many steps along the last three axes of ``values`` are larger than ``step``.

    Too many is more than the fraction TOLERATED.
    """
    steps = [np.abs(np.diff(values, axis=axis)) > step for axis in (-3, -2, -1)]
    return sum(int(np.count_nonzero(each)) for each in steps) > TOLERATED * sum(
        each.size for each in steps
    )


def _mixed(inside: np.ndarray) -> np.ndarray:
    """Which rows ``(n,)`` of ``inside (n, m)`` hold both true and false."""
    count = np.count_nonzero(inside, axis=1)
    return (count > 0) & (count < inside.shape[1])
