"""Adaptive arithmetic coding of quantised amplitudes (numba). The arithmetic uses integers only, so
every machine decodes the same values.

The coder is a range coder after Martin (1979) and Subbotin. Each amplitude is coded by binary
decisions as in CABAC (Marpe, Schwarz and Wiegand, 2003): whether its magnitude is larger than 0, 1,
2, ..., then its sign. A decision's probability is the mean of two adaptive estimates. The context
of the first is the frequency band and the amplitudes of neighbouring blocks. The context of the
second also includes lower frequencies of the same block and the previous channel.
"""

from __future__ import annotations

import math

import numpy as np

from nstr3d.kernels.compiled import njit

LEVELS = 14  # magnitudes below this are coded in unary, larger ones continue as Exp-Golomb codes
CLASSES = 12  # number of classes of a neighbourhood's magnitude
BANDS = 16  # number of frequency bands
CHANNELS = 4  # channels with separate statistics; further channels share those of the last
DECISIONS = 3  # decisions with separate statistics: larger than 0, than 1, than 2 or more
TOP, HALF = np.int64(1 << 32), 1 << 15
# (c, K0, K1, J0, J1) <-> (c, J0, J1, K0, K1): a block is contiguous in memory
BLOCKS_FIRST = 0, 3, 4, 1, 2
# Most levels in a byte of code: each takes a decision of at least -log2(1 - 32 / 65536) bits.
DENSEST = 12_000
FAST, SLOW = 4, 7  # an estimate follows at the rates 2^-4 and 2^-7


@njit(cache=True)
def _class(sum_):
    """The class, on a roughly logarithmic scale, of a neighbourhood's weighted magnitude."""
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
    """The two contexts of amplitude ``(c, i, j, f, g)``: channel, block and frequency.

    They depend only on amplitudes that are coded earlier, whose padded magnitudes are in ``m``.
    """
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
    """Zeros for the magnitudes (at most 255), with the border that `_contexts` reads."""
    channels, across, along, rows, columns = q.shape
    return np.zeros((channels + 1, across + 1, along + 2, rows + 2, columns + 3), np.uint8)


@njit(cache=True)
def _order(rows, columns):
    """The frequencies ``(rows * columns, 2)`` of a block, from low to high: rows of (k, l)."""
    order = np.empty((rows * columns, 2), np.int64)
    count = 0
    for total in range(rows + columns - 1):
        for k in range(max(0, total - columns + 1), min(rows, total + 1)):
            order[count, 0], order[count, 1] = k, total - k
            count += 1
    return order


@njit(cache=True)
def _estimate(a, x, b, y):
    """The 16-bit probability that a decision is yes, between 32 / 65536 and 1 - 32 / 65536."""
    return min(max((a[x, 0] + a[x, 1] + b[y, 0] + b[y, 1]) >> 2, 32), 65536 - 32)


@njit(cache=True)
def _learn(a, x, b, y, yes):
    """Moves the estimates of both contexts towards the decision ``yes``."""
    target = 65535 if yes else 0
    a[x, 0] += (target - a[x, 0]) >> FAST
    a[x, 1] += (target - a[x, 1]) >> SLOW
    b[y, 0] += (target - b[y, 0]) >> FAST
    b[y, 1] += (target - b[y, 1]) >> SLOW


@njit(cache=True)
def _tables():
    """The estimates of all contexts, at probability 1/2."""
    kinds = DECISIONS
    first = np.full((CHANNELS * BANDS * CLASSES * kinds, 2), HALF, np.int64)
    second = np.full((CHANNELS * CLASSES * CLASSES * 3 * kinds, 2), HALF, np.int64)
    return first, second


# A coder's state is: low, range, carry cache, pending bytes, position in the buffer. A decoder's
# state is: code, range, position.
@njit(cache=True)
def _shift_low(state, out):
    """Moves the top byte of the coder's low to ``out``; bytes past its end are only counted."""
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
    """Codes a decision whose 16-bit probability to be ``yes`` is given."""
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
    """Decodes a decision whose 16-bit probability to be yes is given; 0 bytes follow ``data``."""
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
    """Codes ``q (c, J0, J1, K0, K1)`` into ``out`` and returns the code's length in bytes. Stops at
    the first block that overflows ``out``; the returned length is then larger than ``len(out)``."""
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
                        excess = magnitude - LEVELS + 1
                        width = 0
                        while excess >> (width + 1):
                            width += 1
                        for _ in range(width):
                            _put(state, out, HALF, True)
                        _put(state, out, HALF, False)
                        for bit in range(width - 1, -1, -1):
                            _put(state, out, HALF, (excess >> bit) & 1 == 1)
                    if value != 0:
                        _put(state, out, HALF, value < 0)
                if state[4] > len(out):
                    return state[4]
    for _ in range(5):
        _shift_low(state, out)
    return state[4]


@njit(cache=True)
def _decode(data, q):
    """Decodes ``data`` into ``q (c, J0, J1, K0, K1)`` and returns the number of bytes read.

    Stops at a level too large for int32 and at the first block that needs more bytes than there
    are; the returned number is then larger than ``len(data)``.
    """
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
                        if width == 31:
                            return len(data) + 1
                        excess = 1
                        for _ in range(width):
                            excess = (excess << 1) | (1 if _get(state, data, HALF) else 0)
                        magnitude += excess - 1
                    if magnitude and _get(state, data, HALF):
                        magnitude = -magnitude
                    q[c, i, j, f, g] = magnitude
                    m[c + 1, i + 1, j + 2, f + 2, g + 2] = min(abs(magnitude), 255)
                if state[2] > len(data):
                    return state[2]
    return state[2]


def encode(levels: np.ndarray, limit: int) -> bytes | None:
    """The code of ``levels (c, K0, K1, J0, J1)`` int32: channels, then the frequencies and the
    blocks along two axes. None if the code is longer than ``limit`` bytes."""
    out = np.zeros(limit, np.uint8)
    length = _encode(np.ascontiguousarray(levels.transpose(BLOCKS_FIRST), np.int32), out)
    return out[:length].tobytes() if length <= limit else None


def decode(data: bytes, shape: tuple[int, int, int, int, int]) -> np.ndarray:
    """The levels ``shape`` int32 that `encode` coded.

    Raises ValueError for more levels than the data can hold, before memory is taken, and for data
    that end before the last level or go on behind it. Other damage gives wrong levels: the caller
    must store a checksum.
    """
    count = math.prod(shape)
    if count > DENSEST * len(data):
        raise ValueError(f"{len(data):,} bytes cannot hold {count:,} levels")
    levels = np.zeros([shape[axis] for axis in BLOCKS_FIRST], np.int32)
    length = _decode(np.frombuffer(data, np.uint8), levels)
    if length != len(data):  # an encoder ends with all bytes that its decoder reads
        raise ValueError(f"the code of {count:,} levels does not end with its {len(data):,} bytes")
    return np.ascontiguousarray(levels.transpose(BLOCKS_FIRST))  # its own inverse
