"""Readings of fields whose local spectrum is known in closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig, TransportConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.render.frequency import mean_frequency
from nstr3d.spectrum.reading import (
    LocalSpectrum,
    complex_spectrum,
    has_phases,
    phase_spectrum,
    spectral_flow,
    transport_map,
    transport_residuals,
)
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame


def points(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def field_of(waves, dim: int = 3, **options) -> Nstr:
    return NstrConfig((LevelConfig(4, plain=2, waves=waves),), **options).build(dim, 1)


def nodes(field: Nstr, dim: int) -> Tensor:
    """The positions ``(m, dim)`` of the nodes of a dense field's only level, in table order."""
    axis = torch.linspace(-1, 1, field.spectra[0].config.resolution + 1)
    return torch.stack(torch.meshgrid(*[axis] * dim, indexing="ij"), dim=-1).reshape(-1, dim)


@pytest.mark.parametrize("waves", [PhaseWaves(1), ComplexWaves(1)])
def test_a_plane_wave_has_its_own_frequency_and_nothing_else(waves):
    field = field_of(waves)
    with torch.no_grad():
        field.spectra[0].table[:, 2:] = torch.tensor([0.7, 0.4])
    read = phase_spectrum if isinstance(waves, PhaseWaves) else complex_spectrum
    result, omega = read(field, points(50, 3)), field.spectra[0].omega[0]
    torch.testing.assert_close(result.frequency[:, 0], omega.expand(50, 3), atol=1e-5, rtol=1e-6)
    along = (result.vector * omega).sum(dim=1) / omega.norm()
    torch.testing.assert_close(along.abs(), omega.norm().expand(50), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        result.vector.norm(dim=1), omega.norm().expand(50), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(result.centroid, omega.norm().expand(50), rtol=1e-5, atol=0)
    assert result.bandwidth.max() < 1e-4 * omega.norm()
    assert result.entropy.max() == 0
    torch.testing.assert_close(
        result.energy, torch.full((50,), 0.49 if isinstance(waves, PhaseWaves) else 0.65)
    )


def test_a_linear_phase_moves_the_frequency_by_its_slope():
    field, turn = field_of(PhaseWaves(1)), torch.tensor([3.0, -2.0, 1.0])
    with torch.no_grad():
        field.spectra[0].table[:, 2] = 0.5
        # The table holds phases in units of the waves' radians.
        field.spectra[0].table[:, 3] = nodes(field, 3) @ turn / 8.0
    result = phase_spectrum(field, points(50, 3))
    expected = (field.spectra[0].omega[0] + turn).expand(50, 3)
    torch.testing.assert_close(result.frequency[:, 0], expected, atol=1e-4, rtol=1e-5)


def test_the_phase_of_a_complex_wave_counts_at_the_nodes_mean():
    """A complex spectrum is interpolated linearly between nodes, so its phase is not linear there;
    only the mean slope of the phase is right."""
    field, turn = field_of(ComplexWaves(1), 1), 2.0
    angle = nodes(field, 1)[:, 0] * turn
    with torch.no_grad():
        field.spectra[0].table[:, 2], field.spectra[0].table[:, 3] = angle.cos(), angle.sin()
    inner = ((torch.arange(2000) + 0.5) / 2000)[:, None] - 0.5  # two whole cells
    result = complex_spectrum(field, inner).frequency[:, 0, 0].mean()
    assert float(result) == pytest.approx(float(field.spectra[0].omega[0, 0]) + turn, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_vector_is_a_line_field_blind_to_signs_and_turning_with_the_signal(seed: int):
    generator = torch.Generator().manual_seed(seed)
    main = torch.randn(30, 1, 3, generator=generator)
    frequency = main * (0.5 + torch.rand(30, 5, 1, generator=generator)) + 0.1 * torch.randn(
        30, 5, 3, generator=generator
    )
    power = torch.rand(30, 5, generator=generator)
    one = LocalSpectrum(frequency, power)
    flipped = LocalSpectrum(
        frequency * (torch.randint(0, 2, (30, 5, 1), generator=generator) * 2 - 1), power
    )
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    turned = LocalSpectrum(frequency @ rotation.T, power)
    for other, vector in ((flipped, one.vector), (turned, one.vector @ rotation.T)):
        sign = (other.vector * vector).sum(dim=1, keepdim=True).sign()
        torch.testing.assert_close(other.vector * sign, vector, rtol=1e-3, atol=1e-3)
        for name in ("energy", "centroid", "bandwidth", "entropy"):
            torch.testing.assert_close(
                getattr(other, name), getattr(one, name), rtol=1e-3, atol=1e-3
            )
    assert (one.vector.norm(dim=1) <= one.centroid * (1 + 1e-5)).all()


def test_entropy_and_bandwidth_of_equal_waves():
    frequency = torch.tensor([[[3.0, 0], [5, 0], [-4, 0], [4, 0]]])
    result = LocalSpectrum(frequency, torch.ones(1, 4))
    assert float(result.entropy) == pytest.approx(math.log(4))
    assert float(result.bandwidth) == pytest.approx(math.sqrt(0.5))
    assert float(result.centroid) == pytest.approx(4)
    empty = LocalSpectrum(frequency, torch.zeros(1, 4))
    for value in (empty.vector, empty.centroid, empty.bandwidth, empty.entropy):
        assert not value.any()


def test_spectral_flow_is_the_slope_of_the_log_centroid():
    slope = torch.tensor([0.3, -0.7])

    def reading(at: Tensor) -> LocalSpectrum:
        size = 5 * torch.exp(at @ slope)
        return LocalSpectrum(
            torch.stack([size, torch.zeros_like(size)], dim=1)[:, None], torch.ones(len(at), 1)
        )

    places = torch.cat([points(20, 2), torch.ones(1, 2)])  # the last at the box's corner
    torch.testing.assert_close(
        spectral_flow(reading, places, 0.05), slope.expand(21, 2), rtol=1e-3, atol=1e-4
    )

    def silent(at: Tensor) -> LocalSpectrum:
        return LocalSpectrum(torch.ones(len(at), 1, 2), (at[:, :1] > 0).float())

    assert not spectral_flow(silent, torch.zeros(1, 2), 0.1)[0, 0]


def test_the_transport_map_adds_up_to_the_fields_residual():
    field = field_of(PhaseWaves(2), transport=TransportConfig(hidden=8))
    at = points(100, 3)
    result = transport_map(field, at)
    assert result.law.shape == result.slope.shape == (100, 6, 3)
    torch.testing.assert_close(
        result.residual.mean(), field.transport_residual(at).detach(), rtol=1e-5, atol=0
    )


def test_transport_residuals_do_not_depend_on_the_chunks():
    field = field_of(PhaseWaves(2), transport=TransportConfig(hidden=8))
    at = points(100, 3)
    expected = transport_map(field, at).residual
    for chunk in (7, 100):
        torch.testing.assert_close(transport_residuals(field, at, chunk), expected)


def test_what_has_no_spectrum_says_so():
    siren = SirenConfig(width=8, depth=1).build(3, 1)
    real = field_of(AmplitudeWaves(2))
    assert has_phases(field_of(PhaseWaves(1)))
    assert not has_phases(real)
    assert not has_phases(siren)
    with pytest.raises(ValueError, match="A Siren field has no spectrum that varies in space"):
        phase_spectrum(siren, points(3, 3))
    with pytest.raises(
        ValueError, match="no phase waves"
    ):  # amplitudes alone cannot move a frequency
        phase_spectrum(real, points(3, 3))
    with pytest.raises(ValueError, match="no complex waves"):
        complex_spectrum(real, points(3, 3))
    with pytest.raises(ValueError, match="fit it with a positive transport"):
        transport_map(real, points(3, 3))
    model = Fit(siren, Frame.identity(), Box((-1.0,) * 3, (1.0,) * 3), 1.0)
    with pytest.raises(ValueError, match="A Siren field has no local frequency") as refused:
        mean_frequency(model, points(3, 3))
    assert refused.value.args[0].with_flags.endswith("fit one with --field nstr.")
    with pytest.raises(ValueError, match="positive distance"):
        spectral_flow(lambda at: phase_spectrum(siren, at), points(3, 3), 0)


def test_readings_keep_to_the_seed_of_a_field():
    one, two = (phase_spectrum(field_of(PhaseWaves(3)), points(9, 3)) for _ in range(2))
    np.testing.assert_array_equal(one.frequency.numpy(), two.frequency.numpy())
