"""A training step on the CPU (numba): the Huber loss with its gradient, then the update."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.decodercpu import decode, decode_backward
from nstr3d.kernels.field.featurecpu import featurise
from nstr3d.kernels.field.fusedcpu import Kept, Sums, scatter, scratch
from nstr3d.kernels.field.layout import LANES, ORDER, RESOLUTION, STRIDE, TABLE
from nstr3d.kernels.field.levelcpu import BLOCK, corner, gather, locate
from nstr3d.kernels.field.slopecpu import (
    gather_slopes,
    slope_errors,
    slope_gradients,
    tangents_of,
)
from nstr3d.kernels.step.adamcpu import floats_at, update_rows

DECODER = 4  # the number of decoder segments, which come before those of the tables
FIRST, LAST = 0, 2  # the segments of the decoder's first and last weights

# The data of a field's steps: the loss's delta and the weight of its gradients; the range of the
# rows of each layer of nodes, see `_reach`; the sizes of a thread's sums; and the segments and the
# step's rates for `update_rows`.
Plan = namedtuple("Plan", "delta gradient_weight layers sizes segments rates")
# A contiguous copy of a block of a batch: ``points (BLOCK, 3)``, ``targets (BLOCK, c)`` and
# ``gradients (BLOCK, 3)``.
Block = namedtuple("Block", "points targets gradients")
Room = namedtuple("Room", "cells spectrum kept values change back tangents")


@njit(cache=True, nogil=True)
def evaluate(low, high, batch, plan, levels, decoder, losses, reach, sums):
    """Evaluates the parts ``[low, high)`` of a batch; there are as many parts as rows of ``sums``.

    ``batch (4,)`` holds the batch's size and the addresses of points, targets and gradients (0 if
    there are none). The other arguments are those of `_evaluate`, for all parts.
    """
    width, hidden = len(decoder.bias), plan.segments[LAST, 3]
    for part in range(low, high):
        mine, there = _sums(sums[part], plan.sizes), reach[part, DECODER:]
        _evaluate(part, len(sums), batch, plan, levels, decoder, losses, there, mine)
        # the padding of the hidden values is log 2, so the gradient of its weights is set to 0
        for start in range(0, len(mine.last), width):
            mine.last[start + hidden : start + width] = 0


@njit(cache=True, nogil=True)
def update(low, high, plan, decoder, reach, sums, state):
    """Updates the parts ``[low, high)`` of the parameters once the whole batch is evaluated."""
    width = len(decoder.bias)
    inputs, hidden = plan.segments[FIRST, 1], plan.segments[FIRST, 3]
    columns = len(decoder.back) // width
    for part in range(low, high):
        update_rows(part, plan.segments, plan.rates, reach, sums, state)
        for row in range(inputs * part // len(sums), inputs * (part + 1) // len(sums)):
            for unit in range(hidden):
                decoder.back[unit * columns + row] = decoder.first[row * width + unit]


@njit(cache=True, inline="always")
def _sums(mine, sizes):
    """Views of a thread's sums, which are contiguous in ``mine``."""
    a, b, c = sizes[0], sizes[0] + sizes[1], sizes[0] + sizes[1] + sizes[2]
    d, e, f = c + sizes[3], c + sizes[3] + sizes[4], c + sizes[3] + sizes[4] + sizes[5]
    return Sums(mine[:a], mine[a:b], mine[b:c], mine[c:d], mine[d:e], mine[e:f])


@njit(cache=True, inline="always")
def _evaluate(part, parts, batch, plan, levels, decoder, losses, reach, sums):
    """Evaluates part ``part`` of ``parts`` of a batch, a block at a time.

    Writes the sum of the loss to ``losses[part]``, and the gradient of the loss divided by the
    number of targets of the whole batch to ``sums``. The tables' sums are valid only within
    ``reach``, which this function sets. Points with a target gradient and points without one are
    in separate blocks.
    """
    size, outputs = batch[0], len(decoder.offset)
    blocks, total = (size + BLOCK - 1) // BLOCK, 0.0
    low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, size)
    points, targets = (
        carray(floats_at(batch[1]), (size, 3)),
        carray(floats_at(batch[2]), (size, outputs)),
    )
    sloped = batch[3] != 0
    gradients = carray(floats_at(batch[3] if sloped else batch[1]), (size, 3))
    at = room_of(levels, decoder, outputs, sloped)
    _reach(points[low:high], levels, plan.layers, reach)
    _clear(sums, levels, reach)
    if not sloped:
        for start in range(low, high, BLOCK):
            end = min(start + BLOCK, high)
            block = Block(points[start:end], targets[start:end], points[start:end])
            total += _evaluate_values(end - start, block, plan, levels, decoder, at, size, sums)
        losses[part] = total
        return
    plain, steep, count, steep_count = _block(outputs), _block(outputs), 0, 0
    for p in range(low, high):
        if _wanted(gradients, p):
            _put(steep, steep_count, points, targets, p)
            steep.gradients[steep_count] = gradients[p]
            steep_count += 1
        else:
            _put(plain, count, points, targets, p)
            count += 1
        if count == BLOCK or (p == high - 1 and count > 0):
            total += _evaluate_values(count, plain, plan, levels, decoder, at, size, sums)
            count = 0
        if steep_count == BLOCK or (p == high - 1 and steep_count > 0):
            total += _evaluate_slopes(steep_count, steep, plan, levels, decoder, at, size, sums)
            steep_count = 0
    losses[part] = total


