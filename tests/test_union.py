"""The surface bounds the union of the parts: analytic volumes and distances, inside and out."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from nstr3d.geometry.mesh import union as module
from nstr3d.geometry.mesh.boxes import bounding_boxes, faces_near, layers, meeting_boxes
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import close_holes
from nstr3d.geometry.mesh.repair import repair, structure
from nstr3d.geometry.mesh.shells import Shells
from nstr3d.geometry.mesh.surface import area, volume
from nstr3d.geometry.mesh.union import Union, inner_share, unite, unite_self
from nstr3d.types import Mesh

BALL = oracles.sphere(3)
VOLUME = volume(BALL)


def box(lower: tuple[float, ...], upper: tuple[float, ...]) -> Mesh:
    cube = oracles.cube(half=0.5)
    return Mesh((cube.vertices + 0.5) * np.subtract(upper, lower) + lower, cube.faces)


def ball(radius: float = 1.0, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    return Mesh(BALL.vertices * radius + centre, BALL.faces)


def united(*parts: Mesh) -> tuple[Mesh, Union]:
    """The repaired mesh of all ``parts``, and what was left out."""
    mesh, report = repair(oracles.joined(*parts))
    assert report.union is not None
    return mesh, report.union


def points_around(mesh: Mesh, count: int = 4000) -> np.ndarray:
    bounds = mesh.bounds.scaled(1.3)
    return np.random.default_rng(0).uniform(bounds.lower, bounds.upper, (count, 3))


def assert_union(mesh: Mesh, *parts: Mesh) -> None:
    """Asserts that ``mesh`` bounds the union of ``parts``, by their own signed distances."""
    points = points_around(mesh)
    each = np.stack([MeshDistance(part)(points) for part in parts])
    outside = each.min(axis=0) > 0
    own = MeshDistance(mesh)(points)
    np.testing.assert_array_equal(own > 0, outside)
    # Outside, the distance to a union is the least distance to a part; inside, it is at least the
    # greatest depth in a part.
    np.testing.assert_allclose(own[outside], each.min(axis=0)[outside], atol=1e-9)
    assert (own[~outside] <= each.min(axis=0)[~outside] + 1e-9).all()
    assert inner_share(MeshDistance(mesh)) == 0


@pytest.fixture(params=["exact", "cut"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Parts are united exactly, or cut as where manifold3d fails."""
    if request.param == "cut":
        monkeypatch.setattr(module, "union_of_shells", lambda *_: None)
    return request.param


def test_two_balls_that_overlap(way: str) -> None:
    parts = ball(), ball(centre=(1.0, 0.0, 0.0))
    mesh, union = united(*parts)
    assert_union(mesh, *parts)
    lens = 5 * np.pi / 12
    assert volume(mesh) == pytest.approx(2 * VOLUME - lens * VOLUME / (4 / 3 * np.pi), rel=4e-3)
    assert area(mesh) == pytest.approx(0.75 * 2 * area(BALL), rel=5e-3)
    assert union.area == pytest.approx(0.25, abs=4e-3)
    assert (union.united, union.cut > 0) == ((2, False) if way == "exact" else (0, True))
    # The deepest points are the centres; the seam is a circle of radius sqrt(3) / 2.
    depth = MeshDistance(mesh)(np.array([[0.5, 0, 0], [0, 0, 0], [1, 0, 0], [0.2, 0, 0]]))
    np.testing.assert_allclose(depth, [-np.sqrt(0.75), -1, -1, -np.sqrt(0.84)], atol=0.02)
    if way == "exact":
        assert structure(mesh) == (1, True)


@pytest.mark.parametrize(
    ("second", "whole"),
    [
        (box((1.0, 0.0, 0.0), (2.0, 1.0, 1.0)), 2.0),  # face to face, the same vertices
        (box((1.0, 0.2, 0.3), (1.5, 0.7, 0.8)), 1.125),  # face to face, one inside the other
        (box((1.0, 0.0, 0.0), (1.5, 0.5, 0.5)), 1.125),  # face to face, one common vertex
        (box((-0.5, 0.5, 0.5), (0.0, 1.0, 1.0)), 1.125),
        (box((1.0, 0.5, 0.5), (1.5, 1.5, 1.5)), 1.5),  # face to face in part
        (box((0.5, 0.0, 0.0), (1.5, 1.0, 1.0)), 1.5),  # overlapping, four sides flush
        (box((0.5, 0.5, 0.5), (1.5, 1.5, 1.5)), 1.875),
        (box((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)), 1.0),  # nested, three sides flush
        (box((0.25, 0.25, 0.25), (0.75, 0.75, 0.75)), 1.0),
        (box((0.25, 0.25, -1.0), (0.75, 0.75, 2.0)), 1.5),  # a bar through the cube
    ],
)
def test_a_cube_and_a_box(second: Mesh, whole: float, way: str) -> None:
    first = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mesh, union = united(first, second)
    assert union.changed
    assert union.area == pytest.approx(1 - area(mesh) / (area(first) + area(second)))
    assert volume(mesh) == pytest.approx(whole, rel=1e-9)
    assert_union(mesh, first, second)


