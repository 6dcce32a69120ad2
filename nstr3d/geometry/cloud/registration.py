"""Moves the scans of a cloud onto each other.

A cloud is often several scans, each of which is a little beside the others, so that a surface seen
several times is several sheets. A scanner measures in rows, and a file holds one scan after the
other: neighbours on the surface are near each other in the file too, except where the next scan
begins. All scans are moved together: each as a rigid body, by the symmetric distances between
points of different scans along the mean of their normals (Rusinkiewicz, A symmetric objective
function for ICP, 2019), with robust weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours

LINKS = 10  # nearest neighbours that each point is linked to, to see where a scan ends
WINDOW = 300  # neighbours at most this many places apart in the file are of one scan
SEVERED = 0.05  # of the median number of links across a place: with fewer, a scan ends there
LEAST = 300  # points of a scan; shorter pieces of the file belong to the scan before them
MOST = 64  # scans; where there are more, the order of the points says nothing about scans
PROBES, AROUND = 20_000, 30  # points that are compared with the other scans, and their neighbours
# The largest distance between compared points, in median distances of the eighth neighbour.
NEAR, EIGHTH = 1.5, 7
FACING = 0.8  # least cosine between the normals of compared points
OVERLAP = 0.3  # least share of the points with points of other scans near them
ROUNDS = 6
TAIL = 1.5  # deviations: distances beyond count little
STIFF = 0.01  # of the weight of a scan's points: keeps what they do not determine in place
PAYS = 0.9  # the distances between scans must shrink by this factor, or all scans stay


@dataclass(frozen=True)
class Registered:
    """``points (n, 3)`` and ``normals (n, 3)`` after ``scans`` scans were moved, the points by
    ``shift`` in the mean, in their units. Both numbers are 0 if nothing was moved."""

    points: np.ndarray
    normals: np.ndarray
    scans: int = 0
    shift: float = 0.0


@dataclass(frozen=True)
class _Pairs:
    """Points ``start (m,)`` and ``end (m,)`` of different scans, the unit mean ``along (m, 3)`` of
    their normals, and how far ``apart (m,)`` they are along it."""

    start: np.ndarray
    end: np.ndarray
    along: np.ndarray
    apart: np.ndarray

    @property
    def deviation(self) -> float:
        """The standard deviation of ``apart``, whatever its outliers."""
        return 1.4826 * float(np.median(np.abs(self.apart)))


def register(tree: Neighbours, normals: np.ndarray) -> Registered:
    """The points of ``tree``, in the order of their file, and their unit ``normals (n, 3)`` with
    the scans moved onto each other.

    Nothing is moved if the order shows fewer than two scans or more than `MOST`, if the scans see
    different parts of the surface, or if moving them does not bring them nearer to each other. The
    cloud as a whole stays in place.
    """
    untouched, label = Registered(tree.points, normals), scans_of(tree)
    count = int(label[-1]) + 1
    pairs = _pairs(tree, normals, label) if 2 <= count <= MOST else None
    if pairs is None or not pairs.deviation > 0:
        return untouched
    before, points, turned = pairs.deviation, tree.points, normals
    for _ in range(ROUNDS):
        points, turned = _moved(points, turned, label, pairs)
        pairs = _pairs(Neighbours(points), turned, label)
        if pairs is None or not pairs.deviation > 0:
            return untouched
    if pairs.deviation > PAYS * before:
        return untouched
    points, turned = _back(points, turned, tree.points)
    return Registered(
        points, turned, count, float(np.linalg.norm(points - tree.points, axis=1).mean())
    )


def scans_of(tree: Neighbours) -> np.ndarray:
    """The number ``(n,)`` of the scan of each point of ``tree``, from 0 in the order of the file.

    A link joins two neighbours that are at most `WINDOW` places apart in the file. Few links reach
    across the place where the next scan begins; of several such places, it is the one where the
    points jump farthest.
    """
    count = tree.count
    _, near = tree(tree.points, LINKS + 1, skip=1)
    own = np.repeat(np.arange(count), near.shape[1])
    low, high = np.minimum(own, near.ravel()), np.maximum(own, near.ravel())
    short = high - low < WINDOW
    opened, closed = (np.bincount(ends[short] + 1, minlength=count + 1) for ends in (low, high))
    across = np.cumsum(opened - closed)[:count]
    few = np.flatnonzero(across < SEVERED * np.median(across))
    step = np.linalg.norm(np.diff(tree.points, axis=0, prepend=tree.points[:1]), axis=1)
    starts, last = np.zeros(count, np.int64), 0
    for run in np.split(few, np.flatnonzero(np.diff(few) > 1) + 1) if len(few) else ():
        fewest = run[across[run] == across[run].min()]
        place = int(fewest[np.argmax(step[fewest])])
        if place - last >= LEAST and count - place >= LEAST:
            starts[place], last = 1, place
    return np.cumsum(starts)


def _pairs(tree: Neighbours, normals: np.ndarray, label: np.ndarray) -> _Pairs | None:
    """The pairs of points of different scans ``label (n,)`` that are near each other and face the
    same way; None if too few points have one."""
    probes = np.arange(0, tree.count, tree.count // PROBES + 1)
    reach, near = tree(tree.points[probes], AROUND + 1, skip=1)
    start, end = np.repeat(probes, near.shape[1]), near.ravel()
    along = normals[start] + normals[end]
    size = np.linalg.norm(along, axis=1)  # 2 cos(half the angle between the normals)
    kept = (label[start] != label[end]) & (size**2 > 2 + 2 * FACING)
    kept &= reach.ravel() < NEAR * np.median(reach[:, EIGHTH])
    start, end, along = start[kept], end[kept], along[kept] / size[kept, None]
    if len(np.unique(start)) < OVERLAP * len(probes):
        return None
    step = tree.points[start] - tree.points[end]
    return _Pairs(start, end, along, np.einsum("md,md->m", along, step))


def _moved(
    points: np.ndarray, normals: np.ndarray, label: np.ndarray, pairs: _Pairs
) -> tuple[np.ndarray, np.ndarray]:
    """``points (n, 3)`` and ``normals (n, 3)`` after one step of the scans ``label (n,)`` towards
    each other: weighted least squares of the distances of ``pairs`` over all small motions."""
    from scipy.spatial.transform import Rotation

    size = np.bincount(label)
    centres = np.stack([np.bincount(label, axis) / size for axis in points.T], axis=1)
    weight = 1 / (1 + (pairs.apart / (TAIL * pairs.deviation)) ** 2) ** 2
    first, second = (
        np.hstack([np.cross(points[side] - centres[label[side]], pairs.along), pairs.along])
        for side in (pairs.start, pairs.end)
    )
    rows = np.hstack([first, -second])
    matrix, right = np.zeros((len(size), 6, len(size), 6)), np.zeros((len(size), 6))
    couple = label[pairs.start] * len(size) + label[pairs.end]
    for each in np.unique(couple):
        own, (one, other) = couple == each, divmod(int(each), len(size))
        weighted = rows[own] * weight[own, None]
        block, pull = weighted.T @ rows[own], weighted.T @ pairs.apart[own]
        for scan, mine in ((one, slice(0, 6)), (other, slice(6, 12))):
            right[scan] -= pull[mine]
            for partner, theirs in ((one, slice(0, 6)), (other, slice(6, 12))):
                matrix[scan, :, partner] += block[mine, theirs]
    system = matrix.reshape(6 * len(size), -1)
    stiff = STIFF * weight.sum() * np.repeat(size / len(points), 6)
    motion = np.linalg.solve(system + np.diag(stiff), right.ravel()).reshape(-1, 6)
    turns = Rotation.from_rotvec(motion[:, :3]).as_matrix()[label]
    arms = np.einsum("nij,nj->ni", turns, points - centres[label])
    return (centres + motion[:, 3:])[label] + arms, np.einsum("nij,nj->ni", turns, normals)


def _back(
    points: np.ndarray, normals: np.ndarray, before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``points (n, 3)`` and ``normals (n, 3)``, as one rigid body, as near as possible to where the
    points were ``before (n, 3)`` (Kabsch, 1976)."""
    middle, place = points.mean(axis=0), before.mean(axis=0)
    left, _, right = np.linalg.svd((points - middle).T @ (before - place))
    turn = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    return (points - middle) @ turn + place, normals @ turn
