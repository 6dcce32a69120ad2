"""Smoothness against closed forms: tilts at the faces of cells, ripples on a ball, curvature."""

import math

import numpy as np
import pytest
import torch
from scipy.special import j1

from nstr3d.geometry.shapes.primitives import sphere, torus
from nstr3d.surface.curvature import curvatures_at
from nstr3d.surface.smoothness import (
    REACH,
    measure_bands,
    measure_curvature,
    measure_kink,
    measure_normals,
)

TILT = 0.02  # radians


def ball_points(count: int) -> np.ndarray:
    """Points ``(count, 3)`` of a golden-angle spiral on the unit sphere."""
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def tilting(resolution: int):
    """A gradient that is constant in every cell and tilts towards -x and +x in alternate cells."""

    def gradient(points: np.ndarray) -> np.ndarray:
        cell = np.floor((points[:, 0] + 1) * resolution / 2)
        lean = TILT / 2 * np.where(cell % 2, 1.0, -1.0)
        return 3 * np.stack([np.sin(lean), np.zeros_like(lean), np.cos(lean)], axis=1)

    return gradient


def test_a_kink_is_the_angle_at_faces_and_the_control_is_what_smooth_cells_have() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (20_000, 3))
    result = measure_kink(tilting(16), points, (4, 8, 16))
    # Only faces across x have a kink, and faces of the coarser levels are faces of the finest too.
    assert result.kink_p99 == pytest.approx(math.degrees(TILT))
    assert result.kink_mean == pytest.approx(math.degrees(TILT) / 3, rel=0.05)
    assert result.kink_control_mean == result.kink_control_p99 == 0
    # The fraction of the box within REACH of a face, summed over three axes and three levels.
    fraction = 3 * REACH * (4 + 8 + 16)
    assert result.kink_points == pytest.approx(len(points) * fraction, rel=0.1)
    assert result.kink_control_points == pytest.approx(len(points) * 3 * REACH * 16, rel=0.15)


def test_a_smooth_ball_has_no_more_kinks_at_faces_than_elsewhere() -> None:
    result = measure_kink(sphere(0.8).gradient, 0.8 * ball_points(20_000), (10, 20, 41))
    assert result.kink_mean == pytest.approx(result.kink_control_mean, rel=0.1)
    # The two gradients are 4e-4 apart, so at a radius of 0.8 they differ by at most this angle.
    assert 0 < result.kink_p99 <= math.degrees(4e-4 / 0.79)


def test_the_control_leaves_out_middles_that_are_faces_of_another_level() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (20_000, 3))
    result = measure_kink(tilting(4), points, (4, 6))
    # The second of the 6 cells has its middle at 1.5 / 6, where the first of the 4 cells ends.
    assert result.kink_p99 > 0
    assert result.kink_control_p99 == 0


def test_a_kink_needs_points_near_faces() -> None:
    with pytest.raises(ValueError, match="5 surface points are too few"):
        measure_kink(sphere().gradient, np.full((5, 3), 0.4), (2,))


@pytest.mark.parametrize(("waves", "radius"), [(40, 0.1), (20, 0.1), (30, 0.1)])
def test_bands_of_a_ripple_are_its_closed_form(waves: int, radius: float) -> None:
    points, slope = ball_points(20_000), 0.03
    polar = np.arccos(points[:, 2])
    south = np.stack(  # the unit vector along the meridian, towards larger polar angle
        [*(points[:, :2] * (points[:, 2] / np.sin(polar))[:, None]).T, -np.sin(polar)], axis=1
    )
    rippled = points - slope * np.cos(waves * polar)[:, None] * south
    rippled /= np.linalg.norm(rippled, axis=1, keepdims=True)
    kept = abs(1 - 2 * j1(waves * radius) / (waves * radius))
    result = measure_bands(points, rippled, points, radius)
    assert result.mean == pytest.approx(math.degrees(slope * kept) * 2 / math.pi, rel=0.04)
    assert result.p99 == pytest.approx(math.degrees(slope * kept), rel=0.08)


def test_bands_hardly_see_an_error_that_is_smooth() -> None:
    points = ball_points(20_000)
    shifted = points - (0.05, 0.02, 0.0)
    shifted /= np.linalg.norm(shifted, axis=1, keepdims=True)
    assert measure_normals(shifted, points).mean > 2
    assert measure_bands(points, shifted, points, 0.08).mean < 0.05


def test_bands_do_not_mix_the_sides_of_a_thin_plate() -> None:
    flat = np.random.default_rng(0).uniform(-1, 1, (4000, 2))
    points = np.concatenate([np.insert(flat, 2, height, axis=1) for height in (0.0, 0.01)])
    truth = np.repeat([[0.0, 0, -1], [0.0, 0, 1]], len(flat), axis=0)
    tilted = truth + np.repeat([[0.02, 0, 0], [-0.02, 0, 0]], len(flat), axis=0)
    assert measure_bands(points, tilted, truth, 0.2).p99 < 1e-9


def test_normals_are_summed_up_by_mean_and_percentile() -> None:
    angle = np.radians(np.linspace(0, 10, 1001))
    turned = np.stack([np.sin(angle), np.zeros(1001), np.cos(angle)], axis=1)
    result = measure_normals(5 * turned, np.broadcast_to([0.0, 0, 1], turned.shape))
    assert (result.mean, result.p99) == (pytest.approx(5.0), pytest.approx(9.9))


def test_mean_curvature_of_a_ball_and_of_a_torus() -> None:
    points = torch.from_numpy(0.5 * ball_points(500))
    ball, ring = sphere(0.5), torus(1.0, 0.4)
    result, _ = curvatures_at(ball, points, ball.normals(points), 1e-3)
    assert torch.allclose(result, torch.full_like(result, 2.0), rtol=1e-5)
    turn, tube = torch.rand(2, 500, dtype=torch.float64) * 2 * math.pi
    out = 1 + 0.4 * torch.cos(tube)
    at = torch.stack([out * torch.cos(turn), 0.4 * torch.sin(tube), out * torch.sin(turn)], dim=1)
    expected = (1 + 2 * 0.4 * torch.cos(tube)) / (2 * 0.4 * out)
    result, _ = curvatures_at(ring, at, ring.normals(at), 1e-3)
    assert torch.allclose(result, expected, rtol=1e-4)


def test_the_error_of_curvature_of_a_ball_that_is_off_its_place() -> None:
    points, centre = ball_points(4000), (0.0, 0.0, 0.1)
    result = measure_curvature(sphere(1.0, centre), sphere(), points, 1e-3)
    wrong = np.abs(1 / np.linalg.norm(points - centre, axis=1) - 1)
    assert result.mean == pytest.approx(wrong.mean(), rel=1e-3)
    assert result.p99 == pytest.approx(np.percentile(wrong, 99), rel=1e-3)
