"""Runs kernels on several threads, each of which works on a contiguous range of the points.

The number of threads is torch's, so that one setting holds for both. Torch itself is not imported
here: that takes a second, and not all programs with kernels need it. The kernels release the GIL,
so plain Python threads run them. Numba's own threads are not used: they would need a second,
parallel compilation of each kernel and would change the number of torch's threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from queue import SimpleQueue
from threading import Lock, Thread

from nstr3d.system import count_processors

LEAST = 256  # points per thread, at least: fewer do not repay the thread's overhead
Kernel = Callable[[int, int, int], object]  # of a part and its range


def thread_count() -> int:
    """Torch's number of threads. Before torch is imported, the number that it would have: that of
    OMP_NUM_THREADS, else that of the processors."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(named) if named.isdecimal() and int(named) else count_processors()


def parts(count: int, least: int = LEAST) -> int:
    """The number of ranges into which ``count`` points are split.

    It is `thread_count`, or fewer if a range would hold fewer than ``least`` points; at
    least 1.
    """
    return max(1, min(thread_count(), count // least))


def split_work(kernel: Kernel, count: int, block: int = 1, least: int = LEAST) -> None:
    """Calls ``kernel(part, low, high)`` in parallel for equal ranges ``[low, high)`` of ``count``
    points.

    Each range but the last is a whole number of blocks of ``block`` points. There are
    ``parts(count, least)`` ranges. The calling thread runs range 0. It then also runs the ranges
    that no helper thread has begun, so it never waits for helpers that are busy elsewhere. An
    exception raised by a range is raised again once all ranges that have begun have ended.
    """
    shares, blocks = parts(count, least), -(-count // block)
    if shares == 1:
        kernel(0, 0, count)
        return
    ends = [min(blocks * part // shares * block, count) for part in range(shares + 1)]
    others = [Range(kernel, part, ends[part], ends[part + 1]) for part in range(1, shares)]
    team = team_of(shares - 1)
    for other in others:
        team.put(other)
    try:
        kernel(0, 0, ends[1])
        for other in others:
            other.begin()
    finally:
        for other in others:
            other.end()
    for other in others:
        if other.error is not None:
            raise other.error


class Range:
    """A kernel's range, which the first thread that begins it runs.

    A future of `concurrent.futures` does the same and costs three times the time: on two threads a
    training step calls for help twice in a millisecond.
    """

    __slots__ = "call", "error", "free", "running"

    def __init__(self, kernel: Kernel, part: int, low: int, high: int) -> None:
        self.call: Callable[[], object] = partial(kernel, part, low, high)
        self.free, self.running = Lock(), Lock()
        self.running.acquire()
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Runs the range unless another thread has begun it, or `end` has prevented it."""
        if not self.free.acquire(blocking=False):
            return
        try:
            self.call()
        except BaseException as error:
            self.error = error
        finally:
            self.running.release()

    def end(self) -> None:
        """Waits for the end of a range that has begun. Prevents that any other begins."""
        if self.free.acquire(blocking=False):
            self.running.release()
        with self.running:
            pass
        self.call = _nothing  # a busy helper's queue keeps ranges, but not what they refer to


def _nothing() -> None:
    pass


@lru_cache
def team_of(workers: int) -> SimpleQueue[Range]:
    """The queue of ranges for ``workers`` helper threads; the same one at every call."""
    queue: SimpleQueue[Range] = SimpleQueue()
    for number in range(workers):
        Thread(target=_help, args=(queue,), name=f"nstr3d_{number}", daemon=True).start()
    return queue


def _help(queue: SimpleQueue[Range]) -> None:
    while True:
        queue.get().begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team_of.cache_clear)  # threads do not survive a fork
