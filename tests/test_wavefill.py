"""Filling hidden pixels: the smooth fill against its definition, waves against closed forms."""

import math
from pathlib import Path

import numpy as np
import pytest

from nstr3d.fields.closed.smoothfill import (
    _from_half,
    _solve_by_steps,
    _solve_directly,
    depths,
    smooth_fill,
)
from nstr3d.fields.closed.wavefill import Part, fill, parts, waves_across
from nstr3d.fields.closed.wavelaw import (
    BASE_RIDGE,
    BASE_SMOOTH,
    RIDGE,
    SMOOTH,
    NodeGrid,
    carried_amplitudes,
    synthesise,
)
from nstr3d.fields.closed.wavephase import PolynomialPhase, carried_waves, read_waves

Y, X = np.mgrid[:96, :96].astype(float)


def hole(side: int, size: int = 96) -> np.ndarray:
    """The known pixels around a square hole in the middle."""
    known = np.ones((size, size), bool)
    start = (size - side) // 2
    known[start : start + side, start : start + side] = False
    return known


def decibels(error: np.ndarray, reference: np.ndarray) -> float:
    return 10 * math.log10(np.square(reference).sum() / np.square(error).sum())


def chirp() -> np.ndarray:
    """A zone plate whose centre is beside the hole."""
    return 0.5 + 0.4 * np.cos(((X - 30) ** 2 + (Y - 70) ** 2) * 0.006)[..., None]


def test_the_smooth_fill_minimises_the_squared_laplacian() -> None:
    generator = np.random.default_rng(0)
    values, known = generator.random((7, 9, 2)), generator.random((7, 9)) < 0.6
    filled = smooth_fill(values, known)
    laplacian = np.zeros((63, 63))
    for index in range(63):
        row, column = divmod(index, 9)
        for down, along in ((0, 1), (1, 0)):
            if row + down < 7 and column + along < 9:
                ends = [index, index + 9 * down + along]
                laplacian[np.ix_(ends, ends)] += [[1, -1], [-1, 1]]
    hidden = ~known.ravel()
    right = -laplacian[:, ~hidden] @ values.reshape(63, 2)[~hidden]
    expected = np.linalg.lstsq(laplacian[:, hidden], right, rcond=None)[0]
    np.testing.assert_allclose(filled[~known], expected, atol=1e-9)
    np.testing.assert_array_equal(filled[known], values[known])


def test_cubic_polynomials_are_continued_exactly() -> None:
    x, y = X / 50, Y / 50
    values = np.stack([1 + x - y + x * y, x**3 - 2 * x * y**2 + y**2], axis=-1)
    known = hole(30) & (np.random.default_rng(0).random(X.shape) < 0.8)
    known[:3], known[-3:], known[:, :3], known[:, -3:] = True, True, True, True
    np.testing.assert_allclose(smooth_fill(values, known), values, atol=1e-8)


@pytest.mark.parametrize("side", [3, 40])
def test_the_iterative_solution_is_the_direct_one(side: int) -> None:
    values, known = np.sin(X / 9 + Y / 14)[..., None], hole(side)
    direct, steps = (np.where(known[..., None], values, 0.0) for _ in range(2))
    _solve_directly(direct, ~known)
    _solve_by_steps(steps, ~known, _from_half(values, known))
    np.testing.assert_allclose(steps, direct, atol=2e-4)


def test_many_narrow_and_wide_holes_are_solved_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    known = hole(12) & ((X % 11 > 0) | (Y < 60))
    values = np.sin(X / 9 + Y / 14)[..., None]
    together = smooth_fill(values, known)
    monkeypatch.setattr("nstr3d.fields.closed.smoothfill.SMALL", 0)
    np.testing.assert_allclose(smooth_fill(values, known), together, atol=1e-4)
    monkeypatch.setattr("nstr3d.fields.closed.smoothfill.LARGEST_DIRECT", 0)
    np.testing.assert_allclose(smooth_fill(values, known), together, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 3)])
def test_pictures_of_any_shape_are_filled(shape: tuple[int, int]) -> None:
    known = np.ones(shape, bool)
    known.ravel()[2:5] = False
    filled = fill(np.full((*shape, 2), 0.25, np.float32), known)
    np.testing.assert_allclose(filled, 0.25, atol=1e-6)


