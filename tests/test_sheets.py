"""Thickening open surfaces, and the account of every component."""

import numpy as np
import oracles
import pytest

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.repair import repair, structure
from nstr3d.geometry.mesh.sheets import thicken
from nstr3d.geometry.mesh.solid import make_solid
from nstr3d.geometry.mesh.surface import area, volume
from nstr3d.surface.coverage import measure_coverage
from nstr3d.types import Mesh

SQUARE = Mesh(
    np.array([[0.0, 0, 0], [2, 0, 0], [2, 3, 0], [0, 3, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
)


def test_a_flat_sheet_becomes_a_box():
    solid, sheet = thicken(SQUARE, 0.5)
    assert sheet.all()
    assert structure(solid) == (1, True)
    assert volume(solid) == pytest.approx(2 * 3 * 0.5)
    assert area(solid) == pytest.approx(2 * 6 + 10 * 0.5)
    np.testing.assert_allclose(solid.bounds.lower, [0, 0, -0.25])
    np.testing.assert_allclose(
        MeshDistance(solid)(np.array([[1.0, 1, 0], [1, 1, 1]])), [-0.25, 0.75]
    )


def test_a_fold_keeps_its_thickness_on_both_sides():
    fold = Mesh(
        np.array([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0], [0, 0, 2], [0, 2, 2]]),
        np.array([[0, 1, 2], [0, 2, 3], [0, 3, 5], [0, 5, 4]]),
    )
    solid, _ = thicken(repair(fold)[0], 0.2)
    assert structure(solid) == (1, True)
    # Two plates of 2 x 2 whose mid-planes meet at a right angle overlap in one corner post.
    assert volume(solid) == pytest.approx(2 * 2 * 2 * 0.2)
    inside = MeshDistance(solid)(np.array([[1.0, 1, 0], [0, 1, 1]]))
    np.testing.assert_allclose(inside, [-0.1, -0.1])


def test_a_closed_component_stays_and_an_open_one_is_thickened():
    opened = Mesh(oracles.cube().vertices + [5, 0, 0], oracles.cube().faces[2:])
    solid, sheet = thicken(oracles.joined(oracles.cube(), opened), 0.1)
    assert sheet.tolist() == [False] * 12 + [True] * 10
    assert structure(solid) == (2, True)
    # A box with walls around the cube's faces: five of six plates, mitred at half of the thickness.
    outer, inner = 2.1**2 * 2.05, 1.9**2 * 1.95
    assert volume(solid) == pytest.approx(8 + outer - inner, rel=0.01)


def test_a_moebius_strip_becomes_a_solid():
    turn = 2 * np.pi * np.arange(40) / 40
    spoke = np.column_stack([np.cos(turn / 2) * np.cos(turn), np.cos(turn / 2) * np.sin(turn)])
    spoke = 0.3 * np.column_stack([spoke, np.sin(turn / 2)])
    ring = np.column_stack([np.cos(turn), np.sin(turn), 0 * turn])
    low, high = np.arange(40), np.arange(40) + 40
    next_low, next_high = np.append(low[1:], high[0]), np.append(high[1:], low[0])
    faces = np.concatenate(
        [np.column_stack([low, next_low, next_high]), np.column_stack([low, next_high, high])]
    )
    strip = repair(Mesh(np.concatenate([ring - spoke, ring + spoke]), faces))[0]
    solid, sheet = thicken(strip, 0.05)
    assert sheet.all()
    assert structure(solid)[1]
    assert volume(solid) == pytest.approx(area(strip) * 0.05, rel=0.02)


def test_every_thickness_of_a_bowl_encloses_the_bowl():
    ball = oracles.sphere(3)
    bowl = Mesh(ball.vertices, ball.faces[ball.corners[:, :, 2].max(axis=1) < 1e-9])
    solid, _ = thicken(bowl, 0.1)
    distance = MeshDistance(solid)(bowl.corners.mean(axis=1))
    assert distance.max() < -0.04


@pytest.mark.parametrize("thickness", [0.0, -1.0, np.nan])
def test_a_thickness_must_be_positive(thickness: float):
    with pytest.raises(ValueError, match="positive"):
        thicken(SQUARE, thickness)


def scene() -> Mesh:
    """A closed cube, an open one, a square sheet, a needle without area, and six faces of a cube
    apart."""
    opened = Mesh(oracles.cube().vertices + [5, 0, 0], oracles.cube().faces[2:])
    square = Mesh(SQUARE.vertices + [9, 0, 0], SQUARE.faces)
    needle = Mesh(np.array([[15.0, 0, 0], [16, 0, 0], [17, 0, 0]]), np.array([[0, 1, 2]]))
    cube = oracles.cube(centre=(20.0, 0, 0))
    apart = [cube.corners[2 * side : 2 * side + 2].reshape(-1, 3) for side in range(6)]
    apart = [each + 0.05 * (each.mean(axis=0) - [20, 0, 0]) for each in apart]
    patches = [Mesh(each, np.arange(6).reshape(-1, 3)) for each in apart]
    return oracles.joined(oracles.cube(), opened, square, needle, *patches)


def test_every_component_is_accounted_for():
    account = make_solid(scene()).account
    fates = (account.closed, account.capped, account.open, account.sheets, account.degenerate)
    assert fates == (1, 1, 6, 1, 1)
    assert account.parts == sum(fates) == 10
    assert (account.thickened, account.left_out) == (0, 2)
    assert account.left_out_share == pytest.approx(6 / (24 + 20 + 6 + 24))


def test_a_thickened_scene_leaves_out_nothing_with_an_area():
    solid = make_solid(scene(), 0.05)
    account = solid.account
    assert (account.closed, account.thickened, account.degenerate) == (1, 8, 1)
    assert account.parts == 10
    assert (account.sheets, account.left_out, account.left_out_share) == (0, 1, 0.0)
    assert structure(solid.mesh) == (9, True)


def test_welded_parts_are_counted_beside_their_fate():
    cube = oracles.cube()
    apart = [cube.corners[2 * side : 2 * side + 2].reshape(-1, 3) for side in range(6)]
    noise = np.random.default_rng(0).normal(0, 1e-7, (6, 6, 3))
    patches = [Mesh(a + n, np.arange(6).reshape(-1, 3)) for a, n in zip(apart, noise)]
    account = make_solid(oracles.joined(*patches)).account
    assert (account.parts, account.welded, account.closed) == (12, 12, 12)
    assert account.left_out == 0


def test_coverage_is_the_share_of_area_that_is_not_there():
    kept, lost = oracles.cube(), Mesh(SQUARE.vertices + [5, 0, 0], SQUARE.faces)
    core = oracles.cube(half=0.5)
    mesh = oracles.joined(kept, lost, core)
    distance, generator = MeshDistance(kept), np.random.default_rng(0)
    coverage = measure_coverage(mesh, distance, distance, 0.01, generator)
    # Areas: 24 of the cube, 6 of the square beside it, and 6 of the core inside.
    assert coverage.missing == pytest.approx(6 / 36, abs=1e-3)
    assert coverage.inside == pytest.approx(6 / 36, abs=1e-3)
    assert measure_coverage(kept, distance, distance, 0.01, generator).missing == 0
