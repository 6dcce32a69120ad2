"""Queries to the operating system about this process, and messages that name options."""

from __future__ import annotations

import gc
import os
import platform
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OPTION = re.compile("<([a-z_]+)>")
# What a control group counts as its memory but gives back at once.
RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")
ENDED = ("Z", "X", "x")  # the states of a process that has ended, in /proc


class Message(str):
    """A message for the user that names options.

    In ``template``, ``<name>`` stands for the option of that name, and `str.format` inserts the
    ``values``. As a string, the message names an option as Python code does, keep_outliers.
    `with_flags` names it as the command line does, --keep-outliers.
    """

    template: str
    values: tuple[Any, ...]

    def __new__(cls, template: str, *values: Any) -> Message:
        message = super().__new__(cls, OPTION.sub(r"\1", template).format(*values))
        message.template, message.values = template, values
        return message

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.template, *self.values

    @property
    def with_flags(self) -> str:
        """The message with the option names of the command line."""
        template = OPTION.sub(lambda name: "--" + name[1].replace("_", "-"), self.template)
        return template.format(*map(with_flags, self.values))


def with_flags(value: Any) -> Any:
    """`Message.with_flags` of a `Message`; any other value unchanged."""
    return value.with_flags if isinstance(value, Message) else value


def one_line(text: object) -> str:
    """``str(text)`` on one line, with each run of white space replaced by one space."""
    return " ".join(str(text).split())


def package_version(package: str) -> str | None:
    """The installed version of ``package``; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def count_processors() -> int:
    """Number of processors that this process may use, as limited by a scheduler. macOS and Windows
    do not report the limit, so there it is the number of processors of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int | None:
    """Peak memory of this process in bytes, since `forget_peak_memory` (Linux) or since the process
    started (macOS). None if the system does not report it (Windows)."""
    # On Linux, the peak of getrusage starts from the memory of the parent process.
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, else kibibytes


def forget_peak_memory() -> None:
    """Resets `peak_memory` on Linux. Other systems cannot reset it."""
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


def limit_memory(limit: int | None) -> None:
    """Limits the data segment of this process to ``limit`` bytes; None means the hard limit.
    Raises OSError for a ``limit`` if the system has no such limit (Windows)."""
    try:
        import resource
    except ModuleNotFoundError:
        if limit is None:
            return
        raise OSError(
            "This system cannot limit the memory of a process; set no limit, or use Linux."
        ) from None
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit or hard, hard))


def process_start(pid: int) -> str | None:
    """A word for the start time of process ``pid`` of this machine, to compare for equality,
    because the system reuses process numbers.

    The word is "alive" if the system reports only that the process exists (macOS), "" if there is
    no such process or if it has ended and its parent has not noticed (a zombie), and None on
    Windows.
    """
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
        return "" if fields[0] in ENDED else fields[19]
    if sys.platform == "win32":  # os.kill(pid, 0) would interrupt the process there
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"


@lru_cache
def process_space() -> str:
    """A word for the system in which process numbers have a meaning: the machine's name and, on
    Linux, the boot and the namespace of process numbers, which a container may have of its own."""
    words = [platform.node()]
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        words.append(file.read().strip())
    with suppress(OSError):
        words.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(words)


@contextmanager
def without_collection() -> Iterator[None]:
    """A context for imports. They leave next to no garbage, and a look for it at every few hundred
    objects takes a seventh of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def prepare_opengl() -> None:
    """Loads triton, if it is installed, before a driver of OpenGL.

    Mesa's driver makes the names of its LLVM global. A triton that is loaded later, by
    ``torch.compile`` or an export, would call them instead of its own, which ends the process.
    """
    if sys.platform == "linux" and find_spec("triton"):
        with suppress(Exception):  # a triton that cannot be loaded does no harm
            import_module("triton")


def stop_signals() -> list[signal.Signals]:
    """The signals that ask this process to stop: SIGINT, SIGTERM and, where it exists, SIGHUP.

    SIGHUP is left out if the process was started to ignore it, as ``nohup`` does.
    """
    asked = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        asked.append(hangup)
    return asked


def free_memory() -> int | None:
    """Bytes of memory that this process can still take: the least of what the machine has free and
    what limits of the process and of its container leave. None if the system reports none of
    them."""
    free = [_meminfo(), *_limits_left(), *_containers_left()]
    return max(0, min(known)) if (known := [size for size in free if size is not None]) else None


def check_memory(size: float, subject: str, advice: str) -> None:
    """Raises ValueError if ``size`` bytes are more than the `free_memory`.

    The sentence begins with ``subject``, which needs the memory, and ends with ``advice``.
    """
    free = free_memory()
    if free is not None and size > free:
        text = "{} would take {} of memory, but {} are free; {}"
        raise ValueError(Message(text, subject, size_text(size), size_text(free), advice))


def size_text(size: float) -> str:
    """A number of bytes with three digits and a unit, such as 24 TB."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} PB"


def _meminfo() -> int | None:
    with suppress(OSError, StopIteration), open("/proc/meminfo", encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("MemAvailable")).split()[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):  # macOS, where this counts all memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _limits_left() -> list[int]:
    """What the limits of this process leave of its address space and of its data."""
    with suppress(ModuleNotFoundError, OSError, StopIteration):
        import resource

        with open("/proc/self/status", encoding="utf-8") as file:
            held = dict(line.split()[:2] for line in file if line.startswith("Vm"))
        pairs = (resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")
        limits = [(resource.getrlimit(kind)[0], int(held[name]) * 1024) for kind, name in pairs]
        return [limit - taken for limit, taken in limits if limit != resource.RLIM_INFINITY]
    return []


def _containers_left() -> Iterator[int]:
    """What the limits of the control groups of this process leave (Linux)."""
    with suppress(OSError, ValueError), open("/proc/self/cgroup", encoding="utf-8") as file:
        place = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
        group = Path("/sys/fs/cgroup", place.lstrip("/"))
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # the root has no limit, others say "max"
                limit = int((folder / "memory.max").read_text(encoding="utf-8"))
                stats = dict(
                    map(
                        str.split, (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
                    )
                )
                cache = sum(int(stats.get(name, 0)) for name in RECLAIMABLE)
                yield limit - int((folder / "memory.current").read_text(encoding="utf-8")) + cache
