"""Compiled training steps against torch's AdamW with autograd's gradient, in double precision."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_fused import BOTH, DEFAULT, FIELDS, learned, model, points_of
from torch import Tensor, nn

from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, PhaseWaves
from nstr3d.kernels.field.fused import evaluate
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.kernels.field.layout import Layout, Part, Weights
from nstr3d.kernels.step import descentcpu
from nstr3d.kernels.step.adam import AdamW
from nstr3d.kernels.step.descent import Descent, Loss
from nstr3d.kernels.threads import Range, team_of
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.losses import SdfObjective
from nstr3d.types import Samples

DELTA = 0.5
LOSS = Loss(DELTA, 0.3)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restores torch's thread count after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained(levels, hidden: int, outputs: int, dtype: torch.dtype) -> tuple[list[Part], Weights]:
    """A model with learned tables and decoder, and with fixed frequencies and phases."""
    parts, weights = learned(*model(levels, hidden, outputs), dtype)
    for part in parts:
        for carrier in (part.omega, part.phase):
            if carrier is not None:
                carrier.requires_grad_(False)
    assert weights is not None
    return parts, weights


def groups(parts: list[Part], weights: Weights) -> list[dict]:
    """The groups of a field's `rates`, with weight decay of the tables."""
    return [
        {"params": [part.table for part in parts], "lr": 3e-2, "weight_decay": 0.3},
        {"params": list(weights[:4]), "lr": 1e-2},
    ]


def loss_of(
    points: Tensor,
    targets: Tensor,
    parts: list[Part],
    weights: Weights,
    gradients: Tensor | None = None,
) -> Tensor:
    at = points.detach().requires_grad_(gradients is not None)
    values = evaluate(at, parts, weights)
    loss = nn.functional.huber_loss(values, targets, delta=DELTA) / DELTA
    if gradients is None:
        return loss
    (slope,) = torch.autograd.grad(values.sum(), at, create_graph=True)
    known = gradients.any(dim=1)
    error = (slope - gradients)[known].square().sum() / len(points)
    return loss + LOSS.gradient_weight * error


def directions(count: int, share: float) -> Tensor:
    """Unit vectors ``(count, 3)``, set to zero (unknown) except for a fraction ``split_work``."""
    generator = torch.Generator().manual_seed(5)
    known = torch.rand(count, 1, generator=generator) < share
    return nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1) * known


