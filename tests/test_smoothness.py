"""Smoothness against closed forms: tilts at the faces of cells, ripples on a ball, curvature."""

import math

import numpy as np
import pytest
import torch
from scipy.special import j1
from torch import Tensor

from nstr3d.geometry.shapes.primitives import sphere, torus
from nstr3d.sdf import Sdf
from nstr3d.surface.smoothness import (
    REACH,
    mean_curvature,
    measure_bands,
    measure_curvature,
    measure_kink,
    measure_normals,
    project,
)

TILT = 0.02  # radians


def ball_points(count: int) -> np.ndarray:
    """Points on the unit sphere, as even as a spiral makes them."""
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def tilting(resolution: int):
    """A gradient that is constant in every cell and leans to x one way or the other by turns."""

    def gradient(points: np.ndarray) -> np.ndarray:
        cell = np.floor((points[:, 0] + 1) * resolution / 2)
        lean = TILT / 2 * np.where(cell % 2, 1.0, -1.0)
        return 3 * np.stack([np.sin(lean), np.zeros_like(lean), np.cos(lean)], axis=1)

    return gradient


def test_a_kink_is_the_angle_at_faces_and_the_control_is_what_smooth_cells_have() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (20_000, 3))
    found = measure_kink(tilting(16), points, (4, 8, 16))
    # One axis of three, and of its planes all but the coarser levels', which are counted again.
    assert found.kink_p99 == pytest.approx(math.degrees(TILT))
    assert found.kink_mean == pytest.approx(math.degrees(TILT) / 3, rel=0.05)
    assert found.kink_control_mean == found.kink_control_p99 == 0
    # The shares of the box that are within REACH of a face, of three axes and three levels.
    share = 3 * REACH * (4 + 8 + 16)
    assert found.kink_points == pytest.approx(len(points) * share, rel=0.1)
    assert found.kink_control_points == pytest.approx(len(points) * 3 * REACH * 16, rel=0.15)


def test_a_smooth_ball_has_no_more_kinks_at_faces_than_elsewhere() -> None:
    found = measure_kink(sphere(0.8).gradient, 0.8 * ball_points(20_000), (10, 20, 41))
    assert found.kink_mean == pytest.approx(found.kink_control_mean, rel=0.1)
    # An arc of 4e-4 at a radius of 0.8, seen under the angle between the axis and the surface.
    assert 0 < found.kink_p99 <= math.degrees(4e-4 / 0.79)


def test_the_control_leaves_out_middles_that_are_faces_of_another_level() -> None:
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (20_000, 3))
    found = measure_kink(tilting(15), points, (15, 20))
    # Of the 20 middles between cells every fourth, at (4 j + 1.5) / 20, is a face between 15.
    assert found.kink_p99 > 0
    assert found.kink_control_p99 == 0


def test_a_kink_needs_points_near_faces() -> None:
    with pytest.raises(ValueError, match="None of 5 surface points"):
        measure_kink(sphere().gradient, np.full((5, 3), 0.4), (2,))


@pytest.mark.parametrize(("waves", "radius"), [(40, 0.1), (20, 0.1), (30, 0.1)])
def test_bands_of_a_ripple_are_its_closed_form(waves: int, radius: float) -> None:
    points, slope = ball_points(20_000), 0.03
    polar = np.arccos(points[:, 2])
    south = np.stack(  # along the meridian, where the polar angle rises
        [*(points[:, :2] * (points[:, 2] / np.sin(polar))[:, None]).T, -np.sin(polar)], axis=1
    )
    rippled = points - slope * np.cos(waves * polar)[:, None] * south
    rippled /= np.linalg.norm(rippled, axis=1, keepdims=True)
    kept = abs(1 - 2 * j1(waves * radius) / (waves * radius))
    found = measure_bands(points, rippled, points, radius)
    assert found.mean == pytest.approx(math.degrees(slope * kept) * 2 / math.pi, rel=0.04)
    assert found.p99 == pytest.approx(math.degrees(slope * kept), rel=0.08)


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
    found = measure_normals(5 * turned, np.broadcast_to([0.0, 0, 1], turned.shape))
    assert (found.mean, found.p99) == (pytest.approx(5.0), pytest.approx(9.9))


def test_mean_curvature_of_a_ball_and_of_a_torus() -> None:
    points = torch.from_numpy(0.5 * ball_points(500))
    ball, ring = sphere(0.5), torus(1.0, 0.4)
    found = mean_curvature(ball, points, ball.normals(points), 1e-3)
    assert torch.allclose(found, torch.full_like(found, 2.0), rtol=1e-5)
    turn, tube = torch.rand(2, 500, dtype=torch.float64) * 2 * math.pi
    out = 1 + 0.4 * torch.cos(tube)
    at = torch.stack([out * torch.cos(turn), 0.4 * torch.sin(tube), out * torch.sin(turn)], dim=1)
    wanted = (1 + 2 * 0.4 * torch.cos(tube)) / (2 * 0.4 * out)
    assert torch.allclose(mean_curvature(ring, at, ring.normals(at), 1e-3), wanted, rtol=1e-4)


def test_the_error_of_curvature_of_a_ball_that_is_off_its_place() -> None:
    points, centre = ball_points(4000), (0.0, 0.0, 0.1)
    found = measure_curvature(sphere(1.0, centre), sphere(), points, 1e-3)
    wrong = np.abs(1 / np.linalg.norm(points - centre, axis=1) - 1)
    assert found.mean == pytest.approx(wrong.mean(), rel=1e-3)
    assert found.p99 == pytest.approx(np.percentile(wrong, 99), rel=1e-3)


def test_points_are_projected_on_to_a_surface_whose_gradient_is_not_of_length_1() -> None:
    def distance(points: Tensor) -> Tensor:
        return points.square().sum(dim=1) - 0.25

    bowl = Sdf(distance, sphere(0.5).bounds, 2.0)
    found = project(bowl, 0.55 * ball_points(100))
    assert np.allclose(found, 0.5 * ball_points(100), atol=1e-9)
