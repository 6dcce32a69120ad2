"""Interpolation of a level on a block of points, and its transpose, on the CPU (numba).

Both orders of B-splines are here; `kernels.field.interpolate` is the twin in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.layout import LANES, ORDER, RESOLUTION, ROW, STRIDE
from nstr3d.kernels.simd import fma, item, load, splat, store

BLOCK = 64  # points
TAPS = 27  # nodes of a cell of a quadratic level
# For a block's points on every level: the places of the cell's nodes in the table, the offsets in
# the cell, and the nodes' weights (quadratic levels).
Cells = namedtuple("Cells", "places offsets weights")


@njit(cache=True, inline="always")
def cells_of(levels):
    """Buffers for the cells of a block."""
    count, order = len(levels.meta), levels.meta[:, ORDER].max()
    nodes = (order + 1) ** 3
    return Cells(
        np.empty((count, BLOCK, nodes), np.int32),
        np.empty((count, BLOCK, 3), np.float32),
        np.empty((count, BLOCK, nodes if order > 1 else 0), np.float32),
    )


@njit(cache=True, fastmath=True, inline="always")
def corner(points, n, axis, resolution):
    scaled = (points[n, axis] + np.float32(1)) * np.float32(resolution * 0.5)
    cell = min(max(int(np.floor(scaled)), 0), resolution - 1)
    return cell, scaled - np.float32(cell)


@njit(cache=True)
def locate(points, start, count, levels, level, cells):
    """The places in the flat table of the nodes around a block's points, and the points' offsets in
    their cells."""
    if levels.meta[level, ORDER] == 1:
        _locate_corners(points, start, count, levels, level, cells)
    else:
        _locate_taps(points, start, count, levels, level, cells)


@njit(cache=True)
def _locate_corners(points, start, count, levels, level, cells):
    resolution, nodes = levels.meta[level, RESOLUTION], levels.places
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
        places[p, 0], places[p, 1] = item(nodes, low), item(nodes, low + 1)
        places[p, 2], places[p, 3] = item(nodes, far), item(nodes, far + 1)
        places[p, 4], places[p, 5] = item(nodes, high), item(nodes, high + 1)
        places[p, 6], places[p, 7] = item(nodes, top), item(nodes, top + 1)


@njit(cache=True)
def _locate_taps(points, start, count, levels, level, cells):
    resolution, nodes = levels.meta[level, RESOLUTION], levels.places
    edge, begin = resolution + 2, levels.meta[level, ROW]
    places, offsets, weights = cells.places[level], cells.offsets[level], cells.weights[level]
    for p in range(count):
        i, u = corner(points, start + p, 0, resolution)
        j, v = corner(points, start + p, 1, resolution)
        k, w = corner(points, start + p, 2, resolution)
        offsets[p, 0], offsets[p, 1], offsets[p, 2] = u, v, w
        low, to = begin + (i * edge + j) * edge + k, 0
        a0, a1, a2 = _spline(u)
        b0, b1, b2 = _spline(v)
        c0, c1, c2 = _spline(w)
        for a in (a0, a1, a2):
            node = low
            for b in (b0, b1, b2):
                weight = a * b
                places[p, to], places[p, to + 1], places[p, to + 2] = (
                    item(nodes, node),
                    item(nodes, node + 1),
                    item(nodes, node + 2),
                )
                weights[p, to], weights[p, to + 1], weights[p, to + 2] = (
                    weight * c0,
                    weight * c1,
                    weight * c2,
                )
                node, to = node + edge, to + 3
            low += edge * edge


@njit(cache=True, inline="always")
def _spline(u):
    """The weights of the three nodes along an axis."""
    one, half = np.float32(1), np.float32(0.5)
    return half * (one - u) * (one - u), half + u * (one - u), half * u * u


@njit(cache=True, inline="always")
def _spline_slope(u):
    """The derivatives of `_spline` in the offset."""
    one = np.float32(1)
    return u - one, one - u - u, u


@njit(cache=True, inline="always")
def _cell(cells, level, p):
    """The places and offsets that `locate` computed for point ``p`` of the block."""
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
    """The level's channels at a block's points, a row of ``stride`` per point."""
    if levels.meta[level, ORDER] == 1:
        _gather_corners(count, levels, level, cells, spectrum)
    else:
        _gather_taps(count, levels, level, cells, spectrum)


@njit(cache=True)
def _gather_corners(count, levels, level, cells, spectrum):
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
def _gather_taps(count, levels, level, cells, spectrum):
    table, stride = levels.table, levels.meta[level, STRIDE]
    for p in range(count):
        at, weight = cells.places[level, p], cells.weights[level, p]
        for s in range(0, stride, LANES):
            one = splat(weight[0]) * load(table, at[0] + s)
            two = splat(weight[1]) * load(table, at[1] + s)
            three = splat(weight[2]) * load(table, at[2] + s)
            for t in range(3, TAPS, 3):
                one = fma(splat(weight[t]), load(table, at[t] + s), one)
                two = fma(splat(weight[t + 1]), load(table, at[t + 1] + s), two)
                three = fma(splat(weight[t + 2]), load(table, at[t + 2] + s), three)
            store(spectrum, p * stride + s, one + two + three)


@njit(cache=True)
def gather_with_slope(count, levels, level, cells, spectrum, slopes):
    """As `gather`, with the derivatives along the axes: three arrays like ``spectrum``, one after
    another."""
    if levels.meta[level, ORDER] == 1:
        _gather_corners_with_slope(count, levels, level, cells, spectrum, slopes)
    else:
        _gather_taps_with_slope(count, levels, level, cells, spectrum, slopes)


@njit(cache=True)
def _gather_corners_with_slope(count, levels, level, cells, spectrum, slopes):
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


@njit(cache=True)
def _gather_taps_with_slope(count, levels, level, cells, spectrum, slopes):
    table, stride = levels.table, levels.meta[level, STRIDE]
    size, scale = len(slopes) // 3, np.float32(levels.meta[level, RESOLUTION] * 0.5)
    a, da, b, db = (
        np.empty(3, np.float32),
        np.empty(3, np.float32),
        np.empty(3, np.float32),
        np.empty(3, np.float32),
    )
    for p in range(count):
        places, u = cells.places[level, p], cells.offsets[level, p]
        a[0], a[1], a[2] = _spline(u[0])
        b[0], b[1], b[2] = _spline(u[1])
        c0, c1, c2 = _spline(u[2])
        da[0], da[1], da[2] = _spline_slope(u[0])
        db[0], db[1], db[2] = _spline_slope(u[1])
        d0, d1, d2 = _spline_slope(u[2])
        w0, w1, w2, e0, e1, e2 = splat(c0), splat(c1), splat(c2), splat(d0), splat(d1), splat(d2)
        for s in range(0, stride, LANES):
            value, x, y, z = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for t in range(9):
                first, second, third = (
                    load(table, places[3 * t] + s),
                    load(table, places[3 * t + 1] + s),
                    load(table, places[3 * t + 2] + s),
                )
                line = fma(w0, first, fma(w1, second, w2 * third))
                turn = fma(e0, first, fma(e1, second, e2 * third))
                i, j = t // 3, t % 3
                share = splat(a[i] * b[j])
                value, z = fma(share, line, value), fma(share, turn, z)
                x, y = fma(splat(da[i] * b[j]), line, x), fma(splat(a[i] * db[j]), line, y)
            at = p * stride + s
            store(spectrum, at, value)
            store(slopes, at, splat(scale) * x)
            store(slopes, size + at, splat(scale) * y)
            store(slopes, 2 * size + at, splat(scale) * z)


@njit(cache=True)
def spread(count, levels, level, cells, spectrum, table):
    """Adds a block's gradient in the channels to the gradient of the ``table``: the transpose of
    `gather`."""
    if levels.meta[level, ORDER] == 1:
        _spread_corners(count, levels.meta[level, STRIDE], level, cells, spectrum, table)
    else:
        _spread_taps(count, levels.meta[level, STRIDE], level, cells, spectrum, table)


@njit(cache=True)
def _spread_corners(count, stride, level, cells, spectrum, table):
    for p in range(count):
        (a, b, c, d), (e, f, g, h), u, v, w = _cell(cells, level, p)
        (wa, wb, wc, wd), (we, wf, wg, wh) = _weights(u, v, w)
        for s in range(0, stride, LANES):
            value = load(spectrum, p * stride + s)
            store(table, a + s, fma(wa, value, load(table, a + s)))
            store(table, b + s, fma(wb, value, load(table, b + s)))
            store(table, c + s, fma(wc, value, load(table, c + s)))
            store(table, d + s, fma(wd, value, load(table, d + s)))
            store(table, e + s, fma(we, value, load(table, e + s)))
            store(table, f + s, fma(wf, value, load(table, f + s)))
            store(table, g + s, fma(wg, value, load(table, g + s)))
            store(table, h + s, fma(wh, value, load(table, h + s)))


@njit(cache=True)
def _spread_taps(count, stride, level, cells, spectrum, table):
    for p in range(count):
        at, weight = cells.places[level, p], cells.weights[level, p]
        for s in range(0, stride, LANES):
            value = load(spectrum, p * stride + s)
            for t in range(TAPS):
                place = at[t] + s
                store(table, place, fma(splat(weight[t]), value, load(table, place)))


@njit(cache=True)
def spread_with_slope(count, levels, level, cells, along, spectrum, tangents, table):
    """As `spread`; also adds the gradient ``tangents`` in the channels' derivatives along
    ``along (BLOCK, 3)``. The transpose of `gather_with_slope`."""
    stride, order = levels.meta[level, STRIDE], levels.meta[level, ORDER]
    scale = np.float32(levels.meta[level, RESOLUTION] * 0.5)
    weights, turns = np.empty(TAPS, np.float32), np.empty(TAPS, np.float32)
    for p in range(count):
        x, y, z = scale * along[p, 0], scale * along[p, 1], scale * along[p, 2]
        _weigh(cells.offsets[level, p], order, x, y, z, weights, turns)
        places = cells.places[level, p]
        for s in range(0, stride, LANES):
            value, turn = load(spectrum, p * stride + s), load(tangents, p * stride + s)
            for t in range((order + 1) ** 3):
                place = places[t] + s
                change = fma(splat(turns[t]), turn, load(table, place))
                store(table, place, fma(splat(weights[t]), value, change))


@njit(cache=True)
def _weigh(offsets, order, x, y, z, weights, turns):
    """The weights of a cell's nodes, and their derivatives along (x, y, z)."""
    u, v, w = offsets[0], offsets[1], offsets[2]
    one = np.float32(1)
    if order == 1:
        a, b, c = (one - u, u, one), (one - v, v, one), (one - w, w, one)
        da = db = dc = (-one, one, one)
    else:
        a, b, c = _spline(u), _spline(v), _spline(w)
        da, db, dc = _spline_slope(u), _spline_slope(v), _spline_slope(w)
    to = 0
    for i in range(order + 1):
        for j in range(order + 1):
            share, turn = a[i] * b[j], x * da[i] * b[j] + y * a[i] * db[j]
            for k in range(order + 1):
                weights[to], turns[to] = share * c[k], turn * c[k] + z * share * dc[k]
                to += 1