def test_the_depth_of_a_hole_is_the_distance_to_known_pixels() -> None:
    assert depths(hole(9)).max() == 5
    assert depths(np.zeros((5, 7), bool)).max() == 3


def test_cells_are_split_and_joined() -> None:
    image = np.random.default_rng(0).random((20, 31, 3))
    grid = NodeGrid((20, 31), 6)
    np.testing.assert_array_equal(grid.join(grid.split(image)), image)


def test_amplitudes_solve_the_normal_equations() -> None:
    """A dense twin of the banded solution, from bilinear weights written out."""
    generator = np.random.default_rng(0)
    grid = NodeGrid((10, 13), 4)
    y, x = np.mgrid[:10, :13] + 0.5
    phase = 0.9 * x - 0.5 * y + 0.01 * x * y
    values, known = generator.random((10, 13, 2)), generator.random((10, 13)) < 0.7
    nodes = [(4 * row, 4 * column) for row in range(4) for column in range(5)]
    bells = [
        np.clip(1 - np.abs(y - b) / 4, 0, None) * np.clip(1 - np.abs(x - a) / 4, 0, None)
        for b, a in nodes
    ]
    turns = (np.ones_like(phase), np.cos(phase), -np.sin(phase))
    design = np.stack([bell * turn for bell in bells for turn in turns], axis=-1)
    law = np.zeros((len(nodes), len(nodes)))
    for i, one in enumerate(nodes):
        for j, two in enumerate(nodes[:i]):
            if abs(one[0] - two[0]) + abs(one[1] - two[1]) == 4:
                law[np.ix_([i, j], [i, j])] += [[1, -1], [-1, 1]]
    weights = np.diag([BASE_SMOOTH, SMOOTH, SMOOTH])
    ridges = np.diag([BASE_RIDGE, RIDGE, RIDGE])
    matrix = design[known].T @ design[known]
    matrix += 16 * (np.kron(law, weights) + np.kron(np.eye(len(nodes)), ridges))
    expected = np.linalg.solve(matrix, design[known].T @ values[known])
    amplitudes = carried_amplitudes(grid, values, known, [phase])
    np.testing.assert_allclose(amplitudes.reshape(expected.shape), expected, atol=1e-9)
    smooth, waves = synthesise(grid, amplitudes, [phase])
    np.testing.assert_allclose(smooth + waves, design @ expected, atol=1e-9)


def test_a_wave_of_known_phase_is_carried_across_a_hole() -> None:
    phase = PolynomialPhase(np.arange(1.0, 10.0), (47.5, 47.5), 48.0)
    known = hole(24)
    wave = (0.3 * np.cos(phase(Y, X)) + 0.4 * np.sin(phase(Y, X)))[..., None]
    carried = carried_waves(wave, known, [phase], 6)
    assert decibels((carried - wave)[~known], wave[~known]) > 25


def test_slopes_are_the_derivatives_of_the_phase() -> None:
    phase = PolynomialPhase(np.linspace(-2, 3, 9), (40.0, 50.0), 48.0)
    step = 1e-4
    down = (phase(Y + step, X) - phase(Y - step, X)) / (2 * step)
    along = (phase(Y, X + step) - phase(Y, X - step)) / (2 * step)
    np.testing.assert_allclose(phase.slopes(Y, X), np.stack([down, along], axis=-1), atol=1e-6)


def test_the_frequency_of_a_zone_plate_is_read_beside_a_hole_and_continued_in_it() -> None:
    known = hole(20)
    phase, *_ = read_waves(chirp(), known, 6)
    slopes = phase.slopes(Y, X)[~known]
    expected = 0.012 * np.stack([Y - 70, X - 30], axis=-1)[~known]
    slopes *= np.sign((slopes * expected).sum(axis=-1, keepdims=True))
    assert np.linalg.norm(slopes - expected, axis=-1).max() < 0.01


