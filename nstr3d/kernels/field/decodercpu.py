"""The decoder of one hidden layer on a block of points, and its gradient, on the CPU (numba).

`kernels.field.fused.evaluate` is the twin in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.layout import TILE
from nstr3d.kernels.simd import (
    WIDE,
    decay,
    fma,
    item,
    load_wide,
    softplus,
    splat_wide,
    store,
    total,
)

# Weights (features, hidden) and (hidden, features), padded to whole vectors. An empty bias (0,)
# means no decoder.
Decoder = namedtuple("Decoder", "first back bias last offset sharpness")


@njit(cache=True)
def multiply(a, first, row, step, b, c, columns, rows, inner):
    """``c += a b``.

    ``c`` has ``rows`` rows (a multiple of TILE) of ``columns`` (a multiple of WIDE). ``b`` has
    ``inner`` rows of ``columns``. ``a`` is read from ``first``, ``row`` values between its rows and
    ``step`` values between its columns.
    """
    for i in range(0, rows, TILE):
        r = first + i * row
        for j in range(0, columns, WIDE):
            at = i * columns + j
            c0, c1 = load_wide(c, at), load_wide(c, at + columns)
            c2, c3 = load_wide(c, at + 2 * columns), load_wide(c, at + 3 * columns)
            c4, c5 = load_wide(c, at + 4 * columns), load_wide(c, at + 5 * columns)
            c6, c7 = load_wide(c, at + 6 * columns), load_wide(c, at + 7 * columns)
            for k in range(inner):
                line, x = load_wide(b, k * columns + j), r + k * step
                c0 = fma(splat_wide(item(a, x)), line, c0)
                c1 = fma(splat_wide(item(a, x + row)), line, c1)
                c2 = fma(splat_wide(item(a, x + 2 * row)), line, c2)
                c3 = fma(splat_wide(item(a, x + 3 * row)), line, c3)
                c4 = fma(splat_wide(item(a, x + 4 * row)), line, c4)
                c5 = fma(splat_wide(item(a, x + 5 * row)), line, c5)
                c6 = fma(splat_wide(item(a, x + 6 * row)), line, c6)
                c7 = fma(splat_wide(item(a, x + 7 * row)), line, c7)
            store(c, at, c0)
            store(c, at + columns, c1)
            store(c, at + 2 * columns, c2)
            store(c, at + 3 * columns, c3)
            store(c, at + 4 * columns, c4)
            store(c, at + 5 * columns, c5)
            store(c, at + 6 * columns, c6)
            store(c, at + 7 * columns, c7)


@njit(cache=True)
def decode(features, first, count, levels, decoder, hidden, out, start):
    """The hidden values ``(BLOCK, width)`` of a block; the field's values go to ``out`` from row
    ``start``."""
    width, outputs = len(decoder.bias), out.shape[1]
    rows = (count + TILE - 1) // TILE * TILE
    for p in range(rows):
        for s in range(0, width, WIDE):
            store(hidden, p * width + s, load_wide(decoder.bias, s))
    multiply(
        features,
        first * levels.line,
        levels.line,
        1,
        decoder.first,
        hidden,
        width,
        rows,
        levels.inputs,
    )
    sharp, blunt = splat_wide(decoder.sharpness), splat_wide(np.float32(1) / decoder.sharpness)
    for p in range(count):
        for s in range(p * width, (p + 1) * width, WIDE):
            store(hidden, s, softplus(sharp * load_wide(hidden, s)) * blunt)
        for o in range(outputs):
            value = splat_wide(0.0)
            for s in range(0, width, WIDE):
                value = fma(
                    load_wide(hidden, p * width + s), load_wide(decoder.last, o * width + s), value
                )
            out[start + p, o] = total(value) + decoder.offset[o]


@njit(cache=True)
def decode_backward(start, count, levels, decoder, kept, first, grad, change, back, sums):
    """The gradient of a block in its features, into ``back``, and in the decoder's weights, added
    to ``sums``. The block starts at row ``first`` of ``kept`` and at row ``start`` of ``grad``."""
    width, outputs, columns = (
        len(decoder.bias),
        grad.shape[1],
        len(decoder.back) // len(decoder.bias),
    )
    sharp, one, line = splat_wide(decoder.sharpness), splat_wide(1.0), levels.line
    for p in range(count):
        for s in range(0, width, WIDE):
            value, into = load_wide(kept.hidden, (first + p) * width + s), splat_wide(0.0)
            for o in range(outputs):
                scale = splat_wide(grad[start + p, o])
                into = fma(scale, load_wide(decoder.last, o * width + s), into)
                store(
                    sums.last, o * width + s, fma(scale, value, load_wide(sums.last, o * width + s))
                )
            into = into * (one - decay(sharp * value))  # the derivative of softplus, from its value
            store(change, p * width + s, into)
            store(sums.bias, s, load_wide(sums.bias, s) + into)
        for o in range(outputs):
            sums.offset[o] += grad[start + p, o]
    rows = (levels.inputs + TILE - 1) // TILE * TILE
    multiply(kept.features, first * line, 1, line, change, sums.first, width, rows, count)
    back[:] = 0
    multiply(
        change,
        np.int64(0),
        width,
        1,
        decoder.back,
        back,
        columns,
        (count + TILE - 1) // TILE * TILE,
        width,
    )
