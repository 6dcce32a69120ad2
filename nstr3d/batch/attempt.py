"""One shape fitted in a process of its own kind, and its result published: the function that every
engine runs.

A `Slot` keeps one worker process, which fits shape after shape. If that dies, hangs or runs out of
memory, a new one takes its place, and the shape's row says what happened. Only this side writes to
the data set, so nothing is ever half there.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from nstr3d.batch.catalogue import REPORT
from nstr3d.batch.options import LOG, ShapeOptions
from nstr3d.batch.shapes import ShapeFile
from nstr3d.batch.store import Store, open_store
from nstr3d.jobs.results import MESH, MODEL, PICTURE
from nstr3d.jobs.stages import package_version

RENEW = 200  # shapes after which a worker is replaced: whatever a library leaks has an end
READY = 600.0  # seconds that a worker may take to start, on a busy network drive
ROOT = str(Path(__file__).resolve().parents[2])
# exit code of a process that was killed; Windows has neither the signal nor such a code
KILLED = -getattr(signal, "SIGKILL", 9)
# Threads that wait for each other sleep after some 30 microseconds: those of torch, which spin for
# long by default, slow workers down several times as soon as another process wants a processor.
SPINS = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "10000"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Rules:
    """How a shape is treated: ``timeout`` in seconds, ``memory`` in bytes or none, and the
    ``attempts`` it gets where a worker dies, which need not be its fault."""

    timeout: float = 3600.0
    memory: int | None = None
    attempts: int = 2


@dataclass(frozen=True)
class Task:
    """A shape to fit into the data set at ``out``, unless its result there has the ``known_key``
    that it would get; ``replaces`` says that there may be files of a former fit."""

    shape: ShapeFile
    out: str
    options: ShapeOptions
    rules: Rules
    known_key: str = ""
    replaces: bool = False


class Died(Exception):
    """The worker ended; the message says how. ``killed`` if from outside."""

    def __init__(self, code: int):
        self.killed = code in (KILLED, -signal.SIGTERM)
        super().__init__(_death(code))


class Cancelled(Exception):
    """The shape was given up because the run ends: nothing is said of it."""


class Slot:
    """A place for one shape at a time: ``threads`` for its worker and, of the GPU ``device`` if
    any, a ``share`` of memory."""

    def __init__(self, threads: int, device: str | None = None, share: float = 1.0):
        self.threads, self.device, self.share = threads, device, share
        self.cancelled = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The worker's answer. Raises Died, TimeoutError, or OSError where no worker can be
        started."""
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
        """Gives up what is being done, at once; called from another thread."""
        self.cancelled.set()
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> int:
        """Ends the worker, if there is one, and returns its exit code."""
        if self._process is None:
            return 0
        with suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.close()  # an idle worker ends by itself
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
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nstr3d.batch.worker", str(self.share)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                cwd="/",  # where no file of the user's is taken for a module
                start_new_session=True,  # Ctrl-C in a terminal is for the run
            )
            self._served, self._lines = 0, queue.SimpleQueue()
            reading = (self._process.stdout, self._lines)
            threading.Thread(target=_read_lines, args=reading, daemon=True).start()
            try:
                self._line(READY)
            except (EOFError, TimeoutError) as error:
                code = self.end()
                if self.cancelled.is_set():
                    raise Cancelled from None
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                raise OSError(
                    f"No worker process starts ({_death(code)}): {' '.join(last)}"
                ) from error

    def _line(self, timeout: float) -> bytes:
        """The worker's next line. Raises EOFError or TimeoutError."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if not line.endswith(b"\n"):
            raise EOFError
        return line


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Hands on the ``lines`` of a ``stream``, and an empty one at its end: a thread can wait for a
    pipe on every system, a selector on some."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def attempt(task: Task, slot: Slot) -> dict[str, Any]:
    """Fits one shape, publishes what came of it, and returns its report.

    Raises Cancelled where the slot was told to stop, and OSError where the data set cannot be
    written to or no worker starts.
    """
    started, number = time.perf_counter(), 0
    while True:
        number += 1
        with tempfile.TemporaryDirectory(prefix="nstr3d-", ignore_cleanup_errors=True) as scratch:
            answer = _ask(task, slot, Path(scratch))
            if answer["status"] in ("killed", "crashed") and number < task.rules.attempts:
                continue
            store = open_store(task.out)
            if answer["status"] == "same":
                return _renewed(store, task, answer["key"])
            report = _report(task, answer, number, time.perf_counter() - started)
            publish(store, task, Path(scratch), report)
            return report


def lost(task: Task, reason: str) -> dict[str, Any]:
    """Publishes, and returns, the report of a shape that was lost together with the machine that
    fitted it."""
    answer = {"status": "killed", "error": reason, "key": "", "report": {}, "peak_memory": None}
    report = _report(task, answer, task.rules.attempts, 0.0)
    with tempfile.TemporaryDirectory(prefix="nstr3d-") as scratch:
        publish(open_store(task.out), task, Path(scratch), report)
    return report


def publish(store: Store, task: Task, scratch: Path, report: Mapping[str, Any]) -> None:
    """Puts a shape's files into the data set, its report last, and removes those that a former fit
    left.

    Raises OSError with one sentence.
    """
    done = report["batch"]["status"] == "done"
    wanted = {
        MODEL: done,
        MESH: done and task.options.mesh,
        PICTURE: done and task.options.extraction.picture > 0,
        LOG: True,
    }
    made = {LOG: scratch / LOG} | {name: scratch / "out" / name for name in (MODEL, MESH, PICTURE)}
    wanted = {name: keep and made[name].exists() for name, keep in wanted.items()}
    try:
        for name, keep in wanted.items():
            if keep:
                store.put(made[name], f"{task.shape.id}/{name}")
        store.write(
            f"{task.shape.id}/{REPORT}", json.dumps(report, indent=2, allow_nan=False).encode()
        )
        for name, keep in wanted.items():
            if task.replaces and not keep:
                store.remove(f"{task.shape.id}/{name}")
    except OSError as error:
        raise OSError(
            f"{store.url} could not be written to ({error.strerror or error}); make room there "
            "and go on."
        ) from error


def _ask(task: Task, slot: Slot, scratch: Path) -> dict[str, Any]:
    """The worker's answer, or what its end amounts to."""
    request = {
        "place": task.shape.place,
        "scratch": str(scratch),
        "known_key": task.known_key,
        "options": asdict(task.options),
        "memory": task.rules.memory,
    }
    answer = {"key": "", "report": {}, "peak_memory": None}
    try:
        return slot.ask(request, task.rules.timeout)
    except TimeoutError:
        return answer | {
            "status": "timeout",
            "error": f"it took longer than {task.rules.timeout:g} s{_stage(scratch)}",
        }
    except Died as death:
        if slot.cancelled.is_set():
            raise Cancelled from None
        return answer | {
            "status": "killed" if death.killed else "crashed",
            "error": f"{death}{_stage(scratch)}",
        }


