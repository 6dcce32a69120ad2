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

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.noise import (
    FACING,
    SCALES,
    TERMS,
    OrientedCloud,
    local_coordinates,
    noise_of,
    quadratic_rows,
    tangent_frames,
)
from nstr3d.kernels.threads import split_work

# Half widths of the confidence intervals of the height and the two slopes, in standard deviations.
# First row: fits to heights alone. Second row: fits to heights and normals.
CONFIDENCE = np.array([[1.25, 2.0, 2.0], [1.5, 1.5, 1.5]])
# Least radius of a neighbourhood, in standard deviations of the noise, that has intervals: within a
# smaller one the points fill a slab and show no surface.
NOISE_RADII = 2.5
TOGETHER = 3  # scales whose neighbours are searched in one query
JUDGED = 3  # leading coefficients that have intervals: the height and two slopes
# The coefficients that multiply 1, u and v in the slope along u, and in that along v.
SLOPE_TERMS = np.array([[1, 3, 4], [2, 4, 5]])
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
    """The patches at the points ``rows`` of the cloud."""
    chunks = np.array_split(rows, len(rows) // CHUNK + 1)
    fitted: list[tuple[np.ndarray, ...]] = [()] * len(chunks)

    def fit(thread: int, low: int, high: int) -> None:
        for index in range(low, high):
            fitted[index] = _Fitting(cloud, chunks[index]).run()

    split_work(fit, len(chunks), least=1)
    coefficients, radius, scale, deviation = (np.concatenate(part) for part in zip(*fitted))
    centres = cloud.settled[rows] + coefficients[:, :1] * cloud.frames[rows, 2]
    coefficients[:, 0] = 0
    return Patches(centres, cloud.frames[rows], coefficients, radius, scale, deviation, cloud.sigma)


class _Fitting:
    """Least squares systems of some points, to which neighbours are added step by step.

    It also holds the intersections of the confidence intervals of heights and slopes.
    """

    def __init__(self, cloud: OrientedCloud, rows: np.ndarray):
        self.cloud, self.rows = cloud, rows
        count = len(rows)
        self.matrix, self.right = np.zeros((count, TERMS, TERMS)), np.zeros((count, TERMS))
        self.lower, self.upper = np.full((count, JUDGED), -np.inf), np.full((count, JUDGED), np.inf)
        self.best, self.radius, self.deviation = (
            np.zeros((count, TERMS)),
            np.zeros(count),
            np.zeros(count),
        )
        self.scale, self.unit = np.zeros(count, np.int64), np.ones(count)

    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Fits all rows.

        Returns the coefficients ``(m, 6)``, and, each ``(m,)``, the radius and the number of
        neighbours of the neighbourhood and the standard deviation of the height.
        """
        growing, start, first = np.arange(len(self.rows)), 0, 0
        reach, near = np.zeros((0, 0)), np.zeros((0, 0), np.int64)
        sizes = [k for k in SCALES if k <= len(self.cloud.points)] or [len(self.cloud.points)]
        for step, size in enumerate(sizes):
            if step % TOGETHER == 0:
                most = sizes[min(step + TOGETHER, len(sizes)) - 1]
                reach, near = self.cloud.tree(
                    self.cloud.settled[self.rows[growing]], most, skip=start
                )
                first = start
            if not start:
                self.unit = np.maximum(reach[:, size - 1], 1e-12)  # keeps the systems well scaled
            self._add(growing, near[:, start - first : size - first])
            good = self._consistent(growing, reach[:, size - first - 1], size)
            growing, reach, near, start = growing[good], reach[good], near[good], size
            if not len(growing):
                break
        powers = self.unit[:, None] ** np.array([1, 0, 0, -1, -1, -1])
        return self.best * powers, self.radius, self.scale, self.deviation * self.unit

    def _add(self, which: np.ndarray, near: np.ndarray) -> None:
        """Adds the neighbours ``near (m, k)`` of the rows ``which (m,)`` to their systems."""
        cloud, unit = self.cloud, self.unit[which]
        offset, normal = local_coordinates(cloud, self.rows[which], near)
        u, v, z = np.moveaxis(offset / unit[:, None, None], -1, 0)
        height = quadratic_rows(u, v)
        weight = (normal[..., 2] > FACING).astype(float)
        weighted = (height * weight[..., None]).transpose(0, 2, 1)
        self.matrix[which] += weighted @ height
        self.right[which] += (weighted @ z[..., None])[..., 0]
        if cloud.tilt is None:
            return
        # The weight of a slope relative to that of a height.
        trust = ((cloud.sigma / (cloud.tilt * unit)) ** 2)[:, None, None]
        slopes = -normal[..., :2] / np.maximum(normal[..., 2:], FACING)
        linear, weighted = height[..., :3], weighted[:, :3] * trust
        matrix, right = weighted @ linear, weighted @ slopes
        for axis, terms in enumerate(SLOPE_TERMS):
            self.matrix[which[:, None, None], terms[:, None], terms] += matrix
            self.right[which[:, None], terms] += right[..., axis]

    def _consistent(self, which: np.ndarray, reach: np.ndarray, size: int) -> np.ndarray:
        """Solves the systems ``which`` and keeps solutions that agree with smaller neighbourhoods.

        Returns the mask of the rows that agree; their neighbourhoods may grow further.
        """
        matrix = self.matrix[which]
        ridge = (1e-6 * np.trace(matrix, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(TERMS)
        doubt = ((self.cloud.sigma / self.unit[which]) ** 2)[:, None, None] * np.diag(SHAPELY)
        inverse = np.linalg.inv(matrix + ridge + doubt)
        solution = np.einsum("mij,mj->mi", inverse, self.right[which])
        variance = np.maximum(np.diagonal(inverse, axis1=1, axis2=2)[:, :JUDGED], 0)
        deviation = (self.cloud.sigma / self.unit[which])[:, None] * np.sqrt(variance)
        wide = reach > NOISE_RADII * self.cloud.sigma
        half = np.where(
            wide[:, None], CONFIDENCE[int(self.cloud.tilt is not None)] * deviation, np.inf
        )
        lower = np.maximum(self.lower[which], solution[:, :JUDGED] - half)
        upper = np.minimum(self.upper[which], solution[:, :JUDGED] + half)
        good = np.all(lower <= upper, axis=1)
        kept = which[good]
        self.lower[kept], self.upper[kept] = lower[good], upper[good]
        self.best[kept], self.deviation[kept] = solution[good], deviation[good, 0]
        self.radius[kept], self.scale[kept] = reach[good], size
        return good
