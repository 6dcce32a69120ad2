"""A whole field of interpolated levels, waves and a one-layer decoder in one pass over blocks of points, on the CPU (numba).

Every level's gather, its waves, both matrix products and the softplus are done for a block while it is in the first cache.
Twin: `kernels.fused`, which lays out the arrays and documents them, says what is computed in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import njit, prange

from nstr3d.kernels.simd import LANES, WIDE, decay, fma, load, load_wide, sine_and_cosine, softplus, splat, splat_wide, store, total

BLOCK = 64  # points; a multiple of TILE
TILE = 8  # rows of a matrix product under way in registers
PLAIN, AMPLITUDE, COMPLEX, PHASE = range(4)  # kinds of waves

# What `kernels.fused.Layout` holds, as the kernels see it: ``meta (levels, 10)`` int64, the rest flat float32 but for int32 rows.
Levels = namedtuple("Levels", "meta radians rows table carrier")
# Weights (features, hidden) and (hidden, features), padded to whole vectors; with no bias (0,) there is no decoder.
Decoder = namedtuple("Decoder", "first back bias last offset sharpness")
RESOLUTION, ROW, TABLE, STRIDE, PLAINS, KIND, WAVES, FEATURE, CARRIER, LOCAL = range(10)  # columns of meta


@njit(cache=True, fastmath=True, inline="always")
def _corner(points, n, axis, resolution):
    scaled = (points[n, axis] + np.float32(1)) * np.float32(resolution * 0.5)
    cell = min(max(int(np.floor(scaled)), 0), resolution - 1)
    return cell, scaled - np.float32(cell)


@njit(cache=True, inline="always")
def _place(levels, level, row):
    """Where in the table the values of a stored row are; the row before the first is zero and stands for missing nodes."""
    return levels.meta[level, TABLE] + (np.int64(levels.rows[row]) + 1) * levels.meta[level, STRIDE]


@njit(cache=True, inline="always")
def _corners(points, n, levels, level):
    """The places of the eight corners' rows, and the point's offsets in its cell."""
    resolution = levels.meta[level, RESOLUTION]
    i, u = _corner(points, n, 0, resolution)
    j, v = _corner(points, n, 1, resolution)
    k, w = _corner(points, n, 2, resolution)
    edge = resolution + 1
    low = levels.meta[level, ROW] + (i * edge + j) * edge + k
    far, high = low + edge, low + edge * edge
    top = high + edge
    first = (_place(levels, level, low), _place(levels, level, low + 1), _place(levels, level, far), _place(levels, level, far + 1))
    last = (_place(levels, level, high), _place(levels, level, high + 1), _place(levels, level, top), _place(levels, level, top + 1))
    return first, last, u, v, w


@njit(cache=True, inline="always")
def _weights(u, v, w):
    """The weights of the eight corners, in the order of `_corners`."""
    one = np.float32(1)
    a, b, c, d = (one - u) * (one - v), (one - u) * v, u * (one - v), u * v
    low = (splat(a * (one - w)), splat(a * w), splat(b * (one - w)), splat(b * w))
    return low, (splat(c * (one - w)), splat(c * w), splat(d * (one - w)), splat(d * w))


@njit(cache=True)
def _gather(points, start, count, levels, level, spectrum):
    """The level's channels of a block, a row of ``stride`` each."""
    table, stride = levels.table, levels.meta[level, STRIDE]
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _corners(points, start + p, levels, level)
        (wa, wb, wc, wd), (we, wf, wg, wh) = _weights(u, v, w)
        for s in range(0, stride, LANES):
            low = fma(wa, load(table, a + s), wb * load(table, b + s))
            low = fma(wc, load(table, c + s), fma(wd, load(table, d + s), low))
            high = fma(we, load(table, e + s), wf * load(table, f + s))
            high = fma(wg, load(table, g + s), fma(wh, load(table, h + s), high))
            store(spectrum, p * stride + s, low + high)


@njit(cache=True)
def _gather_with_slope(points, start, count, levels, level, spectrum, slopes):
    """As `_gather`, with the derivatives along the axes: three arrays like ``spectrum`` one after another."""
    table, stride = levels.table, levels.meta[level, STRIDE]
    size = len(slopes) // 3
    scale = splat(np.float32(levels.meta[level, RESOLUTION] * 0.5))
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _corners(points, start + p, levels, level)
        u, v, w = splat(u), splat(v), splat(w)
        for s in range(0, stride, LANES):
            la, lc, le, lg = load(table, a + s), load(table, c + s), load(table, e + s), load(table, g + s)
            da, dc, de, dg = load(table, b + s) - la, load(table, d + s) - lc, load(table, f + s) - le, load(table, h + s) - lg
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
    return fma(splat(points[n, 1]), load(carrier, at + width), fma(splat(points[n, 2]), load(carrier, at + 2 * width), phase))


