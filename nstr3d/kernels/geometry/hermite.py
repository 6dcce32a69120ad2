"""Evaluation of triharmonic Hermite splines (numba)."""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.compiled import njit


@njit(cache=True, nogil=True, fastmath=True)
def values(low, high, points, centres, slopes, heights, linear, out):
    """Writes elements ``low`` to ``high`` of ``out (m,)``: the spline at ``points (m, 3)``.

    With d = x - x_j and r = |d|, the spline is the sum over ``centres (3, n)`` x_j of
    ``heights (n,)`` times r^3 minus 3 r (d . ``slopes (3, n)``), plus ``linear (4,)`` times
    (1, x, y, z). All arrays are float64.
    """
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
