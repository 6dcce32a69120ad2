"""The noise of oriented points, and the local coordinates and quadratics that it is measured with.

A quadratic height function over the tangent plane has six terms: 1, u, v, u^2/2, uv, v^2/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours

SCALES = (7, 10, 16, 26, 42, 68, 110, 180, 290, 470, 760)  # neighbours to try, in turn
TERMS = 6  # of a quadratic
SLAB_RADII = 4.0  # how far neighbourhoods must reach, in standard deviations of the noise
QUANTILE = 0.25  # of the residuals: where the surface is smooth they are noise alone
FACING = 0.5  # neighbours whose normals are more than 60 degrees off belong to another sheet


@dataclass(frozen=True)
class OrientedCloud:
    """What a round of fitting sees: raw ``points``, where they have ``settled`` (neighbours are
    looked for there, in ``tree``), the ``frames`` whose third rows are their normals, and the
    standard deviations ``sigma`` of the points along these and ``tilt`` of the normals' slopes,
    None where normals were not measured."""

    points: np.ndarray
    settled: np.ndarray
    frames: np.ndarray
    tree: Neighbours
    sigma: float
    tilt: float | None


def tangent_frames(normals: np.ndarray) -> np.ndarray:
    """Orthonormal frames ``(n, 3, 3)``, rows two tangents and the normal (Duff et al., 2017)."""
    x, y, z = normals.T
    sign = np.copysign(1.0, z)
    a = -1 / (sign + z)
    b = x * y * a
    first = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1)
    second = np.stack([b, sign + y * y * a, -y], axis=1)
    return np.stack([first, second, normals], axis=1)


def noise_of(
    points: np.ndarray, frames: np.ndarray, tree: Neighbours, measured: bool
) -> tuple[float, float]:
    """Standard deviations of ``points (n, 3)`` along their normals, and of the normals' slopes
    about a linear field.

    What small quadratics leave over is noise where the surface is smooth, so a low quantile of it
    counts. Neighbourhoods grow until they reach beyond the noise.
    """
    from scipy.stats import chi2

    rows = np.linspace(0, len(points) - 1, min(len(points), 4000)).astype(int)
    cloud = OrientedCloud(points, points, frames, tree, 0.0, None)
    sigma = tilt = 0.0
    for size in [k for k in SCALES if k <= len(points)] or [len(points)]:
        reach, near = tree(points[rows], size)
        unit = np.maximum(reach[:, -1], 1e-300)
        offset, normal = local_coordinates(cloud, rows, near)
        u, v, z = np.moveaxis(offset / unit[:, None, None], -1, 0)
        height = quadratic_rows(u, v)[0]
        free = max(size - TERMS, 1)
        left = _left_over(height, z[..., None]).sum(axis=(1, 2)) * unit**2
        sigma = float(np.sqrt(np.quantile(left, QUANTILE) / chi2.ppf(QUANTILE, free)))
        if measured:
            slopes = -normal[..., :2] / np.maximum(normal[..., 2:], FACING)
            rest = _left_over(height[..., :3], slopes).sum(axis=(1, 2))
            tilt = float(np.sqrt(np.median(rest) / (2 * max(size - 3, 1))))
            level = (z - (slopes[..., 0] * u + slopes[..., 1] * v) / 2)[
                ..., None
            ]  # the trapezoid rule, of third order
            rest = _left_over(height[..., :1], level).sum(axis=(1, 2)) * unit**2
            sigma = min(
                sigma, float(np.sqrt(np.quantile(rest, QUANTILE) / chi2.ppf(QUANTILE, size - 1)))
            )
        if np.median(reach[:, -1]) > SLAB_RADII * sigma:
            break
    return sigma, max(tilt, 1e-2)


def _left_over(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squares ``(m, k, c)`` of what the columns of ``basis (m, k, t)`` cannot explain of ``values
    (m, k, c)``."""
    solution = np.linalg.pinv(basis, rcond=1e-6) @ values
    return (values - basis @ solution) ** 2


def local_coordinates(
    cloud: OrientedCloud, rows: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates ``(m, k, 3)`` of the neighbours in the frames of ``rows``, and their normals in
    the same."""
    frames = cloud.frames[rows].transpose(0, 2, 1)
    return (cloud.points[near] - cloud.settled[rows, None]) @ frames, cloud.frames[near, 2] @ frames


def quadratic_rows(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the height and its two slopes at (u, v) are in terms of the coefficients: three ``(m, k,
    6)``."""
    one, zero = np.ones_like(u), np.zeros_like(u)
    height = np.stack([one, u, v, u * u / 2, u * v, v * v / 2], axis=-1)
    slope_u = np.stack([zero, one, zero, u, v, zero], axis=-1)
    slope_v = np.stack([zero, zero, one, zero, u, v], axis=-1)
    return height, slope_u, slope_v
