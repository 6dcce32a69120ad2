"""Training: an iterator of steps, and `fit`, which drains it into a `Fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.kernels.field.fused import triton_wanted
from nstr3d.kernels.step.adam import AdamW
from nstr3d.sdf import Sdf, from_field
from nstr3d.training.graphs import CapturedSteps
from nstr3d.training.losses import Objective, SdfObjective
from nstr3d.training.sampling import Sampler
from nstr3d.types import Box, Frame, Samples

REPORT_EVERY = 50  # steps between looks at the loss: each look waits for the device
BINS = 1 << 14  # of coordinates that are sorted
# samples that stay together when a pool is shuffled anew: one at a time they come from memory, not
# from a cache
PIECE = 32


@dataclass(frozen=True)
class FitConfig:
    """How to train: AdamW (decay where a field's `rates` ask for it) with a linear warm-up and a
    cosine from each group's peak rate down to ``final_rate`` of it. Peaks fall with the cube root
    of the steps beyond ``settle``, unless that is None.

    ``pool`` samples are drawn and shuffled once, and every epoch takes pieces of up to 32 in
    another order. With ``seconds`` the schedule follows the clock and ``steps`` is ignored. The
    same seed, thread count and machine give the same bits, unless the clock decides.
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
    """Where training stands after ``step`` steps: ``done`` in [0, 1], seconds spent, the latest
    mean loss, and the optimiser where there is one."""

    step: int
    done: float
    seconds: float
    loss: float
    optimizer: AdamW | None = None


@dataclass(frozen=True)
class Fit:
    """A trained field, the frame that places it in the world, the world ``bounds`` of its surface,
    its Lipschitz bound (an estimate over samples), and where it came from."""

    field: Field
    frame: Frame
    bounds: Box
    lipschitz: float
    steps: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    provenance: Mapping[str, object] = dataclass_field(default_factory=dict)

    def sdf(self) -> Sdf:
        """The signed distance in world units. Raises ValueError for a field that is not one value
        over three dimensions."""
        return from_field(self.field, self.frame, self.bounds, self.lipschitz)


def draw_pool(sampler: Sampler, config: FitConfig) -> Samples:
    """The training pool that ``config.seed`` determines. Raises ValueError when a value or point is
    not finite."""
    return _checked(sampler.draw(config.pool, np.random.default_rng([config.seed, 0])))


def fit_steps(
    field: Field,
    pool: Samples,
    objective: Objective,
    config: FitConfig,
    resume: Mapping[str, Tensor] | None = None,
) -> Iterator[Progress]:
    """Trains ``field`` in place, one step per item; stop pulling to stop training.

    ``resume`` is a `training_state` whose field weights were restored: the run goes on as if never
    stopped. Raises ValueError for a pool smaller than a batch, FloatingPointError when the loss
    stops being finite.
    """
    if len(pool) < config.batch:
        raise ValueError(f"batch {config.batch} exceeds the pool of {len(pool)} samples.")
    optimizer = AdamW(field.rates(), config.betas)
    peaks = [group["lr"] for group in optimizer.param_groups]
    step, spent = _restore(optimizer, resume) if resume else (0, 0.0)
    device = next(field.parameters()).device
    if not resume:
        started = time.perf_counter()
        field.prepare(pool, np.random.default_rng([config.seed, 2]))
        spent = time.perf_counter() - started
    pool = pool.map(lambda tensor: tensor.to(device))
    recent, loss = [], math.nan
    first, began = step, spent
    train = _training_steps(
        objective, field, optimizer, pool.map(lambda tensor: tensor[: config.batch])
    )
    batches = _batches(pool, config, step)
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
        spent += (
            time.perf_counter() - started
        )  # the clock stands while whoever pulls the steps does something else
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
    """Trains ``field`` on ``data``, a sampler or a pool drawn from one, and returns it as a `Fit`;
    a KeyboardInterrupt keeps the best weights so far.

    ``frame`` is the frame the data was normalised with (identity by default) and ``bounds`` the
    surface's world bounds (by default those of the pool's innermost samples). ``on_step`` sees
    every `Progress`. Raises ValueError for a sample that is not finite, FloatingPointError when the
    loss or the weights stop being finite.
    """
    frame = frame or Frame.identity(field.in_dim)
    pool = _checked(data) if isinstance(data, Samples) else draw_pool(data, config)
    best = _Best(field)
    progress, interrupted = None, False
    try:
        for progress in fit_steps(field, pool, objective, config, resume):
            best.look(progress)
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
    """What `fit_steps` needs, beside the field's weights, to go on from ``progress``: step, clock
    and Adam's moments.

    Raises ValueError for progress without an optimiser.
    """
    state = {
        "step": torch.tensor(progress.step),
        "seconds": torch.tensor(progress.seconds, dtype=torch.float64),
    }
    if progress.optimizer is None:
        raise ValueError(
            "This training has no optimiser whose state could be kept; train with fit_steps."
        )
    parameters = [p for group in progress.optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        for name, tensor in progress.optimizer.state[parameter].items():
            state[f"adam.{index}.{name}"] = tensor.detach().clone()
    return state


def lipschitz_estimate(field: Field, points: Tensor) -> float:
    """Gradient length of a scalar ``field`` that all but one in a thousand of ``points (n, d)``
    stay below; at least 1.

    The largest length, at a few creases of a fitted field, can be several times that and would slow
    every query down; what relies on the estimate checks itself and recovers where it fails.
    """
    at = points.to(next(field.parameters()).device)
    lengths = torch.cat(
        [field.value_and_gradient(chunk)[1].norm(dim=1) for chunk in at.split(1 << 14)]
    )
    return max(1.0, float(lengths.quantile(0.999)))


class _Best:
    """Remembers the weights at the lowest mean loss seen, so that an interrupted run can return to
    them."""

    def __init__(self, field: Field):
        self.field, self.loss, self.weights = field, math.inf, None

    def look(self, progress: Progress) -> None:
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
    """How many steps a run will take that is at ``step`` after ``seconds``, having taken ``steps``
    in the time ``spent`` since it began or went on."""
    if config.seconds is None or not spent > 0:
        return config.steps if config.seconds is None else step
    return step + steps * (config.seconds - seconds) / spent


def _peak(config: FitConfig, total: float) -> float:
    """The share of the peak rates that a run of ``total`` steps takes."""
    return 1.0 if config.settle is None else min(1.0, (config.settle / max(total, 1.0)) ** (1 / 3))


def _cosine(done: float, final: float) -> float:
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def _batches(pool: Samples, config: FitConfig, step: int) -> Iterator[Samples]:
    """Batches from number ``step`` on, each a piece from every slab across the first axis, in the
    slabs' order: neighbours are trained on one after the other, and what they touch stays in the
    cache. The pool is shuffled once, and every epoch takes the pieces in an order of its own; the
    seed and the epoch determine it."""
    piece = math.gcd(PIECE, config.batch)
    slabs, per_epoch = config.batch // piece, len(pool) // config.batch
    order = (
        _slabs(pool.points[:, 0], slabs, config.seed)[:, : per_epoch * piece]
        .reshape(-1)
        .to(pool.points.device)
    )
    pieces = pool.map(lambda tensor: tensor.index_select(0, order).view(slabs * per_epoch, -1))
    firsts = torch.arange(slabs).unsqueeze(1) * per_epoch

    def batch_of(chosen: Tensor) -> Samples:
        return pieces.map(lambda tensor: tensor.index_select(0, chosen).view(config.batch, -1))

    while True:
        epoch, position = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        turns = torch.rand(slabs, per_epoch, generator=generator).argsort(dim=1) + firsts
        for chosen in turns.T.contiguous().to(pool.points.device)[position:]:
            yield batch_of(chosen)
            step += 1


def _slabs(coordinate: Tensor, count: int, seed: int) -> Tensor:
    """Indices ``(count, n // count)`` of ``coordinate (n,)``, which is in [-1, 1], in random order,
    and all of a row in one of ``count`` quantiles but for a few at its ends."""
    shuffled = torch.randperm(len(coordinate), generator=torch.Generator().manual_seed(seed))
    bins = ((coordinate.cpu().index_select(0, shuffled) + 1) * (BINS / 2)).clamp_(0, BINS - 1).int()
    counts = bins.bincount(minlength=BINS)
    slabs = ((counts.cumsum(0) - counts) * count // len(bins)).int().index_select(0, bins)
    return shuffled[slabs.argsort(stable=True)][: len(bins) // count * count].view(count, -1)


def _training_steps(
    objective: Objective, field: Field, optimizer: AdamW, like: Samples
) -> Callable[[Samples, float], Tensor]:
    """Steps of ``optimizer`` down the loss: ``(batch, progress)`` -> the loss before the step,
    detached. Where the objective allows they are compiled, if the field has such steps, or captured
    as a graph on a GPU, for batches ``like`` those."""
    if isinstance(objective, SdfObjective) and objective.transport is None:
        compiled = field.compiled_steps(objective.delta, objective.gradient_weight, optimizer)
        if compiled is not None:
            return lambda batch, progress: compiled(batch)
        if like.points.is_cuda and triton_wanted() and not objective.pulls(like):
            captured = CapturedSteps([field], objective, [like], optimizer)
            return lambda batch, progress: captured.step([batch])[0].clone()

    def step(batch: Samples, progress: float) -> Tensor:
        optimizer.zero_grad()
        loss = objective(field, batch, progress)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _restore(optimizer: AdamW, state: Mapping[str, Tensor]) -> tuple[int, float]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        prefix = f"adam.{index}."
        moments = {
            name.removeprefix(prefix): tensor.clone()
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        for name, shape in (
            ("exp_avg", parameter.shape),
            ("exp_avg_sq", parameter.shape),
            ("step", ()),
        ):
            if name not in moments or moments[name].shape != shape:
                raise ValueError(
                    f"The training state does not fit this field: {prefix}{name} is missing or "
                    "has another shape."
                )
        optimizer.state[parameter] = moments
    return int(state["step"]), float(state["seconds"])


def _surface_bounds(pool: Samples, frame: Frame) -> Box:
    """World bounds of the pool points closest to the zero level set."""
    distance = pool.values.abs().amax(dim=1)
    near = pool.points[distance <= distance.kthvalue(max(1, len(pool) // 10)).values]
    corners = frame.to_world(
        torch.stack([near.amin(dim=0), near.amax(dim=0)]).double().cpu().numpy()
    )
    return Box(tuple(corners[0].tolist()), tuple(corners[1].tolist()))