def batch(count: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    points = points_of(count)
    return points, torch.randn(len(points), outputs, generator=torch.Generator().manual_seed(seed))


CASES = [(*field, None) for field in FIELDS] + [
    (*field, share) for field in FIELDS if field[2] == 1 for share in (0.0, 0.3, 1.0)
]


@pytest.mark.parametrize(("levels", "hidden", "outputs", "share"), CASES)
@pytest.mark.parametrize("count", [1, 9, 1300])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_step_is_torchs_in_double_precision(
    levels, hidden, outputs, share, count, workers
) -> None:
    torch.set_num_threads(workers)
    (exact, exact_weights), (mine, my_weights) = (
        trained(levels, hidden, outputs, kind) for kind in (torch.float64, torch.float32)
    )
    twin = torch.optim.AdamW(
        groups(exact, exact_weights), betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0
    )
    optimizer = AdamW(groups(mine, my_weights), (0.9, 0.99))
    step = Descent(mine, my_weights, Layout(mine), LOSS, optimizer)
    pairs = [
        (a, b)
        for one, two in zip(optimizer.param_groups, twin.param_groups)
        for a, b in zip(one["params"], two["params"])
    ]
    rounding = (
        1e-4 if share is None else 2e-4
    )  # the second derivatives of a sharp softplus are large
    for turn in range(4):
        points, targets = batch(count, outputs, turn)
        slopes = None if share is None else directions(len(points), share)
        for one, two in zip(optimizer.param_groups, twin.param_groups):
            one["lr"] = two["lr"] = one["lr"] * 0.8
        twin.zero_grad()
        double = None if slopes is None else slopes.double()
        truth = loss_of(points.double(), targets.double(), exact, exact_weights, double)
        truth.backward()
        twin.step()
        assert float(step(Samples(points, targets, slopes))) == pytest.approx(
            float(truth.detach()), rel=1e-4
        )
        for computed, expected in pairs:
            state, other = optimizer.state[computed], twin.state[expected]
            assert float(state["step"]) == float(other["step"]) == turn + 1
            mean = other["exp_avg"]
            np.testing.assert_allclose(
                state["exp_avg"], mean, atol=rounding * max(1e-3, float(mean.abs().max()))
            )
            # the sign of a gradient near zero depends on rounding
            clear = mean.abs() > 1e-3 * mean.abs().max()
            torch.testing.assert_close(
                computed.detach().double()[clear], expected.detach()[clear], rtol=0, atol=1e-3
            )
            with torch.no_grad():  # both continue from the same values
                expected.copy_(computed)
                for name in ("exp_avg", "exp_avg_sq"):
                    other[name].copy_(state[name])


def test_each_parameter_keeps_to_its_own_number_of_updates() -> None:
    """Parameters of one group differ in their numbers of updates where an earlier step had no
    gradient for some of them."""
    levels, hidden, outputs = DEFAULT, 64, 1
    (exact, exact_weights), (mine, my_weights) = (
        trained(levels, hidden, outputs, kind) for kind in (torch.float64, torch.float32)
    )
    twin = torch.optim.AdamW(
        groups(exact, exact_weights), betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0
    )
    optimizer = AdamW(groups(mine, my_weights), (0.9, 0.99))
    for some in (optimizer, twin):
        for group in some.param_groups:
            for number, parameter in enumerate(group["params"]):
                some.state[parameter] = {
                    "step": torch.tensor(float(3 * number)),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
    step = Descent(mine, my_weights, Layout(mine), LOSS, optimizer)
    points, targets = batch(1300, outputs)
    loss_of(points.double(), targets.double(), exact, exact_weights).backward()
    twin.step()
    step(Samples(points, targets))
    for one, two in zip(optimizer.param_groups, twin.param_groups):
        for computed, expected in zip(one["params"], two["params"]):
            mean = twin.state[expected]["exp_avg"]
            assert optimizer.state[computed]["step"] == twin.state[expected]["step"]
            # the sign of a gradient near zero depends on rounding
            clear = mean.abs() > 1e-3 * mean.abs().max()
            torch.testing.assert_close(
                computed.detach().double()[clear], expected.detach()[clear], rtol=0, atol=1e-4
            )


@pytest.mark.parametrize(("levels", "hidden", "outputs"), FIELDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_loss_is_always_that_of_the_parameters(levels, hidden, outputs, workers) -> None:
    torch.set_num_threads(workers)
    parts, weights = trained(levels, hidden, outputs, torch.float32)
    step = Descent(parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99)))
    points, targets = batch(600, outputs)
    losses = []
    for _ in range(60):
        with torch.no_grad():
            expected = float(loss_of(points, targets, parts, weights))
        losses.append(float(step(Samples(points, targets))))
        assert losses[-1] == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("corner", [-1.0, 0.0, 0.9])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("levels", [DEFAULT, BOTH])
def test_points_in_order_or_in_a_corner_give_the_step_that_those_everywhere_do(
    levels, workers: int, corner: float
) -> None:
    torch.set_num_threads(workers)
    (exact, exact_weights), (mine, my_weights) = (
        trained(levels, 20, 1, kind) for kind in (torch.float64, torch.float32)
    )
    twin = torch.optim.AdamW(
        groups(exact, exact_weights), betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0
    )
    optimizer = AdamW(groups(mine, my_weights), (0.9, 0.99))
    step = Descent(mine, my_weights, Layout(mine), LOSS, optimizer)
    generator = torch.Generator().manual_seed(3)
    everywhere = torch.rand(1300, 3, generator=generator) * 2 - 1
    some = everywhere[(everywhere[:, 0] > corner) & (everywhere[:, 0] < corner + 0.5)]
    for points in (
        everywhere,
        some,
        everywhere[everywhere[:, 0].argsort()],
        some[some[:, 0].argsort(descending=True)],
    ):
        targets = torch.randn(len(points), 1, generator=generator)
        twin.zero_grad()
        loss_of(points.double(), targets.double(), exact, exact_weights).backward()
        twin.step()
        step(Samples(points, targets))
        for computed, expected in zip(
            (each for group in optimizer.param_groups for each in group["params"]),
            _parameters(twin),
        ):
            mean, size = (
                twin.state[expected]["exp_avg"],
                twin.state[expected]["exp_avg"].abs().max(),
            )
            np.testing.assert_allclose(
                optimizer.state[computed]["exp_avg"], mean, atol=1e-4 * max(1e-3, float(size))
            )
            with torch.no_grad():  # both continue from the same values
                expected.copy_(computed)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def test_a_step_does_not_wait_for_help_that_is_late() -> None:
    torch.set_num_threads(2)
    go = threading.Event()
    busy = Range(lambda *_: go.wait(), 1, 0, 1)
    team_of(1).put(busy)  # occupies the only helper
    computed = []
    for _ in range(2):
        parts, weights = trained(DEFAULT, 20, 1, torch.float32)
        step = Descent(
            parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99))
        )
        for turn in range(3):
            step(Samples(*batch(1300, 1, turn)))
        computed.append(parts[0].table.detach().clone())
        go.set()
        busy.end()
    assert torch.equal(*computed)  # the result does not depend on which thread did which part


