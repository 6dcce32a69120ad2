"""Local quadratics on a cloud of oriented points, with the noise of the points averaged out.

Each point gets a height function over its tangent plane. The function is a quadratic fitted to the
k nearest neighbours, and to their normals too if normals were measured. More neighbours mean less
noise and more bias. The number of neighbours is chosen for each point by the intersection of
confidence intervals (Goldenshluger and Nemirovski, 1997; Katkovnik, 1999): as many as possible,
while heights and slopes agree with those from fewer neighbours within what the noise explains.
Slopes show bias long before heights do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.noise import (
    FACING,
    SCALES,
    TERMS,
    OrientedCloud,
    noise_of,
    tangent_frames,
)
from nstr3d.kernels.threads import split_work

if TYPE_CHECKING:
    from nstr3d.kernels.geometry.growing import Rules

# Half widths of the confidence intervals of the height and the two slopes, in standard deviations.
# First row: fits to heights alone. Second row: fits to heights and normals.
CONFIDENCE = np.array([[1.25, 2.0, 2.0], [1.5, 1.5, 1.5]])
# Least radius of a neighbourhood, in standard deviations of the noise, that has intervals: within a
# smaller one the points fill a slab and show no surface.
NOISE_RADII = 2.5
# Edges of the cells in which one point becomes a patch, in standard deviations of the noise: in the
# preliminary rounds and in the last fit.
ROUGH, THINNING = 1.8, 1.0
LEAST_NOISE = 1e-7  # of the cloud's longest side: the smallest noise that is assumed
CHUNK = 1 << 11  # points at a time: bounds memory
# Prior precisions of the coefficients, in units in which the nearest few neighbours are within 1:
# slopes and curvatures are no larger than such points could show. The prior matters only where
# fewer neighbours face the same way than a quadratic has terms, at tips and rims.
SHAPELY = (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)
BESIDE = 24  # nearest patches from which a point without a measured normal may get its normal
# A farther patch replaces the nearest one only if it was fitted to more than this many times as
# many neighbours, weighted down by the distance of the point from its quadratic.
TWICE = 2.0
REACHING = 1.5  # radii: a patch gives no normals beyond this distance from its centre
TURN = 0.4  # cosine of the largest angle by which such a patch may turn a normal
FINE = 0.2  # spacings: with less noise, normals beside creases are determined a second time


@dataclass(frozen=True)
class Patches:
    """Quadratics ``z = h(u, v)`` in orthonormal frames; all lengths are in the units of the points.

    The ``frames (n, 3, 3)`` are at ``centres (n, 3)``; their rows are two tangents and the normal.
    ``coefficients (n, 6)`` belong to 1, u, v, u^2/2, uv, v^2/2. The centres lie on the surface, so
    h(0, 0) = 0. ``radius (n,)`` is the radius of the neighbourhood of each patch, and
    ``scale (n,)`` the number of neighbours in it. ``deviation (n,)`` is the standard deviation of a
    centre along the normal. ``noise`` is the standard deviation of the points along the normal.
    """

    centres: np.ndarray
    frames: np.ndarray
    coefficients: np.ndarray
    radius: np.ndarray
    scale: np.ndarray
    deviation: np.ndarray
    noise: float

    @cached_property
    def near(self) -> Neighbours:
        """The search tree over the centres."""
        return Neighbours(self.centres)

    @property
    def normals(self) -> np.ndarray:
        """Unit normals ``(n, 3)`` of the surface at the centres."""
        slope = np.concatenate(
            [-self.coefficients[:, 1:3], np.ones((len(self.centres), 1))], axis=1
        )
        normal = np.einsum("nk,nkd->nd", slope, self.frames)
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def fit_patches(
    points: np.ndarray | Neighbours,
    normals: np.ndarray,
    measured: bool,
    noise: float | None = None,
) -> Patches:
    """Fits quadratics near ``points (n, 3)`` with unit ``normals (n, 3)``.

    ``points`` may be a search tree over the points. If the normals were ``measured``, their slopes
    are data of the fits. ``noise`` is the standard deviation of the points along the normal, and is
    estimated if it is None. At most one patch is kept per cell of a lattice whose edge is
    `THINNING` times the noise, because the noise hides smaller distances. There are several rounds:
    each round searches neighbours among the points as the previous round moved them and, if the
    normals were not measured, uses the normals that the previous round determined.
    """
    tree, frames = Neighbours.of(points), tangent_frames(normals)
    points = tree.points
    sigma, tilt = noise_of(points, frames, tree, measured)
    least = LEAST_NOISE * float(np.ptp(points, axis=0).max())
    sigma = max(sigma if noise is None else noise, least)
    cloud = OrientedCloud(points, points, frames, tree, sigma, tilt if measured else None)
    rounds = 1 if measured or sigma > FINE * _spacing(points, tree) else 2
    for _ in range(rounds):
        patches = _fit_all(cloud, thinned(cloud.settled, ROUGH * sigma))
        settled, near = settle(patches, points)
        if not measured:
            frames = tangent_frames(normals_beside_creases(patches, points, near))
        cloud = replace(cloud, settled=settled, frames=frames, tree=Neighbours(settled))
    return _fit_all(cloud, thinned(cloud.settled, THINNING * sigma))


def thinned(points: np.ndarray, cell: float) -> np.ndarray:
    """Indices of one of ``points (n, 3)`` in each occupied cubic cell, in ascending order.

    ``cell`` is the edge of a cell in the units of the points.
    """
    spread = np.ptp(points, axis=0).max()
    if cell <= spread * 1e-6:
        return np.arange(len(points))
    x, y, z = ((points - points.min(axis=0)) / cell).astype(np.int64).T
    return np.sort(np.unique((x << 42) | (y << 21) | z, return_index=True)[1])


def settle(patches: Patches, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves ``points (n, 3)`` onto the patches with the nearest centres.

    A point moves along the normal of the frame. Returns the moved points and the index ``(n,)`` of
    the patch of each.
    """
    near = patches.near.nearest(points)[1]
    _, _, lift = _over(patches, near, points)
    return points - lift[:, None] * patches.frames[near, 2], near


