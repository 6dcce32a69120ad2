"""Adaptive arithmetic coding of quantised amplitudes (numba, compiled once): integers only, so that
every machine decodes alike.

Range coder after Martin (1979) and Subbotin, binary decisions as in CABAC (Marpe, Schwarz and
Wiegand, 2003): is it zero, its sign, is its magnitude larger than 1, 2, ... A decision's
probability is the mean of two adaptive estimates: by the amplitudes of neighbouring blocks, and by
those of lower frequencies in its own block and of the channel before.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LEVELS = 14  # magnitudes up to here in unary, the rest as Exp-Golomb codes
CLASSES = 12  # of a neighbourhood's magnitude
BANDS = 16  # of frequency
CHANNELS = 4  # with statistics of their own
DECISIONS = 3  # kinds of decision with statistics of their own: zero, one, more
TOP, HALF = np.int64(1 << 32), 1 << 15
# (c, K0, K1, J0, J1) <-> (c, J0, J1, K0, K1): a block lies together in memory
BLOCKS_FIRST = 0, 3, 4, 1, 2
FAST, SLOW = 4, 7  # shifts of the two rates at which an estimate follows


@njit(cache=True)
def _class(sum_):
    """A neighbourhood's weighted magnitude in about logarithmic classes."""
    if sum_ < 6:
        return sum_
    grade = 6
    limit = 9
    while sum_ >= limit and grade < CLASSES - 1:
        grade += 1
        limit = limit * 3 // 2 + 1
    return grade


