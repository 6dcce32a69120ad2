"""Prepares a point cloud for reconstruction.

The cloud is validated and placed in the unit box, duplicates and outliers are removed, and the
points get unit outward normals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.orient import outward_normals, turn_outward
from nstr3d.geometry.cloud.registration import Registered, register
from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.surface import UNIT_HALF_EXTENT
from nstr3d.geometry.sizes import check_size
from nstr3d.system import Message
from nstr3d.types import Frame, PointCloud

PIECE = 1 << 20  # points compared at once
LEAST_POINTS = 100  # distinct points that a surface needs
FLAT = 1e-9  # thickness, in units of the longest deviation, at which a cloud counts as a plane
MOST_POINTS = 300_000  # more points are averaged in cells
NEIGHBOURS = 8  # nearest neighbours whose mean distance measures the isolation of a point
# An outlier has a mean distance above ``LONELY`` times the median of its neighbours and above
# ``SCATTERED`` times the median of the cloud, or above twice ``LONELY`` times the latter.
LONELY = 4.0
FEW = 20  # a group of fewer points that are close only to each other consists of outliers
SCATTERED = 3.0
# Depth cameras write 0 0 0 for a pixel without depth; so many rows of it are no measured point.
ORIGINS = 20
MOST_WITHOUT_NORMAL = 0.1  # a larger share of points without a normal is refused
SAMPLED, AROUND = 2000, 16  # points whose normals are compared with the plane of neighbours
# Edges of the cells for averaging, in units of the unit box: the first guess and the smallest.
CELL, FINEST_CELL = 0.01, 1e-5
# The search for the edge ends after ``TRIES`` edges, or if the edge is known to the fraction
# ``CLOSE``: then no edge gives a number of cells in the wanted range.
TRIES, CLOSE = 60, 1e-3


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did.

    ``points`` is the number of points read. Points were removed for one of five reasons:
    ``not_finite`` have a coordinate that is not finite, ``origins`` are rows of 0 0 0,
    ``without_normal`` have a normal that is not finite or of length zero while others have one, and
    the others are ``duplicates`` and ``outliers``. ``averaged`` is the number of points that
    remain, after averaging in cells where there were too many. ``turned`` is the number of normals
    that were turned over. ``measured`` says whether the directions of the normals were measured;
    otherwise they were estimated. ``deviation`` is the median angle in degrees between a measured
    normal and the normal of the plane through the neighbours, None for estimated normals; 60 is the
    value of chance. ``scans`` is the number of scans that were moved onto each other, by ``shift``
    in the mean, in the units of the cloud; both are 0 if none was moved.
    """

    points: int
    not_finite: int
    origins: int
    without_normal: int
    duplicates: int
    outliers: int
    averaged: int
    turned: int
    measured: bool
    deviation: float | None
    scans: int
    shift: float


@dataclass(frozen=True)
class PreparedCloud:
    """A cloud in the unit box.

    It has ``points (n, 3)``, their unit outward ``normals (n, 3)``, and the search ``tree`` over
    the points.
    """

    points: np.ndarray
    normals: np.ndarray
    tree: Neighbours


def prepare(
    cloud: PointCloud,
    estimate: bool = False,
    keep_outliers: bool = False,
    keep_scans: bool = False,
    outward: Callable[[Neighbours], np.ndarray] = outward_normals,
    most: int = MOST_POINTS,
) -> tuple[PreparedCloud, Frame, Preparation]:
    """Places ``cloud`` in the unit box with unit outward normals.

    Returns the prepared cloud, the frame that maps it back to world units, and what was done.

    Normals of the cloud are kept unless ``estimate`` is true; components that face inward are
    turned over. If the cloud has no normals or ``estimate`` is true, ``outward`` computes them from
    the search tree over the points in the unit box. Points that are not finite, rows of 0 0 0 if
    there are many, and a few points without a normal are removed. Outliers are removed unless
    ``keep_outliers`` is true. More than ``most`` points are averaged in cells, which also reduces
    noise. Scans of a cloud that is not averaged are moved onto each other, see `register`, unless
    ``keep_scans`` is true.

    Raises ValueError if the points are not ``(n, 3)``, fewer than 100 finite and distinct ones, of
    a size beyond double precision, or all in one plane. Raises it also if the normals do not match
    the points, or if more than a tenth of them are not finite or have length zero.
    """
    raw_normals = None if estimate else cloud.normals
    check(PointCloud(cloud.points, raw_normals))
    points, normals, removed = _usable(
        np.asarray(cloud.points, np.float64),
        None if raw_normals is None else np.asarray(raw_normals, np.float64),
    )
    usable, first = len(points), _distinct(points)
    points, normals = points[first], None if normals is None else normals[first]
    _check_volume(points)
    kept = np.ones(len(points), bool) if keep_outliers else ~outliers(points)
    frame = _frame(points[kept])
    points = frame.to_unit(points[kept])
    if normals is not None:
        normals = normals[kept] / np.linalg.norm(normals[kept], axis=1, keepdims=True)
    points, normals = _averaged(points, normals, most)
    tree = Neighbours(points)
    if normals is None:
        oriented, turned, deviation = outward(tree), 0, None
    else:
        deviation = _deviation(tree, normals)
        oriented, turned = turn_outward(tree, normals)
    registered = Registered(points, oriented)
    if (
        not keep_scans and len(points) == kept.sum()
    ):  # means in cells are no longer in the order of the file
        registered = register(tree, oriented)
    if registered.scans:
        tree = Neighbours(registered.points)
    done = Preparation(
        len(cloud.points),
        *removed,
        usable - len(first),
        int((~kept).sum()),
        len(points),
        turned,
        normals is not None,
        deviation,
        registered.scans,
        registered.shift * frame.scale,
    )
    return PreparedCloud(registered.points, registered.normals, tree), frame, done


