"""Mesh repair: every kind of defect is counted and repaired, and sound meshes stay unchanged."""

import dataclasses

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.repair import RepairReport, repair, structure
from nstr3d.geometry.mesh.surface import volume
from nstr3d.geometry.mesh.union import Union
from nstr3d.geometry.mesh.weld import WELD
from nstr3d.types import Mesh

SOUND = RepairReport(
    merged_vertices=0,
    degenerate_faces=0,
    duplicate_faces=0,
    unreferenced_vertices=0,
    welded_vertices=0,
    split_edges=0,
    flipped_faces=0,
    weld_tolerance=0.0,
    parts=1,
    welded_parts=0,
    lost_parts=0,
    components=1,
    one_sided=0,
    boundary_edges=0,
    branching_edges=0,
    watertight=True,
    union=Union(),
)


def assert_report(mesh: Mesh, report: RepairReport, **counts: int | bool) -> None:
    """Asserts that ``report`` is ``SOUND`` with ``counts``, and the tolerance that of ``mesh``."""
    assert report.weld_tolerance == pytest.approx(WELD * mesh.bounds.extent.max())
    united = None if counts.get("boundary_edges") or counts.get("one_sided") else Union()
    assert report == dataclasses.replace(
        SOUND, union=united, **counts, weld_tolerance=report.weld_tolerance
    )


def assert_repaired(mesh: Mesh, expected: Mesh, **counts: int | bool) -> None:
    """Asserts that ``mesh`` is repaired to ``expected``, up to the first corner of each face, and
    that its report is ``SOUND`` with ``counts``."""
    repaired, report = repair(mesh)
    assert_report(mesh, report, **counts)
    np.testing.assert_array_equal(repaired.vertices, expected.vertices)
    np.testing.assert_array_equal(from_lowest(repaired.faces), from_lowest(expected.faces))


def from_lowest(faces: np.ndarray) -> np.ndarray:
    """The same faces, each rotated to begin with its lowest index."""
    start = faces.argmin(axis=1)[:, None]
    return np.take_along_axis(faces, (start + np.arange(3)) % 3, axis=1)


def winding_at(mesh: Mesh, *points: tuple[float, float, float]) -> list[int]:
    """Winding numbers of the repaired mesh, rounded."""
    return np.rint(MeshDistance(repair(mesh)[0]).winding(np.array(points))).astype(int).tolist()


@pytest.mark.parametrize(
    "mesh", [oracles.tetrahedron(), oracles.cube(), oracles.torus(), oracles.sphere(2)]
)
def test_a_sound_mesh_is_left_alone(mesh: Mesh) -> None:
    repaired, report = repair(mesh)
    assert_report(mesh, report)
    assert not report.changed
    np.testing.assert_array_equal(repaired.vertices, mesh.vertices)
    np.testing.assert_array_equal(repaired.faces, mesh.faces)


def test_equal_positions_are_merged() -> None:
    sphere = oracles.sphere(1)
    repaired, report = repair(oracles.soup(sphere))
    merged = 3 * len(sphere.faces) - len(sphere.vertices)
    assert_report(sphere, report, merged_vertices=merged)
    assert report.changed
    np.testing.assert_array_equal(repaired.corners, sphere.corners)


def test_zero_and_minus_zero_are_one_position() -> None:
    mesh = oracles.soup(oracles.tetrahedron())
    mesh.vertices[::2] *= np.where(mesh.vertices[::2] == 0, -1.0, 1.0)
    assert repair(mesh)[1].merged_vertices == 8


def test_vertices_that_only_nearly_coincide_are_welded_not_merged() -> None:
    mesh = oracles.cube()
    vertices = np.concatenate([mesh.vertices, np.nextafter(mesh.vertices[:1], 0)])
    faces = mesh.faces.copy()
    faces[0, 0] = 8
    damaged = Mesh(vertices, faces)
    assert_repaired(damaged, mesh, welded_vertices=1, welded_parts=0)
    report = repair(damaged, gap=0)[1]
    assert (report.merged_vertices, report.welded_vertices, report.watertight) == (0, 0, False)


def test_degenerate_faces_are_dropped() -> None:
    mesh = oracles.cube()
    vertices = np.concatenate([mesh.vertices, mesh.vertices[[0, 6]].mean(axis=0, keepdims=True)])
    bad = [
        [0, 0, 1],
        [3, 4, 3],
        [5, 5, 5],
        [0, 8, 6],
    ]  # the last has three vertices on one line
    expected = Mesh(mesh.vertices, mesh.faces)
    damaged = Mesh(vertices, np.concatenate([bad[:2], mesh.faces, bad[2:]]))
    assert_repaired(damaged, expected, degenerate_faces=4, unreferenced_vertices=1)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_small_faces_with_area_stay_at_any_scale(scale: float) -> None:
    cluster = oracles.joined(
        oracles.cube(half=1.0), oracles.cube(half=1e-6, centre=(3.0, 0.0, 0.0))
    )
    scaled = Mesh(cluster.vertices * scale, cluster.faces)
    assert_report(scaled, repair(scaled)[1], components=2, parts=2)


