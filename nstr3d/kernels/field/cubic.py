"""Cubic interpolation on a dense grid, with its gradient (numba). Twin in plain torch:
`fields.closed.pyramid.interpolate`, which describes the method."""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.compiled import njit


@njit(cache=True, nogil=True)
def interpolate(low, high, points, grid, value, slope):
    """Writes rows ``low`` to ``high`` of ``value (n,)`` and of ``slope (n, 3)``, the value and the
    gradient at ``points (n, 3)`` float32. ``grid (m, m, m)`` float32 spans [-1, 1]^3; m is at least
    4. An empty ``slope`` is not written."""
    cells = len(grid) - 1
    weights, slopes = np.empty((3, 4), np.float32), np.empty((3, 4), np.float32)
    first = np.empty(3, np.int64)
    sloped = len(slope) > 0
    half = np.float32(cells / 2)
    for n in range(low, high):
        for axis in range(3):
            x = (points[n, axis] + np.float32(1)) * half
            node = min(max(int(np.floor(x)), 0), cells - 1)
            _weigh(x - np.float32(node), weights[axis], slopes[axis])
            first[axis] = node - 1
            if node == 0:
                _fold_low(weights[axis])
                _fold_low(slopes[axis])
                first[axis] = 0
            elif node == cells - 1:
                _fold_high(weights[axis])
                _fold_high(slopes[axis])
                first[axis] = cells - 3
        total, x, y, z = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for a in range(4):
            plane, along = np.float32(0), np.float32(0)
            across = np.float32(0)
            for b in range(4):
                line, bend = np.float32(0), np.float32(0)
                for c in range(4):
                    node = grid[first[0] + a, first[1] + b, first[2] + c]
                    line += weights[2, c] * node
                    bend += slopes[2, c] * node
                plane += weights[1, b] * line
                along += slopes[1, b] * line
                across += weights[1, b] * bend
            total += weights[0, a] * plane
            x += slopes[0, a] * plane
            y += weights[0, a] * along
            z += weights[0, a] * across
        value[n] = total
        if sloped:
            slope[n, 0], slope[n, 1], slope[n, 2] = x * half, y * half, z * half


@njit(cache=True, inline="always")
def _fold_low(weights):
    """Turns ``weights`` of nodes of which the first lies before the grid, on the line through the
    next two, into those of the first four nodes of the grid."""
    outside = weights[0]
    weights[0], weights[1] = weights[1] + 2 * outside, weights[2] - outside
    weights[2], weights[3] = weights[3], np.float32(0)


@njit(cache=True, inline="always")
def _fold_high(weights):
    """As `_fold_low` for the last four nodes."""
    outside = weights[3]
    weights[3], weights[2] = weights[2] + 2 * outside, weights[1] - outside
    weights[1], weights[0] = weights[0], np.float32(0)


@njit(cache=True, inline="always")
def _weigh(t, weights, slopes):
    """The weights of four nodes at ``t`` between the second and the third, and their slopes."""
    s, square = np.float32(0.5), t * t
    cube = square * t
    weights[0] = s * (2 * square - t - cube)
    weights[1] = s * (2 - 5 * square + 3 * cube)
    weights[2] = s * (t + 4 * square - 3 * cube)
    weights[3] = s * (cube - square)
    slopes[0] = s * (4 * t - 1 - 3 * square)
    slopes[1] = s * (9 * square - 10 * t)
    slopes[2] = s * (1 + 8 * t - 9 * square)
    slopes[3] = s * (3 * square - 2 * t)
