"""What all jobs share: stopping, progress, timing and the machine."""

from __future__ import annotations

import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nstr3d.jobs.messages import Interrupted
from nstr3d.kernels.available import INSTALL, numba_fault
from nstr3d.system import package_version, peak_memory, stop_signals

if TYPE_CHECKING:
    from nstr3d.training.choice import Choice
    from nstr3d.training.fit import Fit, Progress


@dataclass(frozen=True)
class Outcome:
    """The result of a finished job: its ``report`` (report.json) and the ``files`` it wrote."""

    report: dict[str, Any]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Listener:
    """The callbacks to which a job reports.

    ``stage`` gets the name of the stage that begins, ``fitting`` the unfinished fit whose field is
    then trained in place, ``step`` the progress after each training step, and ``warn`` a warning
    for the user.
    """

    stage: Callable[[str], None] = lambda name: None
    step: Callable[[Progress], None] = lambda progress: None
    warn: Callable[[str], None] = lambda message: None
    fitting: Callable[[Fit], None] = lambda fit: None


def slowness() -> list[str]:
    """Warnings about what slows jobs on this machine: one if numba cannot be imported, so that
    nothing is compiled, or if no lasting folder for compiled kernels can be written to."""
    fault = numba_fault()
    if fault is None:
        from nstr3d.kernels.compiled import cache_warning

        warning = cache_warning()
        return [] if warning is None else [warning]
    return [
        f"numba could not be imported ({fault}), so nothing is compiled and fits take several "
        f"times as long: {INSTALL}."
    ]


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Gives an event that Ctrl-C, SIGTERM or SIGHUP sets, so that work can stop at a safe point.

    A second signal raises `Interrupted` at once. Outside the main thread no signal is handled.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def request(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise Interrupted(
                "Stopped at once."
            )  # `fit` would treat a KeyboardInterrupt like the first request
        stopped.set()

    before = {number: signal.signal(number, request) for number in stop_signals()}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def machine(choice: Choice | None = None) -> dict[str, Any]:
    """The report's entry on the machine: device, threads, platform, versions and the process's
    peak memory in bytes, which is None if the system does not report it. With a ``choice``, also
    the path of computation; without, the device is the CPU."""
    import torch

    packages = ("nstr3d", "torch", "numpy", "libigl", "numba")
    return {
        "device": "cpu" if choice is None else str(choice.path.device),
        **({} if choice is None else {"path": choice.describe()}),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in packages},
        "peak_memory_bytes": peak_memory(),
    }


class Clock:
    """Measures the ``seconds`` spent in each named stage, which may be entered more than once."""

    def __init__(self):
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    @property
    def total(self) -> float:
        """Seconds since the clock was created."""
        return time.perf_counter() - self.started
