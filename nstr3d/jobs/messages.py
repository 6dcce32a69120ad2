"""Errors as sentences for the user, which name options as values or as flags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nstr3d.system import Message, one_line, with_flags

# How torch says, in a plain RuntimeError, that an allocation failed.
FAILED_ALLOCATIONS = ("DefaultCPUAllocator", "CUDA error: out of memory")


def sentence(error: BaseException, flags: bool = False) -> str:
    """The error in one line, which names options as ``flags`` or as values: an operating system's
    error keeps its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    said = error.args[0] if flags and error.args and isinstance(error.args[0], Message) else error
    return one_line(with_flags(said))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises MemoryError for memory that torch could not get. On a GPU torch has a class for it; on
    a CPU it raises a RuntimeError whose message alone tells it from a defect."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if not any(part in str(error) for part in FAILED_ALLOCATIONS):
            raise
        raise MemoryError(str(error)) from error
