"""A whole field of interpolated levels, waves and a one-layer decoder in one pass over blocks of
points, on the CPU (numba).

A block's gathers, waves, matrix products and softplus are done while the block is in the first
cache. `kernels.field.fused.evaluate` is the twin in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.decodercpu import decode, decode_backward, multiply
from nstr3d.kernels.field.featurecpu import feature_slopes, featurise, featurise_backward
from nstr3d.kernels.field.layout import LANES, STRIDE, TILE
from nstr3d.kernels.field.levelcpu import BLOCK, cells_of, gather, gather_with_slope, locate, spread
from nstr3d.kernels.simd import WIDE, decay, fma, load, load_wide, splat_wide, store, total

# What `kernels.field.layout.Layout` holds, as the kernels see it: ``meta (levels, 12)`` int64, the
# rest flat float32 but for int32 places.
Levels = namedtuple("Levels", "meta radians places table carrier inputs line local_line")
# Results of the forward pass that the backward pass reads: features, the waves' derivatives,
# hidden values.
Kept = namedtuple("Kept", "features local hidden")
Sums = namedtuple(
    "Sums", "table first bias last carrier offset"
)  # the gradients that a thread accumulates


@njit(cache=True, inline="always")
def scratch(levels):
    """Buffers for a block's cells, its spectrum and the results of its forward pass."""
    spectrum = np.zeros(BLOCK * levels.meta[:, STRIDE].max() + 2 * LANES, np.float32)
    features, local = (
        np.zeros(BLOCK * levels.line, np.float32),
        np.zeros(BLOCK * levels.local_line, np.float32),
    )
    return cells_of(levels), spectrum, Kept(features, local, np.zeros(0, np.float32))


@njit(cache=True, nogil=True)
def forward(low, high, points, levels, decoder, kept, out):
    """The values at points ``low`` to ``high``, one thread's part. Fills ``kept`` for `backward`
    unless ``kept`` is empty."""
    width, keep = len(decoder.bias), len(kept.features) > 0
    cells, spectrum, block = scratch(levels)
    mine, hidden = kept if keep else block, np.zeros(BLOCK * width, np.float32)
    for start in range(low, high, BLOCK):
        count, first = min(BLOCK, high - start), start if keep else 0
        for level in range(len(levels.meta)):
            locate(points, start, count, levels, level, cells)
            gather(count, levels, level, cells, spectrum)
            featurise(points, start, count, levels, level, spectrum, mine, first)
        if width:
            decode(mine.features, first, count, levels, decoder, hidden, out, start)
            if keep:
                kept.hidden[start * width : (start + count) * width] = hidden[: count * width]


@njit(cache=True)
def pack(table, packed, at, stride, channels):
    """Copies a flat ``table`` with rows of ``channels`` into ``packed`` from ``at``: a zero row,
    then rows ``stride`` apart.

    Whole vectors are copied. The padding after a row holds the start of the next row, which nothing
    reads, or zeros.
    """
    packed[at : at + stride] = 0
    safe = len(table) - stride
    for row in range(0, len(table), channels):
        at += stride
        if row <= safe:
            for s in range(0, stride, LANES):
                store(packed, at + s, load(table, row + s))
        else:
            packed[at : at + channels] = table[row : row + channels]
            packed[at + channels : at + stride] = 0


@njit(cache=True)
def unpack(sums, table, at, stride, channels):
    """The gradient of the table that `pack` packed: the threads' ``sums (threads, size)``, added in
    the order of the threads."""
    safe = len(table) - stride
    for row in range(0, len(table), channels):
        at += stride
        if row <= safe:  # values past a row's end are overwritten by the next row
            for s in range(0, stride, LANES):
                value = load(sums[0], at + s)
                for part in range(1, len(sums)):
                    value = value + load(sums[part], at + s)
                store(table, row + s, value)
        else:
            for channel in range(channels):
                value = sums[0, at + channel]
                for part in range(1, len(sums)):
                    value += sums[part, at + channel]
                table[row + channel] = value


@njit(cache=True)
def scatter(points, start, count, levels, level, cells, back, columns, kept, first, spectrum, sums):
    """Adds a block's gradient ``back`` in the features, rows of ``columns``, to the gradients of
    the table and of the waves. The block starts at row ``first`` of ``kept``."""
    featurise_backward(
        points, start, count, levels, level, back, columns, kept, first, spectrum, sums.carrier
    )
    spread(count, levels, level, cells, spectrum, sums.table)


@njit(cache=True, nogil=True)
def backward(low, high, points, levels, decoder, kept, grad, sums):
    """The gradients of points ``low`` to ``high``, one thread's part, added to the thread's own
    ``sums``. Without a decoder ``grad`` is the gradient in the features."""
    width, inputs = len(decoder.bias), levels.inputs
    columns = len(decoder.back) // width if width else inputs
    cells, spectrum, _ = scratch(levels)
    change, back = (
        np.zeros(BLOCK * width, np.float32),
        np.zeros(BLOCK * columns + 2 * LANES, np.float32),
    )
    _clear(sums)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        if width:
            decode_backward(start, count, levels, decoder, kept, start, grad, change, back, sums)
        else:
            back[: count * inputs] = grad[start : start + count].ravel()
        for level in range(len(levels.meta)):
            locate(points, start, count, levels, level, cells)
            scatter(
                points,
                start,
                count,
                levels,
                level,
                cells,
                back,
                columns,
                kept,
                start,
                spectrum,
                sums,
            )


@njit(cache=True)
def _clear(sums):
    sums.table[:], sums.first[:], sums.bias[:], sums.last[:], sums.carrier[:], sums.offset[:] = (
        0,
        0,
        0,
        0,
        0,
        0,
    )


@njit(cache=True, nogil=True)
def forward_with_slope(low, high, points, levels, decoder, out, slope):
    """Values and gradients of a field of one output at points ``low`` to ``high``, one thread's
    part."""
    width, line = len(decoder.bias), levels.line
    columns = len(decoder.back) // width
    cells, spectrum, kept = scratch(levels)
    slopes, turned = (
        np.zeros(3 * len(spectrum), np.float32),
        np.zeros(3 * BLOCK * line + LANES, np.float32),
    )
    hidden, back = np.zeros(BLOCK * width, np.float32), np.zeros(BLOCK * columns, np.float32)
    sharp, one = splat_wide(decoder.sharpness), splat_wide(1.0)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        for level in range(len(levels.meta)):
            locate(points, start, count, levels, level, cells)
            gather_with_slope(count, levels, level, cells, spectrum, slopes)
            featurise(points, start, count, levels, level, spectrum, kept, np.int64(0))
            feature_slopes(count, levels, level, slopes, kept.local, turned)
        decode(kept.features, np.int64(0), count, levels, decoder, hidden, out, start)
        for p in range(count):
            for s in range(0, width, WIDE):
                value = one - decay(sharp * load_wide(hidden, p * width + s))
                store(hidden, p * width + s, value * load_wide(decoder.last, s))
        back[:] = 0
        multiply(
            hidden,
            np.int64(0),
            width,
            1,
            decoder.back,
            back,
            columns,
            (count + TILE - 1) // TILE * TILE,
            width,
        )
        for axis in range(3):
            for p in range(count):
                value, at = splat_wide(0.0), (axis * BLOCK + p) * line
                for s in range(
                    0, columns, WIDE
                ):  # where a row ends before them, the first factor is zero
                    value = fma(load_wide(back, p * columns + s), load_wide(turned, at + s), value)
                slope[start + p, axis] = total(value)
