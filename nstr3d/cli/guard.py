"""How a command ends: expected failures become one line on stderr and an exit code."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nstr3d.cli.streams import lasting_streams, own_words
from nstr3d.jobs.messages import Interrupted, memory_errors, sentence
from nstr3d.system import stop_signals


class Refused(Exception):
    """Raised for options that a dataclass refused with the ValueError ``reason``.

    tyro would catch the ValueError itself and exit with its own message and code.
    """

    def __init__(self, reason: ValueError):
        super().__init__(*reason.args)


def guarded(command: Callable[[], None]) -> int:
    """Runs ``command`` and returns the exit code.

    An expected failure prints one line on stderr and gives exit code 1; a stop gives 130. If the
    reader of stdout ends before the command does, as ``head``, the code says how the command
    itself went. Another failure to write to stdout gives 1.
    """
    with lasting_streams() as out, own_words(), _notices():
        code = _exit_code(command)
        out.flush()
        if out.fault is None or isinstance(out.fault, BrokenPipeError):
            return code
        print(
            f"error: the standard output could not be written to ({sentence(out.fault)}); the "
            "files of the results are not concerned.",
            file=sys.stderr,
        )
        return code or 1


def _exit_code(command: Callable[[], None]) -> int:
    try:
        with _stopped_like_interrupted(), memory_errors():
            command()
    except Interrupted as stop:
        print(sentence(stop, flags=True), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Stopped; files that were written before the stop are kept.", file=sys.stderr)
        return 130
    except MemoryError:
        print(
            "error: out of memory; use a smaller mesh, --resolution or --params.", file=sys.stderr
        )
        return 1
    except (Refused, ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        print(f"error: {sentence(error, flags=True)}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _notices() -> Iterator[None]:
    """In the block, what nstr3d logs on long work goes to stderr if it is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    logger, handler = logging.getLogger("nstr3d"), logging.StreamHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _stopped_like_interrupted() -> Iterator[None]:
    """In the block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that a terminated
    job cleans up too. Outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in stop_signals() if number != signal.SIGINT]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
