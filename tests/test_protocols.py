"""Measures of other papers' protocols against closed forms."""

import math

import numpy as np
import pytest

from nstr3d.bench.protocols import (
    in_ball,
    sampled_normals,
    shell_iou,
    squared_chamfer,
    uniform_iou,
)
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.surface.extract import extract_mesh
from nstr3d.types import Mesh


def square(height: float, tilt: float = 0.0) -> Mesh:
    """The unit square at z = ``height``, turned about its first edge by ``tilt`` radians."""
    c, s = math.cos(tilt), math.sin(tilt)
    corners = np.array([(0, 0, height), (1, 0, height), (1, c, height + s), (0, c, height + s)])
    return Mesh(corners, np.array([(0, 1, 2), (0, 2, 3)]))


def test_a_mesh_in_the_ball_touches_it_and_its_box_is_centred() -> None:
    mesh = Mesh(np.array([(3.0, 1, 0), (5, 1, 0), (4, 1, 6)]), np.array([(0, 1, 2)]))
    placed, frame = in_ball(mesh, 0.99)
    np.testing.assert_allclose(placed.bounds.centre, 0, atol=1e-12)
    assert np.linalg.norm(placed.vertices, axis=1).max() == pytest.approx(0.99)
    np.testing.assert_allclose(frame.to_world(placed.vertices), mesh.vertices)


@pytest.mark.parametrize("degrees", [0.0, 5.0, 30.0])
def test_the_angle_of_tilted_squares_is_their_tilt(degrees: float) -> None:
    tilt, generator = math.radians(degrees), np.random.default_rng(0)
    result = sampled_normals(square(0, tilt), square(0), 500, generator)
    assert result.angle == pytest.approx(degrees, abs=1e-5)
    assert result.back == pytest.approx(degrees, abs=1e-5)
    assert result.released == pytest.approx((degrees + math.cos(tilt)) / 2, abs=1e-5)


def test_the_angle_ignores_the_sign_of_normals() -> None:
    turned = Mesh(square(0).vertices, square(0).faces[:, ::-1])
    assert sampled_normals(turned, square(0), 100, np.random.default_rng(0)).angle < 1e-5


def test_the_squared_chamfer_distance_of_parallel_squares_is_its_closed_form() -> None:
    # A Poisson sampling of density n has its nearest sample at the mean squared distance 1 / pi n.
    height, count = 0.03, 40_000
    result = squared_chamfer(square(height), square(0), count, np.random.default_rng(0))
    assert result == pytest.approx(2 * (height**2 + 1 / (math.pi * count)), rel=0.01)
    floor = squared_chamfer(square(0), square(0), count, np.random.default_rng(0))
    assert floor == pytest.approx(2 / (math.pi * count), rel=0.05)


def test_shells_overlap_where_squares_cross_the_same_voxels() -> None:
    generator = np.random.default_rng(0)
    assert shell_iou(square(0.001), square(0.009), 0.01, generator) == 1
    assert shell_iou(square(0.005), square(0.015), 0.01, generator) == 0
    # squares of one layer, the second moved by a quarter: 75 of 125 columns are common
    moved = Mesh(square(0.005).vertices + (0.25, 0, 0), square(0.005).faces)
    assert shell_iou(square(0.005), moved, 0.01, generator) == pytest.approx(75 / 125)


def test_the_uniform_iou_of_nested_balls_is_the_ratio_of_their_volumes() -> None:
    truth = MeshDistance(extract_mesh(sphere(0.8), 48))
    result = uniform_iou(sphere(0.6), truth, 300_000, np.random.default_rng(0))
    assert result == pytest.approx((0.6 / 0.8) ** 3, abs=0.01)