def _stage(scratch: Path) -> str:
    """In which stage a log ends."""
    try:
        lines = (scratch / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    stages = [line for line in lines if line.isalpha()]
    return f", in the stage {stages[-1]}" if stages else ""


def _death(code: int) -> str:
    if code == KILLED:
        return "its process was killed, as happens when memory runs out"
    if code < 0:
        return f"its process died of {signal.Signals(-code).name}"
    return f"its process ended with code {code}"


def _report(task: Task, answer: Mapping[str, Any], attempts: int, seconds: float) -> dict[str, Any]:
    report = dict(answer["report"]) or {
        "machine": {"versions": {"nstr3d": package_version("nstr3d")}}
    }
    source = dict(report.get("input") or {}) | {"path": task.shape.place}
    return report | {
        "input": source,
        "batch": {
            "status": answer["status"],
            "error": answer["error"],
            "path": task.shape.place,
            "key": answer["key"],
            "config": task.options.digest,
            "stamp": task.shape.stamp,
            "attempts": attempts,
            "seconds": seconds,
            "peak_memory": answer["peak_memory"],
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(),
        },
    }


def _renewed(store: Store, task: Task, key: str) -> dict[str, Any]:
    """The report that is there, with the input's new stamp: the file was touched, its content is
    the same.

    The report gets today's key too, for an earlier version may have written its own.
    """
    name = f"{task.shape.id}/{REPORT}"
    report = json.loads(store.read(name))
    now = {
        "stamp": task.shape.stamp,
        "path": task.shape.place,
        "key": key,
        "config": task.options.digest,
    }
    report["batch"] |= now
    store.write(name, json.dumps(report, indent=2, allow_nan=False).encode())
    return report
