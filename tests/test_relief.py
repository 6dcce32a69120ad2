"""Relief whose local frequency is known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nstr3d.geometry.shapes.ripples import drifting_ripple
from nstr3d.spectrum.analysis import AnalysisConfig
from nstr3d.spectrum.reading import difference
from nstr3d.spectrum.relief import (
    Relief,
    ReliefWaves,
    across,
    nearest,
    relief_waves,
    smoothed,
    spread,
    surface_relief,
)
from nstr3d.spectrum.sites import Sites

SCALE = 0.87


def read(
    turn: Tensor, count: int, shift: float = 0.0, slow: float = 12.0, amplitude: float = 0.01
) -> tuple[ReliefWaves, Tensor]:
    """The waves of a turned and moved ball whose ripples quicken by a factor of four, and what they
    are: its phase's gradient within the ball's tangent planes."""
    ripple, generator = (
        drifting_ripple(amplitude=amplitude, slow=slow, fast=4 * slow),
        torch.Generator().manual_seed(1),
    )
    way = torch.nn.functional.normalize(torch.randn(12_000, 3, generator=generator), dim=1)
    radius = torch.ones(len(way))
    for _ in range(60):  # r = 1 + a sin(phase(r way)) is a contraction
        radius = 1 + amplitude * torch.sin(ripple.phase(way * radius[:, None]))
    points = way * radius[:, None]

    def field(places: Tensor) -> Tensor:
        return ripple.sdf((places - shift) @ turn / SCALE)[:, None] * SCALE

    rng = np.random.default_rng(0)
    places = (points * SCALE @ turn.T + shift).numpy()
    relief = surface_relief(field, places, rng)  # type: ignore[arg-type]
    found = relief_waves(
        relief, AnalysisConfig(5 * slow, 2, 6.0, degree=0, iterations=8, periods=0.6), count, rng
    )
    return found, across(ripple.frequency(points[:count]) / SCALE, way[:count]) @ turn.T


def test_ripples_that_quicken_by_a_factor_of_four_are_read_on_a_ball():
    """In the median over the whole ball, poles and all; other samples of it give 1.4 to 1.8% and
    1.3 to 1.7 degrees."""
    found, true = read(torch.eye(3), 500)
    assert found.analysis.explained > 0.997
    error, angle = difference(found.waves.frequency, true)
    assert error.median() <= 0.02
    assert angle.median() <= 2
    assert (
        found.clear.float().mean() > 0.88
    )  # not at the poles, where ripples are longer than the ball is straight
    assert found.waves.amplitude[found.clear].median() == pytest.approx(0.01 * SCALE, rel=0.03)
    # The waves' own mean, before beats and windows are counted, is a guess only.
    assert difference(found.spectrum.vector, true)[0].median() > error.median()


def test_ripples_that_are_long_for_their_ball_are_read_by_an_analysis_of_their_octaves():
    """From 7 to 28 radians per unit radius, 4 to 23 in the tangent planes: 2.2 to 2.8% and 3.5 to
    3.8 degrees in its samples. An analysis of the two octaves below 60 gives 3.2 to 4.4%, for the
    windows of the slowest ripples are too narrow then. What is slower than about 10 is part of the
    coarse shape as well."""
    found, true = read(torch.eye(3), 500, slow=7.0, amplitude=0.03)
    error, angle = difference(found.waves.frequency, true)
    assert error.median() <= 0.03
    assert angle.median() <= 4
    swift = true.norm(dim=1) > 18
    assert error[swift].median() <= 0.015
    assert found.clear.float().mean() > 0.84


def test_a_turned_and_moved_shape_has_turned_waves():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    found, true = read(turn, 300, shift=0.05)
    error, angle = difference(found.waves.frequency, true)
    assert error.median() <= 0.02
    assert angle.median() <= 2


def test_smoothed_normals_forget_the_ripples():
    way = torch.nn.functional.normalize(
        torch.randn(6000, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    rough = torch.nn.functional.normalize(way + 0.3 * torch.sin(40 * way), dim=1)
    before, after = (
        (normals * way).sum(dim=1).clamp(max=1).arccos().median()
        for normals in (rough, smoothed(way, rough))
    )
    assert after < 0.4 * before


def test_a_line_field_is_spread_whatever_its_signs():
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(3000, 2, generator=generator)
    slope = torch.stack([1 + places[:, 1], -places[:, 0]], dim=1)
    signs = torch.randint(0, 2, (3000, 1), generator=generator) * 2.0 - 1
    at = torch.rand(100, 2, generator=generator) * 0.8 + 0.1
    error, angle = difference(
        spread(places, slope * signs, at), torch.stack([1 + at[:, 1], -at[:, 0]], dim=1)
    )
    assert error.max() < 0.05
    assert angle.max() < 3
    assert not spread(places, torch.zeros_like(slope), at).any()
    np.testing.assert_array_equal(nearest(places, places[:50]), np.arange(50))


def test_a_surface_without_relief_says_so():
    way = torch.nn.functional.normalize(
        torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    with pytest.raises(ValueError, match="no detail to analyse"):
        relief_waves(
            Relief(Sites(0.8 * way), way, torch.zeros(500, 1)),
            AnalysisConfig(degree=0),
            10,
            np.random.default_rng(0),
        )
