"""A lock on an output: of the runs that would write the same files, one holds the lock.

Each run writes a record into the folder `RUNS` of the output: its process, its machine, when it
began, and a counter, its heartbeat. A run that asks for the lock first writes its record, then
reads those of others. It yields to a run that holds the lock. Of runs that ask at the same time,
that of the smallest ticket gets the lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nstr3d.io.atomic import is_abandoned
from nstr3d.system import Message, process_space, process_start

RUNS = ".runs"
BEAT = 10.0  # seconds between heartbeats
SILENCE = 60.0  # seconds without a heartbeat after which a run on another machine counts as dead
LARGEST = 1 << 16  # bytes of a record that are read
POLL = 0.05  # seconds between two readings of the record of a run that asks at the same time
TRIES = 20  # writes of a new record, whose folder another run may remove because it is empty
Record = dict[str, Any]


class Records(Protocol):
    """The output's folder, local or remote, in which the records are."""

    url: str

    def read(self, name: str, most: int | None = None) -> bytes:
        """The content of a file, at most ``most`` bytes. Raises FileNotFoundError if there is
        none."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes a file atomically and creates its folders."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file if it exists."""
        ...

    def names(self, under: str) -> list[str]:
        """Names of the files directly in the folder ``under``."""
        ...


@dataclass(frozen=True)
class Policy:
    """Which runs exclude each other, and what is said then.

    ``excludes`` says whether the run of a record excludes this run. ``refuse`` makes the error for
    this run from the other's description. ``wait`` is called once, with a sentence, before this run
    waits for a sign of life of another. ``beat`` and ``silence`` are in seconds.
    """

    refuse: Callable[[str], OSError]
    excludes: Callable[[Record], bool] = lambda record: True
    wait: Callable[[str], None] = lambda message: None
    beat: float = BEAT
    silence: float = SILENCE


class Lock:
    """A lock that a run holds, with the ``record`` of the run in the file ``name``."""

    def __init__(self, records: Records, name: str, record: Record):
        self.records, self.name, self.record = records, name, record
        self._guard = threading.Lock()

    def write(self, **changes: Any) -> None:
        """Writes the record with ``changes``. Raises OSError if that fails."""
        with self._guard:
            self.record |= changes
            self.records.write(self.name, json.dumps(self.record).encode())

    def held(self) -> bool:
        """Whether the record is still there: another run takes away the record of a run that has
        shown no sign of life, as that of a machine that slept."""
        return read_record(self.records, self.name) is not None


@contextlib.contextmanager
def hold(
    records: Records, policy: Policy, about: Mapping[str, Any] | None = None
) -> Iterator[Lock]:
    """Holds the lock on the output ``records`` during the ``with`` block.

    ``about`` are entries of the record besides those of this module. A dead run of this machine is
    recognised at once. A dead run of another machine or container, or of a system that does not
    report when a process started, is recognised after ``policy.silence`` seconds without a
    heartbeat; the function waits that long. Raises the error of ``policy.refuse`` while another run
    holds the lock, and OSError if the output cannot be written to.
    """
    name = f"{RUNS}/{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.json"
    record = {
        "host": platform.node(),
        "space": process_space(),
        "pid": os.getpid(),
        "born": process_start(os.getpid()),
        "began": time.time(),
        "ticket": secrets.token_hex(8),
        "holds": False,
        "beat": 0,
    }
    lock = Lock(records, name, record | dict(about or {}))
    _write_first(lock)
    stopped = threading.Event()
    pulse = threading.Thread(target=_beat, args=(lock, stopped, policy.beat), daemon=True)
    pulse.start()
    try:
        _refuse_others(lock, policy)
        lock.write(holds=True)
        yield lock
    finally:
        stopped.set()
        pulse.join()
        with contextlib.suppress(OSError):
            records.remove(name)


