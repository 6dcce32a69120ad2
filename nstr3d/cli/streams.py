"""Standard output and error of a command, which a closed pipe, a full disk, a lost terminal or an
encoding without some letter must not turn into a lost result."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from nstr3d.system import one_line

COLOURS = re.compile("\x1b\\[[0-9;]*m")  # escape sequences that change colours


class Stream:
    """The text stream ``stream``, whose writes never raise an exception.

    After a write that failed, text is dropped and ``fault`` is the error. Letters that the encoding
    lacks are written as escapes, such as ``\\xe9``. Colours are left out if the environment has
    NO_COLOR.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.fault: Exception | None = None
        self.plain = bool(os.environ.get("NO_COLOR"))

    def write(self, text: str) -> int:
        """Writes ``text`` and returns its length."""
        if self.fault is None:
            try:
                self._write(COLOURS.sub("", text) if self.plain else text)
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self.fault = error
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def writelines(self, lines: Any) -> None:
        """Writes each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self.fault is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self.fault = error

    def isatty(self) -> bool:
        """Whether the stream is a terminal that can still be written to."""
        try:
            return self.fault is None and self.stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # a copy that has no attributes yet
            raise AttributeError(name)
        return getattr(self.stream, name)

    def release(self) -> None:
        """Flushes the stream. If it has failed, its file becomes the null device, so that Python
        does not complain about the buffer when the process ends."""
        self.flush()
        if self.fault is None:
            return
        with suppress(OSError, ValueError, AttributeError):
            number = self.stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


@contextmanager
def own_words() -> Iterator[None]:
    """In the block stderr shows no words of libraries: of warnings only notes of class UserWarning
    itself, which this package gives, each in one line, and no log."""
    log, silent = logging.getLogger(), logging.NullHandler()

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if category is UserWarning:
            print(f"warning: {one_line(message)}", file=sys.stderr)

    log.addHandler(silent)
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            log.removeHandler(silent)


@contextmanager
def lasting_streams() -> Iterator[Stream]:
    """In the block, ``sys.stdout`` and ``sys.stderr`` are a `Stream` each; gives that of
    ``sys.stdout``. Those that the process was started without become the null device."""
    _open_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as null:
        streams = [Stream(null if stream is None else stream) for stream in before]
        sys.stdout, sys.stderr = streams  # type: ignore[assignment]
        try:
            yield streams[0]
        finally:
            for stream in streams:
                stream.release()
            sys.stdout, sys.stderr = before


def _open_descriptors() -> None:
    """Opens those of the file descriptors 0, 1 and 2 that are closed on the null device.

    Else the next file that is opened would get the number, and what a library writes to its
    standard error would be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