@njit(cache=True)
def _block(outputs):
    """Zeros for a block of a batch."""
    return Block(
        np.zeros((BLOCK, 3), np.float32),
        np.zeros((BLOCK, outputs), np.float32),
        np.zeros((BLOCK, 3), np.float32),
    )


@njit(cache=True, inline="always")
def _wanted(gradients, row):
    """Whether a point has a target gradient: the rows of other points are zero."""
    return gradients[row, 0] != 0 or gradients[row, 1] != 0 or gradients[row, 2] != 0


@njit(cache=True, inline="always")
def _put(block, to, points, targets, row):
    """Copies a point and its targets to row ``to`` of a block."""
    for axis in range(3):
        block.points[to, axis] = points[row, axis]
    for o in range(targets.shape[1]):
        block.targets[to, o] = targets[row, o]


@njit(cache=True)
def room_of(levels, decoder, outputs, sloped):
    """Scratch memory for a block; tangents only if the batch has gradients (``sloped``)."""
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
def _evaluate_values(count, block, plan, levels, decoder, at, size, sums):
    """The summed loss of a block without target gradients. Adds its gradient to ``sums``."""
    zero, points, columns = np.int64(0), block.points, len(decoder.back) // len(decoder.bias)
    for level in range(len(levels.meta)):
        locate(points, zero, count, levels, level, at.cells)
        gather(count, levels, level, at.cells, at.spectrum)
        featurise(points, zero, count, levels, level, at.spectrum, at.kept, zero)
    decode(at.kept.features, zero, count, levels, decoder, at.kept.hidden, at.values, zero)
    total = huber(count, block.targets, plan.delta, size, at.values)
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
def _evaluate_slopes(count, block, plan, levels, decoder, at, size, sums):
    """The summed loss of a block with target gradients. Adds its gradient to ``sums`` and
    overwrites ``block.gradients``."""
    gather_slopes(block.points, count, levels, decoder, at.cells, at.kept, at.tangents, at.values)
    total = huber(count, block.targets, plan.delta, size, at.values)
    weight = np.float32(plan.gradient_weight / max(size, 1))
    errors = slope_errors(count, weight, levels, decoder, at.tangents, block.gradients)
    slope_gradients(
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
    """The sum over a block of the Huber losses of ``values (n, c)``, each divided by ``delta``.
    Overwrites ``values`` by the gradient of the mean over the batch of ``size`` points."""
    outputs, total = values.shape[1], 0.0
    per_target = np.float32(1 / max(size * outputs, 1))
    for p in range(count):
        for o in range(outputs):
            error = (values[p, o] - targets[p, o]) / delta
            slope = min(max(error, np.float32(-1)), np.float32(1))
            total += delta * slope * (error - np.float32(0.5) * slope)
            values[p, o] = slope * per_target
    return total


@njit(cache=True)
def _reach(points, levels, layers, reach):
    """Writes to ``reach (levels, 2)`` the range of the flat arrays that contains the rows of the
    nodes around the ``points``; it may contain other rows. ``layers (levels, edges, 2)`` holds the
    range of the nodes of each layer across the first axis."""
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
    """Sets a thread's sums to zero: in the tables, only the rows of nodes that are not stored and
    the places within ``reach``."""
    for level in range(len(levels.meta)):
        missing = levels.meta[level, TABLE]  # the row of nodes that are not stored
        sums.table[missing : missing + levels.meta[level, STRIDE]] = 0
        sums.table[reach[level, 0] : reach[level, 1]] = 0
    sums.first[:], sums.bias[:], sums.last[:], sums.carrier[:], sums.offset[:] = 0, 0, 0, 0, 0
