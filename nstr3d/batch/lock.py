"""A lock on a data set: two runs exclude each other if their shards have shapes in common.

Each run writes a file with a counter, its heartbeat, into the folder `RUNS` of the data set.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

from nstr3d.batch.store import Store
from nstr3d.system import Message, process_start

RUNS = ".runs"
BEAT = 10.0  # seconds between heartbeats
LARGEST = 1 << 16  # bytes of a run's file that are read
SILENCE = 60.0  # seconds without a heartbeat after which a run on another machine counts as dead


@contextlib.contextmanager
def working_on(
    store: Store, shard: tuple[int, int], beat: float = BEAT, silence: float = SILENCE
) -> Iterator[None]:
    """Holds the shapes of ``shard``, part i of n counted from 1, during the ``with`` block.

    The run writes a heartbeat every ``beat`` seconds. A dead run of this machine is recognised at
    once. A dead run of another machine, or of a system that does not report when a process started,
    is recognised after ``silence`` seconds without a heartbeat; the function waits that long.
    Raises FileExistsError while another run holds some of the same shapes, and OSError if the store
    cannot be written.
    """
    name = f"{RUNS}/{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.json"
    record = {
        "host": platform.node(),
        "pid": os.getpid(),
        "born": process_start(os.getpid()),
        "shard": list(shard),
        "beat": 0,
    }
    try:
        store.write(name, json.dumps(record).encode())
    except OSError as error:
        raise OSError(
            Message(
                "{} cannot be written to ({}); choose another <out>.",
                store.url,
                error.strerror or error,
            )
        ) from error
    stopped = threading.Event()
    pulse = threading.Thread(
        target=_write_heartbeats, args=(store, name, record, stopped, beat), daemon=True
    )
    pulse.start()
    try:
        _refuse_others(store, name, shard, silence)
        yield
    finally:
        stopped.set()
        pulse.join()
        with contextlib.suppress(OSError):
            store.remove(name)


def _write_heartbeats(
    store: Store, name: str, record: dict[str, Any], stopped: threading.Event, beat: float
) -> None:
    """Increments the counter in the run's file every ``beat`` seconds until ``stopped`` is set.

    A counter is used because the clocks of machines may differ.
    """
    while not stopped.wait(beat):
        record["beat"] += 1
        with contextlib.suppress(OSError):  # a full disk may have room at the next heartbeat
            store.write(name, json.dumps(record).encode())


def _refuse_others(store: Store, own_name: str, shard: tuple[int, int], silence: float) -> None:
    others = {
        name: _read_record(store, name)
        for name in (f"{RUNS}/{entry}" for entry in store.names(RUNS))
        if name != own_name
    }
    rivals = {name: run for name, run in others.items() if run and meet(shard, tuple(run["shard"]))}
    deadline = time.monotonic() + silence
    while rivals:
        for name, run in list(rivals.items()):
            started = process_start(run["pid"]) if run["host"] == platform.node() else None
            if started is not None and started == run["born"]:
                _refuse(store, name, run)
            if started is not None or time.monotonic() > deadline:
                store.remove(name)
                del rivals[name]
                continue
            latest = _read_record(store, name)
            if latest is None:
                del rivals[name]
            elif latest["beat"] != run["beat"]:
                _refuse(store, name, run)
        if rivals:
            time.sleep(min(1.0, silence / 10))


def _refuse(store: Store, name: str, run: dict[str, Any]) -> None:
    who = f"process {run['pid']} on {run['host']}"
    raise FileExistsError(
        Message(
            "{} is being written by {}, which fits some of the same shapes; wait for it to end, or "
            "split the shapes with <shard>.",
            store.url,
            who,
        )
    )


def meet(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether shards i of n and j of m, counted from 1, can have shapes in common.

    They can if some integer is congruent to i modulo n and to j modulo m (Chinese remainder
    theorem).
    """
    return (first[0] - second[0]) % math.gcd(first[1], second[1]) == 0


def _read_record(store: Store, name: str) -> dict[str, Any] | None:
    """The record of a run; None if its file is gone or is not the file of a run."""
    from nstr3d.batch.schema import read_lock

    try:
        return read_lock(store.read(name, LARGEST))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
