"""Proven bounds of a whole field on boxes, on the CPU (numba).

A box is cut in eight halves, and the field is evaluated at the 27 nodes of the cut. Between the
corners of a half, a feature is its multilinear interpolant and a remainder, which the second
derivatives of splines and waves bound. A softplus of what is interpolated lies between its
tangent and the interpolant of its corner values, since it is convex. `kernels.field.enclosure` has
the bounds on rounding, and the twin in plain torch.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.decodercpu import multiply
from nstr3d.kernels.field.featurecpu import featurise, padded
from nstr3d.kernels.field.fusedcpu import scratch
from nstr3d.kernels.field.layout import (
    COMPLEX,
    ORDER,
    PHASE,
    RESOLUTION,
    STRIDE,
    TILE,
)
from nstr3d.kernels.field.levelcpu import gather, locate
from nstr3d.kernels.field.rangecpu import (
    BEND,
    FALL,
    HULL,
    JUMP,
    RISE,
    ROWS,
    SIZE,
    ranges,
    touched,
    work_of,
)
from nstr3d.kernels.simd import (
    WIDE,
    decay,
    fma,
    item,
    largest,
    load_wide,
    magnitude,
    softplus,
    splat_wide,
    store,
    total,
)

NODES, HALVES = 27, 8
ROUNDING = 2.0**-24  # of a float32, relative
SINE = 9 * ROUNDING  # error of `simd.sine_and_cosine`, with room
# ``reach``: the sum of |w2 w1| over hidden units, by which a feature moves the value at most,
# padded to whole vectors. ``constant``: the rounding of the value that no feature causes.
Rounding = namedtuple("Rounding", "reach constant")


@njit(cache=True, nogil=True)
def enclose(low, high, points, sides, levels, decoder, rounding, out):
    """Lower and upper bounds ``out (8 n, 2)`` of a field of one output on the halves of boxes
    ``low`` to ``high``, one thread's part.

    ``points (27 n, 3)`` are the nodes of each box, ``sides (n, 3)`` the widths of its widest halves
    along the axes.
    """
    width, inputs = len(decoder.bias), levels.inputs
    cells, spectrum, kept = scratch(levels)
    terms = inputs + width + 16
    rows = (NODES + TILE - 1) // TILE * TILE
    inner, soft = np.zeros(rows * width, np.float32), np.zeros(rows * width, np.float32)
    found = np.zeros(ROWS * levels.meta[:, STRIDE].max(), np.float32)
    work = work_of()
    # of the features, padded to whole vectors
    bend, noise = np.zeros(len(rounding.reach), np.float32), np.zeros(inputs)
    spread, tangent = np.zeros(width, np.float32), np.zeros(4 * width, np.float32)
    values = np.zeros(NODES)
    for box in range(low, high):
        first, last = box * NODES, box * NODES + NODES - 1
        for level in range(len(levels.meta)):
            locate(points, first, NODES, levels, level, cells)
            gather(NODES, levels, level, cells, spectrum)
            featurise(points, first, NODES, levels, level, spectrum, kept, np.int64(0))
            ranges(points, first, last, levels, level, work, found)
            _remainders(points, first, last, sides[box], levels, level, found, terms, bend, noise)
        _activate(kept.features, levels, decoder, rows, inner, soft, values)
        exact = _spread(decoder, rounding, bend, noise, spread)
        for half in range(HALVES):
            moved = _moved(half, inner, decoder, rounding.reach, bend, spread, tangent)
            below, above = _between_corners(half, inner, soft, values, decoder, tangent)
            out[box * HALVES + half, 0] = below - moved - exact
            out[box * HALVES + half, 1] = above + moved + exact


@njit(cache=True)
def _remainders(points, first, last, sides, levels, level, found, terms, bend, noise):
    """For each feature of a level, how far it may be from the interpolant of a half's corners, and
    from its own value in exact arithmetic. ``terms`` are those of the sums that it enters.

    A function is at most ``h^2 / 8`` times its second derivative from its interpolant over a length
    h, and ``h / 4`` times the jumps of its first derivative; of a product of interpolants the axes
    add up.
    """
    resolution, _, _, _, plain, kind, waves, feature, carrier, _, _, _ = levels.meta[level]
    width, radians = padded(waves), levels.radians[level]
    for k in range(plain + waves):
        bend[feature + k] = 0.0
    for axis in range(3):
        low, high = touched(points, first, last, axis, resolution)
        square, faces = sides[axis] ** 2 / 8, sides[axis] / 4 * (high - low - 1)
        for k in range(plain):
            _, curve, jump = _slopes(found, levels, level, k, axis)
            bend[feature + k] += square * curve + faces * jump
        for k in range(waves):
            here, other = plain + k, plain + waves + k
            size = _size(found, levels, level, here)
            slope, curve, jump = _slopes(found, levels, level, here, axis)
            speed, twist = abs(levels.carrier[carrier + axis * width + k]), 0.0
            if kind == PHASE:
                speed = _speed(found, levels, level, other, axis, carrier + axis * width + k)
                _, curl, turn = _slopes(found, levels, level, other, axis)
                twist, jump = radians * curl, jump + size * radians * turn
            sine, cosine = curve + size * speed * speed, 2 * slope * speed + size * twist
            if kind == COMPLEX:
                second = _size(found, levels, level, other)
                rise, rising, turn = _slopes(found, levels, level, other, axis)
                sine += 2 * rise * speed
                cosine += rising + second * speed * speed
                jump += turn
            bent = square * np.sqrt(sine * sine + cosine * cosine) + faces * jump
            bend[feature + here] += bent
    for k in range(plain):
        size = _size(found, levels, level, k)
        noise[feature + k] = _rounded(found, levels, level, k) + terms * ROUNDING * size
    for k in range(waves):
        here, other = plain + k, plain + waves + k
        size, wrong = _size(found, levels, level, here), _rounded(found, levels, level, here)
        angle, turned = abs(levels.carrier[carrier + 3 * width + k]), 0.0
        for axis in range(3):
            angle += abs(levels.carrier[carrier + axis * width + k])
        if kind == PHASE:
            angle += radians * _size(found, levels, level, other)
            turned = radians * _rounded(found, levels, level, other)
        if kind == COMPLEX:
            size += _size(found, levels, level, other)
            wrong += _rounded(found, levels, level, other)
        # A remainder is at most twice the size of a wave.
        bend[feature + here] = min(bend[feature + here], 2 * size)
        wrong += size * (6 * ROUNDING * angle + turned + SINE)
        noise[feature + here] = wrong + terms * ROUNDING * size


@njit(cache=True, inline="always")
def _size(found, levels, level, k):
    """The largest value of a channel on the box."""
    stride = levels.meta[level, STRIDE]
    return found[SIZE * stride + k] + 40 * ROUNDING * found[HULL * stride + k]


@njit(cache=True, inline="always")
def _slopes(found, levels, level, k, axis):
    """The largest first and second derivative of a channel along an axis, and the largest jump of
    the first."""
    stride, rate = levels.meta[level, STRIDE], levels.meta[level, RESOLUTION] * 0.5
    room = 80 * ROUNDING * rate * found[HULL * stride + k]
    slope = max(found[(FALL + axis) * stride + k], found[(RISE + axis) * stride + k])
    curve, jump = found[(BEND + axis) * stride + k], found[(JUMP + axis) * stride + k]
    bent = curve + 2 * rate * room if levels.meta[level, ORDER] > 1 else 0.0
    return slope + room, bent, jump + room


@njit(cache=True, inline="always")
def _speed(found, levels, level, k, axis, at):
    """The largest angular speed along an axis of a wave whose phase is channel ``k``."""
    stride, radians = levels.meta[level, STRIDE], levels.radians[level]
    rate, omega = levels.meta[level, RESOLUTION] * 0.5, levels.carrier[at]
    rise = omega + radians * found[(RISE + axis) * stride + k]
    fall = omega - radians * found[(FALL + axis) * stride + k]
    room = 80 * ROUNDING * (radians * rate * found[HULL * stride + k] + abs(omega))
    return max(abs(rise), abs(fall)) + room


@njit(cache=True, inline="always")
def _rounded(found, levels, level, k):
    """The rounding of an interpolated channel: of the weights, and of a point's place in its cell,
    which is at most ``3 ROUNDING`` in lengths of the unit box."""
    stride, moved = levels.meta[level, STRIDE], 0.0
    for axis in range(3):
        moved += _slopes(found, levels, level, k, axis)[0]
    return 4.1 * ROUNDING * moved + 28 * ROUNDING * found[HULL * stride + k]


@njit(cache=True)
def _activate(features, levels, decoder, rows, inner, soft, values):
    """At the nodes of a box: the hidden units' inputs, their softplus, and the field's values."""
    width = len(decoder.bias)
    for p in range(rows):
        for s in range(0, width, WIDE):
            store(inner, p * width + s, load_wide(decoder.bias, s))
    first = decoder.first
    multiply(features, np.int64(0), levels.line, 1, first, inner, width, rows, levels.inputs)
    sharp, blunt = splat_wide(decoder.sharpness), splat_wide(np.float32(1) / decoder.sharpness)
    for p in range(NODES):
        value = splat_wide(0.0)
        for s in range(0, width, WIDE):
            at = p * width + s
            one = softplus(sharp * load_wide(inner, at)) * blunt
            store(soft, at, one)
            value = fma(one, load_wide(decoder.last, s), value)
        values[p] = total(value) + decoder.offset[0]


@njit(cache=True)
def _spread(decoder, rounding, bend, noise, spread):
    """How far the remainders move the inputs of the hidden units, into ``spread``, and how far
    rounding moves the value, all at most."""
    width, exact = len(decoder.bias), rounding.constant
    for s in range(0, width, WIDE):
        store(spread, s, splat_wide(0.0))
    for k in range(len(noise)):
        remainder = splat_wide(bend[k] * (1 + (len(noise) + 8) * ROUNDING))
        for s in range(0, width, WIDE):
            weight = magnitude(load_wide(decoder.first, k * width + s))
            store(spread, s, fma(weight, remainder, load_wide(spread, s)))
        exact += rounding.reach[k] * noise[k]
    # The values and the inputs of the corners are rounded, and so is the value that is bounded.
    return 4 * exact


@njit(cache=True)
def _moved(half, inner, decoder, reach, bend, spread, tangent):
    """How far the remainders move the value on a half at most.

    A remainder moves the value by the value's derivative in the feature, as the mean of the hidden
    units' inputs has it, and the change of a hidden unit's derivative is bounded by its range.
    Fills ``tangent (4, width)``: the means, the tangents' values and slopes there, and the slopes
    of the value in the inputs.
    """
    width = len(decoder.bias)
    sharp, blunt = splat_wide(decoder.sharpness), splat_wide(np.float32(1) / decoder.sharpness)
    one, zero, eighth, moved = splat_wide(1.0), splat_wide(0.0), splat_wide(0.125), splat_wide(0.0)
    for s in range(0, width, WIDE):
        mean = zero
        high, low = splat_wide(-3e38), splat_wide(-3e38)
        for corner in range(8):
            here = load_wide(inner, _node(half, corner) * width + s)
            mean, high, low = mean + here, largest(high, here), largest(low, zero - here)
        mean = mean * eighth
        touch, wide = softplus(sharp * mean), load_wide(spread, s)
        steep, weight = one - decay(touch), load_wide(decoder.last, s)
        store(tangent, s, mean)
        store(tangent, width + s, touch * blunt)
        store(tangent, 2 * width + s, steep)
        store(tangent, 3 * width + s, steep * weight)
        most = one - decay(softplus(sharp * (high + wide)))
        least = one - decay(softplus(sharp * (zero - low - wide)))
        change = largest(most - steep, steep - least) + splat_wide(1e-4)
        moved = fma(change * magnitude(weight), wide, moved)
    columns, tiny = len(bend), splat_wide((width + 8) * ROUNDING)
    for k in range(0, columns, WIDE):
        slope = zero
        for j in range(width):
            weight = splat_wide(item(tangent, 3 * width + j))
            slope = fma(weight, load_wide(decoder.back, j * columns + k), slope)
        slope = fma(tiny, load_wide(reach, k), magnitude(slope))
        moved = fma(slope, load_wide(bend, k), moved)
    return total(moved) * (1 + 1e-4)


@njit(cache=True, inline="always")
def _node(half, corner):
    """The node at a corner of a half of a box."""
    x, y, z = (half >> 2) + (corner >> 2), (half >> 1 & 1) + (corner >> 1 & 1), half & 1
    return 9 * x + 3 * y + z + (corner & 1)


@njit(cache=True)
def _between_corners(half, inner, soft, values, decoder, tangent):
    """The least and the largest value on a half if all features were multilinear."""
    width, zero = len(decoder.bias), splat_wide(0.0)
    below, above = np.inf, -np.inf
    for corner in range(8):
        node = _node(half, corner)
        up, down = zero, zero
        for s in range(0, width, WIDE):
            at = node * width + s
            line = fma(
                load_wide(tangent, 2 * width + s),
                load_wide(inner, at) - load_wide(tangent, s),
                load_wide(tangent, width + s),
            )
            gap = largest(load_wide(soft, at) - line, zero)
            weight = load_wide(decoder.last, s)
            up = fma(largest(zero - weight, zero), gap, up)
            down = fma(largest(weight, zero), gap, down)
        above = max(above, values[node] + total(up))
        below = min(below, values[node] - total(down))
    return below, above
