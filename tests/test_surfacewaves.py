"""Relief continued across a hole: the law continues the ridges better than its two controls."""

import math
from dataclasses import replace

import numpy as np
import pytest

from nstr3d.bench.surfacewaves import SurfaceWavesConfig, _Frame, _Law, fit_surface_waves
from nstr3d.fields.start.placement import PlacementConfig

PLACEMENT = PlacementConfig(samples=4000, candidates=300, band=(0.5, 3.0))


def relief(points: np.ndarray) -> np.ndarray:
    """Ridges that quicken from 10 to 34 radians per unit, on a slope."""
    x, y = points.T
    return 0.02 * np.sin(22 * x + 6 * x**2 + 4 * y) + 0.1 * y


def plane(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the relief outside two discs, and places well inside them."""
    generator = np.random.default_rng(seed)
    points, centres = generator.uniform(-1, 1, (5000, 2)), np.array([[-0.4, 0.1], [0.45, -0.3]])
    gap = np.linalg.norm(points[:, None] - centres, axis=2).min(axis=1)
    return points[gap > 0.2], points[gap < 0.15]


@pytest.mark.parametrize("seed", [0, 1])
def test_ridges_cross_a_hole_with_the_law_and_not_without(seed: int) -> None:
    known, hidden = plane(seed)
    law = SurfaceWavesConfig(waves=4, cells=10, coarse=6, reach=0.3, placement=PLACEMENT)
    controls = {"still": replace(law, carry=False), "ridge": replace(law, weight=0.0, ridge=0.1)}
    models = {
        name: fit_surface_waves(known, relief(known), hidden, config, np.random.default_rng(seed))
        for name, config in {"law": law, **controls}.items()
    }
    assert np.abs(models["law"](known) - relief(known)).mean() < 0.002
    error = {
        name: float(np.abs(model(hidden) - relief(hidden)).mean()) for name, model in models.items()
    }
    assert error["law"] < 0.75 * min(error["still"], error["ridge"])


def test_the_same_seed_gives_the_same_model() -> None:
    known, hidden = plane(0)
    config = SurfaceWavesConfig(
        waves=2, cells=8, coarse=4, rounds=2, iterations=5, placement=PLACEMENT
    )
    first, second = (
        fit_surface_waves(known, relief(known), hidden, config, np.random.default_rng(3))(hidden)
        for _ in range(2)
    )
    assert np.array_equal(first, second)


def small() -> tuple[_Frame, np.random.Generator]:
    generator = np.random.default_rng(0)
    points = generator.uniform(-0.6, 0.2, (300, 3))
    return _Frame(points, points, generator.standard_normal((2, 3)) * 9, 5, 3), generator


def test_the_design_is_the_formula() -> None:
    frame, generator = small()
    points = generator.uniform(-0.6, 0.2, (50, 3))
    amplitudes = generator.standard_normal((frame.count, 2)) + 1j * generator.standard_normal(
        (frame.count, 2)
    )
    values = frame.design(points) @ frame.vector(np.zeros(frame.size), amplitudes)
    local = frame.spread(points) @ amplitudes
    assert np.allclose(
        values, (local * np.exp(1j * points @ frame.omega.T)).real.sum(axis=1), atol=1e-4
    )
    spline, again = frame.split(frame.vector(np.arange(frame.size), amplitudes))
    assert np.array_equal(again, amplitudes)
    assert np.array_equal(spline, np.arange(frame.size))
    assert np.allclose(
        frame.design(points) @ frame.vector(np.ones(frame.size), 0 * amplitudes), 1, atol=1e-5
    )


def test_the_gradient_of_the_law_is_its_derivative() -> None:
    frame, generator = small()
    law = _Law(frame, 0.5)
    shape = frame.count, 2
    amplitudes, direction = (
        generator.standard_normal(shape) + 1j * generator.standard_normal(shape) for _ in range(2)
    )
    factors = np.exp(1j * generator.uniform(0, 1, (len(law.links), 2)))

    def cost(step: float) -> float:
        moved = amplitudes + step * direction
        return float(
            np.square(np.abs(moved[law.links[:, 1]] - factors * moved[law.links[:, 0]])).sum()
        )

    slope = 2 * float(np.vdot(law.gradient(amplitudes, factors), direction).real)
    assert (cost(1e-3) - cost(-1e-3)) / 2e-3 == pytest.approx(slope, rel=1e-6)


def test_factors_of_a_plane_wave_are_its_turns() -> None:
    frame, _ = small()
    law = _Law(frame, 0.5)
    rate = np.array([[1.0, -0.5, 2.0], [0.2, 0.4, -1.0]])  # radians per cell
    factors, scale = law.read(np.exp(1j * frame.places @ rate.T) * np.array([1.0, 0.5]))
    for axis, lines in enumerate(law.axes):
        assert np.allclose(factors[lines], np.exp(1j * rate[:, axis]), atol=1e-6)
    assert np.allclose(scale, [1.0, 0.5], atol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{name: 0} for name in ("waves", "cells", "coarse", "rounds", "iterations", "reach")]
    + [
        {name: value}
        for name in ("weight", "ridge", "first_ridge", "smooth", "reach")
        for value in (-1.0, math.nan, math.inf)
    ],
)
def test_impossible_configs_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"Waves near a surface|Weights must"):
        SurfaceWavesConfig(**changes)


def test_bad_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_surface_waves(np.zeros((0, 3)), np.zeros(0), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        fit_surface_waves(np.zeros((5, 3)), np.full(5, np.nan), np.zeros((1, 3)))