@njit(cache=True, inline="always")
def _padded(count):
    return (count + LANES - 1) // LANES * LANES


@njit(cache=True)
def _features(points, start, count, levels, level, spectrum, features, first, line, local, local_line):
    """What the decoder reads, from the channels of a block, into rows of ``line``, the first at ``first``; and the derivatives
    of the waves' features in their channels and in their phase, into rows of ``local_line``.

    Whole vectors are written: what they put past their end, the next ones overwrite.
    """
    _, _, _, stride, plain, kind, waves, feature, carrier, place = levels.meta[level]
    width, radians = _padded(waves), splat(levels.radians[level])
    for p in range(count):
        row, to, beside = p * stride, (first + p) * line + feature, (first + p) * local_line + place
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
def _feature_slopes(count, levels, level, slopes, local, local_line, features, line):
    """The derivatives of a block's features along the axes, three blocks ``(BLOCK, line)`` one after another."""
    _, _, _, stride, plain, kind, waves, feature, carrier, place = levels.meta[level]
    width, radians, size = _padded(waves), splat(levels.radians[level]), len(slopes) // 3
    for axis in range(3):
        for p in range(count):
            row, to, beside = axis * size + p * stride, (axis * BLOCK + p) * line + feature, p * local_line + place
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
    """``c += a b``: c of ``rows`` rows (a multiple of TILE) of ``columns`` (of WIDE), b with ``inner`` rows of ``columns``, and a
    from ``first`` on with ``row`` between its rows and ``step`` between its columns."""
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
                c2, c3 = fma(splat_wide(a[x + 2 * row]), line, c2), fma(splat_wide(a[x + 3 * row]), line, c3)
                c4, c5 = fma(splat_wide(a[x + 4 * row]), line, c4), fma(splat_wide(a[x + 5 * row]), line, c5)
                c6, c7 = fma(splat_wide(a[x + 6 * row]), line, c6), fma(splat_wide(a[x + 7 * row]), line, c7)
            store(c, at, c0)
            store(c, at + columns, c1)
            store(c, at + 2 * columns, c2)
            store(c, at + 3 * columns, c3)
            store(c, at + 4 * columns, c4)
            store(c, at + 5 * columns, c5)
            store(c, at + 6 * columns, c6)
            store(c, at + 7 * columns, c7)


@njit(cache=True)
def _decode(features, first, count, line, inputs, decoder, hidden, out, start):
    """The hidden values of a block, ``(BLOCK, width)``, and the values ``out`` from row ``start`` on."""
    width, outputs = len(decoder.bias), out.shape[1]
    rows = (count + TILE - 1) // TILE * TILE
    for p in range(rows):
        for s in range(0, width, WIDE):
            store(hidden, p * width + s, load_wide(decoder.bias, s))
    _multiply(features, first * line, line, 1, decoder.first, hidden, width, rows, inputs)
    sharp, blunt = splat_wide(decoder.sharpness), splat_wide(np.float32(1) / decoder.sharpness)
    for p in range(count):
        for s in range(p * width, (p + 1) * width, WIDE):
            store(hidden, s, softplus(sharp * load_wide(hidden, s)) * blunt)
        for o in range(outputs):
            value = splat_wide(0.0)
            for s in range(0, width, WIDE):
                value = fma(load_wide(hidden, p * width + s), load_wide(decoder.last, o * width + s), value)
            out[start + p, o] = total(value) + decoder.offset[o]


@njit(cache=True, nogil=True)
def _forward_part(low, high, points, levels, decoder, inputs, line, local_line, features, local, hidden, out):
    """One thread's share. Arrays for fewer points than there are hold a block at a time."""
    keep, decoded = len(features) >= len(points) * line, len(decoder.bias) > 0
    spectrum = np.zeros(BLOCK * levels.meta[:, STRIDE].max() + 2 * LANES, np.float32)
    mine, beside = (features, local) if keep else (np.zeros((BLOCK + 1) * line, np.float32), np.zeros((BLOCK + 1) * local_line, np.float32))
    active = np.zeros(BLOCK * len(decoder.bias), np.float32)
    for start in range(low, high, BLOCK):
        count, first = min(BLOCK, high - start), start if keep else 0
        for level in range(len(levels.meta)):
            _gather(points, start, count, levels, level, spectrum)
            _features(points, start, count, levels, level, spectrum, mine, first, line, beside, local_line)
        if decoded:
            _decode(mine, first, count, line, inputs, decoder, active, out, start)
            if keep:
                hidden[start * len(decoder.bias) : (start + count) * len(decoder.bias)] = active[: count * len(decoder.bias)]


