"""A training step on the CPU (numba): the Huber loss with its gradient, then the update, shared
among threads without Python."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]

from nstr3d.kernels.field.decodercpu import decode, decode_backward
from nstr3d.kernels.field.featurecpu import featurise
from nstr3d.kernels.field.fusedcpu import Kept, Sums, scatter, scratch
from nstr3d.kernels.field.layout import LANES, ORDER, RESOLUTION, STRIDE, TABLE
from nstr3d.kernels.field.levelcpu import BLOCK, corner, gather, locate
from nstr3d.kernels.field.slopecpu import descend_slopes, tangents_of
from nstr3d.kernels.step.adamcpu import floats_at, update_rows
from nstr3d.kernels.step.tickets import DONE, OPEN, look, pause, raised, take

DECODER = 4  # segments before those of the tables
LAST = 2  # the segment of the decoder's last weights

# What a field's steps are about: the loss's delta and its gradients' weight; between which places
# each layer of nodes has its rows, see `_reach`; how long a thread's sums are; and, as
# `update_rows` has them, the segments and this step's rates.
Given = namedtuple("Given", "delta gradient_weight layers sizes segments rates")


@njit(cache=True, nogil=True)
def work(
    until,
    opening,
    patience,
    counts,
    batch,
    given,
    levels,
    decoder,
    losses,
    reach,
    sums,
    values,
    means,
    squares,
):
    """Opens the tickets of a step, where ``opening`` says how many threads share it; then does
    tickets until there were ``until`` or none was open for ``patience`` looks.

    A step's first tickets are parts of the batch, ``batch (4,)`` holding its size and the addresses
    of points, targets and gradients (0 for none); when all are done, as many open that are parts of
    the update. The rest is as `_descend` and `update_rows` say, of all threads.
    """
    raised(counts, OPEN, opening)
    parts, idle, width, hidden = len(sums), 0, len(decoder.bias), given.segments[LAST, 3]
    while look(counts, DONE) < until and idle < patience:
        ticket = take(counts)
        if ticket < 0:
            idle += 1
            pause()
            continue
        idle, part, updates = 0, ticket % parts, ticket // parts % 2 == 1
        if updates:
            update_rows(part, given.segments, given.rates, reach, sums, values, means, squares)
        else:
            mine = _sums(sums[part], given.sizes)
            _descend(
                part, parts, batch, given, levels, decoder, losses, reach[part, DECODER:], mine
            )
            for start in range(
                0, len(mine.last), width
            ):  # the padding of hidden values is log 2, so its weights must not learn
                mine.last[start + hidden : start + width] = 0
        if raised(counts, DONE, 1) == look(counts, OPEN) and not updates:
            raised(counts, OPEN, parts)


@njit(cache=True, inline="always")
def _sums(mine, sizes):
    """A thread's sums, which lie one after the other."""
    a, b, c = sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]
    d, e, f = c + sizes[3], c + sizes[3] + sizes[4], c + sizes[3] + sizes[4] + sizes[5]
    return Sums(mine[:a], mine[a:b], mine[b:c], mine[c:d], mine[d:e], mine[e:f])


