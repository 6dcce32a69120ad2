"""The smoothest function that is 0 with specified gradients at specified points.

It extrapolates a surface into regions without points. Of all functions with these values and
gradients it minimises the integral of the squared third derivatives over space (Duchon, 1977; for
surfaces: Macedo et al., Hermite radial basis functions implicits, 2011, and Huang et al.,
Variational implicit point set surfaces, 2019). It continues flat parts as flat and round parts as
round.
"""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.threads import split_work


class HermiteSpline:
    """The spline that is 0 at ``points (n, 3)`` and has the gradients ``gradients (n, 3)`` there.

    The points must be distinct. Construction takes time proportional to n^3: one second for 1000
    points.
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

        positions, out = np.ascontiguousarray(at, np.float64), np.empty(len(at))
        arrays = positions, self.centres, self.slopes, self.heights, self.linear, out
        split_work(lambda part, low, high: values(low, high, *arrays), len(positions))
        return out


def _interactions(points: np.ndarray) -> np.ndarray:
    """The matrix ``(4n, 4n)`` of the spline's basis functions at the points.

    The columns are the four basis functions of each point: r^3 and its derivatives with respect to
    that point. The rows are the values and gradients of the basis functions at each point.
    """
    count = len(points)
    offset = points[:, None] - points
    reach = np.linalg.norm(offset, axis=-1)
    matrix = np.empty((count, 4, count, 4))
    matrix[:, 0, :, 0] = reach**3
    slope = 3 * reach[..., None] * offset
    matrix[:, 0, :, 1:], matrix[:, 1:, :, 0] = -slope, slope.transpose(0, 2, 1)
    unit = offset / np.maximum(reach, 1e-300)[..., None]
    for a in range(3):
        for b in range(3):
            matrix[:, 1 + a, :, 1 + b] = -3 * (
                reach * float(a == b) + offset[..., a] * unit[..., b]
            )
    return matrix.reshape(4 * count, 4 * count)


def _polynomials(points: np.ndarray) -> np.ndarray:
    """Values and gradients ``(4n, 4)`` of 1, x, y and z at ``points (n, 3)``."""
    matrix = np.zeros((len(points), 4, 4))
    matrix[:, 0, 0], matrix[:, 0, 1:], matrix[:, 1:, 1:] = 1, points, np.eye(3)
    return matrix.reshape(-1, 4)
