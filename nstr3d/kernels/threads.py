"""Kernels on several threads: torch's count, so that one setting holds for all, and a share of the
points for each.

The kernels release Python's lock, so plain threads carry them: nothing is compiled twice, and
torch's own threads, whose number numba's would change, are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
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
    whole blocks, all at once.

    The caller does the shares that no helper has begun when the caller's own is done, so helpers
    that are busy elsewhere never keep it waiting. Raises what a share raised, when all have ended.
    """
    shares, blocks = parts(count, least), -(-count // block)
    ends = [min(blocks * part // shares * block, count) for part in range(shares + 1)]
    waiting = []
    if shares > 1:
        team = team_of(shares - 1)
        waiting = [
            team.submit(kernel, part, ends[part], ends[part + 1]) for part in range(1, shares)
        ]
    try:
        kernel(0, 0, ends[1])
        for part, other in enumerate(waiting, 1):
            if other.cancel():
                kernel(part, ends[part], ends[part + 1])
    finally:
        begun = [other for other in waiting if not other.cancel()]
        wait(begun)
    for other in begun:
        other.result()


@lru_cache
def team_of(workers: int) -> ThreadPoolExecutor:
    """So many threads that help the one which asks, the same ones every time."""
    return ThreadPoolExecutor(workers, "nstr3d")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team_of.cache_clear)  # threads do not survive a fork
