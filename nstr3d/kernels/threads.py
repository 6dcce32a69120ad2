"""Runs kernels on several threads, each of which works on a contiguous range of the points.

The number of threads is torch's, so that one setting holds for both. The kernels release the GIL,
so plain Python threads run them. Numba's own threads are not used: they would need a second,
parallel compilation of each kernel and would change the number of torch's threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache

import torch

LEAST = 256  # points per thread, at least: fewer do not repay the thread's overhead


def parts(count: int, least: int = LEAST) -> int:
    """The number of ranges into which ``count`` points are split.

    It is torch's number of threads, or fewer if a range would hold fewer than ``least`` points; at
    least 1.
    """
    return max(1, min(torch.get_num_threads(), count // least))


def split_work(
    kernel: Callable[[int, int, int], None], count: int, block: int = 1, least: int = LEAST
) -> None:
    """Calls ``kernel(part, low, high)`` in parallel for equal ranges ``[low, high)`` of ``count``
    points.

    Each range but the last is a whole number of blocks of ``block`` points. There are
    ``parts(count, least)`` ranges. The calling thread runs range 0. It then also runs the ranges
    that no helper thread has begun, so it never waits for helpers that are busy elsewhere. An
    exception raised by a range is raised again once all ranges that have begun have ended.
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
    """A pool of ``workers`` helper threads; the same pool at every call."""
    return ThreadPoolExecutor(workers, "nstr3d")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team_of.cache_clear)  # threads do not survive a fork
