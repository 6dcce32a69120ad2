"""Contacts of two solids and proven gaps between them, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nstr3d.geometry.shapes import primitives as P
from nstr3d.sdf import Sdf
from nstr3d.surface.contact import Body
from nstr3d.training.fit import Fit
from nstr3d.types import UnprovenError

BALL, BLOCK, RING = P.sphere(1.0), P.box((1.0, 0.7, 0.4)), P.torus(0.8, 0.3)
EMPTY = P.sphere(0.5, (-2.0, 0, 0)) & P.sphere(0.5, (2.0, 0, 0))


def pose(turn: tuple = (0.0, 0.0, 0.0), shift: tuple = (0.0, 0.0, 0.0)) -> np.ndarray:
    """The motion by the rotation vector ``turn``, in degrees, and then ``shift``."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.parametrize("gap", [0.05, 0.0, -0.05, -0.3])
def test_two_balls_touch_at_one_point(gap: float) -> None:
    along = np.array([2.0, -1.0, 2.0]) / 3
    found = BALL.contacts(P.sphere(0.5), pose(shift=tuple((1.5 + gap) * along)), margin=0.1)
    assert len(found) == 1
    np.testing.assert_allclose(found.depth, [-gap], atol=1e-5)
    np.testing.assert_allclose(found.points, [(1 + gap / 2) * along], atol=2e-3)
    np.testing.assert_allclose(found.normals, [along], atol=2e-3)


def test_a_gap_beyond_the_margin_is_no_contact() -> None:
    place = pose(shift=(2.02, 0, 0))
    assert len(BALL.contacts(BALL, place)) == 0
    assert len(BALL.contacts(BALL, place, margin=0.01)) == 0
    assert len(BALL.contacts(BALL, place, margin=0.03)) == 1
    assert len(BALL.contacts(BALL, pose(shift=(20.0, 0, 0)))) == 0


def test_faces_touch_in_points_that_are_spread_over_them() -> None:
    found = BLOCK.contacts(BLOCK, pose(shift=(0.4, 0.0, 0.78)), most=40)
    assert len(found) == 40
    np.testing.assert_allclose(found.depth, 0.02, atol=1e-6)
    np.testing.assert_allclose(found.points[:, 2], 0.39, atol=1e-6)
    np.testing.assert_allclose(found.normals, np.tile([0, 0, 1.0], (40, 1)), atol=1e-6)
    # The faces overlap in the rectangle from (-0.6, -0.7) to (1, 0.7).
    low, high = found.points[:, :2].min(axis=0), found.points[:, :2].max(axis=0)
    np.testing.assert_allclose(low, [-0.6, -0.7], atol=0.06)
    np.testing.assert_allclose(high, [1.0, 0.7], atol=0.06)


def test_a_corner_in_a_face() -> None:
    """A cube that stands on its corner: only the corner counts, not the wall that it passes."""
    cube, tilt = P.box((1.0, 1.0, 1.0)), math.degrees(math.acos(1 / math.sqrt(3)))
    stand = pose(
        (tilt / math.sqrt(2), -tilt / math.sqrt(2), 0.0), (0.0, 0.0, 1 + math.sqrt(3) - 0.05)
    )
    found = cube.contacts(cube, stand)
    assert len(found) == 1
    np.testing.assert_allclose(found.depth, [0.05], atol=1e-4)
    np.testing.assert_allclose(found.points, [[0, 0, 0.975]], atol=1e-3)
    np.testing.assert_allclose(found.normals, [[0, 0, 1]], atol=1e-3)


def test_a_pin_in_a_hole_touches_both_sides() -> None:
    """The hole of the ring has the radius 0.5, and the pin those of an ellipse, 0.52 and 0.4."""
    pin = P.ellipsoid((0.52, 0.4, 0.4))
    found = RING.contacts(pin)
    assert len(found) == 2
    np.testing.assert_allclose(found.depth, 0.02, atol=1e-4)
    order = found.points[:, 0].argsort()
    np.testing.assert_allclose(found.points[order], [[-0.51, 0, 0], [0.51, 0, 0]], atol=3e-3)
    np.testing.assert_allclose(found.normals[order], [[1, 0, 0], [-1, 0, 0]], atol=3e-3)


def test_depths_are_distances_where_the_value_is_only_a_bound() -> None:
    """Inside a union, the distance to the nearer part is too small."""
    row = P.box((1.0, 0.5, 0.5)).translate((-0.5, 0, 0)) | P.box((1.0, 0.5, 0.5)).translate(
        (0.5, 0, 0)
    )
    found = row.contacts(P.sphere(0.3), pose(shift=(0.0, 0.0, 0.5 + 0.3 - 0.2)))
    np.testing.assert_allclose(found.depth[0], 0.2, atol=1e-4)
    np.testing.assert_allclose(found.normals[0], [0, 0, 1], atol=1e-3)


