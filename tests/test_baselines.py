"""The baseline fields: their formulas, parameter counts, derivatives and training."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from nstr3d.autodiff import gradient
from nstr3d.bench.contenders import relative_objective
from nstr3d.fields.base import Field, largest
from nstr3d.fields.baselines.finer import FinerConfig, sized_finer
from nstr3d.fields.baselines.fourier import FourierConfig, sized_fourier
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import SirenConfig, sized_siren
from nstr3d.kernels.field.hashing import HashGrid, encode, hash_encode
from nstr3d.model.checkpoint import load, save
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import FIELDS
from nstr3d.types import Box, Frame, Samples

SMALL = [
    SirenConfig(16, 2, rate=1e-3),
    FinerConfig(16, 2, bias=1.0),
    FourierConfig(16, 2, 8, deviation=1.0),
    NgpConfig(table=500, levels=4, coarsest=2, finest=16, width=16),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(count: int = 50, dim: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, dim, generator=seeded(seed)) * 2 - 1


def ball(count: int = 4096) -> Samples:
    points = draw(count, seed=5)
    return Samples(points, points.norm(dim=1, keepdim=True) - 0.5)


def named(config: object) -> str:
    return type(config).__name__


@pytest.mark.parametrize("config", SMALL, ids=named)
@pytest.mark.parametrize(("dim", "out"), [(1, 1), (2, 3), (3, 1), (4, 2)])
def test_a_baseline_maps_points_to_values(config, dim: int, out: int) -> None:
    field = config.build(dim, out)
    values = field(draw(7, dim))
    assert values.shape == (7, out)
    assert bool(values.isfinite().all())
    assert sorted(id(p) for group in field.rates() for p in group["params"]) == sorted(
        id(p) for p in field.parameters()
    )


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_a_seed_decides_the_weights(config) -> None:
    one, same, other = (config.build(3, 1, generator=seeded(seed))(draw()) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one, config.build(3, 1)(draw()))


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_the_gradient_is_the_finite_difference(config) -> None:
    field = config.build(3, 1).double()
    points = draw(20).double() * 0.93
    if hasattr(field, "table"):
        torch.nn.init.normal_(field.table, generator=seeded(2))
    step = 1e-6
    result = gradient(field, points)
    for axis in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = step
        difference = (field(points + shift) - field(points - shift))[:, 0] / (2 * step)
        torch.testing.assert_close(result[:, axis], difference.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_a_saved_baseline_comes_back_bit_for_bit(config, tmp_path) -> None:
    field = config.build(3, 1, generator=seeded(3))
    save(
        tmp_path / "model.safetensors", Fit(field, Frame.identity(3), Box((-1,) * 3, (1,) * 3), 1.0)
    )
    back = load(tmp_path / "model.safetensors").field
    assert torch.equal(back(draw()), field(draw()))


@pytest.mark.parametrize("config", SMALL, ids=named)
def test_training_repeats_and_lowers_the_error(config) -> None:
    def trained() -> Field:
        field = config.build(3, 1)
        fit(field, ball(), SdfObjective(), FitConfig(steps=200, batch=512, pool=4096))
        return field

    one, two = trained(), trained()
    assert torch.equal(one(draw()), two(draw()))
    samples = ball()
    error = [
        (field(samples.points) - samples.values).abs().mean().detach()
        for field in (config.build(3, 1), one)
    ]
    assert float(error[1]) < 0.7 * float(error[0])


# The parameter counts are computed from the papers' layer sizes.
def test_siren_has_the_parameters_of_its_layers() -> None:
    field = SirenConfig(256, 3).build(3, 1)
    assert (
        field.parameter_count
        == (3 * 256 + 256) + 2 * (256 * 256 + 256) + (256 + 1)
        == SirenConfig(256, 3).parameters(3, 1)
    )


def test_finer_has_the_parameters_of_a_siren() -> None:
    assert (
        FinerConfig(64, 3).build(2, 3).parameter_count
        == SirenConfig(64, 3).build(2, 3).parameter_count
    )
    assert FinerConfig(64, 3).parameters(2, 3) == FinerConfig(64, 3).build(2, 3).parameter_count


def test_finer_layers_are_their_formula_and_stop_the_gradient_of_their_speed() -> None:
    field = FinerConfig(3, 1, omega=2.0).build(2, 1)
    points = draw(5, 2)
    before = field.layers[0](points).detach()
    torch.testing.assert_close(
        field(points), field.layers[1](torch.sin(2.0 * (before.abs() + 1) * before))
    )
    field(points).sum().backward()
    upstream = (
        field.layers[1].weight.detach()
        * torch.cos(2.0 * (before.abs() + 1) * before)
        * 2.0
        * (before.abs() + 1)
    )
    torch.testing.assert_close(field.layers[0].bias.grad, upstream.sum(dim=0))


def test_fourier_has_the_parameters_of_its_layers_and_fixed_frequencies() -> None:
    config = FourierConfig(256, 4, 256)
    field = config.build(2, 3)
    assert (
        field.parameter_count
        == (512 * 256 + 256) + 3 * (256 * 256 + 256) + (256 * 3 + 3)
        == config.parameters(3)
    )
    assert field.matrix.shape == (256, 2)


def test_ngp_has_the_parameters_of_its_tables_and_layers() -> None:
    config = NgpConfig(table=1 << 14)
    assert config.resolutions[0] == 16
    assert config.resolutions[-1] == 2048
    # 17^3 and 23^3 nodes fit into a table of 2^14 rows; all finer levels are hashed
    entries = 17**3 + 23**3 + 14 * 2**14
    assert config.resolutions[1] == 22
    expected = entries * 2 + (32 * 64 + 64) + (64 * 64 + 64) + (64 + 1)
    assert config.build(3, 1).parameter_count == expected == config.parameters(3, 1)


@pytest.mark.parametrize("sized", [sized_siren, sized_finer, sized_fourier, sized_ngp])
@pytest.mark.parametrize("budget", [20_000, 100_000])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_baseline_uses_its_budget_and_no_more(sized, budget: int, dim: int) -> None:
    count = sized(budget, np.zeros((1, dim))).build(dim, 1).parameter_count
    assert 0.97 * budget <= count <= budget


@pytest.mark.parametrize("name", FIELDS)
def test_every_named_field_is_sized_near_a_mesh(name: str) -> None:
    mesh = oracles.sphere(3, radius=0.6)
    field = FIELDS[name](40_000, mesh).build(3, 1, near=mesh)
    assert 0.8 * 40_000 <= field.parameter_count <= 40_000


@pytest.mark.parametrize("sized", [sized_siren, sized_finer, sized_fourier, sized_ngp])
def test_a_budget_too_small_raises(sized) -> None:
    with pytest.raises(ValueError, match=r"budget of 2 parameters is too small"):
        sized(2, np.zeros((1, 3)))


@pytest.mark.parametrize("budget", [5, 9, 100, 4096])
def test_largest_is_the_last_within_budget(budget: int) -> None:
    result = largest(lambda n: n * n + 3, budget, 1)
    assert result * result + 3 <= budget < (result + 1) ** 2 + 3


def test_siren_activations_keep_their_spread() -> None:
    # Theorem 1.8 of SIREN's supplement: the pre-activations of all but the first sine are
    # approximately distributed as N(0, 1)
    field = SirenConfig(512, 4).build(3, 1)
    values = torch.sin(30 * field.layers[0](draw(2000)))
    for layer in list(field.layers)[1:-1]:
        before = (30 * values @ layer.weight.T).detach()  # the theorem omits biases
        assert 0.8 < float(before.std()) < 1.2
        values = torch.sin(30 * layer(values))


def test_fourier_features_depend_on_the_difference_of_points_alone() -> None:
    field = FourierConfig(8, 1, 64).build(3, 1)
    a, b, shift = draw(10, seed=1), draw(10, seed=2), draw(1, seed=3)

    def features(points: Tensor) -> Tensor:
        angle = math.pi * (points + 1) @ field.matrix.T
        return torch.cat([angle.cos(), angle.sin()], dim=1)

    kernel = (features(a) * features(b)).sum(dim=1)
    torch.testing.assert_close(
        (features(a + shift) * features(b + shift)).sum(dim=1), kernel, atol=1e-3, rtol=1e-3
    )
    direct = field.mlp(features(a))
    torch.testing.assert_close(field(a), direct)


# The hash encoding against a loop over points, levels and corners, with the integer hash of
# equation 4.
GRID = HashGrid((2, 5, 31), (27, 216, 700))


def naive_encode(points: Tensor, grid: HashGrid, table: Tensor) -> Tensor:
    out = np.zeros((len(points), len(grid.sizes) * table.shape[1]))
    for row, point in enumerate(points.double().numpy()):
        for level, (n, size, start) in enumerate(zip(grid.resolutions, grid.sizes, grid.offsets)):
            scaled = (point + 1) * n / 2
            low = np.clip(np.floor(scaled), 0, n - 1).astype(int)
            for bits in itertools.product((0, 1), repeat=3):
                node = [int(v) for v in low + bits]
                if (n + 1) ** 3 <= size:
                    entry = node[0] + (n + 1) * node[1] + (n + 1) ** 2 * node[2]
                else:
                    entry = (
                        node[0] ^ (node[1] * 2654435761 % 2**32) ^ (node[2] * 805459861 % 2**32)
                    ) % size
                weight = np.prod([u if bit else 1 - u for u, bit in zip(scaled - low, bits)])
                features = table[start + entry].detach().double().numpy()
                out[row, level * table.shape[1] : (level + 1) * table.shape[1]] += weight * features
    return torch.from_numpy(out)


@pytest.mark.parametrize("features", [1, 2, 4])
def test_the_encoding_and_its_fused_form_are_the_papers_sums(features: int) -> None:
    table = torch.randn(sum(GRID.sizes), features, generator=seeded(1))
    points = torch.cat(
        [draw(60), torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], [1.02, -1.0, 0.0]])]
    )
    expected = naive_encode(points, GRID, table)
    torch.testing.assert_close(
        encode(points.double(), GRID, table.double()), expected, atol=1e-9, rtol=1e-9
    )
    torch.testing.assert_close(
        hash_encode(points, GRID, table).double(), expected, atol=2e-4, rtol=1e-3
    )


def test_the_fused_encoding_has_the_plain_ones_gradient() -> None:
    table = torch.randn(sum(GRID.sizes), 2, generator=seeded(1), requires_grad=True)
    points, upstream = draw(300), torch.randn(300, 6, generator=seeded(2))
    grads = [
        torch.autograd.grad(form(points, GRID, table), table, upstream)[0]
        for form in (hash_encode, encode)
    ]
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-3)


def test_the_plain_encoding_passes_gradcheck() -> None:
    table = torch.randn(
        sum(GRID.sizes), 1, generator=seeded(1), dtype=torch.float64, requires_grad=True
    )
    points = (draw(4).double() * 0.9).requires_grad_()
    assert gradcheck(lambda p, t: encode(p, GRID, t), (points, table))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SirenConfig(width=0), "at least 1"),
        (lambda: FinerConfig(depth=0), "at least 1"),
        (lambda: FourierConfig(deviation=0.0), "must be positive"),
        (lambda: NgpConfig(levels=0), "at least 1"),
        (lambda: NgpConfig(coarsest=32, finest=16), "coarser than"),
    ],
)
def test_a_baseline_that_cannot_be_raises(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_relative_objective_is_the_mean_of_relative_errors() -> None:
    field = SMALL[0].build(3, 1)
    samples = ball(100)
    expected = (
        (field(samples.points) - samples.values).abs() / (samples.values.abs() + 0.01)
    ).mean()
    torch.testing.assert_close(relative_objective()(field, samples, 0.0), expected)
