"""A lock on a data set: two runs exclude each other if their shards have shapes in common."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from nstr3d.batch.store import Store
from nstr3d.io.lock import BEAT, SILENCE, Policy, hold
from nstr3d.system import Message

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
    with hold(store, policy, {"shard": list(shard)}):
        yield


def meet(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Whether shards i of n and j of m, counted from 1, can have shapes in common.

    They can if some integer is congruent to i modulo n and to j modulo m (Chinese remainder
    theorem).
    """
    return (first[0] - second[0]) % math.gcd(first[1], second[1]) == 0
