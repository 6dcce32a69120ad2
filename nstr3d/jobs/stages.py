"""What every job shares: where its files go, all together or not at all, how it is stopped, and
what it says while it works."""

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
    """The user stopped the job; the message says what was kept."""


@dataclass(frozen=True)
class Outcome:
    """A finished job: its report (what `report.json` holds) and the files written."""

    report: dict[str, Any]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Listener:
    """Where a job says what it is doing: ``stage`` names the next stage, ``fitting`` sees the field
    before it is trained in place, ``step`` follows training, ``warn`` is for the user."""

    stage: Callable[[str], None] = lambda name: None
    step: Callable[[Progress], None] = lambda progress: None
    warn: Callable[[str], None] = lambda message: None
    fitting: Callable[[Fit], None] = lambda fit: None


def pick_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here. Raises ValueError where it is not
    to be had."""
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
    """Warnings that jobs on this machine take longer than they need to: at most one, that nothing
    is compiled."""
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
    """Refuses to write files ``names`` to the folder ``out`` where it cannot, or where some are
    there already that are not ``expected``. Makes nothing: that can wait for something to write."""
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
    """Ctrl-C or SIGTERM set the event, so that work can stop where it is safe to; a second one
    stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def request(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise Interrupted(
                "Stopped at once."
            )  # `fit` would take a KeyboardInterrupt for the first
        stopped.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def tidy(out: Path, checkpoint: Path | None = None) -> Iterator[None]:
    """Turns a stop into `Interrupted`, and removes the folders made for ``out`` where nothing was
    put into them."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint is None or not checkpoint.exists():
            raise Interrupted("Stopped; nothing was written.") from None
        kept = Message("Stopped; {} is there to go on from with <resume>.", checkpoint)
        raise Interrupted(kept) from None
    finally:
        for folder in made:
            with suppress(OSError):  # it holds something, or was never made
                folder.rmdir()


@contextmanager
def writing_to(out: Path) -> Iterator[None]:
    """Makes the folder ``out``, and lets a disk that fails while it is written to say so in one
    sentence."""
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
def publish(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files move to ``out`` together when the block succeeds and
    vanish when it fails."""
    with writing_to(out):
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
        try:
            yield folder
            with stop_on_signal():  # a stop between two moves would leave half of them
                for path in sorted(folder.iterdir()):
                    os.replace(path, out / path.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def machine(device: torch.device) -> dict[str, Any]:
    """Where a job ran, with what, and the most memory, in bytes, that the process has had, None
    where the system does not say."""
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
    """The installed version of ``package``, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Clock:
    """Seconds spent in each named stage, which may be entered more than once."""

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
        """Seconds since the clock was made."""
        return time.perf_counter() - self.started
