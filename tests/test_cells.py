"""Bricks and marching cubes over them, compiled and plain, against a direct search and libigl."""

import itertools
from types import ModuleType

import igl
import numpy as np
import pytest

from nstr3d.kernels.geometry import cells, plaincells
from nstr3d.kernels.geometry.plaincells import AROUND, cases

TWINS = pytest.mark.parametrize("kernels", [cells, plaincells], ids=["compiled", "plain"])

OCTANTS = np.array(list(itertools.product((0, 1), repeat=3)))
STENCIL = np.array(list(itertools.product((0, 1, 2), repeat=3)))
SIDE = 5  # bricks along an axis, with the layer beyond the upper end


def keys(bricks: np.ndarray) -> np.ndarray:
    return bricks @ (SIDE * SIDE, SIDE, 1)


def scene(seed: int, kernels: ModuleType = cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the bricks in random order, the indices of their nodes, and the grid coordinates of
    all nodes that the bricks own."""
    generator = np.random.default_rng(seed)
    bricks = np.array(list(itertools.product(range(SIDE - 1), repeat=3)))
    bricks = bricks[generator.permutation(len(bricks))[: 40 if seed else 64]]
    known = np.unique(keys(bricks[:, None] + OCTANTS))
    owners = np.stack(np.unravel_index(known, (SIDE,) * 3), axis=1)
    return (
        bricks,
        kernels.locate(keys(bricks), keys(OCTANTS), known),
        (2 * owners[:, None] + OCTANTS).reshape(-1, 3),
    )


@TWINS
@pytest.mark.parametrize("seed", range(4))
def test_every_node_of_a_brick_is_where_it_is_said_to_be(seed: int, kernels: ModuleType) -> None:
    bricks, index, nodes = scene(seed, kernels)
    np.testing.assert_array_equal(nodes[index], 2 * bricks[:, None] + STENCIL)


@TWINS
@pytest.mark.parametrize("seed", range(4))
def test_unknown_values_are_found_once(seed: int, kernels: ModuleType) -> None:
    _, index, nodes = scene(seed)
    values = np.where(np.random.default_rng(seed).random(len(nodes)) < 0.4, np.nan, 1.0)
    expected = np.intersect1d(np.flatnonzero(np.isnan(values)), index)
    unknowns = kernels.unknown(index, values)
    np.testing.assert_array_equal(np.sort(unknowns), expected)
    assert np.isinf(values[unknowns]).all()
    assert not len(kernels.unknown(index, values))


@TWINS
@pytest.mark.parametrize("seed", range(6))
def test_the_surface_is_that_of_libigl(seed: int, kernels: ModuleType) -> None:
    """Noise contains every case, including ambiguous faces and tunnels, which are rare in smooth
    fields."""
    bricks, index, nodes = scene(seed)
    values = np.random.default_rng([seed, 1]).normal(size=len(nodes))
    vertices, faces = kernels.march(index, values, 2 * bricks)
    corners = (OCTANTS[:, None] + OCTANTS[list(AROUND)]) @ (9, 3, 1)
    theirs, their_faces, _ = igl.marching_cubes(
        values, nodes.astype(float), index[:, corners].reshape(-1, 8), 0.0
    )
    assert len(vertices) == len(theirs)
    assert len(faces) == len(their_faces)
    np.testing.assert_allclose(
        triangles(vertices, faces), triangles(theirs, their_faces), atol=1e-12
    )


@pytest.mark.parametrize("at_a_time", [1, 7, 1 << 16])
def test_the_twins_number_vertices_and_faces_alike(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plaincells, "BRICKS", at_a_time)
    for seed in range(3):
        bricks, index, nodes = scene(seed)
        values = np.random.default_rng([seed, 2]).normal(size=len(nodes))
        values[::5] = np.nan
        there = values.copy()
        np.testing.assert_array_equal(
            plaincells.unknown(index, values), cells.unknown(index, there)
        )
        np.testing.assert_array_equal(values, there)
        values[::5] = 1e-300  # nodes on the surface
        for one, other in zip(
            plaincells.march(index, values, 2 * bricks), cells.march(index, values, 2 * bricks)
        ):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def triangles(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The corners of every face, ``(n, 9)``: rotated to start at the lexicographically smallest
    corner, with the faces sorted."""
    corners = vertices[faces].round(9)
    least = [min(range(3), key=lambda corner: tuple(face[corner])) for face in corners]
    turned = np.stack(
        [np.roll(face, -first, axis=0) for face, first in zip(corners, least)]
    ).reshape(-1, 9)
    return turned[np.lexsort(turned.T[::-1])]


def test_a_cell_and_its_opposite_have_the_same_edges() -> None:
    counts, edges = cases()
    for case in range(256):
        corners = [case >> corner & 1 for corner in range(8)]
        crossed = {
            3 * corner + axis
            for corner, axis in itertools.product(range(8), range(3))
            if not corner & (4 >> axis) and corners[corner] != corners[corner | (4 >> axis)]
        }
        assert set(edges[case, : 3 * counts[case]].tolist()) == crossed


@TWINS
def test_nothing_makes_nothing(kernels: ModuleType) -> None:
    vertices, faces = kernels.march(
        np.empty((0, 27), np.int64), np.empty(0), np.empty((0, 3), np.int64)
    )
    assert vertices.shape == faces.shape == (0, 3)
