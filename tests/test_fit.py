"""Training: it repeats bit for bit, resumes exactly and reports its failures."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig, TransportConfig
from nstr3d.fields.waves import PhaseWaves
from nstr3d.model.checkpoint import load_training, save
from nstr3d.training.fit import (
    REPORT_EVERY,
    Fit,
    FitConfig,
    Progress,
    draw_pool,
    fit,
    fit_steps,
    lipschitz_estimate,
    training_state,
)
from nstr3d.training.losses import SdfObjective, TransportPenalty
from nstr3d.types import Box, Frame, Samples

RADIUS = 0.6
SHORT = FitConfig(steps=110, batch=256, pool=2000, warmup=5)


class Sphere:
    """Samples of a sphere's exact distance: a quarter of the points uniform in the unit box, the
    others near the surface."""

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        direction = generator.normal(size=(count, 3))
        radius = RADIUS + 0.05 * generator.normal(size=(count, 1))
        points = direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius
        points[: count // 4] = generator.uniform(-1, 1, (count // 4, 3))
        values = np.linalg.norm(points, axis=1, keepdims=True) - RADIUS
        return Samples(
            torch.from_numpy(points.astype(np.float32)), torch.from_numpy(values.astype(np.float32))
        )


class Spoiled(Sphere):
    """A sphere whose fourth sample has NaN in its points or values, as ``name`` says."""

    def __init__(self, name: str):
        self.name = name

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        samples = super().draw(count, generator)
        getattr(samples, self.name)[3, 0] = math.nan
        return samples


class Plane(Field):
    """A linear field: ``x . slope``."""

    config, in_dim, out_dim = None, 3, 1

    def __init__(self, slope: tuple[float, ...], rate: float = 0.1):
        super().__init__()
        self.slope, self.rate = nn.Parameter(torch.tensor(slope)), rate

    def forward(self, points: Tensor) -> Tensor:
        return points @ self.slope[:, None]

    def rates(self) -> list[dict]:
        return [{"params": [self.slope], "lr": self.rate}]


def small_field(seed: int = 0) -> Nstr:
    config = NstrConfig(
        levels=(LevelConfig(2, plain=3), LevelConfig(4, plain=1, waves=PhaseWaves(2))), hidden=8
    )
    return config.build(3, 1, generator=torch.Generator().manual_seed(seed))


def weights(field: Field) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in field.parameters()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_same_seed_gives_the_same_bits() -> None:
    runs = []
    for seed in (0, 0, 1):
        field = small_field()
        fit(field, Sphere(), SdfObjective(), FitConfig(steps=30, batch=256, pool=2000, seed=seed))
        runs.append(weights(field))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_the_transport_loss_repeats_its_bits() -> None:
    config = NstrConfig(
        levels=(LevelConfig(8, plain=3, waves=PhaseWaves(2)),),
        hidden=8,
        transport=TransportConfig(8),
    )
    runs = []
    for _ in range(2):
        field = config.build(3, 1)
        objective = SdfObjective(transport=TransportPenalty(0.1))
        fit(field, Sphere(), objective, FitConfig(steps=20, batch=4096, pool=8192))
        runs.append(weights(field))
    assert same(*runs)


def test_training_leaves_global_randomness_alone() -> None:
    torch_before = torch.get_rng_state()
    numpy_before = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    fit(small_field(), Sphere(), SdfObjective(), FitConfig(steps=3, batch=64, pool=200))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state(legacy=False)["state"]["key"] == numpy_before).all()  # noqa: NPY002


@pytest.mark.parametrize("stop", [1, 7, 23, REPORT_EVERY])
def test_resuming_equals_never_having_stopped(stop: int) -> None:
    # An epoch has seven batches: one stop is between two epochs, the others are within an epoch.
    pool = draw_pool(Sphere(), SHORT)
    field, stopped = small_field(), small_field()
    for progress in fit_steps(field, pool, SdfObjective(), SHORT):
        assert progress.step <= SHORT.steps
    state: Mapping[str, Tensor] = {}
    for progress in fit_steps(stopped, pool, SdfObjective(), SHORT):
        if progress.step == stop:
            state = training_state(progress)
            break
    resumed = small_field(seed=9)
    resumed.load_state_dict(stopped.state_dict())
    steps = [progress.step for progress in fit_steps(resumed, pool, SdfObjective(), SHORT, state)]
    assert steps == list(range(stop + 1, SHORT.steps + 1))
    assert same(weights(resumed), weights(field))


def test_resuming_through_a_file_after_an_interrupt(tmp_path: Path) -> None:
    path = tmp_path / "half.nstr"

    def stop_at_forty(progress: Progress) -> None:
        if progress.step == 40:
            partial = Fit(field, Frame.identity(), Box((-1.0,) * 3, (1.0,) * 3), 1.0, progress.step)
            save(path, partial, training_state(progress))
            raise KeyboardInterrupt

    field = small_field()
    assert fit(field, Sphere(), SdfObjective(), SHORT, on_step=stop_at_forty).interrupted
    half, state = load_training(path)
    resumed = fit(half.field, Sphere(), SdfObjective(), SHORT, resume=state)
    whole = small_field()
    fit(whole, Sphere(), SdfObjective(), SHORT)
    assert (resumed.steps, resumed.interrupted) == (SHORT.steps, False)
    assert same(weights(resumed.field), weights(whole))


def test_a_training_state_of_another_field_raises() -> None:
    pool = draw_pool(Sphere(), SHORT)
    state = training_state(next(iter(fit_steps(small_field(), pool, SdfObjective(), SHORT))))
    with pytest.raises(ValueError, match="does not fit this field"):
        next(iter(fit_steps(Plane((1.0, 0.0, 0.0)), pool, SdfObjective(), SHORT, state)))


def test_an_interrupt_keeps_the_best_weights() -> None:
    """The weights are corrupted after the first report, so the first report has the lowest loss."""
    field, recorded = small_field(), {}

    def on_step(progress: Progress) -> None:
        if progress.step == REPORT_EVERY:
            recorded["best"] = weights(field)
            with torch.no_grad():
                for parameter in field.parameters():
                    parameter += 10
        if progress.step == 2 * REPORT_EVERY + 1:
            recorded["last"] = weights(field)
            raise KeyboardInterrupt

    result = fit(field, Sphere(), SdfObjective(), SHORT, on_step=on_step)
    assert result.interrupted
    assert result.steps == 2 * REPORT_EVERY + 1
    assert same(weights(field), recorded["best"])
    assert not same(recorded["last"], recorded["best"])


def test_an_interrupt_before_the_first_report_keeps_the_weights_there_are() -> None:
    def on_step(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    result = fit(small_field(), Sphere(), SdfObjective(), SHORT, on_step=on_step)
    assert (result.interrupted, result.steps) == (True, 3)


@pytest.mark.parametrize(("name", "word"), [("points", "point"), ("values", "value")])
def test_a_sample_that_is_not_a_number_is_named(name: str, word: str) -> None:
    with pytest.raises(
        ValueError, match=f"^1 training samples have a {word} that is not finite, first sample 3"
    ):
        fit(small_field(), Spoiled(name), SdfObjective(), SHORT)
    pool = Spoiled(name).draw(SHORT.pool, np.random.default_rng(0))
    with pytest.raises(ValueError, match=f"have a {word} that is not finite, first sample 3"):
        fit(small_field(), pool, SdfObjective(), SHORT)


def test_a_loss_that_diverges_raises() -> None:
    pool = draw_pool(Sphere(), SHORT)
    with pytest.raises(FloatingPointError, match="learning rates"):
        fit(
            Plane((1.0, 1.0, 1.0), rate=1e38),
            pool,
            lambda field, batch, _: field(batch.points).square().mean(),
            SHORT,
        )


def test_weights_that_are_not_finite_at_the_end_raise() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        fit(
            Plane((1.0, 1.0, 1.0), rate=math.inf),
            Sphere(),
            SdfObjective(),
            FitConfig(steps=3, batch=64, pool=200),
        )


def test_the_clock_ends_a_run_with_a_time_budget() -> None:
    config = FitConfig(steps=1, batch=64, pool=500, seconds=1)
    result = fit(small_field(), Sphere(), SdfObjective(), config)
    assert result.steps > 1
    assert result.seconds >= 1
    assert not result.interrupted


def test_rates_warm_up_and_then_fall_along_a_cosine() -> None:
    config = FitConfig(steps=100, batch=64, pool=500, warmup=10, final_rate=0.1)
    rates, done = [], []
    for progress in fit_steps(
        Plane((1.0, 0.0, 0.0), rate=2.0), draw_pool(Sphere(), config), SdfObjective(), config
    ):
        rates.append(progress.optimizer.param_groups[0]["lr"])
        done.append(progress.done)
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(100) / 100)) / 2
    np.testing.assert_allclose(rates, 2 * cosine * np.minimum(1, (np.arange(100) + 1) / 10))
    np.testing.assert_allclose(done, (np.arange(100) + 1) / 100)


def test_long_runs_have_lower_peaks() -> None:
    pool, rates = draw_pool(Sphere(), SHORT), {}
    for settle in (None, 1000, 8000, 64_000):
        config = FitConfig(steps=64_000, batch=64, pool=500, warmup=0, settle=settle)
        rates[settle] = next(
            iter(fit_steps(small_field(), pool, SdfObjective(), config))
        ).optimizer.param_groups[0]["lr"]
    assert rates[None] == rates[64_000]
    assert rates[8000] == pytest.approx(rates[None] / 2)
    assert rates[1000] == pytest.approx(rates[None] / 4)


def test_a_run_that_the_clock_ends_has_the_peaks_of_as_many_steps() -> None:
    config = FitConfig(batch=64, pool=500, warmup=0, final_rate=1.0, settle=1, seconds=0.5)
    field = Plane((1.0, 0.0, 0.0), rate=1e-3)
    *_, last = fit_steps(field, draw_pool(Sphere(), config), SdfObjective(), config)
    assert last.step > 10
    assert last.optimizer.param_groups[0]["lr"] == pytest.approx(
        1e-3 * last.step ** (-1 / 3), rel=0.05
    )


def test_every_epoch_shows_every_sample_once_in_another_order() -> None:
    pool = Samples(torch.arange(12.0)[:, None], torch.zeros(12, 1))
    config, recorded = FitConfig(steps=6, batch=4, pool=12), []
    field = Plane((1.0,))

    def objective(field: Field, batch: Samples, progress: float) -> Tensor:
        recorded.append(batch.points[:, 0].tolist())
        return field(batch.points).square().mean()

    list(fit_steps(field, pool, objective, config))
    first, second = (list(itertools.chain(*epoch)) for epoch in (recorded[:3], recorded[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_every_batch_has_the_same_share_of_each_slab_in_order() -> None:
    count, slabs = 8192, 32
    across = torch.linspace(-1, 1, count)[
        torch.randperm(count, generator=torch.Generator().manual_seed(2))
    ]
    pool, recorded = (
        Samples(torch.stack([across, -across, across], dim=1), torch.zeros(count, 1)),
        [],
    )

    def objective(field: Field, batch: Samples, progress: float) -> Tensor:
        recorded.append(batch.points[:, 0].view(slabs, -1))
        return field(batch.points).square().mean()

    list(
        fit_steps(
            Plane((1.0, 0.0, 0.0)), pool, objective, FitConfig(steps=8, batch=1024, pool=count)
        )
    )
    ends, slack = torch.linspace(-1, 1, slabs + 1), 4 / count
    assert torch.cat(recorded).flatten().unique().numel() == count
    for batch in recorded:
        assert (batch >= ends[:-1, None] - slack).all()
        assert (batch <= ends[1:, None] + slack).all()


def test_the_pool_depends_on_the_seed_alone() -> None:
    one, two, other = (
        draw_pool(Sphere(), FitConfig(batch=8, pool=100, seed=seed)) for seed in (4, 4, 5)
    )
    assert torch.equal(one.points, two.points)
    assert not torch.equal(one.points, other.points)


def test_a_small_field_learns_a_sphere() -> None:
    config = NstrConfig(levels=(LevelConfig(8, plain=6),), hidden=16)
    field = config.build(3, 1, generator=torch.Generator().manual_seed(0))
    frame = Frame((10.0, 0.0, -10.0), 2.0)
    result = fit(
        field,
        Sphere(),
        SdfObjective(),
        FitConfig(steps=250, batch=1024, pool=20_000, seed=3),
        frame=frame,
    )
    fresh = Sphere().draw(2000, np.random.default_rng(99))
    world = frame.to_world(fresh.points.double().numpy())
    error = np.abs(result.sdf()(world) - 2 * fresh.values[:, 0].double().numpy())
    assert error[500:].mean() < 0.02  # near the surface; its radius is 1.2
    np.testing.assert_allclose(
        result.bounds.lower, np.subtract(frame.centre, 2 * RADIUS), atol=0.03
    )
    np.testing.assert_allclose(result.bounds.upper, np.add(frame.centre, 2 * RADIUS), atol=0.03)
    assert 1 <= result.lipschitz < 5


def test_bounds_that_are_given_are_kept() -> None:
    bounds = Box((-2.0, -2.0, -2.0), (2.0, 2.0, 2.0))
    result = fit(
        small_field(),
        Sphere(),
        SdfObjective(),
        FitConfig(steps=2, batch=64, pool=200),
        bounds=bounds,
    )
    assert result.bounds == bounds
    assert result.frame == Frame.identity()


@pytest.mark.parametrize(
    ("slope", "expected"), [((2.0, 3.0, 6.0), 7.0), ((0.0, 0.6, 0.8), 1.0), ((0.1, 0.0, 0.0), 1.0)]
)
def test_lipschitz_bound_of_a_linear_field_is_its_slope(
    slope: tuple[float, ...], expected: float
) -> None:
    points = draw_pool(Sphere(), SHORT).points
    assert lipschitz_estimate(Plane(slope), points) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"pool": 0}, "at least 1"),
        ({"warmup": -1}, "at least 0"),
        ({"seconds": 0.0}, "must be positive"),
        ({"seconds": math.nan}, "must be positive"),
        ({"batch": 10, "pool": 9}, "exceeds the pool of 9"),
    ],
)
def test_configs_out_of_range_raise(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitConfig(**wrong)


def test_a_pool_smaller_than_a_batch_raises() -> None:
    with pytest.raises(ValueError, match="pool of 5 samples"):
        fit(
            small_field(),
            Samples(torch.zeros(5, 3), torch.zeros(5, 1)),
            SdfObjective(),
            FitConfig(batch=8, pool=8),
        )
