"""Paths of computation that stand in for those of a GPU: plain torch on the CPU, with a fault."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.training.paths import ComputePath
from nstr3d.training.trials import serve

CPU = torch.device("cpu")


class Altered(TorchFunctionMode):
    """Multiplies the results of the torch function ``name`` in float32 by ``factor``."""

    def __init__(self, name: str, factor: float) -> None:
        super().__init__()
        self.name, self.factor = name, factor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        wanted = getattr(func, "__name__", "") == self.name
        return result * self.factor if wanted and result.dtype == torch.float32 else result


class StandIn(ComputePath):
    """Plain torch, which is right."""

    name = "right"
    means = "plain torch"

    @contextmanager
    def using(self) -> Iterator[None]:
        with plain_torch():
            self.begin()
            yield

    def begin(self) -> None:
        """What happens when the path is taken."""


class Wrong(StandIn):
    """Its values are a thousandth too large."""

    name, function, factor = "wrong", functional.linear.__name__, 1.001

    @contextmanager
    def using(self) -> Iterator[None]:
        with plain_torch(), Altered(self.function, self.factor):
            yield


class WrongSteps(Wrong):
    """Its values are right, and the gradients of its loss are not."""

    name, function = "wrong-steps", functional.huber_loss.__name__


class NotFinite(Wrong):
    name, factor = "not-finite", float("nan")


class Raising(StandIn):
    name = "raising"

    def begin(self) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")


class Exhausted(StandIn):
    name = "exhausted"

    def begin(self) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")


class Crashing(StandIn):
    name = "crashing"

    def begin(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Leaving(StandIn):
    name = "leaving"

    def begin(self) -> None:
        os._exit(3)


class Hanging(StandIn):
    name = "hanging"

    def begin(self) -> None:
        time.sleep(600)


class Absent(StandIn):
    name = "absent"

    def fault(self) -> str | None:
        return "it is not installed"


KINDS = (StandIn, Wrong, WrongSteps, NotFinite, Raising, Exhausted, Crashing, Leaving, Hanging)


def serve_standins() -> None:
    """What the process of the trials runs, with the stand-ins."""
    serve({kind.name: kind for kind in KINDS})
