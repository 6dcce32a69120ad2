"""A whole field of interpolated levels, waves and a one-layer decoder in one pass over blocks of
points, on the CPU (numba).

Every level's gather, its waves, both matrix products and the softplus are done for a block while it
is in the first cache. Twin: `kernels.field.fused.evaluate`, in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit

from nstr3d.kernels.field.layout import (
    AMPLITUDE,
    COMPLEX,
    LANES,
    PHASE,
    PLAIN,
    RESOLUTION,
    ROW,
    STRIDE,
    TABLE,
)
from nstr3d.kernels.simd import (
    WIDE,
    decay,
    fma,
    load,
    load_wide,
    sine_and_cosine,
    softplus,
    splat,
    splat_wide,
    store,
    total,
)

BLOCK = 64  # points; a multiple of TILE
TILE = 8  # rows of a matrix product under way in registers

# What `kernels.field.layout.Layout` holds, as the kernels see it: ``meta (levels, 11)`` int64, the
# rest flat float32 but for int32 rows.
Levels = namedtuple("Levels", "meta radians rows table carrier inputs line local_line")
# Weights (features, hidden) and (hidden, features), padded to whole vectors; with no bias (0,)
# there is no decoder.
Decoder = namedtuple("Decoder", "first back bias last offset sharpness")
# What the backward pass needs of the forward one: features, the waves' derivatives, hidden values.
Kept = namedtuple("Kept", "features local hidden")
# Of a block's points on every level: where in the table the corners' rows are, and the offsets in
# the cell.
Cells = namedtuple("Cells", "places offsets")
Sums = namedtuple("Sums", "table first bias last carrier offset")  # gradients


@njit(cache=True, fastmath=True, inline="always")
def corner(points, n, axis, resolution):
    scaled = (points[n, axis] + np.float32(1)) * np.float32(resolution * 0.5)
    cell = min(max(int(np.floor(scaled)), 0), resolution - 1)
    return cell, scaled - np.float32(cell)


@njit(cache=True, inline="always")
def _pair(levels, level, node):
    """Where in the table the values of a node and the next are; the row before the first is zero
    and stands for missing ones."""
    at, stride = levels.meta[level, TABLE], levels.meta[level, STRIDE]
    return at + (np.int64(levels.rows[node]) + 1) * stride, at + (
        np.int64(levels.rows[node + 1]) + 1
    ) * stride


@njit(cache=True)
def locate(points, start, count, levels, level, cells):
    """The places of the eight corners' rows of a block's points, and their offsets in their
    cells."""
    resolution = levels.meta[level, RESOLUTION]
    edge, begin, places, offsets = (
        resolution + 1,
        levels.meta[level, ROW],
        cells.places[level],
        cells.offsets[level],
    )
    for p in range(count):
        i, offsets[p, 0] = corner(points, start + p, 0, resolution)
        j, offsets[p, 1] = corner(points, start + p, 1, resolution)
        k, offsets[p, 2] = corner(points, start + p, 2, resolution)
        low = begin + (i * edge + j) * edge + k
        far, high = low + edge, low + edge * edge
        top = high + edge
        places[p, 0], places[p, 1] = _pair(levels, level, low)
        places[p, 2], places[p, 3] = _pair(levels, level, far)
        places[p, 4], places[p, 5] = _pair(levels, level, high)
        places[p, 6], places[p, 7] = _pair(levels, level, top)


@njit(cache=True, inline="always")
def _cell(cells, level, p):
    """What `locate` found for a point of the block."""
    at, offset = cells.places[level, p], cells.offsets[level, p]
    return (
        (at[0], at[1], at[2], at[3]),
        (at[4], at[5], at[6], at[7]),
        offset[0],
        offset[1],
        offset[2],
    )


@njit(cache=True, inline="always")
def _weights(u, v, w):
    """The weights of the eight corners, in the order of `_cell`."""
    one = np.float32(1)
    a, b, c, d = (one - u) * (one - v), (one - u) * v, u * (one - v), u * v
    low = (splat(a * (one - w)), splat(a * w), splat(b * (one - w)), splat(b * w))
    return low, (splat(c * (one - w)), splat(c * w), splat(d * (one - w)), splat(d * w))


@njit(cache=True)
def gather(count, levels, level, cells, spectrum):
    """The level's channels of a block, a row of ``stride`` each."""
    table, stride = levels.table, levels.meta[level, STRIDE]
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _cell(cells, level, p)
        (wa, wb, wc, wd), (we, wf, wg, wh) = _weights(u, v, w)
        for s in range(0, stride, LANES):
            low = fma(wa, load(table, a + s), wb * load(table, b + s))
            low = fma(wc, load(table, c + s), fma(wd, load(table, d + s), low))
            high = fma(we, load(table, e + s), wf * load(table, f + s))
            high = fma(wg, load(table, g + s), fma(wh, load(table, h + s), high))
            store(spectrum, p * stride + s, low + high)


