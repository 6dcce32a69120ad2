"""The analysis spectrum on signals whose local frequency is known in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nstr3d.analysis import AnalysisConfig, analyse, coarse
from nstr3d.geometry.primitives import Chirp, drifting_ripple
from nstr3d.spectral import difference


def line(count: int) -> Tensor:
    return ((torch.arange(count) + 0.5) / count * 2 - 1)[:, None]


def test_a_plane_wave_is_found_with_its_frequency_and_direction():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, 2, generator=generator) * 2 - 1
    omega = torch.tensor([36.0, -27.0])
    found = analyse(x, torch.sin(x @ omega + 0.3)[:, None], AnalysisConfig(cells=8, highest=60.0, degree=0))
    assert found.explained > 0.995
    assert found.detail == pytest.approx(math.sqrt(0.5), rel=0.02)
    inner = x[(x.abs() < 0.7).all(dim=1)][:400]
    error, angle = difference(found.frequency(inner), omega.expand(400, 2))
    assert error.median() < 0.01
    assert angle.median() < 0.5
    error, angle = difference(found.spectrum(inner).vector, omega.expand(400, 2))
    assert error.median() < 0.03
    assert angle.median() < 3


def test_the_instantaneous_frequency_of_a_chirp_is_recovered():
    """A chirp over a factor of ten: half a per cent in the median, two per cent nearly everywhere away from the ends."""
    x, drift = line(8000), Chirp(-1, 1, 40 * math.pi, 400 * math.pi)
    signal = torch.sin(drift.phase(x.double())).float()
    found = analyse(x, signal, AnalysisConfig(cells=32, highest=480 * math.pi, degree=0))
    assert found.explained > 0.999
    inner = x[x[:, 0].abs() < 0.9]
    true = drift.frequency(inner)
    for frequency, limit in ((found.frequency(inner), 0.02), (found.spectrum(inner).vector, 0.03)):
        error, _ = difference(frequency, true)
        assert error.median() <= 0.005
        assert error.quantile(0.98) < limit


def test_relief_that_drifts_by_a_factor_of_four_is_read_on_a_sphere():
    """Frequency within 3% and direction within 5 degrees in the median, from the distance in a band about the surface."""
    scale, generator = 0.87, torch.Generator().manual_seed(0)
    ripple = drifting_ripple()

    def surface(count: int) -> Tensor:
        way = torch.randn(count, 3, generator=generator)
        way /= way.norm(dim=1, keepdim=True)
        return way * (scale + 0.03 * scale * torch.sin(ripple.phase(way)))[:, None]

    band = surface(10_000) + 0.15 * (torch.rand(10_000, 3, generator=generator) * 2 - 1)
    band = band.clamp(-1, 1)
    distance = ripple.sdf(band / scale)[:, None] * scale
    found = analyse(band, distance, AnalysisConfig(cells=8, highest=40.0, iterations=10))
    assert found.explained > 0.99
    at = surface(300)
    at = at[at[:, 0].abs() < 0.75]
    error, angle = difference(found.frequency(at), ripple.frequency(at / scale) / scale)
    assert error.median() <= 0.03
    assert angle.median() <= 5


def test_two_waves_and_the_lowest_that_is_read():
    x = line(4000)
    signal = torch.sin(20 * x) + 0.5 * torch.sin(90 * x)
    both = analyse(x, signal, AnalysisConfig(cells=8, highest=120.0, degree=0))
    fine = analyse(x, signal, AnalysisConfig(cells=8, highest=120.0, degree=0, lowest=50.0))
    inner = x[x[:, 0].abs() < 0.8][::4]
    expected = (20 + 0.25 * 90) / 1.25
    assert both.frequency(inner).abs().median() == pytest.approx(expected, rel=0.1)
    assert fine.frequency(inner).abs().median() == pytest.approx(90, rel=0.01)
    assert fine.explained == both.explained


def test_the_coarse_part_takes_polynomials_and_leaves_waves():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3000, 3, generator=generator) * 2 - 1
    x = x.double()
    cubic = x[:, :1] ** 3 - 2 * x[:, 1:2] * x[:, 2:] + 0.5
    torch.testing.assert_close(coarse(x, cubic, 3), cubic, atol=1e-8, rtol=0)
    wave = torch.sin(40 * x[:, :1])
    assert coarse(x, wave, 3).abs().mean() < 0.15 * wave.abs().mean()
    with pytest.raises(ValueError, match="no detail to analyse"):
        analyse(x.float(), cubic.float(), AnalysisConfig(degree=3))


def test_the_frequencies_fill_a_half_ball():
    config = AnalysisConfig(cells=8, highest=40.0)
    omega = config.frequencies(3)
    assert (omega.norm(dim=1) <= 40.001).all()
    both = torch.cat([omega, -omega])
    assert len(torch.unique(both, dim=0)) == len(both)
    gap = 0.85 * math.pi / config.cell
    assert len(both) == pytest.approx(4 / 3 * math.pi * (40 / gap) ** 3, rel=0.15)
    assert torch.pdist(both).min() == pytest.approx(gap, rel=1e-5)


def test_bad_input_is_refused():
    x = line(100)
    for values, words in ((x[:50], "points"), (torch.full_like(x, math.nan), "not finite"), (x * 2 + 1, "no detail")):
        with pytest.raises(ValueError, match=words):
            analyse(x, values, AnalysisConfig())
    for wrong in ({"cells": 0}, {"lowest": 50.0}, {"degree": -1}, {"iterations": 0}, {"spacing": 0.0}):
        with pytest.raises(ValueError, match=r"analysis needs|spacing"):
            replace(AnalysisConfig(), **wrong)
