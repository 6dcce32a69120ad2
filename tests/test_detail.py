"""The detail of colours, the budgets that it asks for, and colours between points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import sphere

from nstr3d.geometry.cloud.shades import between
from nstr3d.geometry.mesh.surface import normalise, sample_surface
from nstr3d.training.detail import SHARES, local_residual, suited_colours
from nstr3d.training.presets import sized_colours
from nstr3d.types import Mesh

COUNT = 40_000


@pytest.fixture(scope="module")
def ball() -> Mesh:
    return normalise(sphere(5))[0]


@pytest.fixture(scope="module")
def points(ball: Mesh) -> np.ndarray:
    return sample_surface(ball, COUNT, np.random.default_rng(0))[0]


def test_linear_colours_leave_nothing(points: np.ndarray) -> None:
    colours = 0.5 + points @ np.array([[0.3, 0.1, 0.0], [0.0, 0.2, 0.1], [0.1, 0.0, 0.3]])
    left, known = local_residual(points, colours, 6)
    assert left < 1e-4
    assert known > 0.95


def test_noise_is_what_is_left(points: np.ndarray) -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal((COUNT, 3))
    # A cell has 20 to 700 points; what three terms take from so few is given back.
    for cells in (4, 12, 24):
        assert local_residual(points, noise, cells)[0] == pytest.approx(0.1, rel=0.04)


def test_a_curve_leaves_the_variance_of_its_cells(points: np.ndarray) -> None:
    # x^2 over a cell of width h leaves h^2 / (6 sqrt 5) of itself beside the best line.
    flat = points.copy()
    flat[:, 2] = 0.0
    flat[:, :2] = np.random.default_rng(0).uniform(-1, 1, (COUNT, 2))
    curve = np.repeat(flat[:, :1] ** 2, 3, axis=1)
    for cells in (4, 10):
        width = 2 / cells
        assert local_residual(flat, curve, cells)[0] == pytest.approx(
            width**2 / (6 * np.sqrt(5)), rel=0.03
        )


def test_few_points_tell_nothing(points: np.ndarray) -> None:
    assert local_residual(points[:50], points[:50], 40) == (0.0, 0.0)


def test_finer_colours_get_more_parameters(ball: Mesh, points: np.ndarray) -> None:
    def suited(colours: np.ndarray) -> int:
        config = suited_colours(40_000, ball, points, colours)
        sizes = [sized_colours(int(share * 40_000), ball) for share in SHARES]
        return sizes.index(config)

    smooth = 0.5 + 0.4 * points
    waves = 0.5 + 0.4 * np.sin(10 * points)
    stripes = 0.5 + 0.4 * np.sin(60 * points)
    assert suited(smooth) == 0
    assert suited(smooth) < suited(waves) < suited(stripes) == len(SHARES) - 1


def test_few_points_get_few_parameters(ball: Mesh, points: np.ndarray) -> None:
    stripes = 0.5 + 0.4 * np.sin(60 * points)
    few = suited_colours(40_000, ball, points[:1000], stripes[:1000])
    assert few == sized_colours(5000, ball)


def test_too_small_a_budget_is_refused(ball: Mesh, points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="at least") as caught:
        suited_colours(100, ball, points, points)
    # There is no field of an eighth of the smallest budget.
    least = int(str(caught.value).split()[-1].rstrip("."))
    assert suited_colours(least, ball, points, 0.5 + 0.1 * points) == sized_colours(least, ball)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_colours_between_points_are_in_their_range(count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points, colours = generator.random((2, count, 3))
    got = between(points, colours, generator.random((20, 3)))
    assert (got >= colours.min(axis=0)).all()
    assert (got <= colours.max(axis=0)).all()


def test_linear_colours_are_found_between_points(points: np.ndarray) -> None:
    slope = np.array([[0.3, 0.1, 0.0], [0.0, 0.2, 0.1], [0.1, 0.0, 0.3]])
    known, asked = points[:4000], points[4000:8000]
    error = between(known, known @ slope, asked) - asked @ slope
    nearest = np.linalg.norm(known[None, :500] - asked[:500, None], axis=2).min(axis=1).mean()
    assert np.abs(error).mean() < 0.02 * nearest


def test_points_at_one_place_give_their_mean() -> None:
    twins, shades = np.zeros((4, 3)), np.arange(12.0).reshape(4, 3)
    for at in (twins[:1], twins[:1] + 1):
        np.testing.assert_allclose(between(twins, shades, at), shades.mean(axis=0)[None])