@pytest.mark.parametrize(
    ("points", "targets"), [((5, 2), (5, 1)), ((5, 3), (5, 2)), ((5, 3), (4, 1)), ((5, 3), (5,))]
)
def test_batches_of_another_shape_are_refused(
    points: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    parts, weights = trained(DEFAULT, 8, 1, torch.float32)
    step = Descent(parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99)))
    with pytest.raises(ValueError, match="points \\(n, 3\\) and targets \\(n, 1\\)"):
        step(Samples(torch.zeros(points), torch.zeros(targets)))


def test_gradients_of_another_shape_or_of_several_values_are_refused() -> None:
    for outputs, gradients in ((1, (5, 2)), (1, (4, 3)), (3, (5, 3))):
        parts, weights = trained(DEFAULT, 8, outputs, torch.float32)
        optimizer = AdamW(groups(parts, weights), (0.9, 0.99))
        step = Descent(parts, weights, Layout(parts), LOSS, optimizer)
        with pytest.raises(ValueError, match=r"gradients \(n, 3\) of one value, not"):
            step(Samples(torch.zeros(5, 3), torch.zeros(5, outputs), torch.zeros(gradients)))


def test_gradients_that_weigh_nothing_change_nothing() -> None:
    points, targets = batch(700, 1)
    weighty = []
    for weight, slopes in ((0.0, directions(len(points), 0.5)), (0.3, None)):
        parts, weights = trained(BOTH, 20, 1, torch.float32)
        optimizer = AdamW(groups(parts, weights), (0.9, 0.99))
        step = Descent(parts, weights, Layout(parts), Loss(DELTA, weight), optimizer)
        for _ in range(3):
            step(Samples(points, targets, slopes))
        weighty.append(parts[0].table.detach())
    assert torch.equal(*weighty)


def test_what_others_write_between_steps_counts() -> None:
    parts, weights = trained(DEFAULT, 8, 1, torch.float32)
    step = Descent(parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99)))
    points, targets = batch(100, 1)
    step(Samples(points, targets))
    with torch.no_grad():
        parts[3].table.mul_(2)
        weights.b2.add_(0.5)
        expected = float(loss_of(points, targets, parts, weights))
    assert float(step(Samples(points, targets))) == pytest.approx(expected, rel=1e-4)


def test_parameters_that_move_between_steps_are_followed() -> None:
    parts, weights = trained(DEFAULT, 8, 1, torch.float32)
    step = Descent(parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99)))
    points, targets = batch(100, 1)
    step(Samples(points, targets))
    old, moved = parts[3].table.detach(), parts[3].table.detach().clone()
    parts[3].table.data = moved
    before = old.clone()
    step(Samples(points, targets))
    assert torch.equal(old, before)
    assert not torch.equal(moved, before)