@njit(cache=True)
def _contexts(m, c, i, j, f, g, rows, columns):
    """The two contexts of an amplitude, from padded magnitudes `m` of amplitudes that come before
    it."""
    here, left, above = m[c + 1, i + 1, j + 2], m[c + 1, i + 1, j + 1], m[c + 1, i, j + 2]
    f, g = f + 2, g + 2
    near = (
        2 * (np.int64(left[f, g]) + above[f, g])
        + m[c + 1, i, j + 1, f, g]
        + m[c + 1, i + 1, j, f, g]
    )
    own = (
        2 * (np.int64(here[f - 1, g]) + here[f, g - 1])
        + here[f - 1, g - 1]
        + here[f, g - 2]
        + here[f - 2, g]
    )
    beside = np.int64(left[f, g - 1]) + left[f, g + 1]
    other = np.int64(m[c, i + 1, j + 2, f, g])
    if rows > 1:
        beside += above[f - 1, g]
        band = (f + g - 4) * BANDS // (rows + columns)
    else:
        band = 0
        while band < BANDS - 1 and ((g - 2) >> band) > 0:
            band += 1
    part = min(c, CHANNELS - 1)
    first = (part * BANDS + band) * CLASSES + _class(near + beside)
    second = (
        (part * CLASSES + _class(own)) * CLASSES + _class((near + beside + 1) // 2)
    ) * 3 + min(other, 2)
    return first, second


@njit(cache=True)
def _padded(q):
    """Room for magnitudes up to 255 with the zeros around them that contexts look at."""
    channels, across, along, rows, columns = q.shape
    return np.zeros((channels + 1, across + 1, along + 2, rows + 2, columns + 3), np.uint8)


@njit(cache=True)
def _order(rows, columns):
    """The frequencies of a block from low to high: rows of (k, l)."""
    order = np.empty((rows * columns, 2), np.int64)
    count = 0
    for total in range(rows + columns - 1):
        for k in range(max(0, total - columns + 1), min(rows, total + 1)):
            order[count, 0], order[count, 1] = k, total - k
            count += 1
    return order


@njit(cache=True)
def _estimate(a, x, b, y):
    """16-bit probability that a decision is yes, never 0 or 1."""
    return min(max((a[x, 0] + a[x, 1] + b[y, 0] + b[y, 1]) >> 2, 32), 65536 - 32)


@njit(cache=True)
def _learn(a, x, b, y, yes):
    target = 65535 if yes else 0
    a[x, 0] += (target - a[x, 0]) >> FAST
    a[x, 1] += (target - a[x, 1]) >> SLOW
    b[y, 0] += (target - b[y, 0]) >> FAST
    b[y, 1] += (target - b[y, 1]) >> SLOW


@njit(cache=True)
def _tables():
    kinds = DECISIONS
    first = np.full((CHANNELS * BANDS * CLASSES * kinds, 2), HALF, np.int64)
    second = np.full((CHANNELS * CLASSES * CLASSES * 3 * kinds, 2), HALF, np.int64)
    return first, second


# The state of a coder: low, range, carry cache, pending bytes, position in the buffer; of a
# decoder: code, range, position.
@njit(cache=True)
def _shift_low(state, out):
    if state[0] < 0xFF000000 or state[0] >= TOP:
        carry = state[0] >> 32
        if state[4] >= 0:
            if state[4] < len(out):
                out[state[4]] = (state[2] + carry) & 255
            state[4] += 1
        else:
            state[4] = 0
        while state[3] > 0:
            if state[4] < len(out):
                out[state[4]] = (255 + carry) & 255
            state[4] += 1
            state[3] -= 1
        state[2] = (state[0] >> 24) & 255
    else:
        state[3] += 1
    state[0] = (state[0] & 0x00FFFFFF) << 8


@njit(cache=True)
def _put(state, out, probability, yes):
    bound = (state[1] >> 16) * probability
    if yes:
        state[1] = bound
    else:
        state[0] += bound
        state[1] -= bound
    while state[1] < 1 << 24:
        state[1] <<= 8
        _shift_low(state, out)


@njit(cache=True)
def _get(state, data, probability):
    bound = (state[1] >> 16) * probability
    yes = state[0] < bound
    if yes:
        state[1] = bound
    else:
        state[0] -= bound
        state[1] -= bound
    while state[1] < 1 << 24:
        state[1] <<= 8
        state[0] = ((state[0] << 8) | (data[state[2]] if state[2] < len(data) else 0)) & 0xFFFFFFFF
        state[2] += 1
    return yes


@njit(cache=True)
def _encode(q, out):
    state = np.array([0, 0xFFFFFFFF, 0, 0, -1], np.int64)
    first, second = _tables()
    rows, columns = q.shape[3], q.shape[4]
    order, m = _order(rows, columns), _padded(q)
    for c in range(q.shape[0]):
        for i in range(q.shape[1]):
            for j in range(q.shape[2]):
                for n in range(len(order)):
                    f, g = order[n, 0], order[n, 1]
                    value = q[c, i, j, f, g]
                    x, y = _contexts(m, c, i, j, f, g, rows, columns)
                    magnitude = abs(value)
                    m[c + 1, i + 1, j + 2, f + 2, g + 2] = min(magnitude, 255)
                    for step in range(LEVELS):
                        kind = min(step, DECISIONS - 1)
                        more = magnitude > step
                        u, v = x * DECISIONS + kind, y * DECISIONS + kind
                        _put(state, out, _estimate(first, u, second, v), more)
                        _learn(first, u, second, v, more)
                        if not more:
                            break
                    if magnitude >= LEVELS:
                        rest = magnitude - LEVELS + 1
                        width = 0
                        while rest >> (width + 1):
                            width += 1
                        for _ in range(width):
                            _put(state, out, HALF, True)
                        _put(state, out, HALF, False)
                        for bit in range(width - 1, -1, -1):
                            _put(state, out, HALF, (rest >> bit) & 1 == 1)
                    if value != 0:
                        _put(state, out, HALF, value < 0)
                if state[4] > len(out):
                    return state[4]
    for _ in range(5):
        _shift_low(state, out)
    return state[4]


@njit(cache=True)
def _decode(data, q):
    state = np.array([0, 0xFFFFFFFF, 0], np.int64)
    for _ in range(4):
        state[0] = (state[0] << 8) | (data[state[2]] if state[2] < len(data) else 0)
        state[2] += 1
    first, second = _tables()
    rows, columns = q.shape[3], q.shape[4]
    order, m = _order(rows, columns), _padded(q)
    for c in range(q.shape[0]):
        for i in range(q.shape[1]):
            for j in range(q.shape[2]):
                for n in range(len(order)):
                    f, g = order[n, 0], order[n, 1]
                    x, y = _contexts(m, c, i, j, f, g, rows, columns)
                    magnitude = 0
                    for step in range(LEVELS):
                        kind = min(step, DECISIONS - 1)
                        u, v = x * DECISIONS + kind, y * DECISIONS + kind
                        more = _get(state, data, _estimate(first, u, second, v))
                        _learn(first, u, second, v, more)
                        if not more:
                            break
                        magnitude += 1
                    if magnitude == LEVELS:
                        width = 0
                        while width < 31 and _get(state, data, HALF):
                            width += 1
                        rest = 1
                        for _ in range(width):
                            rest = (rest << 1) | (1 if _get(state, data, HALF) else 0)
                        magnitude += rest - 1
                    if magnitude and _get(state, data, HALF):
                        magnitude = -magnitude
                    q[c, i, j, f, g] = magnitude
                    m[c + 1, i + 1, j + 2, f + 2, g + 2] = min(abs(magnitude), 255)
    return state[2]


def encode(levels: np.ndarray, limit: int) -> bytes | None:
    """The code of ``levels (c, K0, K1, J0, J1)`` int32: channels, frequencies and blocks along two
    axes. None beyond ``limit`` bytes."""
    out = np.zeros(limit, np.uint8)
    length = _encode(np.ascontiguousarray(levels.transpose(BLOCKS_FIRST), np.int32), out)
    return out[:length].tobytes() if length <= limit else None


def decode(data: bytes, shape: tuple[int, int, int, int, int]) -> np.ndarray:
    """The levels that `encode` coded. Bytes that it did not make give other levels; whoever stores
    them checks them."""
    levels = np.zeros([shape[axis] for axis in BLOCKS_FIRST], np.int32)
    _decode(np.frombuffer(data, np.uint8), levels)
    return np.ascontiguousarray(levels.transpose(BLOCKS_FIRST))  # which is its own inverse
