"""The smoothest function that is 0 with given slopes at given points: how a surface goes on where
nothing was measured.

Of all functions with those values and gradients it has the least square of third derivatives,
integrated over space (Duchon, 1977; for surfaces: Macedo et al., Hermite radial basis functions
implicits, 2011, and Huang et al., Variational implicit point set surfaces, 2019). Flat parts go on
flat and round ones round.
"""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.threads import share


class HermiteSpline:
    """The spline through ``points (n, 3)``, no two of them alike, with gradients ``(n, 3)`` there.

    Takes time as n^3: a second for 1000.
    """

    def __init__(self, points: np.ndarray, gradients: np.ndarray):
        count = len(points)
        system = np.zeros((4 * count + 4, 4 * count + 4))
        system[:-4, :-4] = _interactions(points)
        system[:-4, -4:] = _polynomials(points)
        system[-4:, :-4] = system[:-4, -4:].T
        right = np.zeros(4 * count + 4)
        right[:-4].reshape(count, 4)[:, 1:] = gradients
        solution = np.linalg.solve(system, right)
        weights = solution[:-4].reshape(count, 4)
        self.centres, self.slopes = (
            np.ascontiguousarray(points.T, np.float64),
            np.ascontiguousarray(weights[:, 1:].T),
        )
        self.heights, self.linear = np.ascontiguousarray(weights[:, 0]), solution[-4:]

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Values ``(m,)`` at points ``(m, 3)``."""
        from nstr3d.kernels.geometry.hermite import values

        given, out = np.ascontiguousarray(at, np.float64), np.empty(len(at))
        arrays = given, self.centres, self.slopes, self.heights, self.linear, out
        share(lambda part, low, high: values(low, high, *arrays), len(given))
        return out


def _interactions(points: np.ndarray) -> np.ndarray:
    """Value and gradient ``(4n, 4n)`` at every point of each point's r^3 and of its derivatives
    with respect to the point."""
    count = len(points)
    offset = points[:, None] - points
    reach = np.linalg.norm(offset, axis=-1)
    found = np.empty((count, 4, count, 4))
    found[:, 0, :, 0] = reach**3
    slope = 3 * reach[..., None] * offset
    found[:, 0, :, 1:], found[:, 1:, :, 0] = -slope, slope.transpose(0, 2, 1)
    unit = offset / np.maximum(reach, 1e-300)[..., None]
    for a in range(3):
        for b in range(3):
            found[:, 1 + a, :, 1 + b] = -3 * (reach * float(a == b) + offset[..., a] * unit[..., b])
    return found.reshape(4 * count, 4 * count)


def _polynomials(points: np.ndarray) -> np.ndarray:
    """Value and gradient ``(4n, 4)`` of 1, x, y and z."""
    found = np.zeros((len(points), 4, 4))
    found[:, 0, 0], found[:, 0, 1:], found[:, 1:, 1:] = 1, points, np.eye(3)
    return found.reshape(-1, 4)
