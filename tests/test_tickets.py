"""Tickets: each is taken exactly once, by any thread, and none before it is open."""

import threading

import numpy as np
from numba import njit

from nstr3d.kernels.step.tickets import (
    DONE,
    NEXT,
    OPEN,
    add_to_count,
    no_tickets,
    pause,
    read_count,
    take_ticket,
)


@njit(nogil=True)
def _draw(counts, until, taken):
    """Takes tickets until ``until`` are done and notes each in ``taken``."""
    while read_count(counts, DONE) < until:
        ticket = take_ticket(counts)
        if ticket < 0:
            pause()
        else:
            taken[ticket] += 1
            add_to_count(counts, DONE, 1)


@njit(nogil=True)
def _open(counts, count):
    return add_to_count(counts, OPEN, count)


def test_threads_take_every_ticket_once() -> None:
    counts, taken = no_tickets(), np.zeros(20_000, np.int64)
    threads = [threading.Thread(target=_draw, args=(counts, len(taken), taken)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(len(taken) // 10):
        _open(counts, 10)
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert counts[OPEN] == counts[NEXT] == counts[DONE] == len(taken)
    assert (taken == 1).all()


def test_there_is_no_ticket_before_one_opens() -> None:
    counts = no_tickets()
    assert take_ticket(counts) == -1
    assert _open(counts, 2) == 2
    assert [take_ticket(counts) for _ in range(3)] == [0, 1, -1]