@njit(cache=True)
def pack(table, level, levels):
    """Copy a level's ``table (rows, channels)`` to its place, a zero row before it and zeros after each row."""
    at, stride, channels = levels.meta[level, TABLE], levels.meta[level, STRIDE], table.shape[1]
    levels.table[at : at + stride] = 0
    for row in range(len(table)):
        at += stride
        for channel in range(channels):
            levels.table[at + channel] = table[row, channel]
        for channel in range(channels, stride):
            levels.table[at + channel] = 0


@njit(cache=True)
def unpack(sums, level, levels, table):
    """The gradient ``table (rows, channels)`` of a level from the threads' ``sums (threads, size)``, added in their order."""
    at, stride, channels = levels.meta[level, TABLE], levels.meta[level, STRIDE], table.shape[1]
    for row in range(len(table)):
        at += stride
        for channel in range(channels):
            value = sums[0, at + channel]
            for part in range(1, len(sums)):
                value += sums[part, at + channel]
            table[row, channel] = value


@njit(cache=True, parallel=True)
def forward(points, levels, decoder, inputs, line, local_line, features, local, hidden, out, parts):
    blocks = (len(points) + BLOCK - 1) // BLOCK
    for part in prange(parts):
        low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, len(points))
        _forward_part(low, high, points, levels, decoder, inputs, line, local_line, features, local, hidden, out)


