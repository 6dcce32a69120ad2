"""Whether a path of computation is right, and how fast it is.

A small field is evaluated and takes one training step on the path and, in float64 in plain torch,
on the CPU: the twin. A path is right if it agrees with the twin.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.kernels.step.adam import AdamW
from nstr3d.system import one_line
from nstr3d.training.fit import FitConfig
from nstr3d.training.losses import SdfObjective
from nstr3d.training.paths import ComputePath
from nstr3d.training.presets import levels_for
from nstr3d.training.steps import training_steps
from nstr3d.types import Samples

# Largest error of a right path: twenty times that of the CPU's kernels, and a tenth of that of
# matrix products in tf32.
TOLERANCE = 2e-4
TURN = 0.25  # seconds in which training is timed, and in which evaluation is timed
FINEST = 24  # cells per axis of the finest level of the field
BATCH = FitConfig.batch  # samples of a training step that is timed
COMPARED_BATCH = 1000  # samples of the step that is compared; no multiple of a kernel's block
POINTS = 1 << 16  # points of an evaluation that is timed
COMPARED = 1000  # random points that are compared with the twin, besides those on cells' faces
RADIUS = 0.6  # of the sphere whose distance the samples have


@dataclass(frozen=True)
class Trial:
    """What was measured of a path.

    ``error`` is the largest of the relative errors of values, gradients, loss and training step.
    ``training`` is in samples per second and ``inference`` in points per second. They are None for
    a path with a ``fault``, a clause that says why the path is left out; of a path that disagrees
    with the twin, the error is known. A ``passing`` fault, such as a lack of memory, may be gone in
    the next run.
    """

    path: str
    device: str
    error: float | None = None
    training: float | None = None
    inference: float | None = None
    fault: str | None = None
    passing: bool = False

    @property
    def right(self) -> bool:
        """Whether the path may be taken."""
        return self.fault is None


@dataclass(frozen=True)
class Answers:
    """What a path says: values ``(n, 1)`` and gradients ``(n, 3)`` at the compared points, the loss
    of a batch ``(1,)``, each parameter's gradient of the loss times a constant, and the values
    after a training step. All are float64 on the CPU."""

    values: Tensor
    gradients: Tensor
    loss: Tensor
    moments: tuple[Tensor, ...]
    after: Tensor

    def error(self, twin: Answers) -> float:
        """The largest relative error of these answers; NaN if one of them is not finite.

        The change that a step makes is compared in the mean: Adam moves a parameter whose gradient
        is mere rounding by a full step in a random direction.
        """
        pairs = [(self.values, twin.values), (self.gradients, twin.gradients)]
        pairs += [(self.loss, twin.loss), *zip(self.moments, twin.moments, strict=True)]
        errors = [_largest(one - other) / _largest(other) for one, other in pairs]
        change, wanted = self.after - self.values, twin.after - twin.values
        errors.append(float((change - wanted).abs().mean() / wanted.abs().mean()))
        return math.nan if any(map(math.isnan, errors)) else max(errors)


def measure(path: ComputePath, turn: float = TURN) -> Trial:
    """The trial of ``path``, which never raises: an exception becomes the trial's fault.

    Training and evaluation are timed for ``turn`` seconds each if the path is right.
    """
    trial = Trial(path.name, str(path.device))
    try:
        if (fault := path.fault()) is not None:
            return replace(trial, fault=fault)
        with path.using():
            error = _answers(_field().to(path.device), path.device).error(_twin())
            if not error <= TOLERANCE:
                return replace(trial, error=_finite(error), fault=_disagreement(error))
            training, inference = _rates(path, turn)
    except torch.OutOfMemoryError:
        return replace(trial, fault="the device has too little free memory", passing=True)
    except MemoryError:
        return replace(trial, fault="the machine has too little free memory", passing=True)
    except Exception as error:  # compilers and drivers raise any exception
        return replace(trial, fault=f"it failed with {type(error).__name__}: {_short(error)}")
    return replace(trial, error=error, training=training, inference=inference)


def _disagreement(error: float) -> str:
    if not math.isfinite(error):
        return "it returned numbers that are not finite"
    return (
        f"its results differ from those in double precision by {error:.1e} of the largest, where "
        f"{TOLERANCE:.0e} is allowed"
    )


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None


def _short(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def _rates(path: ComputePath, turn: float) -> tuple[float, float]:
    """Samples per second of training steps, and points per second of evaluations."""
    field, batch = _field().to(path.device), _samples(BATCH, path.device)
    points = _random(POINTS, 2).to(path.device)
    optimizer = AdamW(field.rates(), FitConfig.betas)
    step = training_steps(SdfObjective(), field, optimizer, batch)

    def infer() -> None:
        with torch.no_grad():
            field(points)

    return (
        BATCH / _seconds(lambda: step(batch, 0.0), path, turn),
        POINTS / _seconds(infer, path, turn),
    )


def _seconds(call: Callable[[], object], path: ComputePath, turn: float) -> float:
    """The seconds of a call: the least of the means over runs of calls, each run followed by one
    wait for the device. The first call, which may compile, is not timed."""
    call()
    path.wait()
    least, calls, until = math.inf, 1, time.perf_counter() + turn
    while least == math.inf or time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        path.wait()
        spent = time.perf_counter() - started
        least = min(least, spent / calls)
        calls = max(1, min(2 * calls, int(turn / 8 / least)))
    return least


@lru_cache(maxsize=1)
def _twin() -> Answers:
    with plain_torch():
        return _answers(_field().double(), torch.device("cpu"), torch.float64)


def _answers(field: Field, device: torch.device, dtype: torch.dtype = torch.float32) -> Answers:
    """The answers of ``field``, which takes a step."""
    batch = _samples(COMPARED_BATCH, device).map(lambda tensor: tensor.to(dtype))
    points = _compared().to(device, dtype)
    with torch.no_grad():
        values = field(points)
    gradients = field.value_and_gradient(points)[1]
    optimizer = AdamW(field.rates(), FitConfig.betas)
    loss = training_steps(SdfObjective(), field, optimizer, batch)(batch, 0.0)
    moments = [optimizer.state[parameter]["exp_avg"] for parameter in field.parameters()]
    with torch.no_grad():
        after = field(points)
    return Answers(
        _exact(values),
        _exact(gradients),
        _exact(loss.reshape(1)),
        tuple(map(_exact, moments)),
        _exact(after),
    )


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().clone()


def _field() -> Nstr:
    """A copy of the field on the CPU, with random parameters that all count."""
    return copy.deepcopy(_original())


@lru_cache(maxsize=1)
def _original() -> Nstr:
    near = torch.nn.functional.normalize(_random(20_000, 0), dim=1) * RADIUS
    field = NstrConfig(levels=levels_for(FINEST)).build(3, 1, near=near.numpy())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    field.fresh = False
    return field


def _random(count: int, seed: int) -> Tensor:
    """Points ``(count, 3)`` in the unit box."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _compared() -> Tensor:
    """Random points, and points on faces, edges and corners of cells and of the unit box."""
    edges = (_random(200, 4) * (FINEST / 2)).round() / (FINEST / 2)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
    return torch.cat([_random(COMPARED, 3), edges, corners])


def _samples(count: int, device: torch.device) -> Samples:
    """Samples of the distance to a sphere, a half of them with gradients."""
    points = _random(count, 5)
    length = points.norm(dim=1, keepdim=True)
    gradients = points / length
    gradients[::2] = 0
    return Samples(points, length - RADIUS, gradients).map(lambda tensor: tensor.to(device))
