"""Locks on a data set: two runs exclude each other if their shards have shapes in common. Runs
upload their catalogues one after the other."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator

from nstr3d.batch.store import Folder, Store, open_store
from nstr3d.io.lock import BEAT, SILENCE, Policy, hold, remove_empty, remove_unfinished
from nstr3d.system import Message

UPLOADS = ".uploads"  # the folder of the locks of runs that upload a catalogue
UPLOAD = 300.0  # seconds to wait for other runs that do
PAUSE = (0.05, 0.5)  # seconds between two tries
WHOLE = (1, 1)  # the shard of a run that fits all shapes


@contextlib.contextmanager
def working_on(
    store: Store, shard: tuple[int, int], beat: float = BEAT, silence: float = SILENCE
) -> Iterator[None]:
    """Holds the shapes of ``shard``, part i of n counted from 1, during the ``with`` block.

    `hold` says when the run of another record counts as dead. Raises FileExistsError while another
    run holds some of the same shapes, and OSError if the store cannot be written.
    """

    def refuse(who: str) -> OSError:
        text = (
            "{} is being written by {}; that run fits some of the same shapes, so wait for it to "
            "end, or give each run a <shard> of its own, such as 1/2 and 2/2."
        )
        return FileExistsError(Message(text, store.url, who))

    policy = Policy(
        refuse,
        excludes=lambda record: meet(shard, tuple(record.get("shard", WHOLE))),
        beat=beat,
        silence=silence,
    )
    try:
        with hold(store, policy, {"shard": list(shard)}):
            if isinstance(store, Folder):
                remove_unfinished(store.path)
            yield
    finally:
        if isinstance(store, Folder):
            remove_empty(store.path)


@contextlib.contextmanager
def uploading(store: Store) -> Iterator[None]:
    """Waits until no other run uploads a catalogue to ``store``, and keeps others waiting in the
    block. Raises OSError if that takes longer than `UPLOAD`."""

    def busy(who: str) -> OSError:
        text = "{} gets the catalogue of {}; the next run rebuilds it from the reports."
        return _Busy(Message(text, store.url, who))

    records = open_store(f"{store.url.rstrip('/')}/{UPLOADS}")
    deadline = time.monotonic() + UPLOAD
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(hold(records, Policy(busy)))
                break
            except _Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(random.uniform(*PAUSE))
        yield


class _Busy(OSError):
    """Another run uploads its catalogue."""


def meet(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether shards i of n and j of m, counted from 1, can have shapes in common.

    They can if some integer is congruent to i modulo n and to j modulo m (Chinese remainder
    theorem).
    """
    return (first[0] - second[0]) % math.gcd(first[1], second[1]) == 0