@njit(cache=True)
def _decode_backward(start, count, features, line, inputs, decoder, hidden, grad, change, back, g_first, g_bias, g_last, g_offset):
    """Gradients of a block: in its features into ``back``, in the decoder's weights added to theirs."""
    width, outputs, columns = len(decoder.bias), grad.shape[1], len(decoder.back) // len(decoder.bias)
    sharp, one = splat_wide(decoder.sharpness), splat_wide(1.0)
    for p in range(count):
        for s in range(0, width, WIDE):
            value, into = load_wide(hidden, (start + p) * width + s), splat_wide(0.0)
            for o in range(outputs):
                scale = splat_wide(grad[start + p, o])
                into = fma(scale, load_wide(decoder.last, o * width + s), into)
                store(g_last, o * width + s, fma(scale, value, load_wide(g_last, o * width + s)))
            into = into * (one - decay(sharp * value))  # the slope of softplus, from its value
            store(change, p * width + s, into)
            store(g_bias, s, load_wide(g_bias, s) + into)
        for o in range(outputs):
            g_offset[o] += grad[start + p, o]
    _multiply(features, start * line, 1, line, change, g_first, width, (inputs + TILE - 1) // TILE * TILE, count)
    back[:] = 0
    _multiply(change, 0, width, 1, decoder.back, back, columns, (count + TILE - 1) // TILE * TILE, width)


@njit(cache=True)
def _scatter(points, start, count, levels, level, back, columns, local, local_line, spectrum, g_table, g_carrier):
    """Add a block's gradient in the features, rows of ``columns``, to the table's and the waves'."""
    _, _, _, stride, plain, kind, waves, feature, carrier, place = levels.meta[level]
    width, radians = _padded(waves), splat(levels.radians[level])
    for p in range(count):
        row, at, beside = p * stride, p * columns + feature, (start + p) * local_line + place
        for s in range(0, plain, LANES):
            store(spectrum, row + s, load(back, at + s))
        if kind != PLAIN:
            row, at = row + plain, at + plain
            for s in range(0, waves, LANES):
                store(spectrum, row + s, load(back, at + s) * load(local, beside + s))
            if kind != AMPLITUDE:
                scale = radians if kind == PHASE else splat(1.0)
                for s in range(0, waves, LANES):
                    store(spectrum, row + waves + s, load(back, at + s) * load(local, beside + width + s) * scale)
            if len(g_carrier):
                turn = beside + (2 * width if kind == COMPLEX else width)
                for s in range(0, waves, LANES):
                    phase, to = load(back, at + s) * load(local, turn + s), carrier + s
                    for axis in range(3):
                        where = to + axis * width
                        store(g_carrier, where, fma(splat(points[start + p, axis]), phase, load(g_carrier, where)))
                    store(g_carrier, to + 3 * width, load(g_carrier, to + 3 * width) + phase)
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _corners(points, start + p, levels, level)
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
def _backward_part(low, high, points, levels, decoder, inputs, line, local_line, features, local, hidden, grad, g_table, g_carrier, g_first, g_bias, g_last, g_offset):  # fmt: skip
    """One thread's share, into sums of its own. Without a decoder ``grad`` is that of the features."""
    width, decoded = len(decoder.bias), len(decoder.bias) > 0
    columns = len(decoder.back) // width if decoded else inputs
    spectrum = np.zeros(BLOCK * levels.meta[:, STRIDE].max() + 2 * LANES, np.float32)
    change, back = np.zeros(BLOCK * width, np.float32), np.zeros(BLOCK * columns + 2 * LANES, np.float32)
    g_table[:] = 0
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        if decoded:
            _decode_backward(start, count, features, line, inputs, decoder, hidden, grad, change, back, g_first, g_bias, g_last, g_offset)
        else:
            back[: count * inputs] = grad[start : start + count].ravel()
        for level in range(len(levels.meta)):
            _scatter(points, start, count, levels, level, back, columns, local, local_line, spectrum, g_table, g_carrier)


@njit(cache=True, parallel=True)
def backward(points, levels, decoder, inputs, line, local_line, features, local, hidden, grad, g_table, g_carrier, g_first, g_bias, g_last, g_offset):  # fmt: skip
    """Gradients, a row of each array a thread: added afterwards in a fixed order, so that runs repeat bit for bit."""
    blocks, parts = (len(points) + BLOCK - 1) // BLOCK, len(g_table)
    for part in prange(parts):
        low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, len(points))
        _backward_part(low, high, points, levels, decoder, inputs, line, local_line, features, local, hidden, grad, g_table[part], g_carrier[part], g_first[part], g_bias[part], g_last[part], g_offset[part])  # fmt: skip


@njit(cache=True, nogil=True)
def _slope_part(low, high, points, levels, decoder, inputs, line, local_line, out, slope):
    """One thread's share of values and gradients of a field of one output."""
    width, columns = len(decoder.bias), len(decoder.back) // len(decoder.bias)
    most = BLOCK * levels.meta[:, STRIDE].max() + 2 * LANES
    spectrum, slopes = np.zeros(most, np.float32), np.zeros(3 * most, np.float32)
    features, local = np.zeros((BLOCK + 1) * line, np.float32), np.zeros((BLOCK + 1) * local_line, np.float32)
    turned, back = np.zeros((3 * BLOCK + 1) * line, np.float32), np.zeros(BLOCK * columns + 2 * LANES, np.float32)
    hidden = np.zeros(BLOCK * width, np.float32)
    sharp, one = splat_wide(decoder.sharpness), splat_wide(1.0)
    for start in range(low, high, BLOCK):
        count = min(BLOCK, high - start)
        for level in range(len(levels.meta)):
            _gather_with_slope(points, start, count, levels, level, spectrum, slopes)
            _features(points, start, count, levels, level, spectrum, features, 0, line, local, local_line)
            _feature_slopes(count, levels, level, slopes, local, local_line, turned, line)
        _decode(features, 0, count, line, inputs, decoder, hidden, out, start)
        for p in range(count):
            for s in range(0, width, WIDE):
                value = one - decay(sharp * load_wide(hidden, p * width + s))
                store(hidden, p * width + s, value * load_wide(decoder.last, s))
        back[:] = 0
        _multiply(hidden, 0, width, 1, decoder.back, back, columns, (count + TILE - 1) // TILE * TILE, width)
        for axis in range(3):
            for p in range(count):
                value, at = splat_wide(0.0), (axis * BLOCK + p) * line
                for s in range(0, columns, WIDE):  # where a row ends before them, the first factor is zero
                    value = fma(load_wide(back, p * columns + s), load_wide(turned, at + s), value)
                slope[start + p, axis] = total(value)


@njit(cache=True, parallel=True)
def forward_with_slope(points, levels, decoder, inputs, line, local_line, out, slope, parts):
    blocks = (len(points) + BLOCK - 1) // BLOCK
    for part in prange(parts):
        low, high = blocks * part // parts * BLOCK, min(blocks * (part + 1) // parts * BLOCK, len(points))
        _slope_part(low, high, points, levels, decoder, inputs, line, local_line, out, slope)
