"""Ranges of a level's channels and of their derivatives on a box, on the CPU (numba).

In a cell a channel is a polynomial. Its Bernstein coefficients on the part of the cell that is in
the box are one product with a small matrix along each axis, and the polynomial lies between the
least and the largest of them. The coefficients are near the values, with an error that falls with
the square of the box. `kernels.field.ranges` is the twin in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.layout import LANES, ORDER, RESOLUTION, ROW, STRIDE
from nstr3d.kernels.simd import fma, item, largest, load, magnitude, splat, store

# Rows of results: the largest coefficient of a node, the largest value, then for each axis the
# largest fall, the largest rise, the largest second derivative, and the largest jump of the first
# derivative at the faces of cells; all but falls and rises as absolute values.
HULL, SIZE, FALL, RISE, BEND, JUMP, ROWS = 0, 1, 2, 5, 8, 11, 14
# Rows of the weights of a cell's nodes along an axis: three Bernstein coefficients of the value,
# two of the first derivative, one of the second.
VALUE, SLOPE, CURVE, WEIGHTS = 0, 3, 5, 6
Work = namedtuple("Work", "taps weights one two three")


@njit(cache=True, inline="always")
def work_of():
    """Buffers for a cell's coefficients and for their products along one, two and three axes."""
    return Work(
        np.zeros(27 * LANES, np.float32),
        np.zeros((3, 3 * WEIGHTS), np.float32),
        np.zeros(54 * LANES, np.float32),
        np.zeros(81 * LANES, np.float32),
        np.zeros(27 * LANES, np.float32),
    )


@njit(cache=True, inline="always")
def touched(points, first, last, axis, resolution):
    """The first cell that a box touches along an axis, and the one after the last."""
    least = int(np.floor((points[first, axis] + 1.0) * (resolution * 0.5) - 1e-4))
    most = int(np.floor((points[last, axis] + 1.0) * (resolution * 0.5) + 1e-4))
    return max(least, 0), min(most, resolution - 1) + 1


@njit(cache=True)
def ranges(points, first, last, levels, level, work, found):
    """Fills ``found (ROWS, stride)`` for the box between two nodes of ``points``."""
    resolution, stride = levels.meta[level, RESOLUTION], levels.meta[level, STRIDE]
    for row in range(ROWS):
        start = np.float32(-3e38 if FALL <= row < BEND else 0.0)
        found[row * stride : (row + 1) * stride] = start
    x0, x1 = touched(points, first, last, 0, resolution)
    y0, y1 = touched(points, first, last, 1, resolution)
    z0, z1 = touched(points, first, last, 2, resolution)
    for i in range(x0, x1):
        _weigh(points, first, last, levels, level, 0, i, work.weights)
        for j in range(y0, y1):
            _weigh(points, first, last, levels, level, 1, j, work.weights)
            for k in range(z0, z1):
                _weigh(points, first, last, levels, level, 2, k, work.weights)
                for s in range(0, stride, LANES):
                    _load(levels, level, i, j, k, s, work.taps, found)
                    _reduce(work, stride, s, found)
    if levels.meta[level, ORDER] == 1:
        _jumps(levels, level, x0, x1, y0, y1, z0, z1, found)


@njit(cache=True)
def _weigh(points, first, last, levels, level, axis, cell, weights):
    """The weights of a cell's nodes along an axis, for the part of the cell in the box."""
    resolution, order = levels.meta[level, RESOLUTION], levels.meta[level, ORDER]
    rate = resolution * 0.5
    # moved apart by more than the rounding of a point
    low = max((points[first, axis] + 1.0) * rate - cell - 1e-5, 0.0)
    high = min((points[last, axis] + 1.0) * rate - cell + 1e-5, 1.0)
    row = weights[axis]
    if order == 1:
        row[:] = 0
        row[0], row[1], row[3], row[4], row[6], row[7] = (
            1 - low,
            low,
            1 - high,
            high,
            1 - high,
            high,
        )
        row[9], row[10], row[12], row[13] = -rate, rate, -rate, rate
        return
    to = 0
    for s, t in ((low, low), (low, high), (high, high)):  # the blossom of the spline's pieces
        row[to], row[to + 1], row[to + 2] = (
            0.5 * (1 - s) * (1 - t),
            0.5 + 0.5 * (s + t) - s * t,
            0.5 * s * t,
        )
        to += 3
    for s in (low, high):
        row[to], row[to + 1], row[to + 2] = rate * (s - 1), rate * (1 - 2 * s), rate * s
        to += 3
    row[to], row[to + 1], row[to + 2] = rate * rate, -2 * rate * rate, rate * rate