def test_the_loss_of_nothing_is_the_mean_of_nothing() -> None:
    parts, weights = trained(DEFAULT, 8, 1, torch.float32)
    before = [part.table.detach().clone() for part in parts]
    optimizer = AdamW(
        [group | {"weight_decay": 0.0} for group in groups(parts, weights)], (0.9, 0.99)
    )
    step = Descent(parts, weights, Layout(parts), LOSS, optimizer)
    assert torch.isnan(step(Samples(torch.empty(0, 3), torch.empty(0, 1))))
    assert all(torch.equal(part.table, old) for part, old in zip(parts, before))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("levels", [DEFAULT, BOTH])
def test_steps_repeat_bit_for_bit_and_on_any_number_of_threads_alike(levels, workers: int) -> None:
    computed = []
    for threads in (workers, workers, 1):
        torch.set_num_threads(threads)
        parts, weights = trained(levels, 20, 1, torch.float32)
        step = Descent(
            parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99))
        )
        for turn in range(5):
            loss = step(Samples(*batch(1300, 1, turn)))
        computed.append((loss, parts[0].table.detach().clone()))
    assert torch.equal(computed[0][1], computed[1][1])
    assert float(computed[0][0]) == pytest.approx(float(computed[2][0]), rel=1e-3)


WAVES = PhaseWaves(3)


def field(waves: PhaseWaves | AmplitudeWaves = WAVES, order: int = 1) -> Nstr:
    levels = (
        LevelConfig(4, plain=3, sparse=False),
        LevelConfig(5, plain=2, waves=waves, order=order),
    )
    return NstrConfig(levels, hidden=8, start=None, placement=None).build(3, 1)


@pytest.mark.parametrize("order", [1, 2])
def test_a_field_trains_alike_compiled_and_in_plain_torch(order: int) -> None:
    points, values = batch(4000, 1)
    pool, config = Samples(points, values * 0.1), FitConfig(steps=20, batch=500, pool=4000)
    one, other = field(order=order), field(order=order)
    compiled = [progress.loss for progress in fit_steps(one, pool, SdfObjective(0.05), config)]
    with plain_torch():
        plain = [progress.loss for progress in fit_steps(other, pool, SdfObjective(0.05), config)]
    assert len(compiled) == len(plain) == 20
    with torch.no_grad():
        torch.testing.assert_close(one(points), other(points), rtol=0, atol=5e-3)


def test_it_leaves_to_autograd_what_it_cannot_do() -> None:
    points, values = batch(50, 1)
    frozen, learning, double = field(), field(AmplitudeWaves(2, learned=True)), field().double()
    frozen.levels[0].table.requires_grad_(False)
    for each in (frozen, learning, double):
        optimizer = AdamW(each.rates(), (0.9, 0.99))
        assert each.compiled_steps(0.1, 0.0, optimizer) is None
        pool, before = Samples(points, values), each.decoder.out.weight.detach().clone()
        if each is double:
            pool = Samples(points.double(), values.double())
        *_, last = fit_steps(
            each, pool, SdfObjective(), FitConfig(steps=3, batch=20, pool=len(points))
        )
        assert last.step == 3
        assert not torch.equal(each.decoder.out.weight, before)
    # the optimiser belongs to another field
    assert field().compiled_steps(0.1, 0.0, AdamW(frozen.rates(), (0.9, 0.99))) is None
    with plain_torch():
        assert field().compiled_steps(0.1, 0.0, AdamW(frozen.rates(), (0.9, 0.99))) is None


@pytest.mark.parametrize("kernel", ["evaluate", "update"])
def test_what_a_helper_raises_surfaces_and_the_next_step_goes_on(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    parts, weights = trained(DEFAULT, 20, 1, torch.float32)
    step = Descent(parts, weights, Layout(parts), LOSS, AdamW(groups(parts, weights), (0.9, 0.99)))
    points, targets = batch(1300, 1)
    step(Samples(points, targets))

    def faulty(low: int, *others) -> None:
        if low == 1:
            raise ArithmeticError("of the second part")

    with monkeypatch.context() as patch:
        patch.setattr(descentcpu, kernel, faulty)
        with pytest.raises(ArithmeticError, match="of the second part"):
            step(Samples(points, targets))
    with torch.no_grad():
        expected = float(loss_of(points, targets, parts, weights))
    assert float(step(Samples(points, targets))) == pytest.approx(expected, rel=1e-4)