def _distinct(points: np.ndarray) -> np.ndarray:
    """The first index of each distinct point of ``points (n, 3)``, in order; ValueError if these
    are too few for a surface."""
    key = _row_keys(points)
    order = np.argsort(key, kind="stable")
    key = key[order]
    repeated = np.concatenate([[False], key[1:] == key[:-1]])
    if _all_equal(points, order, np.flatnonzero(repeated)):
        first = order[~repeated]
    else:  # two different points have one key
        _, first = np.unique(points, axis=0, return_index=True)
    if len(first) < LEAST_POINTS:
        raise ValueError(_too_few(len(first), len(points)))
    return np.sort(first)


def _too_few(distinct: int, count: int) -> str:
    return (
        f"only {distinct} of the {count} points are distinct; a surface needs at least "
        f"{LEAST_POINTS}"
    )


def _all_equal(points: np.ndarray, order: np.ndarray, places: np.ndarray) -> bool:
    """Whether each point at ``places`` of ``order`` equals the one before it, compared in pieces
    that take little memory."""
    pieces = (places[start : start + PIECE] for start in range(0, len(places), PIECE))
    return all((points[order[each]] == points[order[each - 1]]).all() for each in pieces)


def _row_keys(points: np.ndarray) -> np.ndarray:
    """A uint64 ``(n,)`` for each of ``points (n, 3)`` float64, equal for equal points. Sorting the
    keys takes a tenth of the time of sorting the points."""
    key = np.zeros(len(points), np.uint64)
    for axis in points.T:
        key ^= (axis + 0.0).view(np.uint64)  # -0.0 equals 0.0, so the key of both is that of 0.0
        key *= np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key


def check(cloud: PointCloud) -> None:
    """Raises ValueError unless ``cloud`` has at least 100 finite points, of a size that double
    precision can measure."""
    points = cloud.points
    if len(points) < LEAST_POINTS:
        raise ValueError(
            f"there are only {len(points)} points; a surface needs at least {LEAST_POINTS}"
        )
    finite = np.isfinite(points).all(axis=1)
    if finite.sum() < LEAST_POINTS:
        raise ValueError(
            f"{(~finite).sum()} of {len(points)} points are not finite; a surface needs at least "
            f"{LEAST_POINTS} finite ones"
        )
    known = points if finite.all() else points[finite]
    check_size(known, "point cloud")
    if (known.min(axis=0) == known.max(axis=0)).all():  # before the search for copies, for speed
        raise ValueError(_too_few(1, len(points)))


def _usable(
    points: np.ndarray, normals: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int, int]]:
    """The points that can be used, their normals, and the numbers of points removed: not finite,
    rows of 0 0 0, without a normal.

    Raises ValueError if more than `MOST_WITHOUT_NORMAL` of the points have no normal.
    """
    finite = np.isfinite(points).all(axis=1)
    origins = (points == 0).all(axis=1)
    if origins.sum() < ORIGINS or origins.all():
        origins[:] = False
    kept = finite & ~origins
    if normals is None:
        usable = points if kept.all() else points[kept]
        return usable, None, (int((~finite).sum()), int(origins.sum()), 0)
    with np.errstate(invalid="ignore", over="ignore"):
        length = np.linalg.norm(normals, axis=1)
    without = kept & ~((length > 1e-12) & np.isfinite(length))
    if without.sum() > MOST_WITHOUT_NORMAL * kept.sum():
        count = "all" if (without == kept).all() else int(without.sum())
        raise ValueError(
            Message(
                "{} of {} normals have length zero or are not finite, so they say nothing about "
                "directions; let nstr3d estimate the normals: <normals> estimate",
                count,
                int(kept.sum()),
            )
        )
    removed = int((~finite).sum()), int(origins.sum()), int(without.sum())
    return points[kept & ~without], normals[kept & ~without], removed


