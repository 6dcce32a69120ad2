"""Triharmonic Hermite splines, evaluated (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath=True)
def values(low, high, points, centres, slopes, heights, linear, out):
    """One thread's share of ``out (m,)`` at ``points (m, 3)``, all float64: over ``centres (3, n)``
    the sum of ``heights (n,)`` times r^3 less 3 r (d . slope) of ``slopes (3, n)``, where d = x -
    x_j and r = |d|, and ``linear (4,)`` of 1, x, y, z."""
    for i in range(low, high):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        total = 0.0
        for j in range(len(heights)):
            u, v, w = x - centres[0, j], y - centres[1, j], z - centres[2, j]
            square = u * u + v * v + w * w
            total += np.sqrt(square) * (
                heights[j] * square - 3 * (u * slopes[0, j] + v * slopes[1, j] + w * slopes[2, j])
            )
        out[i] = total + linear[0] + linear[1] * x + linear[2] * y + linear[3] * z