@njit(cache=True, inline="always")
def _descend(part, parts, batch, given, levels, decoder, losses, reach, sums):
    """One thread's share of a batch, a block at a time: `fusedcpu.forward`, the Huber loss over
    delta, its sum into ``losses[part]``, and `fusedcpu.backward`, the gradient over the number of
    all targets into ``sums``, of the tables only within ``reach``."""
    delta, size, width, outputs = given.delta, batch[0], len(decoder.bias), len(decoder.offset)
    blocks, columns, share = (
        (size + BLOCK - 1) // BLOCK,
        len(decoder.back) // width,
        np.float32(1 / max(size * outputs, 1)),
    )
    low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, size)
    points, targets = (
        carray(floats_at(batch[1]), (size, 3)),
        carray(floats_at(batch[2]), (size, outputs)),
    )
    cells, spectrum, block = scratch(levels)
    kept = Kept(block.features, block.local, np.zeros(BLOCK * width, np.float32))
    values, total = np.zeros((BLOCK, outputs), np.float32), 0.0
    change, back = (
        np.zeros(BLOCK * width, np.float32),
        np.zeros(BLOCK * columns + 2 * LANES, np.float32),
    )
    _reach(points[low:high], levels, given.layers, reach)
    _clear(sums, levels, reach)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        for level in range(len(levels.meta)):
            locate(points, start, count, levels, level, cells)
            gather(count, levels, level, cells, spectrum)
            featurise(points, start, count, levels, level, spectrum, kept, np.int64(0))
        decode(kept.features, np.int64(0), count, levels, decoder, kept.hidden, values, np.int64(0))
        for p in range(count):
            for o in range(outputs):
                error = (values[p, o] - targets[start + p, o]) / delta
                slope = min(max(error, np.float32(-1)), np.float32(1))
                total += delta * slope * (error - np.float32(0.5) * slope)
                values[p, o] = slope * share
        decode_backward(
            np.int64(0), count, levels, decoder, kept, np.int64(0), values, change, back, sums
        )
        for level in range(len(levels.meta)):
            scatter(
                points,
                start,
                count,
                levels,
                level,
                cells,
                back,
                columns,
                kept,
                np.int64(0),
                spectrum,
                sums,
            )
    if batch[3] != 0:
        wanted = carray(floats_at(batch[3]), (size, 3))
        scale = np.float32(given.gradient_weight) * share
        total += size * _pull(low, high, points, wanted, scale, levels, decoder, cells, kept, sums)
    losses[part] = total


@njit(cache=True)
def _pull(low, high, points, wanted, scale, levels, decoder, cells, kept, sums):
    """The loss on the gradient of one thread's share of a batch, where a gradient is ``wanted``:
    the rows of others are zero. Its gradient is added to the ``sums``."""
    room, loss = tangents_of(levels, decoder), 0.0
    at, slopes, count = np.zeros((BLOCK, 3), np.float32), np.zeros((BLOCK, 3), np.float32), 0
    for p in range(low, high):
        if wanted[p, 0] != 0 or wanted[p, 1] != 0 or wanted[p, 2] != 0:
            at[count], slopes[count] = points[p], wanted[p]
            count += 1
        if count == BLOCK or (p == high - 1 and count > 0):
            loss += descend_slopes(
                at, slopes, count, scale, levels, decoder, cells, kept, room, sums
            )
            count = 0
    return loss


@njit(cache=True)
def _reach(points, levels, layers, reach):
    """Between which places of the flat arrays the rows of nodes around the ``points`` are, into
    ``reach (levels, 2)``; in between there may be others. ``layers (levels, edges, 2)`` says that
    of all nodes in a layer across the first axis."""
    first, last = 0, 0
    for p in range(1, len(points)):
        first = p if points[p, 0] < points[first, 0] else first
        last = p if points[p, 0] > points[last, 0] else last
    for level in range(len(levels.meta)):
        reach[level] = 0
        if len(points):
            lowest, _ = corner(points, first, 0, levels.meta[level, RESOLUTION])
            highest, _ = corner(points, last, 0, levels.meta[level, RESOLUTION])
            reach[level] = layers[level, lowest]
            for layer in range(lowest + 1, highest + levels.meta[level, ORDER] + 1):
                reach[level, 0] = min(reach[level, 0], layers[level, layer, 0])
                reach[level, 1] = max(reach[level, 1], layers[level, layer, 1])


@njit(cache=True)
def _clear(sums, levels, reach):
    for level in range(len(levels.meta)):
        missing = levels.meta[level, TABLE]  # the row of nodes that have none
        sums.table[missing : missing + levels.meta[level, STRIDE]] = 0
        sums.table[reach[level, 0] : reach[level, 1]] = 0
    sums.first[:], sums.bias[:], sums.last[:], sums.carrier[:], sums.offset[:] = 0, 0, 0, 0, 0