def test_copies_of_a_face_are_dropped() -> None:
    mesh = oracles.cube()
    copies = np.roll(mesh.faces[[2, 2, 7]], 1, axis=1)
    assert_repaired(
        Mesh(mesh.vertices, np.concatenate([mesh.faces, copies])), mesh, duplicate_faces=3
    )


def test_backs_of_a_two_sided_solid_are_dropped_and_it_looks_outward() -> None:
    two_sided = oracles.joined(oracles.inverted(oracles.sphere(1)), oracles.sphere(1))
    repaired, report = repair(two_sided)
    assert report.duplicate_faces == len(oracles.sphere(1).faces)
    assert report.watertight
    assert volume(repaired) == pytest.approx(volume(oracles.sphere(1)))


def test_a_two_sided_solid_beside_a_plain_one_is_found() -> None:
    ball = oracles.sphere(1)
    repaired, report = repair(
        oracles.joined(oracles.cube(centre=(5.0, 0.0, 0.0)), ball, oracles.inverted(ball))
    )
    assert (report.duplicate_faces, report.components, report.watertight) == (
        len(ball.faces),
        2,
        True,
    )
    assert volume(repaired) == pytest.approx(volume(ball) + 8)


def test_cubes_that_touch_face_to_face_keep_both_walls() -> None:
    left = oracles.cube()
    # A mirror image, whose wall has the same two faces.
    right = Mesh(left.vertices * [-1, 1, 1] + [2, 0, 0], left.faces[:, ::-1])
    repaired, report = repair(oracles.joined(left, right))
    assert (report.merged_vertices, report.branching_edges, report.boundary_edges) == (4, 5, 0)
    assert (report.duplicate_faces, report.flipped_faces, report.watertight) == (0, 0, False)
    inside, outside = [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0)], (4.0, 0.0, 0.0)
    np.testing.assert_allclose(
        oracles.brute_force_winding(repaired, np.array([*inside, outside])), [1, 1, 0], atol=1e-12
    )


def test_unreferenced_vertices_are_dropped() -> None:
    mesh = oracles.tetrahedron()
    padded = Mesh(np.concatenate([[[9.0, 9, 9]], mesh.vertices, [[8.0, 8, 8]]]), mesh.faces + 1)
    assert_repaired(padded, mesh, unreferenced_vertices=2)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=128, max_size=128))
def test_any_flipped_faces_are_turned_outward(flips: list[bool]) -> None:
    mesh, flip = oracles.sphere(2), np.array(flips)
    damaged = Mesh(mesh.vertices, np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces))
    assert_repaired(damaged, mesh, flipped_faces=int(flip.sum()), turned=repair(damaged)[1].turned)


def test_an_inside_out_mesh_is_turned() -> None:
    torus = oracles.torus()
    assert_repaired(oracles.inverted(torus), torus, flipped_faces=len(torus.faces), turned=1)


def test_an_inside_out_mesh_with_a_hole_is_turned() -> None:
    mesh = oracles.sphere(2)
    opened = Mesh(mesh.vertices, mesh.faces[4:])
    repaired, report = repair(oracles.inverted(opened))
    assert report.flipped_faces == len(opened.faces)
    assert not report.watertight
    np.testing.assert_array_equal(from_lowest(repaired.faces), from_lowest(repair(opened)[0].faces))
    assert not repair(opened)[1].changed


SHELL, HOLLOW = oracles.sphere(2), oracles.sphere(2, radius=0.5)
CORE, BESIDE = oracles.sphere(2, radius=0.2), oracles.sphere(1, centre=(4.0, 0.0, 0.0))
CENTRE, IN_HOLLOW, IN_WALL, IN_BESIDE = (
    (0.0, 0.0, 0.0),
    (0.35, 0.0, 0.0),
    (0.75, 0.0, 0.0),
    (4.0, 0.0, 0.0),
)


def test_a_cavity_stays_a_cavity() -> None:
    mesh = oracles.joined(SHELL, oracles.inverted(HOLLOW))
    assert not repair(mesh)[1].changed
    assert winding_at(mesh, CENTRE, IN_WALL) == [0, 1]


def test_a_cavity_inside_out_as_a_whole_is_turned_as_a_whole() -> None:
    mesh = oracles.joined(oracles.inverted(SHELL), HOLLOW)
    assert repair(mesh)[1].flipped_faces == len(mesh.faces)
    assert winding_at(mesh, CENTRE, IN_WALL) == [0, 1]


def test_a_solid_within_a_solid_stays_solid() -> None:
    mesh = oracles.joined(SHELL, HOLLOW)
    assert repair(mesh)[1].flipped_faces == 0
    assert repair(mesh)[1].changed
    assert winding_at(mesh, CENTRE, IN_WALL) == [1, 1]


def test_an_inside_out_core_in_a_cavity_is_turned_alone() -> None:
    mesh = oracles.joined(SHELL, oracles.inverted(HOLLOW), oracles.inverted(CORE))
    assert repair(mesh)[1].flipped_faces == len(CORE.faces)
    assert winding_at(mesh, CENTRE, IN_HOLLOW, IN_WALL) == [1, 0, 1]


