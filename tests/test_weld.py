"""Welding: borders that coincide to a tolerance become one, and nothing else changes."""

import numpy as np
import oracles
import pytest

from nstr3d.geometry.mesh.repair import repair, structure
from nstr3d.geometry.mesh.solid import make_solid
from nstr3d.geometry.mesh.surface import volume
from nstr3d.geometry.mesh.weld import WELD, weld
from nstr3d.types import Mesh


def box_of_patches(counts: tuple[int, ...], gap: float = 0.0) -> Mesh:
    """The cube [-1, 1]^3 as six patches of their own vertices.

    Patch i has ``counts[i]`` squares a side and is shrunk about its centre by the factor 1 - gap.
    """
    parts = []
    for index, count in enumerate(counts):
        axis, side = divmod(index, 2)
        line = np.linspace(-1, 1, count + 1) * (1 - gap)
        u, v = (each.ravel() for each in np.meshgrid(line, line, indexing="ij"))
        axes = np.column_stack([np.full(len(u), 2 * side - 1.0), u, v])
        number = np.arange(len(u)).reshape(count + 1, count + 1)
        a, b, c, d = (
            number[rows, columns].ravel()
            for rows, columns in (
                (slice(-1), slice(-1)),
                (slice(1, None), slice(-1)),
                (slice(1, None), slice(1, None)),
                (slice(-1), slice(1, None)),
            )
        )
        faces = np.concatenate([np.column_stack([a, b, c]), np.column_stack([a, c, d])])
        patch = Mesh(np.roll(axes, axis, axis=1), faces)
        parts.append(patch if side else oracles.inverted(patch))
    return oracles.joined(*parts)


EQUAL, UNEQUAL = (4,) * 6, (3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("counts", [EQUAL, UNEQUAL, (1, 2, 3, 50, 1, 7)])
@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-7, 3e-5])
def test_patches_become_one_closed_box(counts: tuple[int, ...], gap: float) -> None:
    mesh = box_of_patches(counts, gap)
    repaired, report = repair(mesh)
    assert report.watertight
    assert report.components == 1
    if gap:  # without a gap, borders with equal vertices are merged before
        assert (report.parts, report.welded_parts) == (6, 6)
    assert volume(repaired) == pytest.approx(8, rel=1e-3)
    assert (report.split_edges > 0) == (counts != EQUAL)


def test_every_shared_vertex_and_split_edge_is_counted() -> None:
    # Eight corners have three twins each, twelve edges have three inner vertices with two twins.
    report = repair(box_of_patches(EQUAL, 1e-6))[1]
    assert report.welded_vertices == 8 * 2 + 12 * 3
    assert report.weld_tolerance == pytest.approx(2 * WELD)
    # Two triangles against a fan: the long edge is split at two vertices.
    coarse = Mesh(np.array([[0.0, 0, 0], [3, 0, 0], [0, 3, 0]]), np.array([[0, 1, 2]]))
    fine = Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [0, -3, 0]]),
        np.array([[1, 0, 4], [2, 1, 4], [3, 2, 4]]),
    )
    repaired, report = repair(oracles.joined(coarse, fine))
    assert (report.split_edges, report.components, len(repaired.faces)) == (1, 1, 6)


def test_a_face_is_split_at_all_three_edges() -> None:
    a, b, c = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    fins, apex = [], np.array([1.0, 1, 5])
    for tail, head, count in ((a, b, 2), (b, c, 3), (c, a, 5)):
        line = tail + np.linspace(0, 1, count + 1)[:, None] * (head - tail)
        rows = np.arange(count)
        faces = np.column_stack([rows + 1, rows, np.full(count, count + 1)])
        fins.append(Mesh(np.concatenate([line, apex[None]]), faces))
    repaired, report = repair(
        oracles.joined(Mesh(np.array([a, b, c]), np.array([[0, 1, 2]])), *fins)
    )
    assert (report.split_edges, report.watertight) == (3, True)
    assert len(repaired.faces) == 2 * (2 + 3 + 5) - 2
    assert volume(repaired) == pytest.approx(8 * 5 / 3)


def test_rounding_of_every_corner_of_a_soup_is_welded() -> None:
    ball = oracles.sphere(3, radius=10)
    noise = np.random.default_rng(0).normal(0, 1e-12, (3 * len(ball.faces), 3))
    soup = oracles.soup(ball)
    repaired, report = repair(Mesh(soup.vertices + noise, soup.faces))
    assert report.watertight
    assert report.welded_vertices == len(soup.vertices) - len(ball.vertices)
    assert volume(repaired) == pytest.approx(volume(ball), rel=1e-9)


@pytest.mark.parametrize("gap", [3e-4, 1e-2])
def test_gaps_beyond_the_tolerance_stay(gap: float) -> None:
    report = repair(box_of_patches(EQUAL, gap))[1]
    assert (report.welded_vertices, report.components) == (0, 6)


def test_small_parts_keep_their_shape_in_a_large_scene() -> None:
    tiny = oracles.sphere(2, radius=1e-3)
    opened = Mesh(tiny.vertices, tiny.faces[1:])
    scene = oracles.joined(oracles.cube(half=50.0, centre=(100.0, 0, 0)), opened)
    repaired, report = repair(scene)
    assert (report.welded_vertices, report.degenerate_faces) == (0, 0)
    assert len(repaired.faces) == len(scene.faces)


def test_an_edge_without_a_partner_is_not_split() -> None:
    one = Mesh(np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]]), np.array([[0, 1, 2]]))
    tip = Mesh(np.array([[1.0, 0, 0], [2, -1, 0], [0, -1, 1]]), np.array([[0, 2, 1]]))
    joined = oracles.joined(one, tip)
    welded, source, counts = weld(joined)
    assert counts.edges == 0
    np.testing.assert_array_equal(welded.faces, joined.faces)
    np.testing.assert_array_equal(source, [0, 1])


def test_lost_parts_are_counted() -> None:
    needle = Mesh(np.array([[5.0, 0, 0], [6, 0, 0], [7, 0, 0]]), np.array([[0, 1, 2], [0, 0, 1]]))
    report = repair(oracles.joined(oracles.cube(), needle))[1]
    assert (report.parts, report.lost_parts, report.degenerate_faces) == (1, 1, 2)
    assert structure(repair(oracles.cube())[0]) == (1, True)


@pytest.mark.parametrize(
    "moves",
    [
        {(12, 0): 1e9},  # welding makes an edge between two vertices a point
        {(2, 2): -12582912.0, (19, 2): 6.28125, (20, 0): 0.7578125},  # a needle at a shared edge
    ],
)
def test_a_soup_with_a_corner_far_away_is_repaired_without_a_warning(moves) -> None:
    """Warnings are errors in these tests. The far corner decides the tolerances of welding."""
    points = np.array([[x, y, z] for x in (0, 1) for y in (0, 2) for z in (0, 3)], float)
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    corners = [index for a, b, c, d in quads for index in (a, b, c, a, c, d)]
    vertices = points[corners]
    for place, value in moves.items():
        vertices[place] = value
    solid = make_solid(Mesh(vertices, np.arange(36).reshape(-1, 3))).mesh
    assert np.isfinite(solid.vertices).all()
    assert len(solid.faces) > 0
