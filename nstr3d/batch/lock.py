"""Who works on a data set: runs that could meet the same shape exclude each other, those of
different shards do not."""

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
BEAT = 10.0  # seconds between signs of life
SILENCE = 60.0  # seconds without one, after which a run on another machine is taken for dead


@contextlib.contextmanager
def working_on(
    store: Store, shard: tuple[int, int], beat: float = BEAT, silence: float = SILENCE
) -> Iterator[None]:
    """Holds the shapes of ``shard``, part i of n counted from 1, of the data set for the length of
    the block.

    A run of this machine that has died is recognised at once, one of another, or where the system
    does not say when a process started, by ``silence``, for which this waits. Raises
    FileExistsError while another run holds some of the same shapes, OSError where the store cannot
    be written to.
    """
    name = f"{RUNS}/{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.json"
    me = {
        "host": platform.node(),
        "pid": os.getpid(),
        "born": process_start(os.getpid()),
        "shard": list(shard),
        "beat": 0,
    }
    try:
        store.write(name, json.dumps(me).encode())
    except OSError as error:
        raise OSError(
            Message(
                "{} cannot be written to ({}); choose another <out>.",
                store.url,
                error.strerror or error,
            )
        ) from error
    stopped = threading.Event()
    pulse = threading.Thread(target=_pulse, args=(store, name, me, stopped, beat), daemon=True)
    pulse.start()
    try:
        _refuse_others(store, name, shard, silence)
        yield
    finally:
        stopped.set()
        pulse.join()
        with contextlib.suppress(OSError):
            store.remove(name)


def _pulse(
    store: Store, name: str, me: dict[str, Any], stopped: threading.Event, beat: float
) -> None:
    """Signs of life: a number that grows, as clocks of machines may differ."""
    while not stopped.wait(beat):
        me["beat"] += 1
        with contextlib.suppress(OSError):  # a disk that is full now may not be in ten seconds
            store.write(name, json.dumps(me).encode())


def _refuse_others(store: Store, mine: str, shard: tuple[int, int], silence: float) -> None:
    others = {
        name: _read(store, name)
        for name in (f"{RUNS}/{found}" for found in store.names(RUNS))
        if name != mine
    }
    meeting = {
        name: run for name, run in others.items() if run and meet(shard, tuple(run["shard"]))
    }
    deadline = time.monotonic() + silence
    while meeting:
        for name, run in list(meeting.items()):
            started = process_start(run["pid"]) if run["host"] == platform.node() else None
            if started is not None and started == run["born"]:
                _refuse(store, name, run)
            if started is not None or time.monotonic() > deadline:
                store.remove(name)
                del meeting[name]
                continue
            now = _read(store, name)
            if now is None:
                del meeting[name]
            elif now["beat"] != run["beat"]:
                _refuse(store, name, run)
        if meeting:
            time.sleep(min(1.0, silence / 10))


def _refuse(store: Store, name: str, run: dict[str, Any]) -> None:
    who = f"process {run['pid']} on {run['host']}"
    raise FileExistsError(
        Message(
            "{} is being written by {}, which does some of the same shapes; wait, or split with "
            "<shard>.",
            store.url,
            who,
        )
    )


def meet(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether shards i of n and j of m, counted from 1, have shapes in common: some number is i
    modulo n and j modulo m."""
    return (first[0] - second[0]) % math.gcd(first[1], second[1]) == 0


def _read(store: Store, name: str) -> dict[str, Any] | None:
    try:
        return json.loads(store.read(name))
    except (FileNotFoundError, ValueError):
        return None
