"""The linear start: it minimises the normal equations, the decoder outputs its sum, and it changes
only fresh fields."""

import numpy as np
import pytest
import torch
from oracles import sphere

from nstr3d.fields.layers import Decoder
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.start.linear import GAIN, LinearStartConfig, least_squares_sum, start_linear
from nstr3d.fields.waves import PhaseWaves
from nstr3d.kernels.field.interpolate import interpolate
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import SdfObjective
from nstr3d.types import Samples

LEVELS = (
    LevelConfig(3, plain=2, sparse=False),
    LevelConfig(4, waves=PhaseWaves(1)),
    LevelConfig(6, plain=1, sparse=False),
    LevelConfig(5, plain=1),
)


def samples(count: int = 3000, dim: int = 3) -> Samples:
    points = torch.rand(count, dim, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Samples(points, points.norm(dim=1, keepdim=True) - 0.6)


def field_near(mesh=None, dim: int = 3, **changes) -> Nstr:
    return NstrConfig(LEVELS, hidden=8, **changes).build(
        dim, 1, mesh, torch.Generator().manual_seed(0)
    )


def decoder_of(field: Nstr) -> Decoder:
    assert isinstance(field.decoder, Decoder)
    return field.decoder


def test_the_sum_that_fits_zero_is_zero() -> None:
    field, data = field_near(), samples()
    config = LinearStartConfig(iterations=3)
    (table,) = least_squares_sum([field.spectra[2]], data.points, 0 * data.values, config)
    assert torch.equal(table, torch.zeros_like(table))


@pytest.mark.parametrize("dim", [2, 3])
def test_it_reaches_the_minimiser_of_the_normal_equations(dim: int) -> None:
    field, data = field_near(dim=dim), samples(dim=dim)
    levels, config = (
        [field.spectra[0], field.spectra[2]],
        LinearStartConfig(iterations=400, ridge=0.03),
    )
    solution = (
        torch.cat(least_squares_sum(levels, data.points, data.values, config))
        .double()
        .numpy()[:, 0]
    )
    blocks = []
    for level in levels:
        one = torch.eye(len(level.table))
        blocks.append(interpolate(data.points, level.grid, one))
    matrix = torch.cat(blocks, dim=1).double().numpy()
    shift = 0.03 * matrix.sum(axis=0).mean()
    normal = matrix.T @ matrix + shift * np.eye(matrix.shape[1])
    nearest = torch.cdist(levels[0].places(), data.points).argmin(dim=1)
    guess = torch.zeros(matrix.shape[1], dtype=torch.float64).numpy()
    # The ridge term pulls the solution towards this guess.
    guess[: len(nearest)] = data.values[nearest, 0]
    missing = data.values.double().numpy()[:, 0] - matrix @ guess
    expected = guess + np.linalg.solve(normal, matrix.T @ missing)
    assert np.abs(matrix @ (solution - expected)).max() < 1e-3


def test_the_decoder_passes_the_sum_on() -> None:
    field, data = field_near(sphere(2)), samples()
    sparse = field.spectra[3].table.detach().clone()
    with torch.no_grad():
        start_linear(field.spectra, decoder_of(field), data, LinearStartConfig(iterations=60))
        decoder_of(field).out.weight[:, 2:] = 0
        total = (
            field.spectra[0].spectrum(data.points)[:, :1]
            + field.spectra[2].spectrum(data.points)[:, :1]
        ) / GAIN
        torch.testing.assert_close(field(data.points), total, atol=1e-4, rtol=1e-3)
    assert torch.equal(sparse, field.spectra[3].table)


def error_after(steps: int, **changes) -> float:
    field, data = field_near(None, **changes), samples(20_000)
    for _ in fit_steps(
        field, data, SdfObjective(), FitConfig(steps=steps, batch=2000, pool=20_000, warmup=5)
    ):
        pass
    with torch.no_grad():
        return float((field(data.points) - data.values).abs().mean())


def test_training_is_ahead_from_the_start_and_the_start_repeats() -> None:
    started = error_after(20)
    assert started < 0.6 * error_after(20, start=None)
    assert started == error_after(20)


def test_what_was_trained_is_left_alone() -> None:
    field, data = field_near(), samples()
    field.prepare(data, np.random.default_rng(0))
    before = {name: tensor.clone() for name, tensor in field.state_dict().items()}
    field.prepare(Samples(data.points, data.values + 1), np.random.default_rng(0))
    assert all(torch.equal(before[name], tensor) for name, tensor in field.state_dict().items())
    again = field.config.restore(3, 1, field.state_dict())
    assert not again.fresh


def test_it_does_nothing_without_plain_channels_or_units() -> None:
    for levels, hidden in (((LevelConfig(4, waves=PhaseWaves(1)),), 8), (LEVELS, 3)):
        field = NstrConfig(levels, hidden=hidden, placement=None).build(3, 1)
        before = decoder_of(field).out.weight.clone()
        field.prepare(samples(), np.random.default_rng(0))
        assert torch.equal(before, decoder_of(field).out.weight)


@pytest.mark.parametrize("changes", [{"iterations": 0}, {"samples": 0}, {"ridge": -1.0}])
def test_impossible_configs_are_refused(changes: dict) -> None:
    with pytest.raises(ValueError, match="A linear start takes"):
        LinearStartConfig(**changes)
