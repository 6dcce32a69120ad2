"""Local quadratics on a cloud of oriented points: what the surface is near each point, whatever the
noise.

Each point gets a height function over its tangent plane, a quadratic that is fitted to its k
nearest neighbours, to their normals too where these are measured. The more neighbours, the less
noise and the more bias; how many a point takes is decided by the intersection of confidence
intervals (Goldenshluger and Nemirovski, 1997; Katkovnik, 1999): as many as possible while the
heights and slopes from fewer agree within what the noise explains: slopes show bias long before
heights do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.kernels.threads import share

SCALES = (7, 10, 16, 26, 42, 68, 110, 180, 290, 470, 760)  # neighbours to try, in turn
# Half width of an interval in standard deviations, of the height and the two slopes: from heights
# alone, and from normals too.
CONFIDENCE = np.array([[1.25, 2.0, 2.0], [1.5, 1.5, 1.5]])
# neighbourhoods that reach less far, in standard deviations of the noise, see a slab and no surface
NOISE_RADII = 2.5
SLAB_RADII = 4.0  # how far neighbourhoods must reach to estimate the noise from, likewise
TOGETHER = 3  # scales whose neighbours are looked up at once
# edges of the cells of which one point each becomes a patch, in both rounds, in the same unit
ROUGH, THINNING = 1.8, 1.0
LEAST_NOISE = 1e-7  # of the cloud's size
QUANTILE = 0.25  # of the residuals: where the surface is smooth they are noise alone
CHUNK = 1 << 11  # points at a time: bounds memory
FACING = 0.5  # neighbours whose normals are more than 60 degrees off belong to another sheet
TERMS, JUDGED = 6, 3  # 1, u, v, u^2/2, uv, v^2/2, and how many of their coefficients have intervals
# What is believed before any neighbour is seen, as precisions where the nearest few are within 1:
# that slopes and curvatures are no larger than such points could show. It decides only where facing
# neighbours are fewer than terms, at tips and rims.
BESIDE = 24  # patches that a point without a measured normal may get one from
# as many neighbours must a patch have taken as the nearest, at least, to be believed instead
TWICE = 2.0
REACHING = 1.5  # radii: no farther does a patch speak
TURN = 0.4  # cosine of the most that a normal turns by it
FINE = 0.2  # spacings: where the noise is less, creases are looked for a second time
SHAPELY = (0.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Patches:
    """Quadratics ``z = h(u, v)`` in the frames ``(n, 3, 3)`` (rows: two tangents and the normal) at
    ``centres (n, 3)``.

    ``coefficients (n, 6)`` belong to 1, u, v, u^2/2, uv, v^2/2; h(0, 0) = 0 as the centres have
    been moved onto the surface. ``radius (n,)`` is how far each reaches, ``scale (n,)`` the number
    of neighbours that it took, and ``deviation (n,)`` the standard deviation of its centre along
    the normal. ``noise`` is that of the points. All in the points' units.
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
        """Which centres are nearest."""
        return Neighbours(self.centres)

    @property
    def normals(self) -> np.ndarray:
        """Unit normals ``(n, 3)`` of the surface at the centres."""
        slope = np.concatenate(
            [-self.coefficients[:, 1:3], np.ones((len(self.centres), 1))], axis=1
        )
        normal = np.einsum("nk,nkd->nd", slope, self.frames)
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)


@dataclass(frozen=True)
class _Cloud:
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


def fit_patches(
    points: np.ndarray | Neighbours,
    normals: np.ndarray,
    measured: bool,
    noise: float | None = None,
) -> Patches:
    """Quadratics near ``points (n, 3)``, or those that a tree holds, with unit ``normals (n, 3)``,
    whose slopes count as data where they were ``measured``.

    ``noise``, the standard deviation of the points along the normal, is estimated where it is None.
    Patches lie no closer than the noise can tell apart. Several rounds: the next looks for
    neighbours where the last has put the points, and where normals were not measured with what it
    says about them.
    """
    tree, frames = Neighbours.of(points), tangent_frames(normals)
    points = tree.points
    sigma, tilt = noise_of(points, frames, tree, measured)
    least = LEAST_NOISE * float(np.ptp(points, axis=0).max())
    sigma = max(sigma if noise is None else noise, least)
    cloud = _Cloud(points, points, frames, tree, sigma, tilt if measured else None)
    rounds = 1 if measured or sigma > FINE * _spacing(points, tree) else 2
    for _ in range(rounds):
        patches = _fit_all(cloud, thinned(cloud.settled, ROUGH * sigma))
        settled, near = settle(patches, points)
        if not measured:
            frames = tangent_frames(normals_beside_creases(patches, points, near))
        cloud = replace(cloud, settled=settled, frames=frames, tree=Neighbours(settled))
    return _fit_all(cloud, thinned(cloud.settled, THINNING * sigma))


def thinned(points: np.ndarray, cell: float) -> np.ndarray:
    """Indices of one of ``points (n, 3)`` in each cubic cell of edge ``cell`` that has any, in
    their order."""
    spread = np.ptp(points, axis=0).max()
    if cell <= spread * 1e-6:
        return np.arange(len(points))
    x, y, z = ((points - points.min(axis=0)) / cell).astype(np.int64).T
    return np.sort(np.unique((x << 42) | (y << 21) | z, return_index=True)[1])