def test_an_inside_out_neighbour_is_turned_alone() -> None:
    mesh = oracles.joined(SHELL, oracles.inverted(HOLLOW), oracles.inverted(BESIDE))
    assert repair(mesh)[1].flipped_faces == len(BESIDE.faces)
    assert winding_at(mesh, CENTRE, IN_WALL, IN_BESIDE) == [0, 1, 1]


def test_flipped_faces_in_a_cavity_follow_their_shell() -> None:
    hollow = oracles.inverted(HOLLOW)
    hollow.faces[::5] = hollow.faces[::5, ::-1]
    mesh = oracles.joined(SHELL, hollow)
    assert repair(mesh)[1].flipped_faces == len(hollow.faces[::5])
    assert winding_at(mesh, CENTRE, IN_WALL) == [0, 1]


def test_a_flat_sheet_keeps_its_side() -> None:
    sheet = Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    for mesh in (sheet, oracles.inverted(sheet)):
        assert_repaired(mesh, mesh, boundary_edges=4, watertight=False)


def test_the_larger_area_of_a_sheet_keeps_its_side() -> None:
    rim = np.exp(2j * np.pi * np.arange(6) / 6)
    disc = Mesh(
        np.column_stack([np.append(0, rim.real), np.append(0, rim.imag), np.zeros(7)]),
        np.column_stack([np.zeros(6, int), np.arange(6) + 1, (np.arange(6) + 1) % 6 + 1]),
    )
    for flipped in ([0], [0, 3], [4, 5]):
        faces = disc.faces.copy()
        faces[flipped] = faces[flipped, ::-1]
        assert_repaired(
            Mesh(disc.vertices, faces),
            disc,
            flipped_faces=len(flipped),
            boundary_edges=6,
            watertight=False,
        )


def test_a_moebius_strip_is_named_one_sided_and_left_alone() -> None:
    count = 12
    angle, half_turn = (np.arange(count) * turn * np.pi / count for turn in (2, 1))
    edge = (
        np.column_stack(
            [
                np.cos(half_turn) * np.cos(angle),
                np.cos(half_turn) * np.sin(angle),
                np.sin(half_turn),
            ]
        )
        * 0.3
    )
    ring = np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    low, high = np.arange(count), np.arange(count) + count
    next_low, next_high = np.append(low[1:], high[0]), np.append(high[1:], low[0])
    faces = np.concatenate(
        [np.column_stack([low, next_low, next_high]), np.column_stack([low, next_high, high])]
    )
    mesh = Mesh(np.concatenate([ring - edge, ring + edge]), faces)
    assert_repaired(mesh, mesh, one_sided=1, boundary_edges=2 * count, watertight=False)


def test_edges_are_counted() -> None:
    mesh = oracles.cube()
    report = repair(Mesh(mesh.vertices, mesh.faces[1:]))[1]
    assert (report.boundary_edges, report.branching_edges, report.watertight) == (3, 0, False)
    fin = np.concatenate([mesh.vertices, [[0.0, 0, 5]]])
    report = repair(Mesh(fin, np.concatenate([mesh.faces, [[4, 5, 8]]])))[1]
    assert (report.boundary_edges, report.branching_edges, report.watertight) == (2, 1, False)


def test_repair_settles_in_one_go() -> None:
    generator = np.random.default_rng(0)
    mesh = oracles.soup(oracles.joined(SHELL, oracles.inverted(HOLLOW), BESIDE))
    turned = generator.random(len(mesh.faces)) < 0.2
    damaged = Mesh(
        mesh.vertices,
        np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces)[
            generator.permutation(len(turned))
        ],
    )
    once = repair(damaged)[0]
    twice, report = repair(once)
    assert not report.changed
    np.testing.assert_array_equal(once.faces, twice.faces)


@pytest.mark.parametrize(
    ("vertices", "faces", "sentence"),
    [
        (np.eye(3), np.zeros((0, 3), int), "no faces"),
        (np.ones((3, 3)), np.array([[0, 1, 2]]), "none of the 1 faces"),
        (
            np.array([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]]),
            np.array([[0, 1, 2], [0, 0, 1]]),
            "none of the 2 faces",
        ),
        (np.diag([1, np.nan, 1]), np.array([[0, 1, 2]]), "vertex 1 of the mesh is not finite"),
        (np.eye(3), np.array([[0, 1, 3]]), r"outside 0\.\.2"),
    ],
)
def test_hopeless_meshes_are_refused(
    vertices: np.ndarray, faces: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        repair(Mesh(vertices, faces))


def test_structure_agrees_with_repair_on_meshes_that_need_none() -> None:
    for mesh in (oracles.cube(), oracles.torus(), oracles.joined(oracles.cube(), oracles.torus())):
        _, report = repair(mesh)
        assert structure(mesh) == (report.components, report.watertight)
    assert structure(Mesh(oracles.cube().vertices, oracles.cube().faces[1:])) == (1, False)
    flipped = oracles.cube().faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert structure(Mesh(oracles.cube().vertices, flipped)) == (1, False)