@njit(cache=True)
def _gather_with_slope(count, levels, level, cells, spectrum, slopes):
    """As `_gather`, with the derivatives along the axes: three arrays like ``spectrum`` one after
    another."""
    table, stride = levels.table, levels.meta[level, STRIDE]
    size = len(slopes) // 3
    scale = splat(np.float32(levels.meta[level, RESOLUTION] * 0.5))
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _cell(cells, level, p)
        u, v, w = splat(u), splat(v), splat(w)
        for s in range(0, stride, LANES):
            la, lc, le, lg = (
                load(table, a + s),
                load(table, c + s),
                load(table, e + s),
                load(table, g + s),
            )
            da, dc, de, dg = (
                load(table, b + s) - la,
                load(table, d + s) - lc,
                load(table, f + s) - le,
                load(table, h + s) - lg,
            )
            la, lc, le, lg = fma(w, da, la), fma(w, dc, lc), fma(w, de, le), fma(w, dg, lg)
            dla, dle = lc - la, lg - le
            la, le = fma(v, dla, la), fma(v, dle, le)
            da, de = fma(v, dc - da, da), fma(v, dg - de, de)
            at = p * stride + s
            store(spectrum, at, fma(u, le - la, la))
            store(slopes, at, scale * (le - la))
            store(slopes, size + at, scale * fma(u, dle - dla, dla))
            store(slopes, 2 * size + at, scale * fma(u, de - da, da))


@njit(cache=True, inline="always")
def _carried(points, n, carrier, at, width):
    """omega . x + b of the waves whose frequencies and phases are at ``at``."""
    phase = fma(splat(points[n, 0]), load(carrier, at), load(carrier, at + 3 * width))
    return fma(
        splat(points[n, 1]),
        load(carrier, at + width),
        fma(splat(points[n, 2]), load(carrier, at + 2 * width), phase),
    )


@njit(cache=True, inline="always")
def _padded(count):
    return (count + LANES - 1) // LANES * LANES


@njit(cache=True)
def featurise(points, start, count, levels, level, spectrum, kept, first):
    """What the decoder reads, from the channels of a block, into rows from ``first`` on; and the
    derivatives of the waves' features in their channels and in their phase.

    Whole vectors are written: what they put past their end, the next ones overwrite.
    """
    _, _, _, stride, plain, kind, waves, feature, carrier, place, _ = levels.meta[level]
    features, local, width, radians = (
        kept.features,
        kept.local,
        _padded(waves),
        splat(levels.radians[level]),
    )
    for p in range(count):
        row, to, beside = (
            p * stride,
            (first + p) * levels.line + feature,
            (first + p) * levels.local_line + place,
        )
        for s in range(0, plain, LANES):
            store(features, to + s, load(spectrum, row + s))
        if kind == PLAIN:
            continue
        row, to = row + plain, to + plain
        for s in range(0, waves, LANES):
            phase = _carried(points, start + p, levels.carrier, carrier + s, width)
            size = load(spectrum, row + s)
            if kind == PHASE:
                phase = fma(radians, load(spectrum, row + waves + s), phase)
            sine, cosine = sine_and_cosine(phase)
            if kind == COMPLEX:
                other = load(spectrum, row + waves + s)
                store(local, beside + s, sine)
                store(local, beside + width + s, cosine)
                store(local, beside + 2 * width + s, size * cosine - other * sine)
                store(features, to + s, fma(size, sine, other * cosine))
            else:
                store(local, beside + s, sine)
                store(local, beside + width + s, size * cosine)
                store(features, to + s, size * sine)