@pytest.mark.parametrize(("mask", "gain"), [("hole", 10), ("lines", 10), ("half", 4)])
def test_waves_are_continued_far_better_than_smoothly(mask: str, gain: float) -> None:
    known = {
        "hole": hole(20),
        "lines": (X + 2 * Y) % 60 > 4,
        "half": np.random.default_rng(0).random(X.shape) < 0.5,
    }[mask]
    slant = np.cos(0.8 * X + 0.3 * Y)
    values = np.concatenate([chirp(), (0.5 + 0.2 * slant + 0.1 * np.cos(1.1 * Y))[..., None]], 2)
    hidden = ~known
    ours, smooth = fill(values, known)[hidden], smooth_fill(values, known)[hidden]
    for channel in range(2):
        truth = values[hidden][:, channel]
        error = decibels(ours[:, channel] - truth, truth)
        assert error > gain + decibels(smooth[:, channel] - truth, truth)


@pytest.mark.parametrize("kind", ["smooth", "noise", "edge"])
def test_without_waves_the_result_is_exactly_the_smooth_fill(kind: str) -> None:
    noise = np.random.default_rng(0).standard_normal(X.shape)
    values = {
        "smooth": np.exp(-((X - 40) ** 2 + (Y - 50) ** 2) / 900),
        "noise": 0.5 + 0.1 * noise,
        "edge": (X + 0.2 * Y > 60) + 0.1 * noise,
    }[kind][..., None].astype(np.float32)
    known = hole(20)
    expected = smooth_fill(values, known).clip(values[known].min(), values[known].max())
    np.testing.assert_array_equal(fill(values, known), expected.astype(np.float32))
    assert not waves_across(values, known).any()


def test_what_is_known_stays_and_what_is_hidden_does_not_matter() -> None:
    values, known = chirp().astype(np.float32), hole(20)
    filled = fill(values, known)
    np.testing.assert_array_equal(filled[known], values[known])
    np.testing.assert_array_equal(fill(np.where(known[..., None], values, np.nan), known), filled)
    np.testing.assert_array_equal(fill(values, np.ones_like(known)), values)
    assert filled.min() >= values[known].min()
    assert filled.max() <= values[known].max()


@pytest.mark.parametrize("mask", ["hole", "lines", "half", "all but one"])
def test_parts_cover_every_hidden_pixel(mask: str) -> None:
    generator = np.random.default_rng(0)
    known = {
        "hole": hole(20),
        "lines": (X + 2 * Y) % 60 > 4,
        "half": generator.random(X.shape) < 0.5,
        "all but one": (X == 3) & (Y == 90),
    }[mask]
    covered = np.zeros(X.shape, bool)
    for part in parts(known):
        rows, columns = part.core
        covered[slice(*rows), slice(*columns)] = True
        assert part.depth <= depths(known).max()
    assert covered[~known].all()


def test_the_benchmark_measures_every_mask_and_method(app, tmp_path, capsys) -> None:
    picture = str(Path(__file__).parents[1] / "assets" / "texture.png")
    options = ["--size", "40", "--out", str(tmp_path / "new")]
    repair = app("bench.repair")
    assert repair.main([picture, *options]) == 0
    text = (tmp_path / "new" / "repair.md").read_text(encoding="utf-8")
    for word in ("| holes of 12 |", "| lines |", "| half |", *repair.METHODS, "| texture |"):
        assert word in text
    assert "holes of 24" not in text
    assert (tmp_path / "new" / "repair.jpg").exists()
    small = ["--size", "4000", "--out", str(tmp_path)]
    assert repair.main([picture, *small]) == 1
    assert "smaller than 4000" in capsys.readouterr().err


def test_very_deep_holes_get_the_smooth_fill_alone() -> None:
    assert Part(((0, 600), (0, 600)), 300.0).hop == 32
    known = np.ones((300, 300), bool)
    known[10:290, 10:290] = False
    assert not waves_across(np.sin(np.mgrid[:300, :300][1])[..., None], known).any()


def test_impossible_requests_are_refused() -> None:
    values = np.zeros((8, 8, 1), np.float32)
    for function in (fill, smooth_fill):
        with pytest.raises(ValueError, match="hides every pixel"):
            function(values, np.zeros((8, 8), bool))
    with pytest.raises(ValueError, match="not finite"):
        fill(np.full((8, 8, 1), np.nan), np.ones((8, 8), bool))
