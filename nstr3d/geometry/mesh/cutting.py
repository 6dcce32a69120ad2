"""Leaves out the faces inside the solid, cut where the surface crosses itself.

The faces may be of any mesh: open, branching, or of one part that overlaps itself.
"""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.crossings import crossings
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_areas, face_normals
from nstr3d.types import Mesh

# Relative to the mesh's extent: a plane closer than this to a corner does not cut there.
FLAT = 1e-11
# Winding numbers are probed this far beside a face, relative to its height and at least to the
# extent: they are computed in single precision.
STEP, LEAST_STEP = 1e-3, 2e-6
# Above this number of pieces, the remaining planes do not cut.
PIECES = 1 << 22
# Above this winding number on both sides, a face lies inside. On an open mesh, the winding number
# is not an integer.
INSIDE, INSIDE_OPEN = 0.5, 0.75


def without_inner(mesh: Mesh, faces: np.ndarray, distance: MeshDistance) -> tuple[np.ndarray, Mesh]:
    """Finds which of the ``faces`` lie inside the solid, wholly or in part.

    ``distance`` measures from ``mesh``. Returns the faces that are no longer faces of the surface,
    and a mesh of the pieces that remain of them.
    """
    pairs, coplanar = crossings(mesh, faces)
    pieces, owner = _cut(mesh, faces, pairs, coplanar)
    outer = ~_inside(mesh, pieces, owner, distance) & ~_covered(
        mesh, pieces, owner, pairs, coplanar
    )
    torn = np.unique(owner[~outer])
    remain = pieces[outer & np.isin(owner, torn)]
    vertices, index = np.unique(remain.reshape(-1, 3), axis=0, return_inverse=True)
    return torn, Mesh(vertices, index.reshape(-1, 3))


