"""The Hermite spline against its defining properties: values, slopes, planes and minimal
roughness."""

import numpy as np
import pytest

from nstr3d.geometry.cloud.spline import HermiteSpline


def scattered(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.uniform(-1, 1, (count, 3)), generator.standard_normal((count, 3))


def differences(spline: HermiteSpline, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    steps = step * np.eye(3)
    return np.stack([(spline(at + s) - spline(at - s)) / (2 * step) for s in steps], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_zero_at_its_points_with_the_given_slopes(seed):
    points, gradients = scattered(60, seed)
    spline = HermiteSpline(points, gradients)
    np.testing.assert_allclose(spline(points), 0, atol=1e-10)
    np.testing.assert_allclose(differences(spline, points), gradients, atol=1e-3)


def test_the_compiled_sum_is_the_sum():
    points, gradients = scattered(20, 5)
    spline, at = HermiteSpline(points, gradients), np.random.default_rng(1).uniform(-2, 2, (500, 3))
    offset = at[:, None] - points
    reach = np.linalg.norm(offset, axis=-1)
    expected = reach**3 @ spline.heights - 3 * (
        reach * np.einsum("mnd,dn->mn", offset, spline.slopes)
    ).sum(axis=1)
    expected += spline.linear[0] + at @ spline.linear[1:]
    np.testing.assert_allclose(spline(at), expected, rtol=1e-9, atol=1e-9)


def test_a_plane_goes_on_flat():
    generator = np.random.default_rng(3)
    normal = np.array([2.0, -1, 2]) / 3
    points = generator.uniform(-1, 1, (50, 3))
    points -= (points @ normal)[
        :, None
    ] * normal  # coplanar points: the slopes still determine the plane
    spline = HermiteSpline(points, np.tile(normal, (50, 1)))
    at = generator.uniform(-3, 3, (200, 3))
    np.testing.assert_allclose(spline(at), at @ normal, atol=1e-8)


def test_half_a_ball_goes_on_round():
    generator = np.random.default_rng(0)
    points = generator.standard_normal((800, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    spline = HermiteSpline(points[points[:, 2] < 0], points[points[:, 2] < 0])
    ahead = points[points[:, 2] > 0]
    assert (spline(0.85 * ahead) < 0).all()
    assert (spline(1.15 * ahead) > 0).all()


def test_it_moves_and_grows_with_its_points():
    points, gradients = scattered(40, 8)
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    at = np.random.default_rng(4).uniform(-1, 1, (100, 3))
    moved = HermiteSpline(3 * points @ turn + 1, gradients @ turn)
    np.testing.assert_allclose(
        moved(3 * at @ turn + 1), 3 * HermiteSpline(points, gradients)(at), rtol=1e-7, atol=1e-7
    )


def test_points_that_it_passes_anyway_change_nothing():
    """If the smoothest function through some points also passes through further points, it is the
    smoothest function through all of them."""
    points, gradients = scattered(30, 9)
    spline = HermiteSpline(points, gradients)
    inside, outside = points - 0.05 * gradients, points + 0.05 * gradients
    crossing = (spline(inside) < 0) & (spline(outside) > 0)
    low, high = inside[crossing], outside[crossing] + 0.02
    crossing = spline(high) > 0
    low, high = low[crossing], high[crossing]
    for _ in range(60):
        middle = (low + high) / 2
        below = (spline(middle) < 0)[:, None]
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    assert len(low) > 5
    more = HermiteSpline(
        np.concatenate([points, low]), np.concatenate([gradients, differences(spline, low)])
    )
    at = np.random.default_rng(6).uniform(-1, 1, (200, 3))
    np.testing.assert_allclose(more(at), spline(at), atol=1e-5)
