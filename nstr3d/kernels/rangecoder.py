"""A range coder of integers, whose probabilities adapt to contexts (numba). The arithmetic uses
integers only, so every machine decodes the same values.

The coder is after Martin (1979) and Subbotin. Each level is coded by binary decisions as in CABAC
(Marpe, Schwarz and Wiegand, 2003): whether its magnitude is larger than 0, 1, 2, ..., then its
sign. A decision's probability is the mean of two adaptive estimates, each with a context of its
own.
"""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.compiled import njit

LEVELS = 14  # magnitudes below this are coded in unary, larger ones continue as Exp-Golomb codes
DECISIONS = 3  # decisions with separate statistics: larger than 0, than 1, than 2 or more
TOP, HALF = np.int64(1 << 32), 1 << 15
FAST, SLOW = 4, 7  # an estimate follows at the rates 2^-4 and 2^-7
# Most levels in a byte of code: each takes a decision of at least -log2(1 - 32 / 65536) bits.
DENSEST = 12_000
BROKEN = np.int64(1 << 40)  # in place of a level that is too large for int32


@njit(cache=True)
def estimates(contexts):
    """The estimates of ``contexts`` contexts, at probability 1/2."""
    return np.full((contexts * DECISIONS, 2), HALF, np.int64)


@njit(cache=True)
def encoder():
    """The state of a coder: low, range, carry cache, pending bytes, position in the buffer."""
    return np.array([0, 0xFFFFFFFF, 0, 0, -1], np.int64)


@njit(cache=True)
def decoder(data):
    """The state of a decoder of ``data``: code, range, position."""
    state = np.array([0, 0xFFFFFFFF, 0], np.int64)
    for _ in range(4):
        state[0] = (state[0] << 8) | (data[state[2]] if state[2] < len(data) else 0)
        state[2] += 1
    return state


@njit(cache=True)
def finish(state, out):
    """Ends the code in ``out``; returns its length in bytes."""
    for _ in range(5):
        _shift_low(state, out)
    return state[4]


@njit(cache=True)
def put_level(state, out, first, x, second, y, level):
    """Codes ``level`` with the contexts ``x`` of the estimates ``first`` and ``y`` of ``second``.
    Bytes past the end of ``out`` are only counted."""
    magnitude = abs(level)
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
    if level != 0:
        _put(state, out, HALF, level < 0)


@njit(cache=True)
def get_level(state, data, first, x, second, y):
    """The level that `put_level` coded with the same contexts; BROKEN if it is too large."""
    magnitude = np.int64(0)
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
            return BROKEN
        excess = 1
        for _ in range(width):
            excess = (excess << 1) | (1 if _get(state, data, HALF) else 0)
        magnitude += excess - 1
    if magnitude and _get(state, data, HALF):
        return -magnitude
    return magnitude


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
