"""Training: `fit_steps` iterates over steps, and `fit` runs them all and returns a `Fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.kernels.step.adam import AdamW
from nstr3d.sdf import CHUNK, Points, Sdf, from_field, placed
from nstr3d.training.batches import shuffled_batches
from nstr3d.training.losses import Objective
from nstr3d.training.sampling import Sampler
from nstr3d.training.state import optimizer_state, restore_optimizer
from nstr3d.training.steps import training_steps
from nstr3d.types import Box, Frame, Samples, Up, expect

REPORT_EVERY = 50  # steps between readings of the loss: each reading waits for the device


@dataclass(frozen=True)
class FitConfig:
    """The training schedule.

    The optimiser is AdamW; a field's `rates` give each parameter group its peak rate and decay.
    The rate rises linearly for ``warmup`` steps, then falls along a cosine to ``final_rate`` times
    the peak. In a run of n > ``settle`` steps the peaks are multiplied by (settle / n)^(1/3);
    ``settle=None`` leaves the peaks as they are.

    ``pool`` samples are drawn and shuffled once (`training.batches`). With ``seconds`` the schedule
    follows the clock and ``steps`` is ignored. The same seed, thread count and machine give the
    same bits, unless the schedule follows the clock.

    Raises ValueError for sizes below 1, a negative warm-up, ``seconds`` that are not positive, or a
    batch larger than the pool.
    """

    steps: int = 3000
    batch: int = 4096
    pool: int = 1_000_000
    warmup: int = 50
    final_rate: float = 0.01
    settle: int | None = 1400
    betas: tuple[float, float] = (0.9, 0.99)
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self):
        if min(self.steps, self.batch, self.pool, self.settle or 1) < 1 or self.warmup < 0:
            raise ValueError(
                "steps, batch, pool and settle must be at least 1 and warmup at least 0."
            )
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be positive, not {self.seconds}.")
        if self.batch > self.pool:
            raise ValueError(f"batch {self.batch} exceeds the pool of {self.pool} samples.")


@dataclass(frozen=True)
class Progress:
    """The state of training after ``step`` steps: the fraction ``done`` in [0, 1], the seconds of
    training, the mean loss over the last 50 steps, and the optimiser (None for a closed form)."""

    step: int
    done: float
    seconds: float
    loss: float
    optimizer: AdamW | None = None


@dataclass(frozen=True)
class Fit:
    """A trained field, the frame that places it in the world, the world ``bounds`` of its surface,
    its Lipschitz bound (an estimate over samples), and its provenance.

    ``colour_field``, if the shape has colours, is a field from the unit box to display RGB. It
    means something on the surface alone.
    """

    field: Field
    frame: Frame
    bounds: Box
    lipschitz: float
    steps: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    provenance: Mapping[str, object] = dataclass_field(default_factory=dict)
    colour_field: Field | None = None

    @property
    def up(self) -> Up:
        """The axis that points up, as the provenance notes it; y if it notes none."""
        return cast(Up, self.provenance.get("up", "y"))

    def sdf(self) -> Sdf:
        """The signed distance in world units, with the colours if there are any. Raises ValueError
        unless the field maps three dimensions to one value."""
        sdf = from_field(self.field, self.frame, self.bounds, self.lipschitz, fit=self)
        return sdf if self.colour_field is None else replace(sdf, paint=self._paint)

    def _paint(self, points: Tensor) -> Tensor:
        assert self.colour_field is not None
        weights = next(self.colour_field.parameters())
        unit = placed(self.frame, points)[1].to(weights)
        parts = [self.colour_field(part) for part in unit.split(CHUNK)]
        return torch.cat(parts or [unit]).clamp(0, 1).to(points)

    def colour(self, points: Points) -> Points:
        """Display RGB ``(n, 3)`` in [0, 1] at the surface points closest to world ``points (n,
        3)``, so that it is constant along normals. Raises ValueError if the fit has no colours,
        and the errors of `Sdf.closest_points`."""
        return self.sdf().colour(points)

    def page(self, title: str = "", height: int = 480) -> Any:
        """The page on which a shape can be turned, for notebooks: as the result of a cell it shows
        itself, ``height`` pixels high, and ``save(path)`` writes it as an HTML file.

        Raises ValueError for a field that the page cannot trace.
        """
        # The package that draws stands above this module, so that only the call imports it.
        return import_module("nstr3d.view.notebook").page_of(self, title or "nstr3d", height)

    def _repr_png_(self) -> bytes | None:
        """A small picture, which a notebook shows; None if there is nothing to draw."""
        return import_module("nstr3d.view.notebook").png_of(self)


def draw_pool(sampler: Sampler, config: FitConfig) -> Samples:
    """The training pool that ``config.seed`` determines. Raises ValueError if a point, value or
    gradient is not finite."""
    return _checked(sampler.draw(config.pool, np.random.default_rng([config.seed, 0])))


def fit_steps(
    field: Field,
    pool: Samples,
    objective: Objective,
    config: FitConfig,
    resume: Mapping[str, Tensor] | None = None,
) -> Iterator[Progress]:
    """Trains ``field`` in place, one step per item. A caller that stops iterating stops training.

    ``resume`` is a `training_state`; with it and the field's weights of that moment, the run
    continues as if it had not been stopped. Raises ValueError for a pool smaller than a batch, and
    FloatingPointError when the loss is not finite.
    """
    if len(pool) < config.batch:
        raise ValueError(f"batch {config.batch} exceeds the pool of {len(pool)} samples.")
    optimizer = AdamW(field.rates(), config.betas)
    peaks = [group["lr"] for group in optimizer.param_groups]
    step, spent = restore_optimizer(optimizer, resume) if resume else (0, 0.0)
    device = next(field.parameters()).device
    if not resume:
        started = time.perf_counter()
        field.prepare(pool, np.random.default_rng([config.seed, 2]))
        spent = time.perf_counter() - started
    pool = pool.map(lambda tensor: tensor.to(device))
    recent, loss = [], math.nan
    first, began = step, spent
    like = pool.map(lambda tensor: tensor[: config.batch])
    train = training_steps(objective, field, optimizer, like)
    batches = shuffled_batches(pool, config.batch, config.seed, step)
    while (done := _done(step, spent, config)) < 1:
        started = time.perf_counter()
        batch = next(batches)
        total = _expected(config, step, spent, step - first, spent - began)
        rate = (
            min(1.0, (step + 1) / max(config.warmup, 1))
            * _cosine(done, config.final_rate)
            * _peak(config, total)
        )
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = peak * rate
        recent.append(train(batch, done))
        step += 1
        if step % REPORT_EVERY == 0:
            loss = float(torch.stack(recent).mean())
            recent.clear()
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"The loss became {loss} before step {step}; lower the field's learning rates."
                )
        # The clock counts training alone, without the caller's work between two steps.
        spent += time.perf_counter() - started
        yield Progress(step, _done(step, spent, config), spent, loss, optimizer)


def fit(
    field: Field,
    data: Sampler | Samples,
    objective: Objective,
    config: FitConfig,
    frame: Frame | None = None,
    bounds: Box | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    resume: Mapping[str, Tensor] | None = None,
) -> Fit:
    """Trains ``field`` on ``data``, a sampler or a pool drawn from one, and returns it as a `Fit`.
    A KeyboardInterrupt ends training and restores the weights of the lowest mean loss.

    ``frame`` is the frame that normalised the data (identity by default). ``bounds`` are the
    surface's world bounds (by default those of the tenth of the pool nearest to the surface).
    ``on_step`` is called with every `Progress`. Raises ValueError for a sample that is not finite,
    and FloatingPointError when the loss or a weight is not finite.
    """
    expect(field, Field, "field")
    expect(config, FitConfig, "config")
    if not isinstance(data, Samples) and not hasattr(data, "draw"):
        raise TypeError(f"data must be Samples or a sampler with draw, not {type(data).__name__}.")
    if not callable(objective):
        raise TypeError(f"objective must be a loss, not {type(objective).__name__}.")
    frame = frame or Frame.identity(field.in_dim)
    pool = _checked(data) if isinstance(data, Samples) else draw_pool(data, config)
    best = _Best(field)
    progress, interrupted = None, False
    try:
        for progress in fit_steps(field, pool, objective, config, resume):
            best.update(progress)
            on_step(progress)
    except KeyboardInterrupt:
        interrupted = True
        best.restore()
    with torch.no_grad():
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in field.parameters())
    if not finite:
        raise FloatingPointError(
            "Training ended with weights that are not finite; lower the field's learning rates."
        )
    return Fit(
        field,
        frame,
        bounds or _surface_bounds(pool, frame),
        lipschitz_estimate(field, pool.points[: 1 << 16]) if field.out_dim == 1 else math.inf,
        progress.step if progress else 0,
        progress.seconds if progress else 0.0,
        interrupted,
    )


def training_state(progress: Progress) -> dict[str, Tensor]:
    """The step, the clock and Adam's moments: with the field's weights, all that `fit_steps` needs
    to continue from ``progress``.

    Raises ValueError for progress without an optimiser.
    """
    if progress.optimizer is None:
        raise ValueError(
            "This training has no optimiser whose state could be kept; train with fit_steps."
        )
    return optimizer_state(progress.optimizer, progress.step, progress.seconds)


def lipschitz_estimate(field: Field, points: Tensor) -> float:
    """The 99.9th percentile of the gradient length of a scalar ``field`` at ``points (n, d)``, at
    least 1.

    The maximum, at a few creases of a fitted field, can be several times larger and would slow
    every query. Queries that use the estimate check their results and recover where it fails.
    """
    at = points.to(next(field.parameters()).device)
    lengths = torch.cat(
        [field.value_and_gradient(chunk)[1].norm(dim=1) for chunk in at.split(1 << 14)]
    )
    return max(1.0, float(lengths.quantile(0.999)))


class _Best:
    """Keeps the weights of the lowest mean loss, for an interrupted run to restore."""

    def __init__(self, field: Field):
        self.field, self.loss, self.weights = field, math.inf, None

    def update(self, progress: Progress) -> None:
        if progress.step % REPORT_EVERY == 0 and progress.loss < self.loss:
            self.loss = progress.loss
            self.weights = [parameter.detach().clone() for parameter in self.field.parameters()]

    def restore(self) -> None:
        if self.weights is not None:
            with torch.no_grad():
                for parameter, weight in zip(self.field.parameters(), self.weights):
                    parameter.copy_(weight)


def _checked(pool: Samples) -> Samples:
    named = (("point", pool.points), ("value", pool.values), ("gradient", pool.gradients))
    for name, tensor in named:
        if tensor is None:
            continue
        finite = torch.isfinite(tensor).all(dim=1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            raise ValueError(
                f"{int((~finite).sum())} training samples have a {name} that is not finite, first "
                f"sample {first}."
            )
    return pool


def _done(step: int, seconds: float, config: FitConfig) -> float:
    return min(1.0, step / config.steps if config.seconds is None else seconds / config.seconds)


def _expected(config: FitConfig, step: int, seconds: float, steps: int, spent: float) -> float:
    """The expected number of steps of a run that is at ``step`` after ``seconds``.

    A run with a time limit extrapolates the ``steps`` that it took in the seconds ``spent`` since
    it started or resumed.
    """
    if config.seconds is None or not spent > 0:
        return config.steps if config.seconds is None else step
    return step + steps * (config.seconds - seconds) / spent


def _peak(config: FitConfig, total: float) -> float:
    """The factor on the peak rates in a run of ``total`` steps."""
    return 1.0 if config.settle is None else min(1.0, (config.settle / max(total, 1.0)) ** (1 / 3))


def _cosine(done: float, final: float) -> float:
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def _surface_bounds(pool: Samples, frame: Frame) -> Box:
    """World bounds of the tenth of the pool that is nearest to the zero level set."""
    distance = pool.values.abs().amax(dim=1)
    near = pool.points[distance <= distance.kthvalue(max(1, len(pool) // 10)).values]
    corners = frame.to_world(
        torch.stack([near.amin(dim=0), near.amax(dim=0)]).double().cpu().numpy()
    )
    return Box(tuple(corners[0].tolist()), tuple(corners[1].tolist()))
