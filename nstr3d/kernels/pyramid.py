"""A pyramid of grids of integers, each predicted from the next coarser one and corrected near zero
(numba). The arithmetic uses integers only, so every machine decodes the same values.

A grid of n nodes per axis is refined to 2 n - 1. The new nodes have one, two or three odd indices
and are coded in this order. Along each odd axis, four nodes that are known predict the node by the
weights (-1, 9, 9, -1) / 16 (Deslauriers and Dubuc, Symmetric iterative interpolation processes,
1989); two or three predictions are averaged. Which nodes are corrected follows from the grid as it
is predicted without corrections, so that a decoder knows it too.
"""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.rangecoder import (
    BROKEN,
    decoder,
    encoder,
    estimates,
    finish,
    get_level,
    put_level,
)

FRACTION = 6  # bits of a value behind the quantisation step
UNIT = 1 << FRACTION  # quantisation step of the finest grid; the next have a half and a quarter
COARSE = 4 * UNIT  # quantisation step of the coarsest grid, and of nodes far from zero
CLASSES = 9  # of a magnitude, on a roughly logarithmic scale
DEPTHS = 3  # grids with separate statistics: the finest, the next and all others
NEAR, FAR = 1, 2  # marks of the nodes that are corrected
KINDS = 4  # of nodes: of the coarsest grid, and with one, two and three odd indices
CONTEXTS = (DEPTHS + 1) * KINDS * CLASSES * CLASSES  # nodes far from zero have their own
LARGEST = 1 << 24  # of a corrected value, so that predictions from it fit into 32 bits


