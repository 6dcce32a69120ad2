"""The fused kernels of a whole field against plain torch in double precision."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_kernels import awkward_points
from torch import Tensor

from nstr3d.autodiff import gradient
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.kernels.field import fused as module
from nstr3d.kernels.field import interpolate as switch
from nstr3d.kernels.field.fused import evaluate, fused, fused_with_slope, unchanged
from nstr3d.kernels.field.interpolate import NodeGrid
from nstr3d.kernels.field.layout import AMPLITUDE, COMPLEX, PHASE, PLAIN, Layout, Part, Weights
from nstr3d.sdf import from_field
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import SdfObjective
from nstr3d.types import Box, Frame, Samples

# Each level: cells, plain channels, kind of waves, number of waves, and the order if it is not 1.
DEFAULT = ((5, 8, PLAIN, 0), (4, 2, PLAIN, 0), (6, 6, PLAIN, 0), (5, 10, PHASE, 6))
MIXED = ((3, 1, COMPLEX, 5), (4, 0, AMPLITUDE, 9), (5, 3, PHASE, 1))
QUADRATIC = (
    (5, 8, PLAIN, 0, 2),
    (4, 3, COMPLEX, 5, 2),
    (1, 0, AMPLITUDE, 9, 2),
    (6, 2, PHASE, 6, 2),
)
BOTH = ((4, 2, PLAIN, 0, 2), (6, 6, PLAIN, 0), (3, 3, COMPLEX, 2), (5, 9, PHASE, 6, 2))
FIELDS = [(DEFAULT, 64, 1), (MIXED, 20, 3), (QUADRATIC, 24, 2), (BOTH, 64, 1)]
FIELDS += [(DEFAULT[:1], 7, 1), (QUADRATIC[:1], 7, 1)]
UNDECODED = [(MIXED, None, 14), (QUADRATIC, None, 30)]


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores torch's thread count after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def part(
    generator: torch.Generator, resolution: int, plain: int, kind: int, count: int, order: int = 1
) -> Part:
    """A level in double precision that stores about 70% of its nodes."""
    stored = torch.rand((resolution + order) ** 3, generator=generator) > 0.3
    grid = NodeGrid(torch.where(stored, stored.cumsum(0) - 1, -1).int(), resolution, order)
    channels = plain + count * (0, 1, 2, 2)[kind]
    table = torch.randn(int(stored.sum()), channels, generator=generator, dtype=torch.float64)
    if kind == PLAIN:
        return Part(grid, table, plain)
    omega = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 10
    phase = torch.rand(count, generator=generator, dtype=torch.float64) * 6
    return Part(grid, table, plain, kind, omega, phase, 8.0 if kind == PHASE else 1.0)


def model(levels, hidden: int | None, outputs: int) -> tuple[list[Part], Weights | None]:
    generator = torch.Generator().manual_seed(0)
    parts = [part(generator, *level) for level in levels]
    if hidden is None:
        return parts, None
    features = sum(each.plain + each.waves for each in parts)
    shapes = (hidden, features), (hidden,), (outputs, hidden), (outputs,)
    return parts, Weights(
        *(torch.randn(shape, generator=generator, dtype=torch.float64) / 4 for shape in shapes),
        50.0,
    )


def leaves(parts: list[Part], weights: Weights | None) -> list[Tensor]:
    """All trainable tensors."""
    waves = [tensor for each in parts for tensor in (each.omega, each.phase) if tensor is not None]
    return [each.table for each in parts] + waves + list(weights[:4] if weights else ())


def learned(
    parts: list[Part], weights: Weights | None, dtype: torch.dtype
) -> tuple[list[Part], Weights | None]:
    """Copies whose tensors are autograd leaves of ``dtype``."""

    def leaf(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().to(dtype).requires_grad_()

    copies = [
        replace(each, table=leaf(each.table), omega=leaf(each.omega), phase=leaf(each.phase))
        for each in parts
    ]
    return copies, None if weights is None else Weights(*map(leaf, weights[:4]), weights.sharpness)


def points_of(count: int) -> Tensor:
    """``count`` random points in the unit box and, if ``count`` > 0, the awkward points of
    ``test_kernels``: outside, on faces of cells and in corners of the box."""
    inside = torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return torch.cat([inside, awkward_points(5)]) if count else inside


@pytest.mark.parametrize(("levels", "hidden", "outputs"), FIELDS + UNDECODED)
@pytest.mark.parametrize("count", [0, 3, 1300])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("threads")
def test_values_and_gradients_equal_double_precision(
    levels, hidden, outputs, count, workers
) -> None:
    torch.set_num_threads(workers)
    parts, weights = model(levels, hidden, outputs)
    (exact, exact_weights), (mine, my_weights) = (
        learned(parts, weights, kind) for kind in (torch.float64, torch.float32)
    )
    points = points_of(count)
    truth = evaluate(points.double(), exact, exact_weights)
    seed = torch.randn(truth.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    truth.backward(seed)
    values = fused(points, mine, my_weights, Layout(mine))
    values.backward(seed.float())
    np.testing.assert_allclose(values.detach(), truth.detach(), atol=1e-4)
    for actual, expected in zip(
        leaves(mine, my_weights), leaves(exact, exact_weights), strict=True
    ):
        assert actual.grad is not None
        assert expected.grad is not None
        scale = max(1.0, float(expected.grad.abs().max()))
        np.testing.assert_allclose(actual.grad, expected.grad, atol=2e-5 * scale)
    with torch.no_grad():
        torch.testing.assert_close(
            fused(points, mine, my_weights, Layout(mine)), values.detach(), rtol=0, atol=0
        )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("threads")
def test_gradients_do_not_depend_on_what_was_in_memory(workers, monkeypatch) -> None:
    def gradients() -> list[Tensor | None]:
        torch.set_num_threads(workers)
        parts, weights = learned(*model(QUADRATIC, 24, 2), torch.float32)
        fused(points_of(1300), parts, weights, Layout(parts)).square().sum().backward()
        return [each.grad for each in leaves(parts, weights)]

    expected, empty = gradients(), torch.empty
    # Sums of such values overflow, and a warning is an error here.
    monkeypatch.setattr(torch, "empty", lambda *size, **kind: empty(*size, **kind).fill_(3e38))
    for actual, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("levels", [DEFAULT, MIXED, QUADRATIC, BOTH])
def test_a_point_that_is_no_number_has_no_value_and_harms_no_other(levels) -> None:
    parts, weights = model(levels, 24, 1)
    points = points_of(1300)
    bad = torch.arange(len(points)) % 7 == 3
    spoiled = torch.where(bad[:, None] & (torch.arange(3) == 1), torch.nan, points)
    mine, my_weights = learned(parts, weights, torch.float32)

    def plain(at: Tensor) -> Tensor:
        return evaluate(at.double(), parts, weights)

    def kernel(at: Tensor) -> Tensor:
        return fused(at, mine, my_weights, Layout(mine)).detach()

    for values in (plain, kernel):
        whole, holed = values(points), values(spoiled)
        assert holed[bad].isnan().all()
        torch.testing.assert_close(holed[~bad], whole[~bad], rtol=0, atol=1e-5)


def test_second_derivatives_are_refused() -> None:
    parts, weights = learned(*model(DEFAULT, 8, 1), torch.float32)
    assert weights is not None
    loss = fused(points_of(9), parts, weights, Layout(parts)).square().sum()
    (slope,) = torch.autograd.grad(loss, weights.b1, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        slope.sum().backward()


@pytest.mark.parametrize("levels", [DEFAULT, MIXED, QUADRATIC, BOTH])
@pytest.mark.parametrize("count", [0, 5, 1300])
def test_the_closed_form_of_the_slope_is_the_derivative(levels, count: int) -> None:
    parts, weights = model(levels, 64, 1)
    assert weights is not None
    points = points_of(count)
    at = points.double().requires_grad_()
    truth = evaluate(at, parts, weights)
    (expected,) = torch.autograd.grad(truth.sum(), at)
    mine, my_weights = learned(parts, weights, torch.float32)
    assert my_weights is not None
    value, slope = fused_with_slope(points, mine, my_weights, Layout(mine))
    np.testing.assert_allclose(value, truth.detach(), atol=1e-4)
    # On a face between two cells of order 1 the slope of either side is correct; a slope of order 2
    # is continuous.
    creased = [level[0] for level in levels if level[4:] != (2,)]
    off = torch.ones(len(at), dtype=torch.bool)
    for cells in creased:
        off &= (((at + 1) * (cells / 2)).frac().sub(0.5).abs() < 0.4999).all(dim=1)
    assert bool(off.all()) == (not creased or not count)
    np.testing.assert_allclose(
        slope[off], expected[off], atol=2e-5 * max(1.0, float(expected.abs().max() if count else 1))
    )


@pytest.mark.parametrize("levels", [DEFAULT, QUADRATIC])
@pytest.mark.usefixtures("threads")
def test_gradients_repeat_bit_for_bit_on_two_threads(levels) -> None:
    torch.set_num_threads(2)
    parts, weights = learned(*model(levels, 64, 1), torch.float32)
    points = points_of(5000)
    actual = [
        torch.autograd.grad(
            fused(points, parts, weights, Layout(parts)).square().sum(), parts[0].table
        )[0]
        for _ in range(3)
    ]
    assert torch.equal(actual[0], actual[1])
    assert torch.equal(actual[0], actual[2])


def field(orders: tuple[int, int, int, int] = (1, 1, 1, 1), **changes):
    """A small field with every kind of waves, one of them learned."""
    levels = (
        LevelConfig(4, plain=3, sparse=False),
        LevelConfig(5, plain=2, waves=PhaseWaves(3)),
        LevelConfig(4, waves=ComplexWaves(2)),
        LevelConfig(3, plain=1, waves=AmplitudeWaves(2, learned=True)),
    )
    levels = tuple(replace(level, order=order) for level, order in zip(levels, orders))
    near = (
        torch.nn.functional.normalize(
            torch.randn(200, 3, generator=torch.Generator().manual_seed(3)), dim=1
        )
        * 0.7
    )
    return NstrConfig(levels, **changes).build(3, 1, near.numpy())


@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("orders", [(1, 1, 1, 1), (2, 2, 2, 2), (1, 2, 2, 1)])
def test_a_field_answers_alike_with_the_kernels_and_without(
    hidden: int, orders: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, points = field(orders, hidden=hidden), points_of(400)
    fast = one(points)
    assert type(fast.grad_fn).__name__ == ("_FusedBackward" if hidden else "SumBackward1")
    fast.square().sum().backward()
    grads = {
        name: each.grad.clone() for name, each in one.named_parameters() if each.grad is not None
    }
    assert len(grads) == len(list(one.parameters()))
    one.zero_grad()
    value, slope = one.value_and_gradient(points)
    monkeypatch.setattr(switch, "numba_found", lambda: False)
    plain = one(points)
    plain.square().sum().backward()
    np.testing.assert_allclose(fast.detach(), plain.detach(), atol=1e-5)
    np.testing.assert_allclose(value, plain.detach(), atol=1e-5)
    off = (slope - gradient(one, points)).abs().amax(dim=1) < 1e-3
    creased = 1 in orders  # slopes of order 1 jump at faces of cells
    assert float(off.float().mean()) > (0.9 if creased else 0.9999)
    for name, each in one.named_parameters():
        np.testing.assert_allclose(
            grads[name], each.grad, atol=1e-4 * float(each.grad.abs().max() + 1), err_msg=name
        )


def test_a_field_whose_nodes_moved_or_were_copied_lays_them_out_anew() -> None:
    import copy

    one, points = field(), points_of(50)
    with torch.no_grad():
        before = one(points)
        twin = copy.deepcopy(one)
        twin.levels[0].table.add_(1.0)
        assert not torch.equal(twin(points), before)
        assert torch.equal(one(points), before)
        torch.testing.assert_close(one.double()(points.double()).float(), before, atol=1e-5, rtol=0)


def test_weights_are_copied_once_while_unchanged_and_others_are_seen(monkeypatch) -> None:
    copies, copy = [], module.packed_levels
    monkeypatch.setattr(module, "packed_levels", lambda *each: copies.append(each) or copy(*each))
    levels = (LevelConfig(4, plain=3), LevelConfig(3, plain=1, waves=PhaseWaves(2), order=2))
    seeds = (torch.Generator().manual_seed(seed) for seed in range(2))
    one, other = (NstrConfig(levels, hidden=8).build(3, 1, generator=each) for each in seeds)
    points = torch.rand(50, 3) * 2 - 1
    wanted = one(points), other(points), one.value_and_gradient(points)[1]
    del copies[:]
    with unchanged():
        for _ in range(3):
            assert torch.equal(one(points), wanted[0])
            assert torch.equal(other(points), wanted[1])
            assert torch.equal(one.value_and_gradient(points)[1], wanted[2])
            with unchanged():
                assert torch.equal(one(points), wanted[0])
        assert len(copies) == 2
        others = {name: each.detach() for name, each in other.state_dict().items()}
        assert torch.equal(torch.func.functional_call(one, others, (points,)), wanted[1])
        with torch.no_grad():
            one.levels[0].table.add_(0.5)
        assert not torch.equal(one(points), wanted[0])
    with torch.inference_mode():
        assert not torch.equal(one(points), wanted[0])
        clones = {name: each.clone() for name, each in one.state_dict().items()}
        with unchanged():
            same = torch.func.functional_call(one, clones, (points,))
            assert torch.equal(same, one(points))


def test_the_slope_of_a_world_distance_is_its_derivative_inside_and_outside() -> None:
    sdf = from_field(field(), Frame((0.3, -0.2, 0.1), 2.5), Box((-2.0,) * 3, (2.0,) * 3), 1.0)
    assert sdf.both is not None
    points = (
        torch.rand(2000, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 2 - 1
    ) * 4
    expected, actual = gradient(sdf.distance, points), sdf.gradient(points)
    close = (expected - actual).abs().amax(dim=1) < 1e-3 * expected.norm(dim=1).clamp_min(1)
    assert float(close.float().mean()) > 0.995
    shifted = sdf.offset(0.1)
    assert torch.equal(shifted.gradient(points), actual)


@pytest.mark.parametrize("orders", [(1, 1, 1, 1), (2, 2, 1, 2)])
def test_training_with_the_kernels_follows_training_without(
    orders: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(5)) * 2 - 1
    pool = Samples(points, points.norm(dim=1, keepdim=True) - 0.7)

    def losses() -> list[float]:
        steps = fit_steps(
            field(orders),
            pool,
            SdfObjective(delta=1.0),
            FitConfig(steps=50, batch=500, pool=2000),
        )
        return [progress.loss for progress in steps if progress.step % 50 == 0]

    fast = losses()
    monkeypatch.setattr(switch, "numba_found", lambda: False)
    np.testing.assert_allclose(fast, losses(), rtol=2e-2)