@pytest.mark.parametrize("offset", [(1.0, 1.0, 0.0), (1.0, 1.0, 1.0), (3.0, 0.0, 0.0)])
def test_cubes_that_share_an_edge_a_vertex_or_nothing_keep_all(offset: tuple[float, ...]) -> None:
    cube = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mesh, union = united(cube, Mesh(cube.vertices + offset, cube.faces))
    assert union == Union()
    assert len(mesh.faces) == 24


def test_walls_of_a_block_of_cubes_vanish() -> None:
    cube = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    blocks = [Mesh(cube.vertices + at, cube.faces) for at in np.ndindex(3, 3, 3)]
    hollow = [block for block in blocks if not np.allclose(block.bounds.centre, 1.5)]
    solid, walls = united(*blocks)
    assert (volume(solid), area(solid)) == (pytest.approx(27), pytest.approx(54))
    assert walls.walls == 27 * 12 - len(solid.faces)
    assert MeshDistance(solid)(np.full((1, 3), 1.5)) == pytest.approx(-1.5)
    cavity, _ = united(*hollow)  # the missing cube in the middle stays a cavity
    assert (volume(cavity), area(cavity)) == (pytest.approx(26), pytest.approx(60))
    assert MeshDistance(cavity)(np.full((1, 3), 1.5)) == pytest.approx(0.5)


def test_a_part_in_a_part_is_left_out_and_a_part_in_a_cavity_stays() -> None:
    shell, hollow, core = ball(), oracles.inverted(ball(0.5)), ball(0.2)
    mesh, union = united(shell, ball(0.5))
    assert (union.nested, volume(mesh)) == (1, pytest.approx(VOLUME))
    assert union.area == pytest.approx(0.2)
    for parts, factor in (((shell, hollow), 1 - 1 / 8), ((shell, hollow, core), 1 - 0.117)):
        before = repair(oracles.joined(*parts))
        assert before[1].union == Union()
        assert unite(before[0])[0] is before[0]
        assert volume(before[0]) == pytest.approx(VOLUME * factor)


def test_cavities_that_overlap_become_one() -> None:
    hollows = ball(), ball(centre=(1.0, 0.0, 0.0))
    mesh, union = united(ball(4.0), *(oracles.inverted(hollow) for hollow in hollows))
    assert union.united == 2
    expected = volume(united(*hollows)[0])
    assert volume(mesh) == pytest.approx(64 * VOLUME - expected, rel=1e-9)
    points = points_around(oracles.joined(*hollows))
    inner = np.min([MeshDistance(hollow)(points) for hollow in hollows], axis=0) < 0
    np.testing.assert_array_equal(MeshDistance(mesh)(points) > 0, inner)


def test_a_ball_in_a_cavity_of_an_overlapping_pair_is_kept() -> None:
    shell, second = ball(2.0), ball(0.8, centre=(2.0, 0.0, 0.0))
    mesh, union = united(shell, second, oracles.inverted(ball(1.0)), ball(0.3))
    assert (union.nested, union.united) == (0, 2)
    points = np.array([[0, 0, 0], [0.6, 0, 0], [1.5, 0, 0], [2.5, 0, 0]])
    np.testing.assert_allclose(MeshDistance(mesh).winding(points), [1, 0, 1, 1], atol=0.02)


def test_a_torus_through_a_ball_and_three_parts(way: str) -> None:
    parts = oracles.torus(), ball(0.7, (1.0, 0.0, 0.0)), ball(0.7, (1.0, 0.5, 0.2))
    mesh, union = united(*parts)
    assert union.united == (3 if way == "exact" else 0)
    assert_union(mesh, *parts)


def test_an_inward_part_that_breaks_through_is_subtracted() -> None:
    shell, bite = ball(), ball(0.6, (0.6, 0.0, 0.0))
    mesh, union = unite(oracles.joined(shell, oracles.inverted(bite)))
    assert union.cut > 0
    points = points_around(mesh)
    expected = (MeshDistance(shell)(points) < 0) & (MeshDistance(bite)(points) > 0)
    np.testing.assert_array_equal(MeshDistance(mesh)(points) < 0, expected)


def tube(turns: float, count: int = 80, sides: int = 16) -> Mesh:
    """A bent tube of radius 1/4 about a circle of radius 1, closed by caps; it overlaps itself
    after more than one turn."""
    angle = np.linspace(0, 2 * np.pi * turns, count)
    around = np.arange(sides) * 2 * np.pi / sides
    reach = np.append(1 + np.cos(around) / 4, 1)
    lift = np.append(np.sin(around) / 4, 0)
    rise = 0.05 * angle
    vertices = np.stack(
        [
            np.outer(np.cos(angle), reach),
            np.outer(np.sin(angle), reach),
            rise[:, None] + lift,
        ],
        axis=-1,
    ).reshape(-1, 3)
    here = np.arange(count - 1)[:, None] * (sides + 1) + np.arange(sides)
    beside = np.arange(count - 1)[:, None] * (sides + 1) + (np.arange(sides) + 1) % sides
    a, b = here.ravel(), beside.ravel()
    step = sides + 1
    caps = [
        (base + sides, base + one, base + two)
        for base, flip in ((0, 1), ((count - 1) * step, -1))
        for one, two in [(i, (i + 1) % sides)[::flip] for i in range(sides)]
    ]
    sidewalls = [np.column_stack([a, a + step, b]), np.column_stack([b, a + step, b + step])]
    return repair(Mesh(vertices, np.concatenate([*sidewalls, caps])))[0]


