"""The surroundings of a process: questions to the operating system, and sentences for the user."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import Any

OPTION = re.compile("<([a-z_]+)>")


class Message(str):
    """A sentence for the user that names options.

    In ``template``, ``<name>`` stands for the option of that name; `str.format` puts in the
    ``values``. As text the sentence names options as a caller writes them, keep_outliers;
    `with_flags` names them as the command line does, --keep-outliers.
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
        """The sentence with the names that the command line has."""
        template = OPTION.sub(lambda name: "--" + name[1].replace("_", "-"), self.template)
        return template.format(*map(with_flags, self.values))


def with_flags(value: Any) -> Any:
    """The text of a `Message` that names flags; any other value unchanged."""
    return value.with_flags if isinstance(value, Message) else value


def one_line(text: object) -> str:
    """``str(text)`` on one line, each run of white space as one space."""
    return " ".join(str(text).split())


def count_processors() -> int:
    """Processors that this process may use, which a scheduler may have limited; all of the machine
    where the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int | None:
    """The most memory, in bytes, that the process has had since `forget_peak_memory` (Linux) or
    since it began; None where the system does not say (Windows)."""
    # Of Linux's two counts, that of getrusage begins with the memory of the parent process.
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, else kibibytes


def forget_peak_memory() -> None:
    """Starts `peak_memory` anew, where the system can (Linux)."""
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


def limit_memory(limit: int | None) -> None:
    """Lets the process allocate at most ``limit`` bytes, or as many as it is allowed to. Raises
    OSError where the system has no such limit (Windows)."""
    try:
        import resource
    except ModuleNotFoundError:
        if limit is None:
            return
        raise OSError(
            "This system cannot limit the memory of a process, as Linux does; set no limit."
        ) from None
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit or hard, hard))


def process_start(pid: int) -> str | None:
    """When the process ``pid`` of this machine started, as a word to compare, for a number may be
    another process's by now; "alive" where only that is known (macOS), "" where there is no such
    process, None where the system does not say (Windows)."""
    with suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[19]
    if sys.platform == "win32":  # os.kill(pid, 0) would interrupt the process there
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
