"""The noise of oriented points, and the local coordinates and quadratics that measure it.

A quadratic height function over the tangent plane has six terms: 1, u, v, u^2/2, uv, v^2/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours

SCALES = (7, 10, 16, 26, 42, 68, 110, 180, 290, 470, 760)  # numbers of neighbours, tried in turn
TERMS = 6  # coefficients of a quadratic
SLAB_RADII = 4.0  # least radius of neighbourhoods, in standard deviations of the noise
QUANTILE = 0.25  # of the residuals: where the surface is smooth, residuals are noise alone
FACING = 0.5  # cosine: neighbours with normals more than 60 degrees off are on another sheet


@dataclass(frozen=True)
class OrientedCloud:
    """The data of one round of fitting patches.

    ``points (n, 3)`` are the raw points. ``settled (n, 3)`` are the points after the previous round
    moved them onto its patches; ``tree`` searches neighbours among these. ``frames (n, 3, 3)`` have
    two tangents and the normal as rows. ``sigma`` is the standard deviation of the points along
    their normals. ``tilt`` is the standard deviation of the slopes of the normals, or None if
    normals were not measured.
    """

    points: np.ndarray
    settled: np.ndarray
    frames: np.ndarray
    tree: Neighbours
    sigma: float
    tilt: float | None


def tangent_frames(normals: np.ndarray) -> np.ndarray:
    """Orthonormal frames ``(n, 3, 3)`` of unit ``normals (n, 3)`` (Duff et al., 2017).

    The rows of a frame are two tangents and the normal.
    """
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
    """Estimates the noise of ``points (n, 3)`` and of their normals.

    Returns the standard deviation of the points along their normals, and that of the slopes of the
    normals about a linear field. The second is at least 0.01, and is not estimated unless normals
    were ``measured``.

    The residuals of small quadratic fits are noise where the surface is smooth, so a low quantile
    of the residuals is used. Neighbourhoods grow until their radius exceeds `SLAB_RADII` standard
    deviations.
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
        height = quadratic_rows(u, v)
        free = max(size - TERMS, 1)
        residual = _square_residuals(height, z[..., None]).sum(axis=(1, 2)) * unit**2
        sigma = float(np.sqrt(np.quantile(residual, QUANTILE) / chi2.ppf(QUANTILE, free)))
        if measured:
            slopes = -normal[..., :2] / np.maximum(normal[..., 2:], FACING)
            misfit = _square_residuals(height[..., :3], slopes).sum(axis=(1, 2))
            tilt = float(np.sqrt(np.median(misfit) / (2 * max(size - 3, 1))))
            # The height at the origin by the trapezoidal rule, with an error of third order.
            level = (z - (slopes[..., 0] * u + slopes[..., 1] * v) / 2)[..., None]
            misfit = _square_residuals(height[..., :1], level).sum(axis=(1, 2)) * unit**2
            sigma = min(
                sigma, float(np.sqrt(np.quantile(misfit, QUANTILE) / chi2.ppf(QUANTILE, size - 1)))
            )
        if np.median(reach[:, -1]) > SLAB_RADII * sigma:
            break
    return sigma, max(tilt, 1e-2)


def _square_residuals(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared residuals ``(m, k, c)`` of least squares fits.

    The columns of ``basis (m, k, t)`` are fitted to ``values (m, k, c)``.
    """
    solution = np.linalg.pinv(basis, rcond=1e-6) @ values
    return (values - basis @ solution) ** 2


def local_coordinates(
    cloud: OrientedCloud, rows: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and normals of neighbours, both ``(m, k, 3)``, in the frames of ``rows``.

    The points with indices ``rows (m,)`` have the neighbours ``near (m, k)``. The origin of a frame
    is the settled point.
    """
    frames = cloud.frames[rows].transpose(0, 2, 1)
    return (cloud.points[near] - cloud.settled[rows, None]) @ frames, cloud.frames[near, 2] @ frames


def quadratic_rows(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Rows ``(m, k, 6)`` of the equations for a height at (u, v): their product with the six
    coefficients is the height. The first three columns are 1, u and v."""
    return np.stack([np.ones_like(u), u, v, u * u / 2, u * v, v * v / 2], axis=-1)