def settle(patches: Patches, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``points (n, 3)`` moved onto the patch with the nearest centre, along its frame's normal, and
    which patch that is."""
    near = patches.near.nearest(points)[1]
    _, _, lift = _over(patches, near, points)
    return points - lift[:, None] * patches.frames[near, 2], near


def _over(patches: Patches, which: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where ``points (..., 3)`` are over the patches ``which (...)``: along two tangents and above,
    ``(3, ...)``."""
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
    """Unit normals ``(n, 3)`` of ``points (n, 3)``, of which ``near (n,)`` are the nearest patches.

    A patch at a crease is a blend of both sides and takes few neighbours before they disagree.
    Where another one close by took many more and passes the point within the noise, the normal is
    its.
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
        taken = (worth[best] > TWICE * patches.scale[near[rows]]) & (
            np.einsum("md,md->m", normal, result[rows]) > TURN
        )
        result[rows[taken]] = normal[taken]
    return result


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
    cloud = _Cloud(points, points, frames, tree, 0.0, None)
    sigma = tilt = 0.0
    for size in [k for k in SCALES if k <= len(points)] or [len(points)]:
        reach, near = tree(points[rows], size)
        unit = np.maximum(reach[:, -1], 1e-300)
        offset, normal = _local(cloud, rows, near)
        u, v, z = np.moveaxis(offset / unit[:, None, None], -1, 0)
        height = _rows_of(u, v)[0]
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


def _spacing(points: np.ndarray, tree: Neighbours) -> float:
    """Root of a point's share of the surface, typically."""
    reach, _ = tree(points[:: max(len(points) // 2000, 1)], SCALES[0] + 1, skip=SCALES[0])
    return float(np.median(reach)) * np.sqrt(np.pi / SCALES[0])


def _left_over(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squares ``(m, k, c)`` of what the columns of ``basis (m, k, t)`` cannot explain of ``values
    (m, k, c)``."""
    solution = np.linalg.pinv(basis, rcond=1e-6) @ values
    return (values - basis @ solution) ** 2


def _local(cloud: _Cloud, rows: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates ``(m, k, 3)`` of the neighbours in the frames of ``rows``, and their normals in
    the same."""
    frames = cloud.frames[rows].transpose(0, 2, 1)
    return (cloud.points[near] - cloud.settled[rows, None]) @ frames, cloud.frames[near, 2] @ frames


def _rows_of(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the height and its two slopes at (u, v) are in terms of the coefficients: three ``(m, k,
    6)``."""
    one, zero = np.ones_like(u), np.zeros_like(u)
    height = np.stack([one, u, v, u * u / 2, u * v, v * v / 2], axis=-1)
    slope_u = np.stack([zero, one, zero, u, v, zero], axis=-1)
    slope_v = np.stack([zero, zero, one, zero, u, v], axis=-1)
    return height, slope_u, slope_v


def _fit_all(cloud: _Cloud, rows: np.ndarray) -> Patches:
    """The patches at ``rows`` of the cloud."""
    chunks = np.array_split(rows, len(rows) // CHUNK + 1)
    fitted: list[tuple[np.ndarray, ...]] = [()] * len(chunks)

    def fit(thread: int, low: int, high: int) -> None:
        for index in range(low, high):
            fitted[index] = _Fitting(cloud, chunks[index]).run()

    share(fit, len(chunks), least=1)
    coefficients, radius, scale, deviation = (np.concatenate(part) for part in zip(*fitted))
    centres = cloud.settled[rows] + coefficients[:, :1] * cloud.frames[rows, 2]
    coefficients[:, 0] = 0
    return Patches(centres, cloud.frames[rows], coefficients, radius, scale, deviation, cloud.sigma)


class _Fitting:
    """The growing least squares systems of some rows, and the intervals that their heights and
    slopes must lie in."""

    def __init__(self, cloud: _Cloud, rows: np.ndarray):
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
        """Coefficients ``(m, 6)``, radius, neighbours and standard deviation of the height
        ``(m,)``."""
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
        """Puts the neighbours ``near (m, k)`` of the rows ``which`` into their systems."""
        cloud, unit = self.cloud, self.unit[which]
        offset, normal = _local(cloud, self.rows[which], near)
        u, v, z = np.moveaxis(offset / unit[:, None, None], -1, 0)
        height, *slopes = _rows_of(u, v)
        weight = (normal[..., 2] > FACING).astype(float)
        equations = [(height, weight, z)]
        if cloud.tilt is not None:
            trust = (
                weight * ((cloud.sigma / (cloud.tilt * unit)) ** 2)[:, None]
            )  # of a slope against a height
            flat = np.maximum(normal[..., 2], FACING)
            equations += [
                (rows, trust, -normal[..., axis] / flat) for axis, rows in enumerate(slopes)
            ]
        for rows, counts, value in equations:
            weighted = (rows * counts[..., None]).transpose(0, 2, 1)
            self.matrix[which] += weighted @ rows
            self.right[which] += (weighted @ value[..., None])[..., 0]

    def _consistent(self, which: np.ndarray, reach: np.ndarray, size: int) -> np.ndarray:
        """Solves, and keeps what agrees with the smaller neighbourhoods: the mask of rows that may
        go on growing."""
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
