"""What all jobs share: publishing files together, stopping, progress, timing and the machine."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from nstr3d.jobs.messages import Message
from nstr3d.kernels.available import INSTALL, numba_fault
from nstr3d.system import peak_memory
from nstr3d.training.fit import Fit, Progress


class Interrupted(Exception):
    """Raised when the user stopped the job; the message says what was kept."""


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


def pick_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu`` or ``cuda``; auto is CUDA where torch finds a CUDA
    device. Raises ValueError for another name, and for cuda where torch finds none."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(Message("<device> is one of auto, cpu, cuda, not {}.", name))
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            Message(
                "<device> cuda: this torch finds no CUDA device; use <device> cpu, or install a "
                "CUDA build of torch."
            )
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def slowness() -> list[str]:
    """Warnings about what slows jobs on this machine: one if numba cannot be imported, so that
    nothing is compiled."""
    fault = numba_fault()
    if fault is None:
        return []
    return [
        f"numba could not be imported ({fault}), so nothing is compiled and fits take several "
        f"times as long: {INSTALL}."
    ]


def check_output(
    out: Path,
    names: Collection[str],
    overwrite: bool,
    expected: Collection[str] = (),
    going_on: str = "",
) -> None:
    """Raises OSError if the files ``names`` cannot be written to the folder ``out``, or if some
    exist already and may not be replaced.

    Existing files may be replaced if ``overwrite`` is true or if all are ``expected``. ``going_on``
    is text for the message: an option to name before the option overwrite. The folder is
    created later, with the first file.
    """
    nearest = next(folder for folder in (out, *out.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise NotADirectoryError(Message("{} is not a folder; choose another <out>.", nearest))
    for name in names:
        if (out / name).is_dir():
            raise IsADirectoryError(
                Message(
                    "{} is a folder where a file is to be written; choose another <out>.",
                    out / name,
                )
            )
    present = [name for name in names if (out / name).exists()]
    if not overwrite and not set(expected).issuperset(present):
        raise FileExistsError(
            Message(
                "{} already holds {}; pass {}<overwrite> or another <out>.",
                out,
                ", ".join(present),
                going_on,
            )
        )
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(
            Message("{} cannot be written to ({}); choose another <out>.", nearest, error.strerror)
        ) from error


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Gives an event that Ctrl-C or SIGTERM sets, so that work can stop at a safe point.

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

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def tidy(out: Path, checkpoint: Path | None = None) -> Iterator[threading.Event]:
    """Turns KeyboardInterrupt into `Interrupted`, and removes those folders created for ``out``
    that are empty at the end. Gives an event to be set once ``out`` holds the results."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    published = threading.Event()
    try:
        yield published
    except KeyboardInterrupt:
        if published.is_set():
            raise Interrupted(f"Stopped; the results are complete in {out}.") from None
        if checkpoint is None or not checkpoint.exists():
            raise Interrupted("Stopped; nothing was written.") from None
        kept = Message("Stopped; the checkpoint is {}; go on with <resume>.", checkpoint)
        raise Interrupted(kept) from None
    finally:
        for folder in made:
            with suppress(OSError):  # the folder is not empty, or was never created
                folder.rmdir()


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Creates the folder ``out``, and turns an OSError in the block into one sentence that names
    the folder and the reason."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            Message(
                "{} could not be written to ({}); make room there or choose another <out>.",
                out,
                reason,
            )
        ) from error


@contextmanager
def publish(out: Path, published: threading.Event) -> Iterator[Path]:
    """Gives a temporary folder, whose files move to ``out`` together if the block succeeds and are
    deleted if it fails. Sets ``published`` once they have moved."""
    with writing_to(out):
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
        try:
            yield folder
            with stop_on_signal():  # a stop between two moves would publish only some files
                for path in sorted(folder.iterdir()):
                    os.replace(path, out / path.name)
                published.set()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def machine(device: torch.device) -> dict[str, Any]:
    """The report's entry on the machine: device, threads, platform, versions and the process's
    peak memory in bytes, which is None if the system does not report it."""
    packages = ("nstr3d", "torch", "numpy", "libigl", "numba")
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in packages},
        "peak_memory_bytes": peak_memory(),
    }


def package_version(package: str) -> str | None:
    """The installed version of ``package``; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
