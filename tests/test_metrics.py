"""Metrics against closed forms: parallel planes, concentric spheres, constant errors."""

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.geometry.shapes.primitives import scale, sphere, translate
from nstr3d.sdf import Sdf
from nstr3d.signals.ratios import psnr, snr
from nstr3d.surface.extract import extract_mesh
from nstr3d.surface.metrics import (
    TAU,
    chamfer,
    compare_surfaces,
    f_score,
    hausdorff,
    mean_abs_error,
    mean_angle,
    score,
)
from nstr3d.surface.overlap import LEAST_INSIDE, iou, stated_iou
from nstr3d.types import Mesh

FORWARD, BACKWARD = np.array([1.0, 2.0, 3.0]), np.array([0.0, 6.0])


def square(height: float, tilt: float = 0.0) -> Mesh:
    """The unit square in the xy plane at z = ``height``, turned about the x axis by ``tilt``
    degrees."""
    flat = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], float)
    c, s = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    return Mesh(
        flat @ np.array([(1, 0, 0), (0, c, s), (0, -s, c)]) + (0, 0, height),
        np.array([(0, 1, 2), (0, 2, 3)]),
    )


def test_chamfer_and_hausdorff_join_the_two_sides() -> None:
    assert chamfer(FORWARD, BACKWARD) == 2.5
    assert hausdorff(FORWARD, BACKWARD) == 6.0
    assert hausdorff(BACKWARD, FORWARD) == 6.0