@njit(cache=True)
def _load(levels, level, i, j, k, s, taps, found):
    """Copies the coefficients of a cell's nodes; three nodes along each axis, some of them zero."""
    resolution, order = levels.meta[level, RESOLUTION], levels.meta[level, ORDER]
    edge, begin = resolution + order, levels.meta[level, ROW]
    hull = load(found, HULL * levels.meta[level, STRIDE] + s)
    for a in range(order + 1):
        for b in range(order + 1):
            node = begin + ((i + a) * edge + j + b) * edge + k
            for c in range(order + 1):
                value = load(levels.table, item(levels.places, node + c) + s)
                hull = largest(hull, magnitude(value))
                store(taps, (9 * a + 3 * b + c) * LANES, value)
    store(found, HULL * levels.meta[level, STRIDE] + s, hull)


@njit(cache=True)
def _reduce(work, stride, s, found):
    """The ranges of a cell's part of the box, joined with those in ``found``."""
    weights, one, two, three = work.weights, work.one, work.two, work.three
    _along(work.taps, 0, 9, 1, weights[2], VALUE, 3, one, 0)
    _along(work.taps, 0, 9, 1, weights[2], SLOPE, 2, one, 27)
    _along(work.taps, 0, 9, 1, weights[2], CURVE, 1, one, 45)
    _along(one, 0, 3, 3, weights[1], VALUE, 3, two, 0)
    _along(one, 0, 3, 3, weights[1], SLOPE, 2, two, 27)
    _along(one, 0, 3, 3, weights[1], CURVE, 1, two, 45)
    _along(one, 27, 3, 2, weights[1], VALUE, 3, two, 54)
    _along(one, 45, 3, 1, weights[1], VALUE, 3, two, 72)
    _along(two, 0, 1, 9, weights[0], VALUE, 3, three, 0)
    _join(three, 27, False, stride, SIZE, s, found)
    _along(two, 0, 1, 9, weights[0], SLOPE, 2, three, 0)
    _join(three, 18, True, stride, FALL, s, found)
    _along(two, 0, 1, 9, weights[0], CURVE, 1, three, 0)
    _join(three, 9, False, stride, BEND, s, found)
    _along(two, 27, 1, 6, weights[0], VALUE, 3, three, 0)
    _join(three, 18, True, stride, FALL + 1, s, found)
    _along(two, 45, 1, 3, weights[0], VALUE, 3, three, 0)
    _join(three, 9, False, stride, BEND + 1, s, found)
    _along(two, 54, 1, 6, weights[0], VALUE, 3, three, 0)
    _join(three, 18, True, stride, FALL + 2, s, found)
    _along(two, 72, 1, 3, weights[0], VALUE, 3, three, 0)
    _join(three, 9, False, stride, BEND + 2, s, found)


@njit(cache=True)
def _along(source, start, outer, inner, weights, row, rows, target, to):
    """``target (outer, rows, inner)`` from ``source (outer, 3, inner)``, vectors of LANES."""
    step = inner * LANES
    for o in range(outer):
        for r in range(rows):
            w = 3 * (row + r)
            a, b, c = splat(weights[w]), splat(weights[w + 1]), splat(weights[w + 2])
            for i in range(inner):
                at = (start + o * 3 * inner + i) * LANES
                value = fma(b, load(source, at + step), c * load(source, at + 2 * step))
                value = fma(a, load(source, at), value)
                store(target, (to + (o * rows + r) * inner + i) * LANES, value)


@njit(cache=True)
def _join(source, count, signed, stride, row, s, found):
    """Joins ``count`` vectors with the row of ``found``, or, if ``signed``, with those of falls and
    of rises."""
    most, zero = load(found, row * stride + s), splat(0.0)
    if not signed:
        for n in range(count):
            most = largest(most, magnitude(load(source, n * LANES)))
        store(found, row * stride + s, most)
        return
    rise = load(found, (row + RISE - FALL) * stride + s)
    for n in range(count):
        value = load(source, n * LANES)
        most, rise = largest(most, zero - value), largest(rise, value)
    store(found, row * stride + s, most)
    store(found, (row + RISE - FALL) * stride + s, rise)


@njit(cache=True)
def _jumps(levels, level, x0, x1, y0, y1, z0, z1, found):
    """The largest jumps of the first derivatives of a multilinear level at faces in the box."""
    resolution, begin = levels.meta[level, RESOLUTION], levels.meta[level, ROW]
    stride, edge = levels.meta[level, STRIDE], resolution + 1
    rate, lows, highs = np.float32(resolution * 0.5), (x0, y0, z0), (x1, y1, z1)
    for axis in range(3):
        apart = (edge * edge, edge, 1)[axis]
        for i in range(x0, x1 + 1):
            for j in range(y0, y1 + 1):
                for k in range(z0, z1 + 1):
                    if not lows[axis] < (i, j, k)[axis] < highs[axis]:
                        continue
                    node = begin + (i * edge + j) * edge + k
                    for s in range(0, stride, LANES):
                        here = load(levels.table, item(levels.places, node) + s)
                        before = load(levels.table, item(levels.places, node - apart) + s)
                        after = load(levels.table, item(levels.places, node + apart) + s)
                        jump = splat(rate) * magnitude(after - here - (here - before))
                        at = (JUMP + axis) * stride + s
                        store(found, at, largest(load(found, at), jump))
