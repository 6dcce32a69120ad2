"""The gradient of a loss on a field's gradient, on the CPU (numba).

With r = dL/d(grad f), the loss's gradient in the parameters is that of the directional derivative
``r . grad f`` with r held fixed. Each block is evaluated once with slopes, then differentiated once
in reverse with the tangents along r. Autograd applied twice to `kernels.field.fused.evaluate` is
the twin.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.decodercpu import decode, multiply
from nstr3d.kernels.field.featurecpu import carried, feature_slopes, featurise, padded
from nstr3d.kernels.field.layout import COMPLEX, LANES, PHASE, PLAIN, STRIDE, TILE
from nstr3d.kernels.field.levelcpu import BLOCK, gather_with_slope, locate, spread_with_slope
from nstr3d.kernels.simd import (
    WIDE,
    decay,
    fma,
    load,
    load_wide,
    sine_and_cosine,
    splat,
    splat_wide,
    store,
    total,
)

# For a block: each level's channels and their slopes, the features' slopes and tangents, the hidden
# values with slopes and tangents, the intermediate gradients of the reverse pass, and the gradients
# in the channels and in their tangents.
Tangents = namedtuple(
    "Tangents", "spectra slopes turned along hidden slope turn change back second channels tangents"
)


@njit(cache=True)
def tangents_of(levels, decoder, points):
    """Buffers for the tangents of ``points`` points: a block's, or none."""
    width, line, count = len(decoder.bias), levels.line, len(levels.meta)
    columns = len(decoder.back) // width
    spectrum = points * levels.meta[:, STRIDE].max() + 2 * LANES
    return Tangents(
        np.zeros((count, spectrum), np.float32),
        np.zeros((count, 3 * spectrum), np.float32),
        np.zeros(3 * points * line + LANES, np.float32),
        np.zeros(points * line + LANES, np.float32),
        np.zeros(points * width, np.float32),
        np.zeros(points * width, np.float32),
        np.zeros(points * width, np.float32),
        np.zeros(points * width, np.float32),
        np.zeros(points * columns + 2 * LANES, np.float32),
        np.zeros(points * columns + 2 * LANES, np.float32),
        np.zeros(spectrum, np.float32),
        np.zeros(spectrum, np.float32),
    )


@njit(cache=True)
def gather_slopes(points, count, levels, decoder, cells, kept, room, values):
    """The values ``(BLOCK, 1)`` and slopes at the first ``count`` of a block's ``points (BLOCK,
    3)``. ``room`` and ``kept`` keep the inputs of `slope_errors` and `slope_gradients`."""
    for level in range(len(levels.meta)):
        locate(points, 0, count, levels, level, cells)
        spectrum, slopes = room.spectra[level], room.slopes[level]
        gather_with_slope(count, levels, level, cells, spectrum, slopes)
        featurise(points, 0, count, levels, level, spectrum, kept, np.int64(0))
        feature_slopes(count, levels, level, slopes, kept.local, room.turned)
    decode(kept.features, np.int64(0), count, levels, decoder, room.hidden, values, np.int64(0))


@njit(cache=True)
def slope_errors(count, weight, levels, decoder, room, wanted):
    """The sum of ``weight |grad f - wanted|^2`` over a block. Its gradient in grad f replaces
    ``wanted (BLOCK, 3)``. ``room.change`` receives the derivatives of f in the hidden units,
    ``room.back`` those in the features."""
    width, line = len(decoder.bias), levels.line
    columns, loss = len(decoder.back) // width, 0.0
    sharp, one = splat_wide(decoder.sharpness), splat_wide(1.0)
    for p in range(count):
        for s in range(0, width, WIDE):
            slope = one - decay(sharp * load_wide(room.hidden, p * width + s))
            store(room.slope, p * width + s, slope)
            store(room.change, p * width + s, slope * load_wide(decoder.last, s))
    room.back[:] = 0
    rows = (count + TILE - 1) // TILE * TILE
    multiply(room.change, np.int64(0), width, 1, decoder.back, room.back, columns, rows, width)
    for axis in range(3):
        for p in range(count):
            value, at = splat_wide(0.0), (axis * BLOCK + p) * line
            for s in range(0, columns, WIDE):
                value = fma(
                    load_wide(room.back, p * columns + s), load_wide(room.turned, at + s), value
                )
            error = total(value) - wanted[p, axis]
            loss += weight * error * error
            wanted[p, axis] = np.float32(2) * weight * error
    return loss


@njit(cache=True)
def slope_gradients(points, along, change, count, levels, decoder, cells, kept, room, sums):
    """Adds to ``sums`` the parameter gradient of a block's loss, whose gradient in f is
    ``change (BLOCK, 1)`` and in grad f ``along (BLOCK, 3)``."""
    columns = len(decoder.back) // len(decoder.bias)
    _decoder_backward(change, along, count, levels, decoder, kept.features, room, sums)
    for level in range(len(levels.meta)):
        _channels_backward(points, along, count, levels, level, columns, room)
        spread_with_slope(
            count, levels, level, cells, along, room.channels, room.tangents, sums.table
        )


