"""Quadratic height functions fitted to neighbourhoods that grow until the fits disagree (numba).

`nstr3d.geometry.cloud.patches` explains the method; its arrays and numbers arrive here as `Data`
and `Rules`. The neighbours of a point come from a tree of boxes: first as many as the previous
point needed, then a few sizes at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.geometry.boxes import Boxes

TERMS = 6  # coefficients of a quadratic: of 1, u, v, u^2/2, uv, v^2/2
# Sums over neighbours: of u^i v^j up to the fourth degree in the order of `POWERS`, of z times the
# six terms, and of the slopes' right sides for coefficients 1 to 5.
MOMENTS, SLOPES, SUMS = 15, 21, 26
JUDGED = 3  # leading coefficients that have confidence intervals: the height and two slopes
# The powers of u and v in the terms; terms 3 and 5 are halves of squares.
POWERS = np.array([[0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]])
# The place of a coefficient in the slope along u, and along v: before 1, u or v, or in none.
SLOPE_PLACES = np.array([[-1, 0, -1, 1, 2, -1], [-1, -1, 0, -1, 1, 2]])
PRODUCTS = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])  # the moments of the products of 1, u and v
# Points that one search returns, at most, in numbers of the neighbours that it asks for.
MOST = 4
GROWTH = 1.15  # factor on the radius that a search starts from and grows by
TRIES = 60  # radii of a search


class Data(NamedTuple):
    """The points in the order of ``tree``, all float64: raw ``points (n, 3)``, ``settled (n, 3)``
    on the surface, whose neighbours are searched, their ``frames (n, 3, 3)``, which are two
    tangents and the normal, and ``normals (n, 3)``, a copy of the latter that is quick to read."""

    points: np.ndarray
    settled: np.ndarray
    frames: np.ndarray
    normals: np.ndarray
    tree: Boxes


class Rules(NamedTuple):
    """What decides how a neighbourhood grows.

    ``sizes`` are numbers of neighbours, in ascending order. ``confidence (3,)`` are the half widths
    of the intervals in standard deviations, for neighbourhoods beyond the radius ``wide``.
    ``sigma`` is the deviation of a height and ``tilt`` that of a slope, 0 if slopes are no data.
    ``facing`` is the least cosine between the normals of neighbours on one sheet. ``ridge`` are the
    precisions ``(6,)`` of the coefficients known before.
    """

    sizes: np.ndarray
    confidence: np.ndarray
    wide: float
    sigma: float
    tilt: float
    facing: float
    ridge: np.ndarray


@njit(cache=True, nogil=True)
def grow(low, high, rows, guess, data, rules, coefficients, radius, scale, deviation):
    """Writes elements ``low`` to ``high`` of the fits at the points ``rows (m,)``: ``coefficients
    (m, 6)``, and, each ``(m,)``, the ``radius`` of the neighbourhood, the number ``scale`` of
    neighbours in it, and the standard ``deviation`` of the height. ``guess`` is a rough radius of
    neighbourhoods of the first size; if successive rows are near each other, only the first needs
    it."""
    sizes = rules.sizes
    room = MOST * sizes[-1]
    found, square, local = np.empty(room, np.int64), np.empty(room), np.empty((5, sizes[-1]))
    sums, matrix, right = np.empty(SUMS), np.zeros((TERMS, TERMS)), np.empty(TERMS)
    solution, variance = np.empty(TERMS), np.empty(JUDGED)
    lowest, highest = np.empty(JUDGED), np.empty(JUDGED)
    first, last = guess, sizes[0]  # radius and size of the neighbourhood of the previous row
    for index in range(low, high):
        at = rows[index]
        sums[:], lowest[:], highest[:] = 0.0, -np.inf, np.inf
        count, start, reach, unit = 0, 0, first, 1.0
        for step in range(len(sizes)):
            size = sizes[step]
            if size > count:
                wanted = max(sizes[min(step + 1, len(sizes) - 1)], last)
                ball = reach * np.sqrt(wanted / max(start, last))
                count = _nearest(data.settled[at], wanted, GROWTH * ball, data, found, square)
                count = _arrange(square, found, count, sizes, start)
            reach = np.sqrt(np.max(square[start:size]))
            if step == 0:
                unit = max(reach, 1e-12)  # keeps the systems well scaled
            facing = _localise(at, found[start:size], unit, data, rules, local)
            _sum(local, facing, sums)
            start = size
            _assemble(sums, unit, rules, matrix, right)
            _solve(matrix, right, solution, variance)
            if not _agree(reach, unit, rules, solution, variance, lowest, highest):
                break
            for term in range(TERMS):
                power = 1.0 if term == 0 else (0.0 if term < 3 else -1.0)
                coefficients[index, term] = solution[term] * unit**power
            radius[index], scale[index] = reach, size
            deviation[index] = rules.sigma * np.sqrt(variance[0])
        first, last = max(radius[index], 1e-12), max(scale[index], sizes[0])


@njit(cache=True)
def _arrange(square, found, count, sizes, start):
    """Orders the first ``count`` points by the shells between ``sizes``, from that of ``start``
    on. Returns the number of points up to the last whole shell."""
    whole = 0
    for size in sizes[::-1]:
        if start <= size <= count:
            _select(square, found, 0, count, size)
            whole, count = max(whole, size), size
    return whole


@njit(cache=True)
def _nearest(centre, wanted, guess, data, found, square):
    """The number of points within some radius of ``centre (3,)``, at least the ``wanted`` ones if
    there are so many. Writes their positions to ``found`` and squared distances to ``square``.

    The radius begins at ``guess``, which is between bounds that the numbers of points narrow.
    """
    wanted = min(wanted, len(data.settled))
    small, large, radius, count = 0.0, np.inf, guess, 0
    for _ in range(TRIES):
        count = _within(centre, radius, data, found, square)
        if count < wanted:
            small = radius
        elif count < len(found):
            return count
        else:
            large = radius
        radius = radius * GROWTH if large == np.inf else 0.5 * (small + large)
        if large == np.inf and count < wanted // 4:
            radius *= 1.5
    return _within(centre, large, data, found, square)


@njit(cache=True)
def _within(centre, radius, data, found, square):
    """The number of points within ``radius`` of ``centre (3,)``, at most as many as ``found`` and
    ``square`` have room for, which receive positions and squared distances."""
    tree, points, count, most = data.tree, data.settled, 0, radius * radius
    x, y, z = centre[0], centre[1], centre[2]
    box = 0
    while box < len(tree.skip):
        gap = 0.0
        for axis in range(3):
            beyond = max(tree.low[box, axis] - centre[axis], centre[axis] - tree.high[box, axis])
            if beyond > 0.0:
                gap += beyond * beyond
        if gap > most:
            box = tree.skip[box]
            continue
        if tree.skip[box] == box + 1:
            for j in range(tree.begin[box], tree.end[box]):
                u, v, w = points[j, 0] - x, points[j, 1] - y, points[j, 2] - z
                far = u * u + v * v + w * w
                if far <= most:
                    found[count], square[count] = j, far
                    count += 1
                    if count == len(found):
                        return count
        box += 1
    return count


@njit(cache=True)
def _select(square, found, low, high, middle):
    """Orders elements ``low`` to ``high`` of ``square`` and ``found`` so that those before
    ``middle`` have the smallest squares (Hoare, 1961)."""
    high -= 1
    while low < high:
        a, b, c = square[low], square[(low + high) // 2], square[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while square[i] < pivot:
                i += 1
            while square[j] > pivot:
                j -= 1
            if i <= j:
                square[i], square[j] = square[j], square[i]
                found[i], found[j] = found[j], found[i]
                i, j = i + 1, j - 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@njit(cache=True)
def _localise(at, others, unit, data, rules, local):
    """Writes the coordinates u, v, z of the points ``others (k,)`` in the frame of the point ``at``
    and the slopes of their normals to ``local (5, k)``, without the points on other sheets; returns
    the number of the points written."""
    frame, centre, scale, count = data.frames[at], data.settled[at], 1.0 / unit, 0
    for other in others:
        a = b = c = u = v = z = 0.0
        for axis in range(3):
            normal = data.normals[other, axis]
            offset = (data.points[other, axis] - centre[axis]) * scale
            a, u = a + normal * frame[0, axis], u + offset * frame[0, axis]
            b, v = b + normal * frame[1, axis], v + offset * frame[1, axis]
            c, z = c + normal * frame[2, axis], z + offset * frame[2, axis]
        if c > rules.facing:
            local[0, count], local[1, count], local[2, count] = u, v, z
            local[3, count], local[4, count] = -a / c, -b / c
            count += 1
    return count


@njit(cache=True, fastmath=True)
def _sum(local, count, sums):
    """Adds the sums over the first ``count`` points of ``local (5, k)`` to ``sums``; see `SUMS`.
    Two loops need fewer registers at a time than one."""
    a = b = c = d = e = f = g = h = i = j = k = m = n = o = p = 0.0
    for at in range(count):
        u, v = local[0, at], local[1, at]
        uu, uv, vv = u * u, u * v, v * v
        a, b, c = a + 1.0, b + u, c + v
        d, e, f = d + uu, e + uv, f + vv
        g, h, i, j = g + uu * u, h + uu * v, i + u * vv, j + vv * v
        k, m, n, o, p = k + uu * uu, m + uu * uv, n + uu * vv, o + uv * vv, p + vv * vv
    for at, value in enumerate((a, b, c, d, e, f, g, h, i, j, k, m, n, o, p)):
        sums[at] += value
    a = b = c = d = e = f = g = h = i = j = k = 0.0
    for at in range(count):
        u, v, z, p, q = local[0, at], local[1, at], local[2, at], local[3, at], local[4, at]
        a, b, c = a + z, b + u * z, c + v * z
        d, e, f = d + u * u * z, e + u * v * z, f + v * v * z
        g, h, i, j, k = g + p, h + q, i + p * u, j + p * v + q * u, k + q * v
    for at, value in enumerate((a, b, c, d / 2, e, f / 2, g, h, i, j, k)):
        sums[MOMENTS + at] += value


@njit(cache=True)
def _assemble(sums, unit, rules, matrix, right):
    """Writes the system of the ``sums``: the lower half of ``matrix (6, 6)``, ``right (6,)``."""
    for i in range(TERMS):
        right[i] = sums[MOMENTS + i]
        for j in range(i + 1):
            power = POWERS[i, 0] + POWERS[j, 0], POWERS[i, 1] + POWERS[j, 1]
            degree = power[0] + power[1]
            halves = (0.5 if i in (3, 5) else 1.0) * (0.5 if j in (3, 5) else 1.0)
            matrix[i, j] = halves * sums[degree * (degree + 1) // 2 + power[1]]
    if rules.tilt > 0.0:
        # The weight of a slope relative to that of a height.
        trust = (rules.sigma / (rules.tilt * unit)) ** 2
        for i in range(1, TERMS):
            right[i] += trust * sums[SLOPES + i - 1]
            for j in range(1, i + 1):
                matrix[i, j] += trust * _slopes(sums, i, j)
    noise, trace = (rules.sigma / unit) ** 2, 0.0
    for i in range(TERMS):
        trace += matrix[i, i]
    for i in range(TERMS):
        matrix[i, i] += 1e-6 * trace + 1e-12 + noise * rules.ridge[i]


@njit(cache=True)
def _slopes(sums, i, j):
    """The element ``i``, ``j`` of the sum of the squares of both slopes' equations: the slope along
    u is c1 + c3 u + c4 v, and that along v is c2 + c4 u + c5 v."""
    total = 0.0
    for axis in range(2):
        first, second = SLOPE_PLACES[axis, i], SLOPE_PLACES[axis, j]
        if first >= 0 and second >= 0:
            # The products of 1, u and v: moments 0 to 5.
            total += sums[PRODUCTS[first, second]]
    return total


@njit(cache=True)
def _solve(matrix, right, solution, variance):
    """Solves the system, whose lower half is ``matrix (6, 6)``, by Cholesky's method. Writes the
    ``solution (6,)`` and the ``variance (3,)`` of its first elements for noise of variance 1."""
    factor, inverse = np.zeros((TERMS, TERMS)), np.zeros((TERMS, TERMS))
    for i in range(TERMS):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(max(total, 1e-300)) if i == j else total / factor[j, j]
    for i in range(TERMS):
        inverse[i, i] = 1.0 / factor[i, i]
        for j in range(i):
            total = 0.0
            for k in range(j, i):
                total -= factor[i, k] * inverse[k, j]
            inverse[i, j] = total / factor[i, i]
    solution[:], variance[:] = 0.0, 0.0
    for i in range(TERMS):
        total = 0.0
        for j in range(i + 1):
            total += inverse[i, j] * right[j]
        for j in range(i + 1):
            solution[j] += inverse[i, j] * total
    for j in range(JUDGED):
        for i in range(j, TERMS):
            variance[j] += inverse[i, j] * inverse[i, j]


@njit(cache=True)
def _agree(reach, unit, rules, solution, variance, lowest, highest):
    """Whether the solution's intervals meet all earlier ones, whose intersections ``lowest`` and
    ``highest (3,)`` are narrowed."""
    good = True
    for j in range(JUDGED):
        half = np.inf
        if reach > rules.wide:
            half = rules.confidence[j] * rules.sigma / unit * np.sqrt(variance[j])
        lowest[j] = max(lowest[j], solution[j] - half)
        highest[j] = min(highest[j], solution[j] + half)
        good = good and lowest[j] <= highest[j]
    return good
