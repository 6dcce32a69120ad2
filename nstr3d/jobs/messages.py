"""Errors as sentences for the user, with options named as in Python or as command-line flags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nstr3d.system import Message, one_line, with_flags

# Texts by which torch reports, in a plain RuntimeError, that an allocation failed.
FAILED_ALLOCATIONS = ("DefaultCPUAllocator", "CUDA error: out of memory")


class Interrupted(Exception):
    """Raised when the user stopped the job; the message says what was kept."""


def sentence(error: BaseException, flags: bool = False) -> str:
    """The error's message on one line.

    With ``flags`` it names options as the command line does, else as Python does. The message of an
    operating system's error is its reason and its file.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    said = error.args[0] if flags and error.args and isinstance(error.args[0], Message) else error
    return one_line(with_flags(said))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises MemoryError if torch cannot allocate memory in the block.

    On a GPU torch raises an OutOfMemoryError. On a CPU it raises a RuntimeError that only its
    message distinguishes from a defect.
    """
    try:
        yield
    except RuntimeError as error:
        import torch

        failed = any(part in str(error) for part in FAILED_ALLOCATIONS)
        if not (failed or isinstance(error, torch.OutOfMemoryError)):
            raise
        raise MemoryError(str(error)) from error