def _deviation(tree: Neighbours, normals: np.ndarray) -> float:
    """The median angle in degrees between ``normals (n, 3)`` and the normal of the plane through a
    point's neighbours, over at most `SAMPLED` points."""
    count = len(normals)
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLED)).astype(np.int64))
    _, near = tree(tree.points[chosen], min(AROUND, count))
    around = tree.points[near]
    around = around - around.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("nkd,nke->nde", around, around))
    cosine = np.abs(np.einsum("nd,nd->n", axes[:, :, 0], normals[chosen]))
    return float(np.degrees(np.arccos(min(float(np.median(cosine)), 1.0))))


def outliers(points: np.ndarray) -> np.ndarray:
    """Mask ``(n,)`` of the outliers among ``points (n, 3)``.

    The isolation of a point is its mean distance to its nearest neighbours. A point is an outlier
    if its isolation far exceeds that of its neighbours and the median of the cloud, or exceeds the
    median even farther, or if it belongs to a group of fewer than `FEW` points that is far from all
    others.
    """
    reach, near = Neighbours(points)(points, NEIGHBOURS + 1, skip=1)
    alone = reach.mean(axis=1)
    around = np.median(alone[near], axis=1)
    typical = np.median(alone)
    lonely = ((alone > LONELY * around) & (alone > SCATTERED * typical)) | (
        alone > 2 * LONELY * typical
    )
    close = (reach < 2 * LONELY * typical) & ~lonely[:, None]
    group = label_components(len(points), np.nonzero(close)[0], near[close])
    return lonely | (np.bincount(group)[group] < FEW)


def _check_volume(points: np.ndarray) -> None:
    deviation = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    if deviation[2] <= FLAT * deviation[0]:
        where = "on a line" if deviation[1] <= FLAT * deviation[0] else "in a plane"
        raise ValueError(
            f"all points lie {where}, so they enclose nothing; a surface needs points in three "
            "dimensions"
        )


def _frame(points: np.ndarray) -> Frame:
    lower, upper = points.min(axis=0), points.max(axis=0)
    half = float((upper - lower).max()) / 2
    return Frame(tuple(((lower + upper) / 2).tolist()), half / UNIT_HALF_EXTENT)


def _averaged(
    points: np.ndarray, normals: np.ndarray | None, most: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Means of points and normals in the cells of a lattice, at most ``most`` of them.

    Nothing changes if there are at most ``most`` points. Normals in one cell are averaged only with
    normals that have the same dominant axis and sign, so the two sides of a thin part stay
    separate.
    """
    if len(points) <= most:
        return points, normals
    side = (
        np.zeros(len(points), np.int64)
        if normals is None
        else np.argmax(np.hstack([normals, -normals]), axis=1)
    )
    group = _cells(points, side, most)
    size = np.bincount(group)
    points = np.stack([np.bincount(group, axis) / size for axis in points.T], axis=1)
    if normals is not None:
        normals = np.stack([np.bincount(group, axis) for axis in normals.T], axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return points, normals


def _cells(points: np.ndarray, side: np.ndarray, most: int) -> np.ndarray:
    """The cell ``(n,)`` of each point, numbered from 0, of a lattice with at most ``most`` occupied
    cells. Points of different ``side (n,)``, which is 0 to 5, are in different cells.

    The number of cells is more than half of ``most`` if an edge down to FINEST_CELL gives such a
    number. Raises ValueError if ``most`` is less than the number of sides and octants occupied.
    """
    cell, best, fine, coarse = CELL, None, 0.0, np.inf  # fine: too many cells; coarse: not too many
    for _ in range(TRIES):
        x, y, z = np.floor(points / cell).astype(np.int64).T + (1 << 19)
        _, group = np.unique(((x << 20 | y) << 20 | z) * 6 + side, return_inverse=True)
        count = int(group.max()) + 1
        if count > most:
            fine = cell
        else:
            best, coarse = group, cell
            if count > most / 2 or cell <= FINEST_CELL:
                break
        if coarse < fine * (1 + CLOSE):
            break
        # the number of cells is roughly proportional to 1 / edge^2
        guess = max(cell * (count / (0.8 * most)) ** 0.5, FINEST_CELL)
        cell = guess if fine < guess < coarse else (fine * coarse) ** 0.5
    if best is None:
        raise ValueError(f"{len(points)} points cannot be averaged in at most {most} cells")
    return best
