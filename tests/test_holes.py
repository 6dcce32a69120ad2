"""Closing holes: a closed mesh is unchanged; an open mesh becomes watertight with its full
volume."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import Fate, close_holes, close_parts
from nstr3d.geometry.mesh.membrane import membrane
from nstr3d.geometry.mesh.repair import repair, structure
from nstr3d.geometry.mesh.surface import area, volume
from nstr3d.types import Mesh


def without(mesh: Mesh, *faces: int) -> Mesh:
    return Mesh(mesh.vertices, np.delete(mesh.faces, faces, axis=0))


def test_a_closed_mesh_stays_as_it_is():
    mesh = oracles.cube()
    closed, closing = close_holes(mesh)
    assert closed is mesh
    assert (closing.holes, closing.left) == (0, 0)


@pytest.mark.parametrize("missing", [(0,), (0, 1), (0, 1, 2)])
def test_a_cube_with_faces_missing_is_closed_again(missing):
    closed, closing = close_holes(without(oracles.cube(), *missing))
    assert closing.left == 0
    assert closing.holes >= 1
    assert repair(closed)[1].watertight
    assert repair(closed)[1].flipped_faces == 0  # the caps face outward


def test_a_planar_hole_gets_a_planar_cap_and_the_volume_back():
    cube = oracles.cube()
    normals = np.cross(
        cube.corners[:, 1] - cube.corners[:, 0], cube.corners[:, 2] - cube.corners[:, 0]
    )
    side = np.flatnonzero(normals[:, 0] > 1e-9)
    closed, closing = close_holes(without(cube, *side.tolist()))
    assert closing.holes == 1
    assert volume(closed) == pytest.approx(volume(cube), rel=1e-12)
    edge = np.ptp(cube.vertices[:, 1])
    assert closing.widest == pytest.approx(np.sqrt(2) * edge)


def wall(radius: float, inward: bool = False, count: int = 32, height: float = 4.0) -> Mesh:
    """The wall of a cylinder about the z axis from z = 0, without its ends."""
    angle = 2 * np.pi * np.arange(count) / count
    ring = radius * np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    here = np.arange(count)
    following = np.roll(here, -1)
    faces = np.concatenate(
        [
            np.column_stack([here, following, following + count]),
            np.column_stack([here, following + count, here + count]),
        ]
    )
    mesh = Mesh(np.concatenate([ring, ring + [0, 0, height]]), faces)
    return oracles.inverted(mesh) if inward else mesh


def sheet(height, count: int = 24) -> Mesh:
    """The graph of ``height(x, y)`` over the square [0, 1]^2."""
    x, y = np.meshgrid(*[np.linspace(0, 1, count + 1)] * 2, indexing="ij")
    index = np.arange(x.size).reshape(x.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(each, -1).reshape(-1, 3) for each in ((a, b, c), (a, c, d))])
    return Mesh(np.column_stack([x.ravel(), y.ravel(), height(x, y).ravel()]), faces)


def hills(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.05 * np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)


def area_of_polygon(radius: float, count: int = 32) -> float:
    return count / 2 * radius**2 * np.sin(2 * np.pi / count)


def test_a_pipe_without_its_rings_gets_rings_and_no_discs():
    closed, closing = close_holes(repair(oracles.joined(wall(1.0), wall(0.6, inward=True)))[0])
    assert (closing.holes, closing.left, closing.capped) == (2, 0, 2)
    assert structure(closed) == (1, True)
    assert volume(closed) == pytest.approx(4 * (area_of_polygon(1.0) - area_of_polygon(0.6)))
    points = np.array([[0, 0, 0.0], [0, 0, 4], [0, 0, 2], [0.8, 0, 2], [0.8, 0, 5]])
    expected = [0.6, 0.6, 0.6, -0.2, 1.0]
    np.testing.assert_allclose(MeshDistance(closed)(points), expected, atol=0.01)


def test_a_plate_gets_one_lid_around_all_of_its_bores():
    bores = [wall(0.1 + 0.02 * index, inward=True) for index in range(3)]
    moved = [
        Mesh(each.vertices + [0.4 * i - 0.4, 0, 0], each.faces) for i, each in enumerate(bores)
    ]
    rod = Mesh(wall(0.05).vertices + [-0.4, 0, 0], wall(0.05).faces)  # stands free in a bore
    closed, closing = close_holes(repair(oracles.joined(wall(1.0), *moved, rod))[0])
    assert (closing.holes, closing.capped, closing.left) == (4, 5, 0)
    assert structure(closed) == (2, True)
    sizes = [area_of_polygon(radius) for radius in (1.0, 0.1, 0.12, 0.14, 0.05)]
    assert volume(closed) == pytest.approx(4 * (sizes[0] - sum(sizes[1:4]) + sizes[4]))


def test_a_thick_shell_with_an_uneven_hole_gets_a_rim():
    ball = oracles.sphere(4)
    kept = ball.corners.mean(axis=1)[:, 2] < 0.8
    outer = Mesh(ball.vertices, ball.faces[kept])
    inner = oracles.inverted(Mesh(0.8 * ball.vertices, ball.faces[kept]))
    closed, closing = close_holes(repair(oracles.joined(outer, inner))[0])
    assert (closing.holes, closing.left) == (1, 0)
    assert structure(closed) == (1, True)
    # A spherical sector between two radii, of solid angle 2 pi (1 - cos), is missing.
    missing = 2 * np.pi * (1 - 0.8) / 3 * (1 - 0.8**3)
    assert volume(closed) == pytest.approx(volume(ball) * (1 - 0.8**3) - missing, rel=0.02)


def test_a_concave_planar_hole_is_filled_within_its_outline():
    # A prism over a letter L without its top: a fan about the centroid would leave the outline.
    outline = np.array([[0, 0], [3, 0], [3, 1], [1, 1], [1, 3], [0, 3.0]])
    base = np.column_stack([outline, np.zeros(6)])
    here, following = np.arange(6), np.roll(np.arange(6), -1)
    sides = np.concatenate(
        [
            np.column_stack([here, following, following + 6]),
            np.column_stack([here, following + 6, here + 6]),
        ]
    )
    bottom = np.array([[0, 5, 3], [3, 5, 4], [0, 3, 1], [1, 3, 2]])
    mesh = Mesh(np.concatenate([base, base + [0, 0, 2]]), np.concatenate([sides, bottom]))
    closed, closing = close_holes(repair(mesh)[0])
    assert closing.holes == 1
    assert volume(closed) == pytest.approx(5 * 2)
    assert area(closed) == pytest.approx(2 * 5 + 12 * 2)
    assert len(closed.vertices) == len(mesh.vertices)


def test_a_membrane_spans_its_border_smoothly():
    angle = 2 * np.pi * np.arange(60) / 60
    circle = np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    added, faces = membrane(circle)
    radius = np.linalg.norm(added[:, :2], axis=1)
    np.testing.assert_allclose(added[:, 2], 0, atol=1e-12)
    assert radius.max() < 1
    assert radius.min() < 1e-6
    disc = Mesh(np.concatenate([circle, added]), faces)
    assert area(disc) == pytest.approx(area_of_polygon(1.0, 60), rel=1e-3)
    saddle, _ = membrane(circle + np.cos(2 * angle)[:, None] * [0, 0, 1])
    assert np.abs(saddle[:, 2]).max() < 1
    assert saddle[-1] == pytest.approx([0, 0, 0], abs=1e-3)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = {tuple(edge) for edge in edges.tolist()}
    lonely = {edge for edge in directed if edge[::-1] not in directed}
    assert lonely == {(i, (i + 1) % 60) for i in range(60)}


@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_an_uneven_hole_of_a_ball_is_closed_near_its_plane(radius: float):
    ball = oracles.sphere(4)
    level = np.sqrt(1 - radius**2)
    kept = ball.corners.mean(axis=1)[:, 2] < level
    closed, closing = close_holes(repair(Mesh(ball.vertices, ball.faces[kept]))[0])
    assert (closing.holes, closing.left) == (1, 0)
    assert structure(closed) == (1, True)
    cap = np.pi * (1 - level) ** 2 * (2 + level) / 3
    assert volume(closed) == pytest.approx(volume(ball) - cap, rel=0.01)


@pytest.mark.parametrize("height", [hills, lambda x, y: 0 * x, lambda x, y: hills(x, y) + y])
def test_a_sheet_alone_is_named_and_not_capped(height):
    mesh = sheet(height)
    closed, closing = close_holes(repair(mesh)[0])
    assert (closing.holes, closing.sheets, closing.left) == (0, 1, 96)
    assert closing.sheet_area == pytest.approx(area(mesh))
    assert not closing.dropped
    assert len(closed.faces) == len(mesh.faces)


def test_a_sheet_beside_a_solid_is_left_out_and_counted():
    fin = sheet(hills)
    mesh = oracles.joined(oracles.cube(centre=(5.0, 0, 0)), fin)
    closed, closing, fate = close_parts(repair(mesh)[0])
    assert (closing.closed, closing.sheets, closing.dropped) == (1, 1, True)
    assert closing.sheet_area == pytest.approx(area(fin))
    assert structure(closed) == (1, True)
    assert fate.tolist() == [Fate.CLOSED] * 12 + [Fate.SHEET] * len(fin.faces)


def test_a_fin_on_an_edge_of_a_solid_is_a_sheet():
    cube = oracles.cube()
    fin = np.concatenate([cube.vertices, [[0.0, 0, 5]]])
    mesh = Mesh(fin, np.concatenate([cube.faces, [[4, 5, 8]]]))
    closed, closing = close_holes(repair(mesh)[0])
    assert (closing.closed, closing.sheets) == (1, 1)
    assert volume(closed) == pytest.approx(8)
    assert len(closed.vertices) == 8


@pytest.mark.parametrize("gap", [1e-3, 0.05])
def test_patches_around_a_solid_are_not_capped(gap: float):
    cube = oracles.cube()
    normals = np.cross(
        cube.corners[:, 1] - cube.corners[:, 0], cube.corners[:, 2] - cube.corners[:, 0]
    )
    parts = []
    for axis in range(3):
        for side in (-1, 1):
            corners = cube.corners[np.sign(normals[:, axis]) == side]
            middle = np.zeros(3)
            middle[axis] = side
            shrunk = (middle + (corners - middle) * (1 - gap)).reshape(-1, 3)
            parts.append(Mesh(shrunk, np.arange(len(shrunk)).reshape(-1, 3)))
    closed, closing = close_holes(repair(oracles.joined(*parts))[0])
    assert (closing.holes, closing.open, closing.sheets, closing.left) == (0, 6, 0, 24)
    assert MeshDistance(closed)(np.zeros((1, 3))) == pytest.approx(-1)


def test_two_holes_that_meet_in_a_vertex_are_both_closed():
    ball = oracles.sphere(3)
    corner = ball.faces[0, 0]
    around = np.flatnonzero((ball.faces == corner).any(axis=1))
    apart = next(
        (one, other)
        for one in around
        for other in around
        if len(np.intersect1d(ball.faces[one], ball.faces[other])) == 1
    )
    closed, closing = close_holes(repair(without(ball, *map(int, apart)))[0])
    assert (closing.holes, closing.left) == (2, 0)
    assert structure(closed) == (1, True)
    assert volume(closed) == pytest.approx(volume(ball))


def test_three_faces_on_one_edge_are_three_sheets():
    fins = Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]]),
        np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]),
    )
    closed, closing = close_holes(repair(fins)[0])
    assert (closing.holes, closing.sheets) == (0, 3)
    assert len(closed.faces) == 3


def many(mesh: Mesh, side: int) -> Mesh:
    """``side``^3 copies of ``mesh`` near the nodes of a lattice."""
    nodes = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3) * 4.0
    nodes += np.random.default_rng(0).random(nodes.shape)
    return oracles.joined(*(Mesh(mesh.vertices + node, mesh.faces) for node in nodes))


def test_many_open_solids_do_not_disturb_one_another():
    # All boxes are open to one side, and what each adds to the winding number elsewhere adds up.
    closed, closing = close_holes(many(without(oracles.cube(), 0, 1), 12))
    assert (closing.holes, closing.capped, closing.left) == (12**3, 12**3, 0)
    assert volume(closed) == pytest.approx(8 * 12**3)


def test_many_sheets_are_all_sheets():
    flat = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    closing = close_holes(many(flat, 22))[1]
    assert (closing.sheets, closing.open) == (22**3, 0)