def _over(patches: Patches, which: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Coordinates ``(3, ...)`` of ``points (..., 3)`` relative to the patches ``which (...)``.

    They are two coordinates along the tangents and the height above the quadratic.
    """
    u, v, z = np.einsum("...d,...cd->c...", points - patches.centres[which], patches.frames[which])
    c = np.moveaxis(patches.coefficients[which], -1, 0)
    return np.stack(
        [
            u,
            v,
            z - (c[0] + c[1] * u + c[2] * v + c[3] * u * u / 2 + c[4] * u * v + c[5] * v * v / 2),
        ]
    )


def normals_beside_creases(patches: Patches, points: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Unit normals ``(n, 3)`` of ``points (n, 3)`` whose nearest patches are ``near (n,)``.

    A patch at a crease blends both sides of the crease, and its neighbourhood stays small because
    the sides disagree. If a patch nearby has a much larger neighbourhood and passes the point
    within the noise, the point gets the normal of this patch.
    """
    centres, normals = patches.near, patches.normals
    result = normals[near]
    for rows in np.array_split(np.arange(len(points)), len(points) // CHUNK + 1):
        beside = centres(points[rows], BESIDE)[1]
        u, v, lift = _over(patches, beside, points[rows, None])
        c = np.moveaxis(patches.coefficients[beside], -1, 0)
        slopes = c[1] + c[3] * u + c[4] * v, c[2] + c[4] * u + c[5] * v
        steep = np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
        off = lift / steep
        facing = np.einsum("mkd,md->mk", normals[beside], result[rows]) > TURN
        speaks = (
            facing
            & (np.hypot(u, v) < REACHING * patches.radius[beside])
            & (np.abs(off) < NOISE_RADII * patches.noise)
        )
        worth = np.where(
            speaks, patches.scale[beside] * np.exp(-((off / patches.noise) ** 2) / 2), 0
        )
        best = (np.arange(len(rows)), worth.argmax(axis=1))
        vector = (
            np.stack([-slopes[0][best], -slopes[1][best], np.ones(len(rows))], axis=1)
            / steep[best][:, None]
        )
        normal = np.einsum("mc,mcd->md", vector, patches.frames[beside[best]])
        replaced = (worth[best] > TWICE * patches.scale[near[rows]]) & (
            np.einsum("md,md->m", normal, result[rows]) > TURN
        )
        result[rows[replaced]] = normal[replaced]
    return result


def _spacing(points: np.ndarray, tree: Neighbours) -> float:
    """Typical spacing of the points: the square root of the surface area per point."""
    reach, _ = tree(points[:: max(len(points) // 2000, 1)], SCALES[0] + 1, skip=SCALES[0])
    return float(np.median(reach)) * np.sqrt(np.pi / SCALES[0])


def _fit_all(cloud: OrientedCloud, rows: np.ndarray) -> Patches:
    """The patches at the points ``rows (m,)`` of the cloud."""
    from nstr3d.kernels.geometry.boxes import boxes_of
    from nstr3d.kernels.geometry.growing import Data, grow

    tree = boxes_of(cloud.settled)
    arrays = cloud.points, cloud.settled, cloud.frames, cloud.frames[:, 2]
    points, settled, frames, normals = (
        each[tree.order].astype(np.float64, order="C") for each in arrays
    )
    data = Data(points, settled, frames, normals, tree)
    place = np.empty(len(tree.order), np.int64)
    place[tree.order] = np.arange(len(tree.order))
    order = np.argsort(place[rows])  # successive rows are near each other
    count = len(rows)
    fits = np.zeros((count, TERMS)), np.zeros(count), np.zeros(count, np.int64), np.zeros(count)
    arguments = place[rows[order]], _spacing(cloud.settled, cloud.tree), data, _rules(cloud), *fits
    split_work(lambda part, low, high: grow(low, high, *arguments), count)
    back = np.argsort(order)
    coefficients, radius, scale, deviation = (each[back] for each in fits)
    centres = cloud.settled[rows] + coefficients[:, :1] * cloud.frames[rows, 2]
    coefficients[:, 0] = 0
    return Patches(centres, cloud.frames[rows], coefficients, radius, scale, deviation, cloud.sigma)


def _rules(cloud: OrientedCloud) -> Rules:
    """The rules by which the neighbourhoods of the cloud's points grow."""
    from nstr3d.kernels.geometry.growing import Rules

    count = len(cloud.points)
    return Rules(
        np.array([size for size in SCALES if size <= count] or [count]),
        CONFIDENCE[int(cloud.tilt is not None)],
        NOISE_RADII * cloud.sigma,
        cloud.sigma,
        cloud.tilt or 0.0,
        FACING,
        np.array(SHAPELY),
    )
