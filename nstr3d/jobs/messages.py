"""Sentences for the user that name options: as values to who calls the library, as flags to who
types them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPTION = re.compile("<([a-z_]+)>")
# How torch says, in a plain RuntimeError, that an allocation failed.
FAILED_ALLOCATIONS = ("DefaultCPUAllocator", "CUDA error: out of memory")


class Message(str):
    """The sentence ``template``, where <name> is the option of that name and the ``values``
    are put in as by `str.format`. As text it names the options as a caller writes them:
    keep_outliers; `with_flags` is the same for the command line: --keep-outliers."""

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
        """The sentence as the command line says it."""
        template = OPTION.sub(lambda found: "--" + found[1].replace("_", "-"), self.template)
        return template.format(*map(with_flags, self.values))


def with_flags(value: Any) -> Any:
    """``value``, of a `Message` the text that names flags."""
    return value.with_flags if isinstance(value, Message) else value


def sentence(error: BaseException, flags: bool = False) -> str:
    """The error in one line, which names options as ``flags`` or as values: an operating system's
    error keeps its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    said = error.args[0] if flags and error.args and isinstance(error.args[0], Message) else error
    return " ".join(str(with_flags(said)).split())


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