def begin(data: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The state of an encoder, or of a decoder of ``data``, and two tables of estimates."""
    state = encoder() if data is None else decoder(data)
    return state, estimates(CONTEXTS), estimates(CONTEXTS)


def end(state: np.ndarray, out: np.ndarray) -> int:
    """Ends the code in ``out``; returns its length in bytes."""
    return int(finish(state, out))


@njit(cache=True, nogil=True)
def refine(values, marks):
    """The grid ``values (n, n, n)`` and its magnitudes ``marks`` in the nodes with even indices of
    a grid of 2 n - 1, whose other values are predicted and whose other marks are 0."""
    n = 2 * len(values) - 1
    fine, marked = np.empty((n, n, n), np.int32), np.zeros((n, n, n), np.uint8)
    fine[::2, ::2, ::2] = values
    marked[::2, ::2, ::2] = marks
    for odd in range(1, 4):
        for i in range(n):
            for j in range(n):
                rest = odd - (i & 1) - (j & 1)
                if rest == 0 or rest == 1:
                    for k in range(rest, n, 2):
                        fine[i, j, k] = _predict(fine, i, j, k)[0]
    return fine, marked


@njit(cache=True, nogil=True)
def choose(values, reach, whole):
    """The nodes ``(n, n, n)`` uint8 that are corrected: NEAR those of all cells whose values come
    below ``reach`` and above its negative, and FAR, if ``whole``, all others."""
    n = len(values)
    chosen = np.full(values.shape, FAR if whole else 0, np.uint8)
    low, high = np.empty((2, n), np.int32), np.empty((2, n), np.int32)
    for i in range(n - 1):
        for j in range(n - 1):
            # the least and the greatest of the four values at k
            for k in range(n):
                a, b = values[i, j, k], values[i, j + 1, k]
                c, d = values[i + 1, j, k], values[i + 1, j + 1, k]
                low[0, k], high[0, k] = min(a, b, c, d), max(a, b, c, d)
            for k in range(n - 1):
                if (
                    min(low[0, k], low[0, k + 1]) < reach
                    and max(high[0, k], high[0, k + 1]) > -reach
                ):
                    for a in range(2):
                        for b in range(2):
                            chosen[i + a, j + b, k] = chosen[i + a, j + b, k + 1] = NEAR
    return chosen


@njit(cache=True, nogil=True)
def nodes(chosen, odd):
    """The ``chosen (n, n, n)`` nodes with ``odd`` odd indices, ``(m, 3)`` int32, in order."""
    n, count = len(chosen), 0
    places = np.empty((np.count_nonzero(chosen), 3), np.int32)
    for i in range(n):
        for j in range(n):
            rest = odd - (i & 1) - (j & 1)
            if rest == 0 or rest == 1:
                for k in range(rest, n, 2):
                    if chosen[i, j, k]:
                        places[count, 0], places[count, 1], places[count, 2] = i, j, k
                        count += 1
    return places[:count].copy()


@njit(cache=True, nogil=True)
def encode(coder, out, values, marks, chosen, places, depth, wanted, rounding):
    """Codes the corrections that bring the nodes ``places (m, 3)`` close to ``wanted (m,)``, and
    makes them.

    ``coder`` is what `begin` gives. A correction is a number of steps: the difference in steps plus
    ``rounding``, rounded down. ``depth`` is 0 for the finest grid, 1 and 2 for those before it, and
    negative for the coarsest, whose nodes are not predicted from another grid.
    """
    state, first, second = coder
    for m in range(len(places)):
        i, j, k = places[m]
        predicted, step, x, y = _contexts(values, marks, chosen, i, j, k, depth)
        level = np.int64(abs(wanted[m] - predicted) / step + rounding)
        marks[i, j, k] = min(level, 255)
        if wanted[m] < predicted:
            level = -level
        put_level(state, out, first, x, second, y, level)
        values[i, j, k] = predicted + level * step


@njit(cache=True, nogil=True)
def decode(coder, data, values, marks, chosen, places, depth):
    """Makes the corrections that `encode` coded. Returns whether ``data`` held them all."""
    state, first, second = coder
    for m in range(len(places)):
        i, j, k = places[m]
        predicted, step, x, y = _contexts(values, marks, chosen, i, j, k, depth)
        level = get_level(state, data, first, x, second, y)
        if level == BROKEN or state[2] > len(data):
            return False
        marks[i, j, k] = min(abs(level), 255)
        value = predicted + level * step
        if abs(value) > LARGEST:
            return False
        values[i, j, k] = value
    return True


@njit(cache=True)
def _contexts(values, marks, chosen, i, j, k, depth):
    """The predicted value of a node, and the quantisation step and the contexts of its
    correction."""
    near, before = np.int64(0), np.int64(0)
    if depth < 0:
        odd, apart, slot, step = 0, 1, 0, COARSE
        predicted, spread = _extrapolate(values, i, j, k), np.int64(0)
    else:
        odd, apart = (i & 1) + (j & 1) + (k & 1), 2
        far = chosen[i, j, k] == FAR
        slot = (DEPTHS if far else depth) * KINDS + odd
        # An error of a coarse node reaches the many fine nodes that it predicts.
        step = COARSE if far else UNIT >> depth
        predicted, spread = _predict(values, i, j, k)
        if i & 1:
            near += np.int64(marks[i - 1, j, k]) + marks[i + 1, j, k]
        if j & 1:
            near += np.int64(marks[i, j - 1, k]) + marks[i, j + 1, k]
        if k & 1:
            near += np.int64(marks[i, j, k - 1]) + marks[i, j, k + 1]
    # the nodes before this one with the same odd indices
    if i >= apart:
        before += marks[i - apart, j, k]
    if j >= apart:
        before += marks[i, j - apart, k]
    if k >= apart:
        before += marks[i, j, k - apart]
    first = (slot * CLASSES + _class(2 * before)) * CLASSES + _class(2 * spread // step)
    second = (slot * CLASSES + _class(2 * before + near)) * CLASSES + _class(near)
    return predicted, step, first, second


@njit(cache=True)
def _class(number):
    """The class of a non-negative ``number``: 0, 1, 2, 3, and then one for each doubling."""
    grade, limit = 0, 1
    while number >= limit and grade < CLASSES - 1:
        grade += 1
        limit = limit + 1 if grade < 4 else 2 * limit
    return grade


@njit(cache=True)
def _predict(values, i, j, k):
    """The value that the known nodes predict for a node with odd indices, and how far their
    predictions are apart; for a single prediction, how far it is from the mean of the two nearest
    nodes, twice."""
    n, total, count, spread = len(values), np.int64(0), 0, np.int64(0)
    lowest, highest = np.int64(1 << 40), np.int64(-(1 << 40))
    for axis in range(3):
        at = i if axis == 0 else (j if axis == 1 else k)
        if not at & 1:
            continue
        x, y, z = (1 if axis == 0 else 0), (1 if axis == 1 else 0), (1 if axis == 2 else 0)
        b = np.int64(values[i - x, j - y, k - z])
        c = np.int64(values[i + x, j + y, k + z])
        if 3 <= at <= n - 4:
            a = np.int64(values[i - 3 * x, j - 3 * y, k - 3 * z])
            d = np.int64(values[i + 3 * x, j + 3 * y, k + 3 * z])
            value, spread = (9 * (b + c) - (a + d) + 8) >> 4, abs(b + c - a - d) >> 4
        else:
            value, spread = (b + c + 1) >> 1, abs(b - c) >> 4
        total += value
        count += 1
        lowest, highest = min(lowest, value), max(highest, value)
    if count == 1:
        return total, spread
    if count == 2:
        return (total + 1) >> 1, highest - lowest
    return (2 * total + 3) // 6, highest - lowest


@njit(cache=True)
def _extrapolate(values, i, j, k):
    """The value of a node of the coarsest grid that makes it trilinear with the nodes before it."""
    total = np.int64(0)
    for x in range(2 if i else 1):
        for y in range(2 if j else 1):
            for z in range(2 if k else 1):
                if x + y + z:
                    value = np.int64(values[i - x, j - y, k - z])
                    total += value if (x + y + z) & 1 else -value
    return total
