"""Codes of quantised amplitudes by `kernels.rangecoder` (numba).

The context of an amplitude's first estimate is the frequency band and the amplitudes of
neighbouring blocks. The context of the second also includes lower frequencies of the same block and
the previous channel.
"""

from __future__ import annotations

import math

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.rangecoder import (
    BROKEN,
    DENSEST,
    decoder,
    encoder,
    estimates,
    finish,
    get_level,
    put_level,
)

CLASSES = 12  # number of classes of a neighbourhood's magnitude
BANDS = 16  # number of frequency bands
CHANNELS = 4  # channels with separate statistics; further channels share those of the last
# (c, K0, K1, J0, J1) <-> (c, J0, J1, K0, K1): a block is contiguous in memory
BLOCKS_FIRST = 0, 3, 4, 1, 2


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
def _tables():
    """The estimates of all contexts, at probability 1/2."""
    return estimates(CHANNELS * BANDS * CLASSES), estimates(CHANNELS * CLASSES * CLASSES * 3)


@njit(cache=True)
def _encode(q, out):
    """Codes ``q (c, J0, J1, K0, K1)`` into ``out`` and returns the code's length in bytes. Stops at
    the first block that overflows ``out``; the returned length is then larger than ``len(out)``."""
    state = encoder()
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
                    m[c + 1, i + 1, j + 2, f + 2, g + 2] = min(abs(value), 255)
                    put_level(state, out, first, x, second, y, value)
                if state[4] > len(out):
                    return state[4]
    return finish(state, out)


@njit(cache=True)
def _decode(data, q):
    """Decodes ``data`` into ``q (c, J0, J1, K0, K1)`` and returns the number of bytes read.

    Stops at a level too large for int32 and at the first block that needs more bytes than there
    are; the returned number is then larger than ``len(data)``.
    """
    state = decoder(data)
    first, second = _tables()
    rows, columns = q.shape[3], q.shape[4]
    order, m = _order(rows, columns), _padded(q)
    for c in range(q.shape[0]):
        for i in range(q.shape[1]):
            for j in range(q.shape[2]):
                for n in range(len(order)):
                    f, g = order[n, 0], order[n, 1]
                    x, y = _contexts(m, c, i, j, f, g, rows, columns)
                    value = get_level(state, data, first, x, second, y)
                    if value == BROKEN:
                        return len(data) + 1
                    q[c, i, j, f, g] = value
                    m[c + 1, i + 1, j + 2, f + 2, g + 2] = min(abs(value), 255)
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
