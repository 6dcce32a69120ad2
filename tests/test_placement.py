"""Wave placement finds plane waves and chirps, unwraps phases, keeps the random start if it finds
no wave, and never overwrites a trained field."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nstr3d.fields.lattice import lattice_links, lattice_nodes, touched_rows
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.start.placement import PlacementConfig, _unwrapped, place_waves
from nstr3d.fields.waves import PhaseWaves
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import ValueObjective
from nstr3d.types import Samples


def field_of(dim: int, cells: int = 8, count: int = 1) -> Nstr:
    return NstrConfig((LevelConfig(cells, plain=1, waves=PhaseWaves(count)),), hidden=8).build(
        dim, 1
    )


def samples_of(phase, dim: int, count: int = 20_000) -> Samples:
    points = torch.rand(count, dim, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return Samples(points, 0.01 * torch.sin(phase(points))[:, None])


def placed(field: Nstr, samples: Samples, seed: int = 0, **changes) -> Tensor:
    place_waves(field.spectra[0], samples, PlacementConfig(**changes), np.random.default_rng(seed))
    return field.spectra[0].table.detach().clone()


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_plane_wave_is_read_where_it_lies(dim: int, seed: int) -> None:
    # 1.4 times the Nyquist frequency of the nodes.
    omega = 18.0 * torch.nn.functional.normalize(torch.tensor([2.0, -1.0, 0.5])[:dim], dim=0)
    field = field_of(dim)
    placed(field, samples_of(lambda x: x @ omega, dim), seed)
    inner = torch.rand(2000, dim, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.7
    with torch.no_grad():
        frequency, amplitude = field.local_frequency(inner)
    orientation = torch.sign(frequency[:, 0] @ omega)[:, None]
    assert float((frequency[:, 0] * orientation - omega).norm(dim=1).median()) < 0.05 * 18
    assert float(amplitude.min()) > 0


def test_the_reading_of_a_chirp_follows_it() -> None:
    """The frequency rises from 10 to 26 radians per unit, too far for one frequency to fit it."""
    field = field_of(2, cells=12)
    placed(field, samples_of(lambda x: 18 * x[:, 0] + 4 * x[:, 0] ** 2, 2))
    inner = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    truth = torch.stack([18 + 8 * inner[:, 0], torch.zeros(2000)], dim=1)
    with torch.no_grad():
        frequency = field.local_frequency(inner)[0][:, 0]
    frequency = frequency * torch.sign(frequency[:, :1])
    assert float(((frequency - truth).norm(dim=1) / truth.norm(dim=1)).median()) < 0.1


def test_placed_waves_explain_a_sum_that_random_ones_do_not() -> None:
    first, second = torch.tensor([14.0, 9.0]), torch.tensor([-8.0, 15.0])
    points = samples_of(lambda x: x @ first, 2).points
    samples = Samples(points, (torch.sin(points @ first) + torch.sin(points @ second))[:, None])
    errors = {}
    for name, placement in (("placed", PlacementConfig()), ("random", None)):
        config = NstrConfig((LevelConfig(6, waves=PhaseWaves(2)),), hidden=8, placement=placement)
        field = config.build(2, 1)
        for _ in fit_steps(
            field,
            samples,
            ValueObjective(),
            FitConfig(steps=150, batch=2000, pool=20_000, warmup=5),
        ):
            pass
        with torch.no_grad():
            errors[name] = float((field(points) - samples.values).square().mean())
    assert errors["placed"] < 0.2 * errors["random"]


def test_unwrapping_recovers_a_smooth_phase_up_to_a_constant() -> None:
    field = field_of(2, cells=10)
    x, y = np.meshgrid(np.arange(11), np.arange(11), indexing="ij")
    truth = (2.5 * x - 1.9 * y + 0.05 * x * y).ravel()
    wrapped = np.angle(np.exp(1j * truth))
    strength = np.random.default_rng(0).uniform(0.5, 1, 121)
    links = np.concatenate(lattice_links(field.spectra[0].rows.numpy().reshape(11, 11)))
    smooth = _unwrapped(wrapped, strength, links)
    offset = smooth - truth
    np.testing.assert_allclose(offset, offset[0], atol=1e-9)
    np.testing.assert_allclose(np.exp(1j * smooth), np.exp(1j * wrapped), atol=1e-9)


def test_links_are_the_neighbours_that_are_stored() -> None:
    near = np.array([[-0.9, -0.9], [0.9, 0.9]])
    level = NstrConfig((LevelConfig(4, waves=PhaseWaves(1)),)).build(2, 1, near).spectra[0]
    along = lattice_links(level.rows.numpy().reshape(5, 5))
    assert [sorted(map(tuple, links.tolist())) for links in along] == [
        [(0, 2), (1, 3), (4, 6), (5, 7)],
        [(0, 1), (2, 3), (4, 5), (6, 7)],
    ]


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_lattice_weights_reproduce_what_is_linear(dim: int) -> None:
    points = np.random.default_rng(dim).uniform(-1, 1, (50, dim))
    slope = np.arange(1.0, dim + 1)
    corners, weights = lattice_nodes(points, 6)
    places = np.stack(np.unravel_index(np.arange(7**dim), (7,) * dim), axis=1) / 3 - 1
    values = places @ slope + 0.5
    np.testing.assert_allclose(
        (values[corners] * weights).sum(axis=1), points @ slope + 0.5, atol=1e-5
    )
    touched = touched_rows(points, 6)
    nodes = np.unique(corners)
    assert touched.shape == (50, len(nodes))
    np.testing.assert_allclose(touched @ values[nodes], points @ slope + 0.5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_where_nothing_oscillates_the_random_start_stays(value: float) -> None:
    field = field_of(3)
    before = field.spectra[0].table.detach().clone()
    flat = Samples(torch.rand(500, 3), torch.full((500, 1), value))
    placed(field, flat if value == 0 else Samples(flat.points[:0], flat.values[:0]))
    torch.testing.assert_close(field.spectra[0].table.detach(), before, rtol=0, atol=0)


def test_what_plain_channels_carry_is_left_to_them() -> None:
    # 0.48 times the Nyquist frequency of the nodes.
    samples = samples_of(lambda x: x @ torch.tensor([6.0, 0.0, 0.0]), 3)
    field = field_of(3)
    before = field.spectra[0].table.detach().clone()
    torch.testing.assert_close(placed(field, samples, least=0.5), before, rtol=0, atol=0)
    assert not torch.equal(placed(field, samples), before)


def test_the_same_generator_places_the_same_waves() -> None:
    samples = samples_of(lambda x: 15 * x[:, 0], 3)
    one, two = (placed(field_of(3, count=3), samples) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_values_of_several_channels_are_read_along_their_main_direction() -> None:
    samples = samples_of(lambda x: x @ torch.tensor([12.0, 5.0]), 2)
    both = Samples(samples.points, torch.cat([samples.values * 2, -samples.values], dim=1))
    one, two = field_of(2), field_of(2)
    torch.testing.assert_close(
        placed(one, samples)[:, 1], placed(two, both)[:, 1], rtol=1e-3, atol=1e-4
    )


def test_a_field_that_has_learned_is_not_placed_again() -> None:
    samples = samples_of(lambda x: 15 * x[:, 0], 3)
    field = field_of(3)
    field.prepare(samples, np.random.default_rng(0))
    before = field.spectra[0].table.detach().clone()
    field.prepare(samples_of(lambda x: 11 * x[:, 1], 3), np.random.default_rng(1))
    torch.testing.assert_close(field.spectra[0].table.detach(), before, rtol=0, atol=0)


def test_without_placement_the_random_start_stays() -> None:
    field = field_of(3)
    still = replace(field.config, placement=None, start=None).build(3, 1)
    still.prepare(samples_of(lambda x: 15 * x[:, 0], 3), np.random.default_rng(0))
    torch.testing.assert_close(still.spectra[0].table, field.spectra[0].table, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"candidates": 0},
        {"least": -0.1},
        {"band": (-1.0, 1.0)},
        {"band": (2.0, 1.0)},
        {"band": (0.0, math.inf)},
    ],
)
def test_settings_that_place_nothing_raise(changes: dict) -> None:
    with pytest.raises(ValueError, match=r"sample|band"):
        PlacementConfig(**changes)
