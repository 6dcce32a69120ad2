"""A training step on the CPU (numba): the Huber loss with its gradient, then the update, shared among threads without Python."""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from nstr3d.kernels.adamcpu import floats_at, update_rows
from nstr3d.kernels.fusedcpu import BLOCK, Sums, descend
from nstr3d.kernels.tickets import DONE, OPEN, look, pause, raised, take

LAST = 2  # the segment of the decoder's last weights


@njit(cache=True, nogil=True)
def work(until, opening, patience, counts, batch, delta, levels, decoder, losses, sizes, sums, segments, rates, values, means, squares):
    """Opens the tickets of a step, where ``opening`` says how many threads share it; then does tickets until there were ``until``,
    or until none was open for ``patience`` looks.

    A step's first tickets are parts of the batch, ``batch (3,)`` holding its size and the addresses of points and targets; when
    all are done, as many open that are parts of the update. The rest is as `descend` and `update_rows` say, of all threads.
    """
    raised(counts, OPEN, opening)
    parts, idle = len(sums), 0
    outputs, width, hidden = len(decoder.offset), len(decoder.bias), segments[LAST, 3]
    while look(counts, DONE) < until and idle < patience:
        ticket = take(counts)
        if ticket < 0:
            idle += 1
            pause()
            continue
        idle, part, updates = 0, ticket % parts, ticket // parts % 2 == 1
        if updates:
            update_rows(part, parts, segments, rates, sums, values, means, squares)
        else:
            count = batch[0]
            blocks = (count + BLOCK - 1) // BLOCK
            low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, count)
            points, targets = carray(floats_at(batch[1]), (count, 3)), carray(floats_at(batch[2]), (count, outputs))
            mine = _sums(sums[part], sizes)
            descend(low, high, points, targets, delta, levels, decoder, losses, part, mine)
            for o in range(outputs):  # the padding of hidden values is log 2, so its weights must not learn
                mine.last[o * width + hidden : (o + 1) * width] = 0
        if raised(counts, DONE, 1) == look(counts, OPEN) and not updates:
            raised(counts, OPEN, parts)


@njit(cache=True, inline="always")
def _sums(mine, sizes):
    """A thread's sums, one after the other."""
    a, b, c = sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]
    d, e, f = c + sizes[3], c + sizes[3] + sizes[4], c + sizes[3] + sizes[4] + sizes[5]
    return Sums(mine[:a], mine[a:b], mine[b:c], mine[c:d], mine[d:e], mine[e:f])