def test_f_score_is_the_harmonic_mean_of_the_shares_within_tau() -> None:
    assert math.isclose(f_score(FORWARD, BACKWARD, 2.5), 2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert f_score(FORWARD, BACKWARD, 7.0) == 1.0
    assert f_score(FORWARD, FORWARD, 0.5) == 0.0
    assert f_score(FORWARD, FORWARD, 1.0) == 0.0


def test_mean_angle_is_accurate_for_small_right_and_opposite_angles() -> None:
    x = np.array([[1.0, 0.0, 0.0]])
    for degrees in (0.0, 1e-6, 1.0, 90.0, 179.0, 180.0):
        turned = 3.0 * np.array(
            [[math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0]]
        )
        assert math.isclose(mean_angle(x, turned), degrees, rel_tol=1e-9, abs_tol=1e-12)
    assert mean_angle(np.vstack([x, x]), np.vstack([x, -x])) == 90.0
    assert mean_angle(x, np.zeros((1, 3))) == 90.0


def test_iou_counts_points() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert iou(a, b) == 1 / 3
    assert iou(a, a) == 1.0
    assert iou(a, ~a) == 0.0
    with pytest.raises(ValueError, match="none of 4 points"):
        iou(a & ~a, b & ~b)


def test_iou_of_concentric_balls_is_the_ratio_of_their_volumes() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    radius = np.linalg.norm(points, axis=1)
    # Three standard deviations of a fraction near 0.51 of about 100,000 points in the larger ball.
    assert math.isclose(
        iou(radius < 0.8, radius < 1.0), 0.8**3, abs_tol=3 * math.sqrt(0.25 / 100_000)
    )


def test_errors_of_a_constant_offset() -> None:
    signal = np.array([1.0, -1.0, 3.0, 5.0])
    assert math.isclose(mean_abs_error(signal - 0.25, signal), 0.25)
    assert math.isclose(psnr(signal + 0.1, signal, peak=1.0), 20.0)
    assert math.isclose(psnr(signal + 0.1, signal, peak=10.0), 40.0)
    assert math.isclose(snr(signal + 0.3, signal), 20.0)
    assert psnr(signal, signal, peak=1.0) == math.inf
    assert snr(signal, signal) == math.inf


def test_psnr_of_bytes_does_not_wrap_around() -> None:
    dark, bright = np.array([0, 10], np.uint8), np.array([255, 245], np.uint8)
    assert math.isclose(
        psnr(dark, bright, peak=255.0), 10 * math.log10(255**2 / ((255**2 + 235**2) / 2))
    )
    assert mean_abs_error(dark, bright) == 245.0


def test_snr_of_silence_raises() -> None:
    with pytest.raises(ValueError, match="zero throughout"):
        snr(np.ones(4), np.zeros(4))


def test_parallel_planes_are_their_distance_apart() -> None:
    delta = 0.125
    reference = square(0.0)
    result = compare_surfaces(
        square(delta),
        reference,
        MeshDistance(reference),
        np.random.default_rng(1),
        tau=0.1,
        samples=500,
    )
    assert math.isclose(result.chamfer, delta, rel_tol=1e-12)
    assert math.isclose(result.hausdorff, delta, rel_tol=1e-12)
    assert result.f_score == 0.0
    assert result.normal_error < 1e-9
    assert result.samples == 500


def test_a_tilted_plane_has_its_angle_as_normal_error_and_half_its_sine_as_mean_distance() -> None:
    reference, tilted = square(0.0), square(0.0, tilt=10.0)
    result = compare_surfaces(
        tilted,
        reference,
        MeshDistance(reference),
        np.random.default_rng(2),
        tau=1.0,
        samples=20_000,
    )
    assert math.isclose(result.normal_error, 10.0, rel_tol=1e-9)
    assert result.f_score == 1.0
    # Not exact: reference points beyond the tilted square's edge are nearest to the edge, which is
    # almost as near as the plane.
    assert math.isclose(result.chamfer, math.sin(math.radians(10)) / 2, rel_tol=0.01)


def test_a_flipped_mesh_is_180_degrees_off() -> None:
    reference = square(0.0)
    flipped = Mesh(reference.vertices, reference.faces[:, ::-1])
    result = compare_surfaces(
        flipped, reference, MeshDistance(reference), np.random.default_rng(3), tau=1.0, samples=100
    )
    assert math.isclose(result.normal_error, 180.0)
    assert result.chamfer < 1e-12


@pytest.mark.parametrize("size", [1.0, 250.0])
def test_score_of_a_ball_with_a_known_offset(size: float) -> None:
    exact = translate(scale(sphere(), size), (3.0 * size, -size, 0.5))
    reference = extract_mesh(exact, 48)
    delta = 0.05 * size
    grown = Sdf(lambda points: 1.0 * exact.distance(points) - delta, exact.bounds.scaled(1.2))
    _, frame = normalise(reference)
    result = score(
        grown,
        extract_mesh(grown, 48),
        reference,
        MeshDistance(reference),
        frame,
        np.random.default_rng(4),
        samples=8_000,
    )
    unit_delta, unit_radius = delta / frame.scale, size / frame.scale
    # The reference is a polyhedron whose faces lie up to 1e-3 of the radius inside the ball.
    assert math.isclose(result.distance_error_volume, unit_delta, abs_tol=2e-3)
    assert math.isclose(result.distance_error_near, unit_delta, abs_tol=2e-3)
    assert math.isclose(result.distance_error_surface, unit_delta, abs_tol=2e-3)
    assert math.isclose(result.iou_volume, (1 / 1.05) ** 3, abs_tol=0.03)
    # Nearly all points near the surface are in the grown ball, half of them in the reference.
    assert math.isclose(result.iou_near, 0.5, abs_tol=0.03)
    diagonal = 2 * math.sqrt(3) * unit_radius
    assert math.isclose(result.chamfer, unit_delta / diagonal, abs_tol=1e-3)
    assert math.isclose(result.hausdorff, unit_delta / diagonal, abs_tol=1e-3)
    assert result.f_score == 0.0
    assert result.tau == TAU
    assert result.normal_error_field < 3.0
    assert result.normal_error_mesh < 3.0
    assert result.samples == 8_000


def test_score_of_the_reference_itself_is_perfect() -> None:
    reference = extract_mesh(sphere(), 24)
    distance = MeshDistance(reference)
    _, frame = normalise(reference)
    result = score(
        distance.sdf(),
        reference,
        reference,
        distance,
        frame,
        np.random.default_rng(5),
        samples=2_000,
    )
    assert (result.iou_volume, result.iou_near, result.f_score) == (1.0, 1.0, 1.0)
    for error in (
        result.distance_error_volume,
        result.distance_error_near,
        result.distance_error_surface,
    ):
        assert error < 1e-9
    assert max(result.chamfer, result.hausdorff) < 1e-9
    # Samples within rounding of an edge may be nearest to the face across it.
    assert max(result.normal_error_field, result.normal_error_mesh) < 0.5


def test_an_overlap_of_few_points_is_not_stated() -> None:
    inside = np.arange(1000) < LEAST_INSIDE
    assert stated_iou(inside, np.arange(1000) < LEAST_INSIDE / 2) == (0.5, None)
    value, reason = stated_iou(inside & (np.arange(1000) > 0), np.zeros(1000, bool))
    assert value is None
    assert reason is not None
    assert "only 99 of 1000 points" in reason


def test_score_is_reproducible() -> None:
    reference = extract_mesh(sphere(), 16)
    distance = MeshDistance(reference)
    _, frame = normalise(reference)
    a, b = (
        score(
            sphere(),
            reference,
            reference,
            distance,
            frame,
            np.random.default_rng(seed),
            samples=500,
        )
        for seed in (6, 6)
    )
    assert astuple(a) == astuple(b)


def test_score_takes_fields_that_compute_in_single_precision() -> None:
    reference = extract_mesh(sphere(), 24)
    single = Sdf(lambda points: sphere().distance(points.to(torch.float32)), sphere().bounds)
    _, frame = normalise(reference)
    result = score(
        single,
        reference,
        reference,
        MeshDistance(reference),
        frame,
        np.random.default_rng(7),
        samples=1_000,
    )
    assert isinstance(result.distance_error_near, float)
    assert result.distance_error_near < 5e-3
