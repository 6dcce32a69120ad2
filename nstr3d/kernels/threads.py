"""Kernels on several threads: torch's count, so that one setting holds for all, and a share of the
points for each.

The kernels release Python's lock, so plain threads carry them: nothing is compiled twice, and
torch's own threads, whose number numba's would change, are left alone.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache

import torch

LEAST = 256  # points that are worth a thread


def parts(count: int, least: int = LEAST) -> int:
    """Into how many shares ``count`` points are split: one a thread of torch's, fewer where there
    are few points."""
    return max(1, min(torch.get_num_threads(), count // least))


def share(
    kernel: Callable[[int, int, int], None], count: int, block: int = 1, least: int = LEAST
) -> None:
    """Calls ``kernel(part, low, high)`` for equal shares ``[low, high)`` of ``count`` points in
    whole blocks, all at once."""
    shares, blocks = parts(count, least), -(-count // block)
    ends = [min(blocks * part // shares * block, count) for part in range(shares + 1)]
    waiting = []
    if shares > 1:
        team = team_of(shares - 1)
        team.make_way()
        waiting = [
            team.pool.submit(kernel, part, ends[part], ends[part + 1]) for part in range(1, shares)
        ]
    kernel(0, 0, ends[1])
    for other in waiting:
        other.result()


class _Team:
    """Threads that help the one which asks.

    Linux often wakes a thread on the processor of the one that woke it, idle ones notwithstanding,
    and there it waits until its share would have been done: so helpers keep off that processor.
    """

    def __init__(self, workers: int) -> None:
        self.helpers: list[int] = []
        self.pool = ThreadPoolExecutor(
            workers, "nstr3d", lambda: self.helpers.append(threading.get_native_id())
        )
        self.processor = -1  # which the helpers keep off

    def make_way(self) -> None:
        """Moves the helpers off the processor that the calling thread is on."""
        processor = _processor()
        if processor != self.processor:
            others = os.sched_getaffinity(0) - {processor}
            for helper in self.helpers if others else ():
                with suppress(OSError):  # where that is forbidden they are where they are
                    os.sched_setaffinity(helper, others)
            self.processor = processor if self.helpers else -1


@lru_cache
def team_of(workers: int) -> _Team:
    """So many threads, the same ones every time."""
    return _Team(workers)


def _no_processor() -> int:
    return -1


try:
    _processor = ctypes.CDLL(None).sched_getcpu
except (AttributeError, OSError, TypeError):  # not Linux
    _processor = _no_processor

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team_of.cache_clear)  # threads do not survive a fork