def test_one_part_that_overlaps_itself() -> None:
    mesh = tube(1.2)
    distance = MeshDistance(mesh)
    assert repair(mesh)[1].watertight
    assert inner_share(distance) > 0.05
    whole, union = unite_self(mesh, distance)
    assert union.cut > 0
    points = points_around(mesh)
    own = MeshDistance(whole)(points)
    np.testing.assert_array_equal(own < 0, oracles.brute_force_winding(mesh, points) > 0.5)
    assert inner_share(MeshDistance(whole)) == 0
    # The two halves of the tube are solids of their own: outside, distances are theirs.
    np.testing.assert_allclose(own[own > 0], distance(points)[own > 0], atol=1e-9)
    plain = tube(0.8)
    assert unite_self(plain, MeshDistance(plain)) == (plain, Union())


def test_an_open_part_in_a_solid_is_left_out_and_one_across_is_cut() -> None:
    shell = ball()
    whole = ball(0.8, (1.0, 0.0, 0.0))
    cap = whole.corners.mean(axis=1)[:, 0] > 1.5
    opened = Mesh(whole.vertices, whole.faces[~cap])  # its hole is outside the shell
    mesh, report = repair(oracles.joined(shell, opened))
    assert report.union is None
    part, union = unite(close_holes(mesh)[0])
    assert union.united == 2
    assert inner_share(MeshDistance(part)) == 0
    # Left open, the part is cut face by face.
    part, union = unite(mesh)
    assert union.cut > 0
    deep = MeshDistance(part)(np.array([[0.3, 0.0, 0.0], [0.9, 0.0, 0.0]]))
    seam = np.array([0.68, np.sqrt(1 - 0.68**2)])
    expected = -np.hypot(seam[0] - [0.3, 0.9], seam[1])
    assert deep[0] == pytest.approx(expected[0], abs=0.02)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    parts = oracles.joined(ball(), ball(centre=(1.0, 0.0, 0.0)))
    plain = repair(parts)[0]
    scaled = repair(Mesh((parts.vertices + [7.0, 0.0, 0.0]) * scale, parts.faces))[0]
    assert volume(scaled) == pytest.approx(volume(plain) * scale**3, rel=1e-9)


def test_boxes_that_meet_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(1)
    lower = generator.random((200, 3))
    upper = lower + generator.random((200, 3)) * 0.3
    pairs = {tuple(pair) for pair in meeting_boxes(lower, upper).tolist()}
    expected = {
        (i, j)
        for i in range(200)
        for j in range(i + 1, 200)
        if (lower[i] <= upper[j]).all() and (lower[j] <= upper[i]).all()
    }
    assert pairs == expected
    layer = layers(lower, upper)
    assert all(layer[i] != layer[j] for i, j in pairs)


def test_faces_near_another_part_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = oracles.joined(ball(), ball(centre=(1.9, 0.0, 0.0)), ball(centre=(9.0, 0.0, 0.0)))
    label = np.repeat(np.arange(3), len(BALL.faces))
    boxes = bounding_boxes(mesh, label)
    near = faces_near(mesh, label, meeting_boxes(*boxes), boxes)
    reach = mesh.corners[:, :, 0]
    expected = np.where(label == 0, reach.max(axis=1) >= 0.9, reach.min(axis=1) <= 1.0)
    np.testing.assert_array_equal(near, np.flatnonzero(expected & (label < 2)))
    monkeypatch.setattr("nstr3d.geometry.mesh.boxes.PAIRS", 0)
    every = faces_near(mesh, label, meeting_boxes(*boxes), boxes)
    np.testing.assert_array_equal(every, np.flatnonzero(label < 2))


def test_shells_are_told_apart_where_solids_touch() -> None:
    cube = box((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    parts = [Mesh(cube.vertices + at, cube.faces) for at in ((0, 0, 0), (1, 0, 0), (2, 1, 0))]
    mesh = repair(oracles.joined(parts[0], parts[2]))[0]
    two = Shells.of(mesh)
    assert two.closed.all()
    joined = oracles.joined(*parts)
    _, index = np.unique(joined.vertices, axis=0, return_inverse=True)
    merged = Mesh(np.unique(joined.vertices, axis=0), index[joined.faces])
    shells = Shells.of(merged)
    assert len(shells.closed) == 3
    assert shells.closed.all()
    assert len(np.unique(shells.fans)) == 24
    opened = Shells.of(Mesh(merged.vertices, merged.faces[1:]))
    assert sorted(opened.closed.tolist()) == [False, True, True]