def remove_unfinished(folder: Path) -> None:
    """Removes the records in ``folder`` that killed runs have not finished writing."""
    with contextlib.suppress(OSError), os.scandir(folder / RUNS) as entries:
        for entry in entries:
            mark = entry.name.removesuffix(".json").rpartition(".")[2]
            if entry.name.startswith(".") and is_abandoned(mark, entry):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def remove_empty(folder: Path) -> None:
    """Removes the folder of records in ``folder``, unless it holds that of another run."""
    with contextlib.suppress(OSError):
        (folder / RUNS).rmdir()


def describe(record: Record) -> str:
    """The process of a run, its machine, and for how long it has run."""
    who = f"process {record['pid']} on {record['host']}"
    if "began" not in record:
        return who
    seconds = max(0, round(time.time() - record["began"]))
    minutes, hours = seconds // 60, seconds // 3600
    age = f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else ""
    return f"{who}, which began {age or f'{seconds} s'} ago"


def read_record(records: Records, name: str) -> Record | None:
    """The record in a file; None if there is none, or if it is not that of a run."""
    from nstr3d.io.lockschema import read_lock

    try:
        return read_lock(records.read(name, LARGEST))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def _write_first(lock: Lock) -> None:
    for number in range(TRIES):
        try:
            lock.write()
            return
        except OSError as error:
            if isinstance(error, FileNotFoundError) and number < TRIES - 1:
                continue  # another run has just removed the empty folder
            text = "{} cannot be written to ({}); choose another <out>."
            reason = error.strerror or error
            raise OSError(Message(text, lock.records.url, reason)) from error


def _beat(lock: Lock, stopped: threading.Event, seconds: float) -> None:
    """Increments the counter in the record every ``seconds`` until ``stopped`` is set or another
    run has taken the record away.

    A counter is used because the clocks of machines may differ.
    """
    while not stopped.wait(seconds):
        with contextlib.suppress(OSError):  # a full disk may have room at the next heartbeat
            if not lock.held():
                return
            lock.write(beat=lock.record["beat"] + 1)


def _refuse_others(lock: Lock, policy: Policy) -> None:
    """Returns once no other run can hold the lock. Raises the error of ``policy.refuse`` if another
    run holds it, or asks for it with a smaller ticket."""
    records = lock.records
    names = (f"{RUNS}/{entry}" for entry in records.names(RUNS))
    others = {name: read_record(records, name) for name in names if name != lock.name}
    for name in (name for name, run in others.items() if run is None and name.endswith(".json")):
        with contextlib.suppress(OSError):  # no run writes there, and the folder could not go
            records.remove(name)
    rivals = {name: run for name, run in others.items() if run and policy.excludes(run)}
    deadline, warned = time.monotonic() + policy.silence, False
    while rivals:
        asking = False
        for name, run in list(rivals.items()):
            latest = read_record(records, name)
            if latest is None:
                del rivals[name]
                continue
            lives = _lives(latest, latest["beat"] != run["beat"])
            late = time.monotonic() > deadline
            if lives is False or (lives is None and late):
                records.remove(name)
                del rivals[name]
            elif lives:
                # A run of another version holds the lock, since its record does not say.
                holds, ticket = latest.get("holds", True), latest.get("ticket", "")
                if holds or ticket < lock.record["ticket"] or late:
                    raise policy.refuse(describe(latest))
                asking = True
        if rivals and not asking and not warned:
            other, warned = describe(next(iter(rivals.values()))), True
            policy.wait(
                f"{records.url} has the lock of {other}; waiting up to {policy.silence:.0f} s for "
                "a sign of life."
            )
        if rivals:
            time.sleep(POLL if asking else min(1.0, policy.silence / 10))


def _lives(record: Record, beats: bool) -> bool | None:
    """Whether the run of ``record`` lives; None if only its heartbeat can tell.

    ``beats`` says that its counter has changed.
    """
    if beats:
        return True
    if record.get("space") != process_space():
        return None
    started = process_start(record["pid"])
    if started in (None, "alive"):  # the number may be that of another process now
        return None
    return started == record["born"]
