"""A worker process that is asked to fit one shape after another."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

RENEW = 200  # shapes after which a worker is replaced, to bound what libraries leak
READY = 600.0  # seconds that a worker may take to start; a busy network drive is slow
ROOT = str(Path(__file__).resolve().parents[2])
# Exit code of a process that SIGKILL ended. Windows has neither the signal nor the code.
KILLED = -getattr(signal, "SIGKILL", 9)
# With this spin count a waiting OpenMP thread sleeps after about 30 microseconds. By default the
# threads of torch spin for long, which slows workers down several times as soon as another process
# wants a processor.
SPINS = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "10000"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

# The program of a worker. Its imports are most of its start.
WORKER = """
from nstr3d.system import without_collection
with without_collection():
    import nstr3d.batch.worker as worker
worker.main()
"""


class Died(Exception):
    """The worker process ended; the message says how.

    ``killed`` is true if SIGKILL or SIGTERM ended it.
    """

    def __init__(self, code: int):
        self.killed = code in (KILLED, -signal.SIGTERM)
        super().__init__(_describe_death(code))


class Cancelled(Exception):
    """The shape was abandoned because the run stops; no report is written."""


class Slot:
    """A worker process that fits one shape at a time, started when first asked.

    The worker uses ``threads`` threads. ``device`` is the GPU that it sees
    (``CUDA_VISIBLE_DEVICES``), None for no restriction; ``share`` is the fraction of the GPU's
    memory that it may use.
    """

    def __init__(self, threads: int, device: str | None = None, share: float = 1.0):
        self.threads, self.device, self.share = threads, device, share
        self.cancelled = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The worker's answer to ``request``.

        Raises Died if the worker ends, TimeoutError after ``timeout`` seconds (the worker is then
        ended), OSError if no worker starts, and Cancelled if `cancel` stops its start.
        """
        if self._process is None or self._served >= RENEW:
            self.end()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._served += 1
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._line(timeout))
        except TimeoutError:
            self.end()
            raise
        except (BrokenPipeError, EOFError):
            raise Died(self.end()) from None

    def cancel(self) -> None:
        """Kills the worker, which abandons its shape; called from another thread."""
        self.cancelled.set()
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> int:
        """Ends the worker and returns its exit code, 0 if there is no worker."""
        if self._process is None:
            return 0
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()  # an idle worker then exits by itself
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        code = self._process.wait()
        self._process = None
        return code

    def _start(self) -> None:
        environment = SPINS | os.environ | dict.fromkeys(THREADS, str(self.threads))
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, (ROOT, os.environ.get("PYTHONPATH")))
        )
        if self.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.device
        with tempfile.TemporaryFile() as stderr_file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(self.share)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr_file,
                env=environment,
                cwd="/",  # no file of the user can shadow a module there
                start_new_session=True,  # Ctrl-C in a terminal must reach only the run
            )
            if self.cancelled.is_set():  # `cancel` found no process to kill
                self._process.kill()
            self._served, self._lines = 0, queue.SimpleQueue()
            reading = (self._process.stdout, self._lines)
            threading.Thread(target=_read_lines, args=reading, daemon=True).start()
            try:
                self._line(READY)
            except (EOFError, TimeoutError) as error:
                how = _describe_death(self.end())
                if isinstance(error, TimeoutError):
                    how = f"it was not ready within {READY:g} s"
                if self.cancelled.is_set():
                    raise Cancelled from None
                stderr_file.seek(0)
                last_line = stderr_file.read().decode(errors="replace").strip().splitlines()[-1:]
                raise OSError(f"No worker process starts ({how}): {' '.join(last_line)}") from error

    def _line(self, timeout: float) -> bytes:
        """The worker's next line.

        Raises EOFError if its output ends and TimeoutError after ``timeout`` seconds.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if not line.endswith(b"\n"):
            raise EOFError
        return line


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Puts each line of ``stream`` into the queue ``lines``, then ``b""`` at its end.

    A thread can wait for a pipe on every system; a selector cannot on Windows.
    """
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _describe_death(code: int) -> str:
    if code == KILLED:
        return "its process was killed, as happens when memory runs out"
    if code < 0:
        known = -code in set(signal.Signals)  # not so the signals of real time
        return f"its process died of {signal.Signals(-code).name if known else f'signal {-code}'}"
    return f"its process ended with code {code}"