@njit(cache=True)
def _decoder_backward(change, along, count, levels, decoder, features, room, sums):
    """The gradients in the decoder's weights, added to ``sums``, and in the features, into
    ``room.second``."""
    width, line, zero = len(decoder.bias), levels.line, np.int64(0)
    columns, rows = len(decoder.back) // width, (count + TILE - 1) // TILE * TILE
    inputs = (levels.inputs + TILE - 1) // TILE * TILE
    for p in range(count):
        x, y, z = splat(along[p, 0]), splat(along[p, 1]), splat(along[p, 2])
        for s in range(0, line, LANES):
            at = p * line + s
            value = fma(x, load(room.turned, at), y * load(room.turned, BLOCK * line + at))
            store(room.along, at, fma(z, load(room.turned, 2 * BLOCK * line + at), value))
    room.turn[:] = 0
    multiply(room.along, zero, line, 1, decoder.first, room.turn, width, rows, levels.inputs)
    multiply(room.along, zero, 1, line, room.change, sums.first, width, inputs, count)
    sharp, one = splat_wide(decoder.sharpness), splat_wide(1.0)
    for p in range(count):
        into = splat_wide(change[p, 0])
        for s in range(0, width, WIDE):
            at = p * width + s
            slope, turn = load_wide(room.slope, at), load_wide(room.turn, at)
            last = fma(into, load_wide(room.hidden, at), load_wide(sums.last, s))
            store(sums.last, s, fma(slope, turn, last))
            bend = load_wide(room.change, at) * fma(sharp * (one - slope), turn, into)
            store(room.change, at, bend)
            store(sums.bias, s, load_wide(sums.bias, s) + bend)
        sums.offset[0] += change[p, 0]
    multiply(features, zero, 1, line, room.change, sums.first, width, inputs, count)
    room.second[:] = 0
    multiply(room.change, zero, width, 1, decoder.back, room.second, columns, rows, width)


@njit(cache=True)
def _channels_backward(points, along, count, levels, level, columns, room):
    """From the gradients in the features, rows of ``columns``, those in a level's channels, into
    ``room.channels``, and in the channels' derivatives along ``along (BLOCK, 3)``, into
    ``room.tangents``.

    Whole vectors are written: the values past a row's end are overwritten by the next row.
    """
    _, _, _, stride, plain, kind, waves, feature, carrier, _, _, _ = levels.meta[level]
    spectrum, slopes = room.spectra[level], room.slopes[level]
    size, width, radians = len(slopes) // 3, padded(waves), splat(levels.radians[level])
    for p in range(count):
        row, at = p * stride, p * columns + feature
        for s in range(0, plain, LANES):
            store(room.channels, row + s, load(room.second, at + s))
            store(room.tangents, row + s, load(room.back, at + s))
        if kind == PLAIN:
            continue
        x, y, z = splat(along[p, 0]), splat(along[p, 1]), splat(along[p, 2])
        row, at = row + plain, at + plain
        for s in range(0, waves, LANES):
            phase = carried(points, p, levels.carrier, carrier + s, width)
            turn = _carried_along(x, y, z, levels.carrier, carrier + s, width)
            first, d_first = load(spectrum, row + s), _along(x, y, z, slopes, size, row + s)
            into, tangent = load(room.second, at + s), load(room.back, at + s)
            if kind == PHASE:
                phase = fma(radians, load(spectrum, row + waves + s), phase)
                turn = fma(radians, _along(x, y, z, slopes, size, row + waves + s), turn)
            sine, cosine = sine_and_cosine(phase)
            turned = tangent * turn
            store(room.channels, row + s, fma(into, sine, turned * cosine))
            store(room.tangents, row + s, tangent * sine)
            if kind == PHASE:
                bend = fma(into, first, tangent * d_first) * cosine - turned * first * sine
                store(room.channels, row + waves + s, radians * bend)
                store(room.tangents, row + waves + s, radians * tangent * first * cosine)
            elif kind == COMPLEX:
                store(room.channels, row + waves + s, into * cosine - turned * sine)
                store(room.tangents, row + waves + s, tangent * cosine)


@njit(cache=True, inline="always")
def _carried_along(x, y, z, carrier, at, width):
    """The derivative of omega . x along (x, y, z)."""
    value = fma(x, load(carrier, at), y * load(carrier, at + width))
    return fma(z, load(carrier, at + 2 * width), value)


@njit(cache=True, inline="always")
def _along(x, y, z, slopes, size, at):
    """The derivative of the channels along (x, y, z)."""
    value = fma(x, load(slopes, at), y * load(slopes, size + at))
    return fma(z, load(slopes, 2 * size + at), value)