def test_the_other_way_round_and_from_another_place() -> None:
    place = pose((20.0, 35.0, -10.0), (1.3, 0.5, 0.6))
    first = BLOCK.contacts(RING, place, margin=0.2)
    assert len(first)
    second = RING.contacts(BLOCK, np.linalg.inv(place), margin=0.2)
    np.testing.assert_allclose(second.depth[0], first.depth[0], atol=1e-5)
    back = second.points[0] @ place[:3, :3].T + place[:3, 3]
    np.testing.assert_allclose(back, first.points[0], atol=5e-3)
    np.testing.assert_allclose(-second.normals[0] @ place[:3, :3].T, first.normals[0], atol=5e-3)
    # A motion of both solids moves the contacts, and nothing else.
    both = pose((0.0, 0.0, 90.0), (5.0, 6.0, 7.0))
    third = (
        BLOCK.rotate((0, 0, 1), 90).translate((5, 6, 7)).contacts(RING, both @ place, margin=0.2)
    )
    np.testing.assert_allclose(third.depth[0], first.depth[0], atol=1e-4)
    np.testing.assert_allclose(
        third.points[0], first.points[0] @ both[:3, :3].T + both[:3, 3], atol=5e-3
    )


def test_a_translation_by_the_depth_frees_a_fit(torus_fit: Fit) -> None:
    sdf, probe = torus_fit.sdf(), Body(P.sphere(0.2))
    body = Body(sdf)
    reach = sdf.closest_points(np.array([[0.0, 0.0, 0.0]])).points[0]
    inward = -sdf.normals(reach[None])[0]
    place = pose(shift=tuple(reach - 0.15 * inward))
    found = body.contacts(probe, place)
    assert found.depth[0] == pytest.approx(0.05, abs=2e-3)
    freed = place.copy()
    freed[:3, 3] += found.depth[0] * 1.01 * found.normals[0]
    assert len(body.contacts(probe, freed)) == 0 or body.contacts(probe, freed).depth[0] < 1e-3


@pytest.mark.parametrize("pair", [(EMPTY, BALL), (BALL, EMPTY)])
def test_an_empty_solid_touches_nothing(pair: tuple[Sdf, Sdf]) -> None:
    assert len(pair[0].contacts(pair[1], margin=1.0)) == 0
    assert repr(pair[0].contacts(pair[1])) == "<Contacts: 0>"


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"pose": np.eye(3)}, ValueError, "a matrix \\(4, 4\\)"),
        ({"pose": "here"}, TypeError, "a matrix \\(4, 4\\), not str"),
        ({"pose": np.diag([2.0, 2, 2, 1])}, ValueError, "rigid motion"),
        ({"pose": np.diag([-1.0, 1, 1, 1])}, ValueError, "mirror"),
        ({"pose": np.diag([1.0, 1, 1, 2])}, ValueError, "rigid motion"),
        ({"pose": np.full((4, 4), np.nan)}, ValueError, "finite"),
        ({"margin": -0.1}, ValueError, "margin must be at least 0"),
        ({"margin": math.nan}, ValueError, "margin must be at least 0"),
        ({"most": 0}, ValueError, "most must be at least 1"),
        ({"resolution": 1}, ValueError, "resolution must be at least 2"),
        ({"other": 3}, TypeError, "other"),
    ],
)
def test_bad_questions_are_one_sentence(words: dict, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        BALL.contacts(**{"other": BALL, **words})


def test_a_pose_may_be_a_tensor() -> None:
    found = BALL.contacts(BALL, torch.from_numpy(pose(shift=(1.9, 0, 0))))
    np.testing.assert_allclose(found.depth, [0.1], atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [
        (BALL, P.sphere(0.5, (1.7, 0.0, 0.0)), 0.2),
        (BALL, P.sphere(0.5, (9.0, 12.0, 0.0)), 13.5),
        (BLOCK, P.box((0.2, 0.2, 0.2)).translate((0.0, 0.0, 0.75)), 0.15),
        (RING, P.sphere(0.3), 0.2),
        (BALL, P.sphere(0.5, (1.4, 0.0, 0.0)), 0.0),
        (P.sphere(2.0), BALL, 0.0),
    ],
)
def test_a_proven_gap_is_at_most_the_distance_and_close_to_it(
    first: Sdf, second: Sdf, gap: float
) -> None:
    proven = first.proven_gap(second, 32)
    assert proven <= gap
    assert proven >= gap - 0.05 * first.bounds.diagonal
    assert second.proven_gap(first, 32) == pytest.approx(proven, abs=0.05)


def test_a_proven_gap_of_a_fit_is_below_all_distances(torus_fit: Fit) -> None:
    sdf = torus_fit.sdf()
    ball = P.sphere(0.2, (0.2, 0.0, 0.0))  # in the hole
    proven = sdf.proven_gap(ball, 48)
    cloud = sdf.sample_surface(4000)
    nearest = ball(np.asarray(cloud.points)).min()
    assert nearest - 0.1 < proven <= nearest


def test_gaps_to_nothing_and_to_what_has_no_proof() -> None:
    assert BALL.proven_gap(EMPTY, 32) == math.inf
    bare = Sdf(BALL.distance, BALL.bounds)
    with pytest.raises(UnprovenError):
        BALL.proven_gap(bare)
    with pytest.raises(ValueError, match="at least 2 cells"):
        BALL.proven_gap(P.sphere(0.5, (2.0, 0, 0)), 1)
