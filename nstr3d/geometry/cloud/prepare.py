"""A point cloud made fit for reconstruction: checked, placed, without copies and outliers, with
unit outward normals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.orient import outward_normals, turn_outward
from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.surface import UNIT_HALF_EXTENT
from nstr3d.types import Frame, PointCloud

LEAST_POINTS = 100
FLAT = 1e-9  # of a cloud's longest deviation: thinner, all points lie in a plane
MOST_POINTS = 300_000  # more are averaged in cells
NEIGHBOURS = 8  # whose mean distance says how crowded a point is
# times the median of these distances around the neighbours, or in the whole cloud: outliers are
# farther
LONELY = 4.0
FEW = 20  # points that are close to each other and to no others are outliers too
SCATTERED = 3.0  # times the median distance, likewise
# first guess at the cells to average in, and the finest, in units of the box
CELL, FINEST_CELL = 0.01, 1e-5


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did: numbers of points read, ``duplicates`` and ``outliers`` left out, normals
    ``turned`` over, points left after ``averaging`` and whether the normals' directions were
    ``measured`` rather than estimated."""

    points: int
    duplicates: int
    outliers: int
    averaged: int
    turned: int
    measured: bool


@dataclass(frozen=True)
class PreparedCloud:
    """``points (n, 3)`` in the unit box, their unit outward ``normals (n, 3)``, and the ``tree``
    over them."""

    points: np.ndarray
    normals: np.ndarray
    tree: Neighbours


def prepare(
    cloud: PointCloud,
    estimate: bool = False,
    keep_outliers: bool = False,
    outward: Callable[[Neighbours], np.ndarray] = outward_normals,
    most: int = MOST_POINTS,
) -> tuple[PreparedCloud, Frame, Preparation]:
    """``cloud`` in the unit box with unit outward normals, the frame that leads back, and what was
    done.

    Given normals are kept, but components that face inward turned over, unless ``estimate`` asks
    for new ones; ``outward`` makes new ones of the tree over points in the unit box. More than
    ``most`` points are averaged in cells, which takes off noise as well. Raises ValueError for
    points that are not ``(n, 3)`` or not finite, normals that do not match, are not finite or have
    no length, fewer than 100 distinct points, or all in one plane.
    """
    given = None if estimate else cloud.normals
    check(PointCloud(cloud.points, given))
    points, normals = (
        np.asarray(cloud.points, np.float64),
        None if given is None else np.asarray(given, np.float64),
    )
    _, first = np.unique(points, axis=0, return_index=True)
    first.sort()
    if len(first) < LEAST_POINTS:
        raise ValueError(
            f"only {len(first)} of the {len(points)} points are distinct; a surface needs at "
            f"least {LEAST_POINTS}"
        )
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
        oriented, turned = outward(tree), 0
    else:
        oriented, turned = turn_outward(tree, normals)
    done = Preparation(
        len(cloud.points),
        len(cloud.points) - len(first),
        int((~kept).sum()),
        len(points),
        turned,
        normals is not None,
    )
    return PreparedCloud(points, oriented, tree), frame, done


def check(cloud: PointCloud) -> None:
    """Raises ValueError for points that are not ``(n, 3)``, not finite or too few, and normals that
    do not belong to them."""
    points, normals = cloud.points, cloud.normals
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(
            f"points have shape (n, 3), not {points.shape}; a surface needs three coordinates"
        )
    if len(points) < LEAST_POINTS:
        raise ValueError(
            f"there are only {len(points)} points; a surface needs at least {LEAST_POINTS}"
        )
    _check_finite(points, "point")
    if normals is None:
        return
    if normals.shape != points.shape:
        raise ValueError(
            f"{len(points)} points need as many normals, not an array of shape {normals.shape}"
        )
    _check_finite(normals, "normal")
    short = ~(np.linalg.norm(normals, axis=1) > 1e-12)
    if short.any():
        count, first = int(short.sum()), int(np.argmax(short))
        raise ValueError(
            f"{count} normals have length zero, the first at point {first}; remove them or "
            "estimate all anew"
        )


def outliers(points: np.ndarray) -> np.ndarray:
    """Mask ``(n,)`` of the points that are far lonelier than their neighbours or than most points
    are, alone or in a few."""
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


def _check_finite(values: np.ndarray, what: str) -> None:
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        count, first = int((~finite).sum()), int(np.argmin(finite))
        raise ValueError(
            f"{count} {what}s are not finite, the first is {what} {first}; remove them"
        )


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
    """Means of points and normals in the cells of a lattice, if there are more than ``most`` of
    them; normals of one cell that look apart stay apart."""
    if len(points) <= most:
        return points, normals
    side = (
        np.zeros(len(points), np.int64)
        if normals is None
        else np.argmax(np.hstack([normals, -normals]), axis=1)
    )
    cell, group = CELL, np.zeros(0, np.int64)
    for _ in range(8):  # the number of cells goes about with the inverse square of their size
        x, y, z = np.floor(points / cell).astype(np.int64).T + (1 << 19)
        _, group = np.unique(((x << 20 | y) << 20 | z) * 6 + side, return_inverse=True)
        count = int(group.max()) + 1
        if most / 2 < count <= most:
            break
        cell = max(cell * (count / (0.8 * most)) ** 0.5, FINEST_CELL)
    size = np.bincount(group)
    points = np.stack([np.bincount(group, axis) / size for axis in points.T], axis=1)
    if normals is not None:
        normals = np.stack([np.bincount(group, axis) for axis in normals.T], axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return points, normals
