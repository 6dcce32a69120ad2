"""The choice of a path of computation: the fastest of those that are right on this machine.

On a machine without a GPU there is nothing to choose, and nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nstr3d.system import Message
from nstr3d.training.calibration import Trial
from nstr3d.training.paths import (
    GPUS,
    PATHS,
    ComputePath,
    CpuKernels,
    FusedTriton,
    PlainTorch,
    gpu,
)
from nstr3d.training.trials import trials_of

CPU = torch.device("cpu")
AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """The ``path`` to take and, as a clause, ``why``; the ``trials`` of all paths that were
    compared, empty if nothing was measured, and ``warnings`` for the user."""

    path: ComputePath
    why: str
    trials: tuple[Trial, ...] = ()
    warnings: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The report's entry: the path's name and device, why it was chosen, its error and speeds
        (None if nothing was measured), and the trials of the other paths."""
        mine = [trial for trial in self.trials if _is_of(trial, self.path)]
        about = mine[0] if mine else Trial(self.path.name, str(self.path.device))
        return {
            "name": self.path.name,
            "device": str(self.path.device),
            "why": self.why,
            "error": about.error,
            "samples_per_second": about.training,
            "points_per_second": about.inference,
            "others": [asdict(trial) for trial in self.trials if trial not in mine],
        }


def by_training(trial: Trial) -> float:
    """The speed that counts for a fit."""
    return trial.training or 0.0


def by_inference(trial: Trial) -> float:
    """The speed that counts for a picture."""
    return trial.inference or 0.0


def choose(
    device: str = AUTO,
    path: str = AUTO,
    speed: Callable[[Trial], float] = by_training,
    measured: Callable[[Sequence[ComputePath]], Sequence[Trial]] = trials_of,
) -> Choice:
    """The fastest right path by ``speed``, among those on ``device`` (auto, cpu, cuda or mps) that
    ``path`` allows (auto, triton, torch or cpu). MPS is taken only if it is named.

    ``measured`` gives the trials of paths. Nothing is measured if the CPU alone may be used. A path
    that is asked for by name must be right, too. Raises ValueError for other words, for a device or
    path that this machine lacks, and if no path on a GPU that was asked for is right.
    """
    paths = candidates(device, path)
    if [each.device.type for each in paths] == ["cpu"]:
        asked = device == "cpu" or path != AUTO
        why = "torch finds no GPU" if gpu() is None else "MPS is taken only if it is named"
        return Choice(paths[0], "asked for" if asked else why)
    trials = tuple(measured(paths))
    right = [pair for pair in zip(paths, trials, strict=True) if pair[1].right]
    if path != AUTO and not right:
        text = "<path> {} cannot be used on {}: {}; use <path> auto."
        raise ValueError(Message(text, path, trials[0].device, trials[0].fault))
    failed = [
        trial for each, trial in zip(paths, trials) if not trial.right and each.fault() is None
    ]
    warnings = tuple(
        f"The path {trial.path} on {trial.device} is left out: {trial.fault}." for trial in failed
    )
    if not right:
        return _unverified(device, trials, warnings)
    best = max(right, key=lambda pair: speed(pair[1]))[0]
    why = f"the fastest of {len(right)} right paths" if len(right) > 1 else "the only right path"
    return Choice(best, "asked for, and right" if path != AUTO else why, trials, warnings)


def candidates(device: str, path: str) -> list[ComputePath]:
    """The paths on ``device`` that ``path`` allows. Raises ValueError like `choose`."""
    here = gpu()
    if device not in (AUTO, "cpu", *GPUS):
        raise ValueError(
            Message("<device> is one of {}, not {}.", ", ".join((AUTO, "cpu", *GPUS)), device)
        )
    if path not in (AUTO, *PATHS):
        raise ValueError(Message("<path> is one of {}, not {}.", ", ".join((AUTO, *PATHS)), path))
    if device in GPUS and (here is None or here.type != device):
        raise ValueError(_missing(device))
    # The whole of a fit has not been seen to be faster on MPS: pictures need float64 and are traced
    # on the CPU.
    if here is None or device == "cpu" or (device == AUTO and here.type == "mps"):
        return [_on_cpu(path)]
    paths: list[ComputePath] = [PlainTorch(here)]
    if here.type == "cuda":
        paths.insert(0, FusedTriton(here))
    if device == AUTO:
        paths.append(CpuKernels(CPU))
    allowed = [each for each in paths if path in (AUTO, each.name)]
    if not allowed:
        text = "<path> {} is not for <device> {}; use <path> auto."
        raise ValueError(Message(text, path, device if device != AUTO else here.type))
    return allowed


def _on_cpu(path: str) -> ComputePath:
    """The path on the CPU that ``path`` allows."""
    if path == "triton":
        raise ValueError(
            Message("<path> triton needs a GPU with CUDA or ROCm; use <path> auto, cpu or torch.")
        )
    return PlainTorch(CPU) if path == "torch" else CpuKernels(CPU)


def _missing(device: str) -> Message:
    """What is said of a GPU that was asked for and is not there."""
    if device == "cuda":
        return Message(
            "<device> cuda: this torch finds no CUDA device; use <device> cpu, or install a "
            "CUDA build of torch."
        )
    return Message("<device> mps: this torch finds no GPU of Apple; use <device> cpu.")


def _unverified(device: str, trials: tuple[Trial, ...], warnings: tuple[str, ...]) -> Choice:
    """The choice where no path is right. Raises ValueError if a GPU was asked for."""
    if device != AUTO:
        reasons = "; ".join(f"{trial.path}: {trial.fault}" for trial in trials)
        text = "<device> {}: no path is right on this device ({}); use <device> cpu."
        raise ValueError(Message(text, device, reasons))
    last = "No path could be verified; the CPU is used, whose results are not verified either."
    return Choice(CpuKernels(CPU), "no path could be verified", trials, (*warnings, last))


def _is_of(trial: Trial, path: ComputePath) -> bool:
    return (trial.path, trial.device) == (path.name, str(path.device))
