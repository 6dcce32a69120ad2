"""Polygons as triangles.

Quads are cut along the better diagonal and strictly convex polygons are fanned. All other polygons
are cut by manifold3d in the plane of their Newell normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A corner is straight if it turns by less than this angle in radians and lies closer to the line
# between its neighbours than this fraction of the extent, as round-off of float32 leaves it.
STRAIGHT_ANGLE, STRAIGHT_WAY = 1e-4, 1e-6


@dataclass(frozen=True)
class Polygons:
    """The content of a mesh file: ``vertices (v, 3)`` float64, the vertex indices ``corners (c,)``
    of all polygons one after another, and the ``counts (p,)`` of their corners. ``notes`` are
    sentences about what the reader left out or changed."""

    vertices: np.ndarray
    corners: np.ndarray
    counts: np.ndarray
    notes: tuple[str, ...] = ()


def triangulate(vertices: np.ndarray, corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The triangles ``(f, 3)`` int64 of polygons, in the order and orientation of the polygons.

    A polygon of n corners gives n - 2 triangles, and each of its edges belongs to one of them, so
    neighbouring polygons stay joined. Polygons of fewer than 3 corners give none. The indices
    ``corners`` must be valid.
    """
    counts = np.asarray(counts, np.int64)
    if (counts == 3).all():
        return corners.reshape(-1, 3)
    starts = np.cumsum(counts) - counts
    sizes = np.maximum(counts - 2, 0)
    places = np.cumsum(sizes) - sizes
    faces = np.empty((int(sizes.sum()), 3), np.int64)
    for size in np.unique(counts[counts > 2]):
        chosen = np.flatnonzero(counts == size)
        rows = corners[starts[chosen, None] + np.arange(size)]
        local = _cut_quads(vertices[rows]) if size == 4 else _cut(vertices[rows])
        triangles = np.take_along_axis(rows, local.reshape(len(rows), -1), axis=1)
        faces[places[chosen, None] + np.arange(size - 2)] = triangles.reshape(len(rows), -1, 3)
    return faces


def strip_triangles(indices: np.ndarray) -> np.ndarray:
    """The triangles ``(f, 3)`` of a triangle strip. Every second triangle is turned, so that all
    have the orientation of the first. Triangles with a repeated index are left out."""
    faces = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    faces[1::2] = faces[1::2, ::-1]
    a, b, c = faces.T
    return faces[(a != b) & (b != c) & (c != a)]


def fan_triangles(indices: np.ndarray) -> np.ndarray:
    """The triangles ``(f, 3)`` of a triangle fan about its first index."""
    first = np.full(max(len(indices) - 2, 0), indices[0] if len(indices) else 0)
    return np.stack([first, indices[1:-1], indices[2:]], axis=1)


def _newell(points: np.ndarray) -> np.ndarray:
    """Vectors ``(m, 3)`` along the normals of polygons ``(m, n, 3)``, twice their area long."""
    centred = points - points.mean(axis=1, keepdims=True)
    return np.cross(centred, np.roll(centred, -1, axis=1)).sum(axis=1)


def _areas(points: np.ndarray, normals: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Twice the areas ``(m, t)`` of ``triangles (t, 3)`` of each polygon, along its unit normal."""
    a, b, c = (points[:, column] for column in triangles.T)
    return np.einsum("mtk,mk->mt", np.cross(b - a, c - a), normals)


def _cut_quads(points: np.ndarray) -> np.ndarray:
    """Local indices ``(m, 2, 3)`` of the triangles of quads ``(m, 4, 3)``. The diagonal 0-2 is
    taken unless it leaves the quad or its triangles have no area where the other's have."""
    normals = _newell(points)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.where(length > 0, length, 1)
    first, second = np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 1, 3], [1, 2, 3]])
    worst = _areas(points, normals, first).min(axis=1)
    other = _areas(points, normals, second).min(axis=1)
    is_second = (worst <= STRAIGHT_WAY * length[:, 0]) & (other > worst)
    return np.where(is_second[:, None, None], second, first)


def _cut(points: np.ndarray) -> np.ndarray:
    """Local indices ``(m, n - 2, 3)`` of the triangles of polygons ``(m, n, 3)``."""
    size = points.shape[1]
    fan = fan_triangles(np.arange(size))
    local = np.broadcast_to(fan, (len(points), *fan.shape)).copy()
    if size == 3:
        return local
    normals = _newell(points)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = normals / np.where(length > 0, length, 1)
    turns, straight = _turns(points, normals)
    fans = _areas(points, normals, fan)  # a star turns at all corners, but its fan overlaps
    convex = (turns > 0).all(axis=1) & (fans > 0).all(axis=1) & ~straight.any(axis=1)
    for index in np.flatnonzero(~convex & (length[:, 0] > 0)):
        local[index] = _clip_ears(points[index], normals[index], straight[index])
    return local


def _turns(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cross products along the unit normal at the corners of polygons ``(m, n, 3)``, and
    whether each corner is straight, both ``(m, n)``."""
    before = points - np.roll(points, 1, axis=1)
    after = np.roll(before, -1, axis=1)
    turns = np.einsum("mnk,mk->mn", np.cross(before, after), normals)
    along = np.einsum("mnk,mnk->mn", before, after)
    chord = np.linalg.norm(before + after, axis=2)
    extent = np.ptp(points, axis=1).max(axis=1)[:, None]
    is_narrow = np.abs(turns) <= STRAIGHT_ANGLE * along  # negative where the corner turns back
    return turns, is_narrow & (np.abs(turns) <= STRAIGHT_WAY * extent * chord)


def _clip_ears(points: np.ndarray, normal: np.ndarray, straight: np.ndarray) -> np.ndarray:
    """Local indices ``(n - 2, 3)`` of the triangles of a polygon ``(n, 3)``, or its fan where its
    edges cross each other and ears cannot be clipped."""
    import manifold3d

    size = len(points)
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    flat = (points - points.mean(axis=0)) @ np.stack([first, np.cross(normal, first)], axis=1)
    kept = np.flatnonzero(~straight)
    ears = np.asarray(manifold3d.triangulate([flat[kept]]), np.int64)
    # In the order of the polygon's corners, a triangle has the polygon's orientation.
    faces = [tuple(sorted(ear)) for ear in kept[ears.reshape(-1, 3)].tolist()]
    faces = _with_straight_corners(faces, size)
    return np.array(faces) if len(faces) == size - 2 else fan_triangles(np.arange(size))


def _with_straight_corners(faces: list[tuple[int, ...]], size: int) -> list[tuple[int, ...]]:
    """``faces`` with the corners of straight edges, which they leave out. A triangle at an edge
    that skips corners is cut at the first of them, until no edge skips any."""
    done: list[tuple[int, ...]] = []
    edges = {(face[k], face[(k + 1) % 3]) for face in faces for k in range(3)}
    waiting = list(faces)
    while waiting and len(done) + len(waiting) <= size - 2:
        face = waiting.pop()
        for k in range(3):
            a, b, apex = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
            middle = (a + 1) % size
            if middle != b and (b, a) not in edges:
                edges |= {(a, middle), (middle, b), (middle, apex), (apex, middle)}
                waiting += [(a, middle, apex), (middle, b, apex)]
                break
        else:
            done.append(face)
    return done if not waiting else []
