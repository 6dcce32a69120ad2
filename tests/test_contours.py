"""Plane sections of shapes with known sections."""

import numpy as np
import pytest
from oracles import cube, sphere

from nstr3d.geometry.mesh.topology import genera
from nstr3d.geometry.shapes import primitives
from nstr3d.render.contours import Plane, cap, contour_colours, contours, cut, rounded
from nstr3d.types import Mesh


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_contours_of_a_sphere_are_circles_of_their_distance(axis: int) -> None:
    ball = primitives.translate(primitives.sphere(), (1.0, 2.0, 3.0))
    centre = np.array([1.0, 2.0, 3.0])
    plane = Plane(axis, float(centre[axis] + 0.6))
    segments, distances = contours(ball, plane, level=0.1)
    np.testing.assert_allclose(segments[..., axis], plane.offset)
    np.testing.assert_allclose(
        np.linalg.norm(segments - centre, axis=2),
        1 + distances[:, None].repeat(2, axis=1),
        atol=1e-3,
    )
    assert len(np.unique(distances.round(9))) > 8
    ring = segments[np.abs(distances - 0.1) < 1e-9]
    lengths = np.linalg.norm(ring[:, 1] - ring[:, 0], axis=1)
    assert lengths.sum() == pytest.approx(2 * np.pi * np.sqrt(1.1**2 - 0.6**2), rel=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_face_of_a_cut_ball_is_a_disc_that_looks_off_the_kept_side(axis: int) -> None:
    ball = primitives.translate(primitives.sphere(), (1.0, 2.0, 3.0))
    offset = float((1.0, 2.0, 3.0)[axis] + 0.6)
    disc = cap(ball, Plane(axis, offset), level=0.1, cells=80)
    np.testing.assert_allclose(disc.vertices[:, axis], offset)
    a, b, c = np.moveaxis(disc.corners, 1, 0)
    area = np.cross(b - a, c - a).sum(axis=0) / 2
    expected = np.eye(3)[axis] * np.pi * (1.1**2 - 0.6**2)
    np.testing.assert_allclose(area, expected, atol=0.01)
    assert len(cap(ball, Plane(axis, offset + 2.0)).faces) == 0


def test_a_cut_cube_has_the_area_that_is_left() -> None:
    box = cube()
    for axis in range(3):
        for offset, area in ((-0.25, 4 + 4 * 2 * 0.75), (2.0, 24.0), (-2.0, 0.0)):
            remainder = cut(box, Plane(axis, offset))
            a, b, c = np.moveaxis(remainder.corners, 1, 0)
            normals = np.cross(b - a, c - a)
            assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(area)
            assert (remainder.corners[..., axis] <= offset + 1e-12).all()
            assert (
                (normals * remainder.corners.mean(axis=1)).sum(axis=1) > 0
            ).all()  # the faces still face outward


def test_a_cut_sphere_keeps_its_cap() -> None:
    ball = sphere(4)
    a, b, c = np.moveaxis(cut(ball, Plane(2, 0.5)).corners, 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(2 * np.pi * 1.5, rel=0.01)


@pytest.mark.parametrize("size", [1.0, 1e-7, 1e7])
def test_a_cut_along_edges_keeps_whole_faces_and_their_vertices(size: float) -> None:
    ball = sphere(3)
    ball = Mesh(ball.vertices * size, ball.faces)
    half = cut(ball, Plane(1, 0.0))
    below = (ball.corners[..., 1] <= 0).all(axis=1)
    np.testing.assert_array_equal(
        np.sort(half.corners, axis=0), np.sort(ball.corners[below], axis=0)
    )
    assert len(np.unique(half.faces)) == len(half.vertices)
    cap = cut(ball, Plane(1, -0.3 * size))
    assert genera(cap) == [None]
    assert (cap.vertices[:, 1] <= -0.3 * size * (1 - 1e-12)).all()
    assert (np.abs(np.linalg.norm(cap.vertices, axis=1) / size - 1) < 0.02).all()


def test_the_level_itself_is_darkest() -> None:
    inside, at, outside = contour_colours(np.array([-0.3, 0.1, 0.5]), 0.1, 2.0)
    assert at.max() < 0.1
    assert inside[2] > inside[0]
    assert outside[0] > outside[2]


def test_steps_are_round() -> None:
    assert [rounded(step) for step in (0.0013, 0.26, 4.0, 80.0)] == pytest.approx(
        [0.001, 0.2, 5.0, 100.0]
    )


def test_planes_that_are_none_raise() -> None:
    for axis, offset in ((3, 0.0), (0, np.nan)):
        with pytest.raises(ValueError, match="A plane has axis"):
            Plane(axis, offset)