@njit(cache=True)
def _feature_slopes(count, levels, level, slopes, local, features):
    """The derivatives of a block's features along the axes, three blocks ``(BLOCK, line)`` one
    after another."""
    _, _, _, stride, plain, kind, waves, feature, carrier, place, _ = levels.meta[level]
    width, radians, size = _padded(waves), splat(levels.radians[level]), len(slopes) // 3
    for axis in range(3):
        for p in range(count):
            row, to = axis * size + p * stride, (axis * BLOCK + p) * levels.line + feature
            beside = p * levels.local_line + place
            for s in range(0, plain, LANES):
                store(features, to + s, load(slopes, row + s))
            if kind == PLAIN:
                continue
            row, to = row + plain, to + plain
            for s in range(0, waves, LANES):
                omega = load(levels.carrier, carrier + axis * width + s)
                value = load(local, beside + s) * load(slopes, row + s)
                turn = load(local, beside + width + s)
                if kind == COMPLEX:
                    value = fma(turn, load(slopes, row + waves + s), value)
                    turn = load(local, beside + 2 * width + s)
                elif kind == PHASE:
                    omega = fma(radians, load(slopes, row + waves + s), omega)
                store(features, to + s, fma(turn, omega, value))


@njit(cache=True)
def _multiply(a, first, row, step, b, c, columns, rows, inner):
    """``c += a b``: c of ``rows`` rows (a multiple of TILE) of ``columns`` (of WIDE), b with
    ``inner`` rows of ``columns``, and a from ``first`` on with ``row`` between its rows and
    ``step`` between its columns."""
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
                c0, c1 = fma(splat_wide(a[x]), line, c0), fma(splat_wide(a[x + row]), line, c1)
                c2, c3 = (
                    fma(splat_wide(a[x + 2 * row]), line, c2),
                    fma(splat_wide(a[x + 3 * row]), line, c3),
                )
                c4, c5 = (
                    fma(splat_wide(a[x + 4 * row]), line, c4),
                    fma(splat_wide(a[x + 5 * row]), line, c5),
                )
                c6, c7 = (
                    fma(splat_wide(a[x + 6 * row]), line, c6),
                    fma(splat_wide(a[x + 7 * row]), line, c7),
                )
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
    """The hidden values of a block, ``(BLOCK, width)``, and the values ``out`` from row ``start``
    on."""
    width, outputs = len(decoder.bias), out.shape[1]
    rows = (count + TILE - 1) // TILE * TILE
    for p in range(rows):
        for s in range(0, width, WIDE):
            store(hidden, p * width + s, load_wide(decoder.bias, s))
    _multiply(
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


@njit(cache=True, inline="always")
def scratch(levels):
    """Room for a block's cells, its spectrum, and for what its forward pass leaves."""
    cells = Cells(
        np.empty((len(levels.meta), BLOCK, 8), np.int64),
        np.empty((len(levels.meta), BLOCK, 3), np.float32),
    )
    spectrum = np.zeros(BLOCK * levels.meta[:, STRIDE].max() + 2 * LANES, np.float32)
    features, local = (
        np.zeros(BLOCK * levels.line, np.float32),
        np.zeros(BLOCK * levels.local_line, np.float32),
    )
    return cells, spectrum, Kept(features, local, np.zeros(0, np.float32))


@njit(cache=True, nogil=True)
def forward(low, high, points, levels, decoder, kept, out):
    """One thread's share of the values; and of what `backward` needs, unless ``kept`` is empty."""
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
    """Copy a flat ``table`` of rows of ``channels`` into ``packed`` from ``at`` on, a zero row
    before it and ``stride`` to a row.

    Whole vectors are copied: a row is followed by the start of the next, which nobody reads, or by
    zeros.
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
    """The gradient of what `pack` packed: the threads' ``sums (threads, size)``, added in their
    order."""
    safe = len(table) - stride
    for row in range(0, len(table), channels):
        at += stride
        if row <= safe:  # what whole vectors put past a row's end, the next row overwrites
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
def decode_backward(start, count, levels, decoder, kept, first, grad, change, back, sums):
    """Gradients of a block, which ``kept`` has from row ``first`` on and ``grad`` from ``start``
    on: in its features into ``back``, in the decoder's weights added to theirs."""
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
            into = into * (one - decay(sharp * value))  # the slope of softplus, from its value
            store(change, p * width + s, into)
            store(sums.bias, s, load_wide(sums.bias, s) + into)
        for o in range(outputs):
            sums.offset[o] += grad[start + p, o]
    rows = (levels.inputs + TILE - 1) // TILE * TILE
    _multiply(kept.features, first * line, 1, line, change, sums.first, width, rows, count)
    back[:] = 0
    _multiply(
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


@njit(cache=True)
def scatter(points, start, count, levels, level, cells, back, columns, kept, first, spectrum, sums):
    """Add a block's gradient in the features, rows of ``columns``, to the table's and the waves';
    ``kept`` has the block from row ``first`` on."""
    _, _, _, stride, plain, kind, waves, feature, carrier, place, _ = levels.meta[level]
    local, width, radians = kept.local, _padded(waves), splat(levels.radians[level])
    g_table, g_carrier = sums.table, sums.carrier
    for p in range(count):
        row, at, beside = p * stride, p * columns + feature, (first + p) * levels.local_line + place
        for s in range(0, plain, LANES):
            store(spectrum, row + s, load(back, at + s))
        if kind != PLAIN:
            row, at = row + plain, at + plain
            for s in range(0, waves, LANES):
                store(spectrum, row + s, load(back, at + s) * load(local, beside + s))
            if kind != AMPLITUDE:
                scale = radians if kind == PHASE else splat(1.0)
                for s in range(0, waves, LANES):
                    store(
                        spectrum,
                        row + waves + s,
                        load(back, at + s) * load(local, beside + width + s) * scale,
                    )
            if len(g_carrier):
                turn = beside + (2 * width if kind == COMPLEX else width)
                for s in range(0, waves, LANES):
                    phase, to = load(back, at + s) * load(local, turn + s), carrier + s
                    for axis in range(3):
                        where = to + axis * width
                        store(
                            g_carrier,
                            where,
                            fma(splat(points[start + p, axis]), phase, load(g_carrier, where)),
                        )
                    store(g_carrier, to + 3 * width, load(g_carrier, to + 3 * width) + phase)
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _cell(cells, level, p)
        (wa, wb, wc, wd), (we, wf, wg, wh) = _weights(u, v, w)
        for s in range(0, stride, LANES):
            value = load(spectrum, p * stride + s)
            store(g_table, a + s, fma(wa, value, load(g_table, a + s)))
            store(g_table, b + s, fma(wb, value, load(g_table, b + s)))
            store(g_table, c + s, fma(wc, value, load(g_table, c + s)))
            store(g_table, d + s, fma(wd, value, load(g_table, d + s)))
            store(g_table, e + s, fma(we, value, load(g_table, e + s)))
            store(g_table, f + s, fma(wf, value, load(g_table, f + s)))
            store(g_table, g + s, fma(wg, value, load(g_table, g + s)))
            store(g_table, h + s, fma(wh, value, load(g_table, h + s)))


@njit(cache=True, nogil=True)
def backward(low, high, points, levels, decoder, kept, grad, sums):
    """One thread's share, into sums of its own. Without a decoder ``grad`` is that of the
    features."""
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
    """One thread's share of values and gradients of a field of one output."""
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
            _gather_with_slope(count, levels, level, cells, spectrum, slopes)
            featurise(points, start, count, levels, level, spectrum, kept, np.int64(0))
            _feature_slopes(count, levels, level, slopes, kept.local, turned)
        decode(kept.features, np.int64(0), count, levels, decoder, hidden, out, start)
        for p in range(count):
            for s in range(0, width, WIDE):
                value = one - decay(sharp * load_wide(hidden, p * width + s))
                store(hidden, p * width + s, value * load_wide(decoder.last, s))
        back[:] = 0
        _multiply(
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
