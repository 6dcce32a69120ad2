"""Local waves of plane waves, chirps, waves on a sphere, and noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.spectrum.localwave import local_waves
from nstr3d.spectrum.reading import difference


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.floats(15, 60),
    angle=st.floats(0, 6.3),
    wrong=st.floats(0.85, 1.15),
)
def test_a_plane_wave_is_found_from_a_guess_that_is_off(
    seed: int, size: float, angle: float, wrong: float
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(20_000, 2, generator=generator) * 2 - 1
    omega = size * torch.tensor([math.cos(angle), math.sin(angle)])
    values = 0.3 * torch.sin(x @ omega + 1)[:, None] + 0.5 + x[:, :1]
    at = x[(x.abs() < 0.5).all(dim=1)][:50]
    waves = local_waves(x, values, at, wrong * omega.expand(50, 2))
    error, turn = difference(waves.frequency, omega.expand(50, 2))
    # These limits are ten times the errors seen in 60 draws.
    assert error.median() < 4e-5
    assert error.max() < 5e-4
    assert turn.max() < 0.3
    torch.testing.assert_close(waves.amplitude, torch.full((50,), 0.3), rtol=1e-3, atol=0)
    assert waves.share.min() > 0.999


def test_a_chirp_is_followed():
    x = ((torch.arange(6000) + 0.5) / 6000 * 2 - 1)[:, None]
    values = torch.sin(200 * x + 60 * x.square())
    at = x[600:-600:20]
    true = 200 + 120 * at
    waves = local_waves(x, values, at, 1.1 * true)
    error, _ = difference(waves.frequency, true)
    assert error.median() < 1.2e-3
    assert error.max() < 0.008


def test_frequencies_lie_in_the_tangent_planes_of_a_surface():
    directions = torch.nn.functional.normalize(
        torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)), dim=1
    )
    values = torch.sin(60 * directions[:, :1])
    at = directions[directions[:, 0].abs() < 0.5][:100]
    waves = local_waves(directions, values, at, torch.tensor([55.0, 5.0, 0.0]).expand(100, 3), at)
    assert (waves.frequency * at).sum(dim=1).abs().max() < 1e-4
    along = torch.tensor([60.0, 0, 0]) - 60 * at[:, :1] * at
    error, angle = difference(waves.frequency, along)
    assert error.median() < 1.2e-3
    assert angle.median() < 0.08


def test_noise_has_no_wave_of_its_own_and_few_samples_are_refused():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20_000, 2, generator=generator) * 2 - 1
    first = torch.tensor([30.0, 0.0]).expand(50, 2)
    waves = local_waves(x, torch.randn(20_000, 1, generator=generator), x[:50], first)
    assert waves.share.median() < 0.04
    flat = local_waves(x, torch.ones(20_000, 1), x[:50], first)
    assert flat.amplitude.max() < 0.02  # rounding error of the polynomial fit
    with pytest.raises(ValueError, match="at least 192 samples"):
        local_waves(x[:100], x[:100, :1], x[:5], first[:5])
