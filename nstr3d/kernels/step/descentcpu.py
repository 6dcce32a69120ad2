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
from nstr3d.kernels.field.slopecpu import (
    descend_slopes,
    gather_slopes,
    slope_errors,
    tangents_of,
)
from nstr3d.kernels.step.adamcpu import floats_at, update_rows
from nstr3d.kernels.step.tickets import DONE, OPEN, look, pause, raised, take

DECODER = 4  # segments before those of the tables
LAST = 2  # the segment of the decoder's last weights

# What a field's steps are about: the loss's delta and its gradients' weight; between which places
# each layer of nodes has its rows, see `_reach`; how long a thread's sums are; and, as
# `update_rows` has them, the segments and this step's rates.
Given = namedtuple("Given", "delta gradient_weight layers sizes segments rates")
# A block of a batch, copied together: ``points (BLOCK, 3)``, ``targets (BLOCK, c)`` and
# ``gradients (BLOCK, 3)``.
Block = namedtuple("Block", "points targets gradients")
Room = namedtuple("Room", "cells spectrum kept values change back tangents")


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
    """One thread's share of a batch, a block at a time: the loss, its sum into ``losses[part]``,
    and its gradient over the number of all targets into ``sums``, of the tables only within
    ``reach``. Points whose gradient is wanted, and others, are in blocks of their own."""
    size, outputs = batch[0], len(decoder.offset)
    blocks, total = (size + BLOCK - 1) // BLOCK, 0.0
    low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, size)
    points, targets = (
        carray(floats_at(batch[1]), (size, 3)),
        carray(floats_at(batch[2]), (size, outputs)),
    )
    sloped = batch[3] != 0
    gradients = carray(floats_at(batch[3] if sloped else batch[1]), (size, 3))
    plain, steep = _block(outputs), _block(outputs)
    at, count, steep_count = room_of(levels, decoder, outputs, sloped), 0, 0
    _reach(points[low:high], levels, given.layers, reach)
    _clear(sums, levels, reach)
    for p in range(low, high):
        if sloped and _wanted(gradients, p):
            _put(steep, steep_count, points, targets, p)
            steep.gradients[steep_count] = gradients[p]
            steep_count += 1
        else:
            _put(plain, count, points, targets, p)
            count += 1
        if count == BLOCK or (p == high - 1 and count > 0):
            total += _descend_values(count, plain, given, levels, decoder, at, size, sums)
            count = 0
        if steep_count == BLOCK or (p == high - 1 and steep_count > 0):
            total += _descend_slopes(steep_count, steep, given, levels, decoder, at, size, sums)
            steep_count = 0
    losses[part] = total


@njit(cache=True)
def _block(outputs):
    """Room for a block of a batch."""
    return Block(
        np.zeros((BLOCK, 3), np.float32),
        np.zeros((BLOCK, outputs), np.float32),
        np.zeros((BLOCK, 3), np.float32),
    )


@njit(cache=True, inline="always")
def _wanted(gradients, row):
    """Whether a point's gradient is known: the rows of others are zero."""
    return gradients[row, 0] != 0 or gradients[row, 1] != 0 or gradients[row, 2] != 0


@njit(cache=True, inline="always")
def _put(block, to, points, targets, row):
    for axis in range(3):
        block.points[to, axis] = points[row, axis]
    for o in range(targets.shape[1]):
        block.targets[to, o] = targets[row, o]


@njit(cache=True)
def room_of(levels, decoder, outputs, sloped):
    """What blocks need on the way; tangents only where a batch is ``sloped``."""
    width = len(decoder.bias)
    columns = len(decoder.back) // width
    cells, spectrum, block = scratch(levels)
    return Room(
        cells,
        spectrum,
        Kept(block.features, block.local, np.zeros(BLOCK * width, np.float32)),
        np.zeros((BLOCK, outputs), np.float32),
        np.zeros(BLOCK * width, np.float32),
        np.zeros(BLOCK * columns + 2 * LANES, np.float32),
        tangents_of(levels, decoder, BLOCK if sloped else 0),
    )


@njit(cache=True)
def _descend_values(count, block, given, levels, decoder, at, size, sums):
    """The loss of a block whose values alone count."""
    zero, points, columns = np.int64(0), block.points, len(decoder.back) // len(decoder.bias)
    for level in range(len(levels.meta)):
        locate(points, zero, count, levels, level, at.cells)
        gather(count, levels, level, at.cells, at.spectrum)
        featurise(points, zero, count, levels, level, at.spectrum, at.kept, zero)
    decode(at.kept.features, zero, count, levels, decoder, at.kept.hidden, at.values, zero)
    total = huber(count, block.targets, given.delta, size, at.values)
    decode_backward(
        zero, count, levels, decoder, at.kept, zero, at.values, at.change, at.back, sums
    )
    for level in range(len(levels.meta)):
        scatter(
            points,
            zero,
            count,
            levels,
            level,
            at.cells,
            at.back,
            columns,
            at.kept,
            zero,
            at.spectrum,
            sums,
        )
    return total


@njit(cache=True)
def _descend_slopes(count, block, given, levels, decoder, at, size, sums):
    """The loss of a block whose gradients count too; these are overwritten."""
    gather_slopes(block.points, count, levels, decoder, at.cells, at.kept, at.tangents, at.values)
    total = huber(count, block.targets, given.delta, size, at.values)
    weight = np.float32(given.gradient_weight / max(size, 1))
    errors = slope_errors(count, weight, levels, decoder, at.tangents, block.gradients)
    descend_slopes(
        block.points,
        block.gradients,
        at.values,
        count,
        levels,
        decoder,
        at.cells,
        at.kept,
        at.tangents,
        sums,
    )
    return total + size * errors


@njit(cache=True)
def huber(count, targets, delta, size, values):
    """The sum of the Huber losses over delta of a block's ``values``, and in their place the
    gradient of the batch's mean."""
    outputs, total = values.shape[1], 0.0
    share = np.float32(1 / max(size * outputs, 1))
    for p in range(count):
        for o in range(outputs):
            error = (values[p, o] - targets[p, o]) / delta
            slope = min(max(error, np.float32(-1)), np.float32(1))
            total += delta * slope * (error - np.float32(0.5) * slope)
            values[p, o] = slope * share
    return total


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
