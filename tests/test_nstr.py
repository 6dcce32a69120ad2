"""The NSTR field: its outputs, parameters, gradient, spectrum and transport."""

import math

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from nstr3d.autodiff import gradient
from nstr3d.fields.level import Level, LevelConfig, count_nodes
from nstr3d.fields.nstr import Nstr, NstrConfig, TransportConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves

LEVELS = (
    LevelConfig(2, plain=2, sparse=False),
    LevelConfig(4, plain=1, waves=ComplexWaves(2)),
    LevelConfig(6, plain=3, waves=PhaseWaves(4)),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(count: int = 50, dim: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, dim, generator=seeded(seed)) * 2 - 1


def lively(field: Nstr, seed: int = 3) -> Nstr:
    """``field`` with random values in every table, including the phases."""
    with torch.no_grad():
        for level in field.spectra:
            level.table.normal_(0, 0.3, generator=seeded(seed))
    return field


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("out_dim", [1, 3])
def test_fields_map_any_dimension_to_any_number_of_values(dim: int, out_dim: int) -> None:
    field = NstrConfig(levels=LEVELS[:2], hidden=5).build(dim, out_dim, generator=seeded())
    values = field(draw(dim=dim))
    assert values.shape == (50, out_dim)
    assert bool(values.isfinite().all())
    assert float(values.detach().std(dim=0).min()) > 0
    assert field(draw(0, dim)).shape == (0, out_dim)


def test_the_decoder_reads_the_levels_features() -> None:
    field = lively(
        NstrConfig(levels=LEVELS, hidden=5, sharpness=7.0).build(3, 2, generator=seeded())
    )
    points, features = (
        draw(),
        torch.cat([level(draw()) for level in field.spectra], dim=1).detach().double(),
    )
    weights = {name: tensor.double() for name, tensor in field.decoder.state_dict().items()}
    inner = features @ weights["hidden.weight"].T + weights["hidden.bias"]
    soft = torch.log1p(torch.exp(-7 * inner.abs())) / 7 + inner.clamp_min(0)
    expected = soft @ weights["out.weight"].T + weights["out.bias"]
    np.testing.assert_allclose(field(points).detach(), expected, atol=1e-5)


@pytest.mark.parametrize("learned", [True, False])
def test_parameter_count_by_hand(learned: bool) -> None:
    levels = (
        LevelConfig(2, plain=2, sparse=False),
        LevelConfig(3, plain=1, waves=PhaseWaves(4, learned=learned)),
    )
    config = NstrConfig(levels=levels, hidden=5, transport=TransportConfig(hidden=7))
    tables = 27 * 2 + 64 * (1 + 2 * 4)
    frequencies = 4 * 3 + 4 if learned else 0
    decoder = (2 + 1 + 4) * 5 + 5 + 5 * 2 + 2
    channels = 2 + 9
    transport = (channels + 3) * 7 + 7 + 7 * channels * 3 + channels * 3
    assert (
        config.build(3, 2, generator=seeded()).parameter_count
        == tables + frequencies + decoder + transport
    )


def test_sparse_levels_learn_less() -> None:
    mesh = oracles.sphere(2, radius=0.9)
    config = NstrConfig(levels=(LevelConfig(16, plain=2),), hidden=0)
    near, everywhere = config.build(3, 1, near=mesh), config.build(3, 1)
    assert everywhere.parameter_count == 17**3 * 2
    assert 17**2 * 2 < near.parameter_count < everywhere.parameter_count / 2


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("transport", [None, TransportConfig(), TransportConfig(hidden=0)])
@pytest.mark.parametrize("learned", [True, False])
def test_rates_cover_every_parameter_exactly_once(
    hidden: int, transport: TransportConfig | None, learned: bool
) -> None:
    levels = (LevelConfig(2, plain=2), LevelConfig(3, waves=AmplitudeWaves(2, learned=learned)))
    field = NstrConfig(
        levels=levels, hidden=hidden, transport=transport, table_rate=0.5, decoder_rate=0.25
    ).build(3, 1)
    rates = {id(p): group["lr"] for group in field.rates() for p in group["params"]}
    assert sum(len(group["params"]) for group in field.rates()) == len(rates)
    assert rates.keys() == {id(p) for p in field.parameters()}
    assert all(rates[id(level.table)] == 0.5 for level in field.spectra)
    assert all(
        rate == (0.5 if key in {id(level.table) for level in field.spectra} else 0.25)
        for key, rate in rates.items()
    )


def test_the_identity_decoder_is_the_literal_sum_of_waves() -> None:
    field = lively(
        NstrConfig(levels=(LevelConfig(4, waves=AmplitudeWaves(6)),), hidden=0).build(
            3, 1, generator=seeded()
        )
    )
    level, points = field.spectra[0], draw()
    amplitude = level.spectrum(points).detach()
    omega, phase = level.state_dict()["omega"], level.state_dict()["phase"]
    expected = sum(amplitude[:, k] * torch.sin(points @ omega[k] + phase[k]) for k in range(6))
    actual = field(points)[:, 0].detach()
    np.testing.assert_allclose(actual, expected, atol=1e-5)  # type: ignore[arg-type]


def test_gradient_of_the_field_is_its_finite_difference() -> None:
    field = lively(NstrConfig(levels=LEVELS, hidden=5).build(3, 1, generator=seeded())).double()
    points = draw(200).double()
    inside = ((points + 1)[..., None] * torch.tensor([1.0, 2.0, 3.0])).frac().sub(0.5).abs().amax(
        dim=(1, 2)
    ) < 0.499
    points = points[inside]  # a step must not cross a cell face
    assert len(points) > 100
    actual = gradient(field, points)
    for axis in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[axis] = 1e-6
        difference = (field(points + step) - field(points - step))[:, 0].detach() / 2e-6
        np.testing.assert_allclose(actual[:, axis], difference, atol=1e-6)


def test_the_spectrums_slope_is_per_cell() -> None:
    field = lively(NstrConfig(levels=LEVELS, hidden=0).build(3, 1, generator=seeded()))
    points = draw()
    value, slope = field.spectrum(points)
    assert value.shape == (50, 2 + 5 + 11)
    assert slope.shape == (50, 18, 3)
    start = 0
    for level in field.spectra:
        one, other = level.spectrum_and_slope(points)
        end = start + level.config.channels
        assert torch.equal(value[:, start:end], one)
        np.testing.assert_allclose(
            slope[:, start:end].detach(),
            other.detach() * 2 / level.config.resolution,
            rtol=1e-6,
            atol=1e-9,
        )
        start = end


def test_linear_phases_shift_the_local_frequency_by_their_slope() -> None:
    waves = PhaseWaves(3, radians=5.0)
    field = (
        NstrConfig(levels=(LevelConfig(2, plain=1), LevelConfig(4, plain=2, waves=waves)), hidden=4)
        .build(3, 1)
        .double()
    )
    level, slopes = (
        field.spectra[1],
        torch.tensor([[3.0, -2.0, 1.0], [0.0, 4.0, 0.5], [7.0, 0.0, -6.0]], dtype=torch.float64),
    )
    axis = torch.linspace(-1, 1, 5, dtype=torch.float64)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    with torch.no_grad():
        level.table[:, 5:] = nodes @ slopes.T / waves.radians
        level.table[:, 2:5] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    points = draw().double()
    frequency, amplitude = field.local_frequency(points)
    omega, phase = level.state_dict()["omega"], level.state_dict()["phase"]
    np.testing.assert_allclose(frequency.detach(), (omega + slopes).expand(50, 3, 3), atol=1e-10)
    np.testing.assert_allclose(
        amplitude.detach(), torch.tensor([[1.0, 2.0, 3.0]]).expand(50, 3), atol=1e-12
    )
    # The wave itself oscillates at this frequency too.
    expected = torch.sin(points @ (omega + slopes).T + phase) * torch.tensor([1.0, 2.0, 3.0])
    np.testing.assert_allclose(level(points)[:, 2:].detach(), expected, atol=1e-10)


@pytest.mark.parametrize("position", [True, False])
def test_without_transport_the_residual_is_one(position: bool) -> None:
    config = NstrConfig(levels=LEVELS, transport=TransportConfig(hidden=0, position=position))
    field = lively(config.build(3, 1, generator=seeded()))
    assert float(field.transport_residual(draw()).detach()) == 1.0
    slope = field.spectrum(draw())[1]
    expected = float(slope.detach().double().square().sum()) / 50
    assert float(field.transport_loss(draw()).detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("position", [True, False])
def test_a_trained_transport_explains_part_of_the_motion(position: bool) -> None:
    config = NstrConfig(levels=LEVELS[:2], transport=TransportConfig(hidden=32, position=position))
    field, points = lively(config.build(3, 1, generator=seeded())), draw(200)
    assert field.transport is not None
    before = float(field.transport_residual(points).detach())
    optimizer = torch.optim.Adam(field.transport.parameters(), lr=3e-2)
    for _ in range(40):
        optimizer.zero_grad()
        field.transport_loss(points).backward()
        optimizer.step()
    after = float(field.transport_residual(points).detach())
    assert 0 <= after < 0.9
    assert after < before


def test_transport_reaches_every_table_and_its_own_weights() -> None:
    field = lively(
        NstrConfig(levels=LEVELS, transport=TransportConfig()).build(3, 1, generator=seeded())
    )
    field.transport_loss(draw(400)).backward()
    assert field.transport is not None
    for parameter in [level.table for level in field.spectra] + list(field.transport.parameters()):
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())
        assert bool(parameter.grad.any())


def test_transport_loss_passes_the_gradient_check() -> None:
    config = NstrConfig(
        levels=(LevelConfig(1, plain=1, waves=PhaseWaves(1)),),
        hidden=0,
        transport=TransportConfig(hidden=3),
    )
    field = lively(config.build(2, 1, generator=seeded())).double()
    points = draw(5, 2).double()
    names, values = zip(*field.named_parameters())

    def loss(*weights: Tensor) -> Tensor:
        return torch.func.functional_call(
            Wrapped(field), {f"field.{n}": w for n, w in zip(names, weights)}, (points,)
        )

    assert torch.autograd.gradcheck(
        loss, [value.detach().clone().requires_grad_(True) for value in values]
    )


@pytest.mark.parametrize("asked", [None, 0, 1])
def test_fields_of_other_nodes_are_stacked_whether_they_were_asked_or_not(
    asked: int | None,
) -> None:
    """The index of the nodes, which a field makes at its first question, is not that of another."""
    fields = mirrored_pair()
    points = torch.rand(300, 3, generator=seeded(2)) * 2 - 1
    if asked is not None:
        fields[asked](points)
    parameters, buffers = torch.func.stack_module_state(list(fields))  # type: ignore[arg-type]

    def value(parameters, buffers):
        return torch.func.functional_call(fields[0], (parameters, buffers), (points,))

    for values, each in zip(torch.vmap(value)(parameters, buffers), fields, strict=True):
        np.testing.assert_allclose(values.detach(), each(points).detach(), atol=1e-6)
    assert float((fields[0](points) - fields[1](points)).detach().abs().max()) > 1e-3


def mirrored_pair() -> tuple[Nstr, Nstr]:
    """Fields with the same number of stored nodes in other places."""
    config = NstrConfig((LevelConfig(4, plain=2),), hidden=3)
    places = np.array([[[0.3, 0.3, 0.3]], [[-0.3, 0.3, -0.3]]])
    one, other = (config.build(3, 1, at, seeded(seed)) for seed, at in enumerate(places))
    return one, other


@pytest.mark.parametrize("assign", [False, True])
def test_a_field_that_was_asked_and_gets_other_nodes_has_their_values(assign: bool) -> None:
    one, other = mirrored_pair()
    points = torch.rand(300, 3, generator=seeded(2)) * 2 - 1
    wanted = other(points)
    assert not torch.allclose(one(points), wanted, atol=1e-3)
    state = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    one.load_state_dict(state, assign=assign)
    assert torch.equal(one(points), wanted)
    np.testing.assert_allclose(one.double()(points.double()).detach(), wanted.detach(), atol=1e-6)


def test_a_restored_field_has_nodes_of_its_own() -> None:
    one, other = mirrored_pair()
    copy = one.config.restore(3, 1, one.state_dict())
    before = one.levels[0].nodes.clone()
    copy.load_state_dict(other.state_dict())
    assert torch.equal(one.levels[0].nodes, before)
    assert not torch.equal(copy.levels[0].nodes, before)


def test_bits_beyond_the_last_node_are_no_nodes() -> None:
    bitmap = np.full(4, 255, np.uint8)  # 27 nodes and 5 bits more
    assert count_nodes(LevelConfig(2, plain=1), 3, bitmap) == 27
    assert Level(LevelConfig(2, plain=1), 3, bitmap).table.shape == (27, 1)


class Wrapped(torch.nn.Module):
    """A module whose forward pass is the transport loss, for ``functional_call``."""

    def __init__(self, field: Nstr):
        super().__init__()
        self.field = field

    def forward(self, points: Tensor) -> Tensor:
        return self.field.transport_loss(points)


def test_the_same_seed_builds_the_same_field_and_global_randomness_is_left_alone() -> None:
    config = NstrConfig(levels=LEVELS, transport=TransportConfig())
    before = torch.get_rng_state()
    one, same, other = (
        config.build(3, 1, generator=seeded(seed)).state_dict() for seed in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert one.keys() == same.keys()
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(one["levels.0.table"], other["levels.0.table"])
    assert not torch.equal(one["levels.2.omega"], other["levels.2.omega"])


def test_starting_weights_are_bounded_by_the_fan_in() -> None:
    decoder = (
        NstrConfig(levels=(LevelConfig(1, plain=9),), hidden=400)
        .build(3, 1, generator=seeded())
        .decoder.state_dict()
    )
    assert 0.99 / 3 < float(decoder["hidden.weight"].abs().max()) <= 1 / 3
    assert float(decoder["out.weight"].abs().max()) <= 1 / math.sqrt(400)


def test_restore_builds_the_field_that_its_tensors_came_from() -> None:
    config = NstrConfig(levels=LEVELS)
    field = lively(config.build(3, 2, near=oracles.sphere(1, radius=0.6), generator=seeded()))
    before = torch.get_rng_state()
    again = config.restore(3, 2, field.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    again.load_state_dict(field.state_dict())
    assert torch.equal(again(draw()), field(draw()))


def test_restore_names_what_is_missing() -> None:
    config = NstrConfig(levels=LEVELS)
    tensors = config.build(3, 1, generator=seeded()).state_dict()
    del tensors["levels.1.nodes"]
    with pytest.raises(ValueError, match=r"levels\.1\.nodes is missing"):
        config.restore(3, 1, tensors)


def test_a_field_without_levels_raises() -> None:
    with pytest.raises(ValueError, match="at least one level"):
        NstrConfig(levels=())


def test_the_identity_decoder_gives_one_value_only() -> None:
    with pytest.raises(ValueError, match="2 outputs need hidden > 0"):
        NstrConfig(levels=LEVELS, hidden=0).build(3, 2)


def test_reading_transport_or_frequencies_that_are_not_there_raises() -> None:
    field = NstrConfig(levels=LEVELS[:2]).build(3, 1)
    with pytest.raises(ValueError, match="without a transport network"):
        field.transport_residual(draw())
    with pytest.raises(ValueError, match="without a transport network"):
        field.transport_loss(draw())
    with pytest.raises(ValueError, match="no phase waves"):
        field.local_frequency(draw())