def _cut(
    mesh: Mesh, faces: np.ndarray, pairs: np.ndarray, coplanar: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ``faces`` cut by the faces that cross them: pieces ``(n, 3, 3)`` and their face ``(n,)``.

    A face is cut by the planes of the faces that cross it, and by the edges of the faces that
    overlap it in its plane.
    """
    face, cutter, normal, point = _planes(mesh, pairs, coplanar)
    order = np.argsort(face, kind="stable")
    face, cutter, normal, point = face[order], cutter[order], normal[order], point[order]
    first, last = (np.searchsorted(face, faces, side=side) for side in ("left", "right"))
    corners = mesh.corners
    lower, upper = corners.min(axis=1), corners.max(axis=1)
    eps = FLAT * float(mesh.bounds.extent.max())
    pieces, slot = corners[faces], np.arange(len(faces))
    done = []
    for turn in range(int((last - first).max(initial=0))):
        idle = first[slot] + turn >= last[slot]
        done.append((pieces[idle], slot[idle]))
        pieces, slot = pieces[~idle], slot[~idle]
        plane = first[slot] + turn
        height = ((pieces - point[plane, None]) * normal[plane, None]).sum(axis=2)
        side = np.sign(height) * (np.abs(height) > eps)
        meet = (
            (pieces.min(axis=1) <= upper[cutter[plane]] + eps)
            & (lower[cutter[plane]] - eps <= pieces.max(axis=1))
        ).all(axis=1)
        split = meet & (side.min(axis=1) < 0) & (side.max(axis=1) > 0)
        if len(pieces) > PIECES:
            split[:] = False
        parts, origin = _split(pieces[split], height[split], side[split])
        pieces = np.concatenate([pieces[~split], parts])
        slot = np.concatenate([slot[~split], slot[split][origin]])
    done.append((pieces, slot))
    return np.concatenate([each[0] for each in done]), faces[
        np.concatenate([each[1] for each in done])
    ]


def _planes(
    mesh: Mesh, pairs: np.ndarray, coplanar: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The planes that cut faces: the face ``(n,)``, the face that cuts it ``(n,)``, and the unit
    normal ``(n, 3)`` and a point ``(n, 3)`` of the plane."""
    normals, corners = face_normals(mesh), mesh.corners
    both = np.concatenate([pairs, pairs[:, ::-1]])
    flat = np.concatenate([coplanar, coplanar])
    face, cutter = both[~flat].T
    found = [(face, cutter, normals[cutter], corners[cutter, 0])]
    face, cutter = both[flat].T
    for corner in range(3):
        start, end = corners[cutter, corner], corners[cutter, (corner + 1) % 3]
        across = np.cross(normals[cutter], end - start)
        length = np.linalg.norm(across, axis=1, keepdims=True)
        # The plane of a needle without a normal stays zero and cuts nothing.
        across = np.divide(across, length, out=np.zeros_like(across), where=length > 0)
        found.append((face, cutter, across, start))
    one, two, normal, point = (np.concatenate(parts) for parts in zip(*found))
    return one, two, normal, point


def _split(
    pieces: np.ndarray, height: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Splits triangles ``(n, 3, 3)`` that have corners on both sides of a plane.

    ``height (n, 3)`` are the corners' heights above the plane and ``side (n, 3)`` their signs.
    Returns the parts and the triangle that each is a part of.
    """
    rows = np.arange(len(pieces))
    on = (side == 0).any(axis=1)
    # The first corner is the one on the plane, or else the one alone on its side.
    lone = np.where(side.sum(axis=1) > 0, side.argmin(axis=1), side.argmax(axis=1))
    start = np.where(on, (side == 0).argmax(axis=1), lone)
    turn = (start[:, None] + np.arange(3)) % 3
    a, b, c = np.moveaxis(np.take_along_axis(pieces, turn[:, :, None], axis=1), 1, 0)
    ha, hb, hc = np.take_along_axis(height, turn, axis=1).T

    def between(p: np.ndarray, q: np.ndarray, hp: np.ndarray, hq: np.ndarray) -> np.ndarray:
        return p + (hp / (hp - hq))[:, None] * (q - p)

    middle = between(b[on], c[on], hb[on], hc[on])
    off = ~on
    ab = between(a[off], b[off], ha[off], hb[off])
    ac = between(a[off], c[off], ha[off], hc[off])
    parts = (
        (a[on], b[on], middle),
        (a[on], middle, c[on]),
        (a[off], ab, ac),
        (ab, b[off], c[off]),
        (ab, c[off], ac),
    )
    origin = (rows[on], rows[on], rows[off], rows[off], rows[off])
    return np.concatenate([np.stack(part, axis=1) for part in parts]), np.concatenate(origin)


def _inside(
    mesh: Mesh, pieces: np.ndarray, owner: np.ndarray, distance: MeshDistance
) -> np.ndarray:
    """Mask ``(n,)`` of the pieces with the solid on both sides, or the reverse of solid."""
    normal = face_normals(mesh)[owner]
    front, back = beside(pieces, normal, float(mesh.bounds.extent.max()), distance)
    limit = INSIDE if distance.closed else INSIDE_OPEN
    return (np.minimum(front, back) > limit) | (np.minimum(front, back) < -limit)


def beside(
    pieces: np.ndarray, normal: np.ndarray, extent: float, distance: MeshDistance
) -> tuple[np.ndarray, np.ndarray]:
    """The winding numbers ``(n,)`` in front of and behind triangles ``pieces (n, 3, 3)``."""
    longest = np.linalg.norm(pieces - np.roll(pieces, 1, axis=1), axis=2).max(axis=1)
    area = face_areas(Mesh(pieces.reshape(-1, 3), np.arange(3 * len(pieces)).reshape(-1, 3)))
    low = np.divide(area, longest, out=np.zeros_like(area), where=longest > 0)
    step = np.maximum(STEP * low, LEAST_STEP * extent)[:, None] * normal
    middle = pieces.mean(axis=1)
    number = distance.winding(np.concatenate([middle + step, middle - step]))
    return number[: len(pieces)], number[len(pieces) :]


def _covered(
    mesh: Mesh, pieces: np.ndarray, owner: np.ndarray, pairs: np.ndarray, coplanar: np.ndarray
) -> np.ndarray:
    """Mask ``(n,)`` of the pieces that coincide with a part of an earlier face that looks alike."""
    normals, corners = face_normals(mesh), mesh.corners
    earlier, later = np.sort(pairs[coplanar], axis=1).T
    alike = (normals[earlier] * normals[later]).sum(axis=1) > 0
    earlier, later = earlier[alike], later[alike]
    order = np.argsort(owner, kind="stable")
    first, last = (np.searchsorted(owner[order], later, side=side) for side in ("left", "right"))
    size = last - first
    piece = order[np.repeat(first - np.cumsum(size) + size, size) + np.arange(size.sum())]
    cover = np.repeat(earlier, size)
    middle, within = pieces[piece].mean(axis=1), np.ones(len(piece), bool)
    for corner in range(3):
        start, end = corners[cover, corner], corners[cover, (corner + 1) % 3]
        across = np.cross(normals[cover], end - start)
        within &= ((middle - start) * across).sum(axis=1) > 0
    covered = np.zeros(len(pieces), bool)
    covered[piece[within]] = True
    return covered
