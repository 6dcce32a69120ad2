"""Meshes with textures as viewers draw them: with a colour at each corner of small triangles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nstr3d.geometry.mesh.normals import corner_normals
from nstr3d.geometry.mesh.surface import face_areas
from nstr3d.types import Mesh

MOST = 300_000  # triangles that are drawn, unless the mesh has more
DEEPEST = 64  # parts of an edge


def split_finely(mesh: Mesh, most: int = MOST) -> tuple[Mesh, np.ndarray]:
    """``mesh`` with each face cut into k^2 ones, about ``most`` in all and of even size, and the
    unit normals ``(v, 3)`` of its vertices, which are those of `corner_normals` between the
    corners. Each vertex belongs to one face.

    Along an edge between faces of different k the points of the finer one are moved to the places
    of the coarser one, so that no crack opens when the result is drawn.
    """
    corners, normals = mesh.corners, corner_normals(mesh)
    area = face_areas(mesh)
    budget = max(most - len(area), 0)
    parts = np.sqrt(np.maximum(budget * area / max(area.sum(), 1e-300), 1.0))
    parts = np.minimum(np.floor(parts), DEEPEST).astype(int)
    along = _parts_of_edges(mesh, parts)
    points, turned = [np.zeros((0, 3))], [np.zeros((0, 3))]
    for count in np.unique(parts).tolist():
        chosen = parts == count
        weights = _cut(count, along[chosen])
        points.append(np.einsum("ftc,fcd->ftd", weights, corners[chosen]).reshape(-1, 3))
        turned.append(np.einsum("ftc,fcd->ftd", weights, normals[chosen]).reshape(-1, 3))
    vertices, slopes = np.concatenate(points), np.concatenate(turned)
    length = np.linalg.norm(slopes, axis=1, keepdims=True)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Mesh(vertices, faces), slopes / np.where(length > 0, length, 1.0)


def _parts_of_edges(mesh: Mesh, parts: np.ndarray) -> np.ndarray:
    """The parts ``(f, 3)`` of the edges opposite to the corners of each face: the fewest of the
    ``parts (f,)`` of the faces at the edge. Vertices at one place are one."""
    _, place = np.unique(mesh.vertices, axis=0, return_inverse=True)
    ends = np.sort(place.reshape(-1)[mesh.faces][:, [[1, 2], [2, 0], [0, 1]]], axis=2)
    _, edge = np.unique(ends.reshape(-1, 2), axis=0, return_inverse=True)
    edge = edge.reshape(-1)
    fewest = np.full(edge.max(initial=-1) + 1, DEEPEST)
    np.minimum.at(fewest, edge, np.repeat(parts, 3))
    return fewest[edge].reshape(-1, 3)


def _cut(count: int, along: np.ndarray) -> np.ndarray:
    """The barycentric weights ``(f, 3 k^2, 3)`` of the corners of the triangles into which faces
    fall whose edges are cut into ``count`` = k parts; ``along (f, 3)`` are those that the edges
    have in common with their other faces."""
    i, j = (each.ravel() for each in np.meshgrid(*[np.arange(count)] * 2, indexing="ij"))
    upward = np.stack([i, j, i + 1, j, i, j + 1], axis=1)[i + j < count]
    downward = np.stack([i + 1, j, i + 1, j + 1, i, j + 1], axis=1)[i + j < count - 1]
    two = np.concatenate([upward, downward]).reshape(-1, 2)
    whole = np.column_stack([count - two.sum(axis=1), two])
    # Weights are quotients of whole numbers, so that both faces of an edge get the same points.
    weights = np.repeat((whole / count)[None], len(along), axis=0)
    for corner in range(3):
        a, b = (corner + 1) % 3, (corner + 2) % 3
        rows = np.flatnonzero((whole[:, corner] == 0) & (whole[:, a] > 0) & (whole[:, b] > 0))
        common = along[:, corner, None]
        moved = (2 * whole[None, rows, a] * common + count) // (2 * count)
        weights[:, rows, a], weights[:, rows, b] = moved / common, (common - moved) / common
    return weights


def paint_finely(
    mesh: Mesh, paint: Callable[[np.ndarray], np.ndarray]
) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """`split_finely` of ``mesh``, and the display RGB ``(v, 3)`` that ``paint`` gives for points,
    asked for a little inside each face, so that two faces of one edge keep their own colours."""
    fine, normals = split_finely(mesh)
    middle = np.repeat(fine.corners.mean(axis=1), 3, axis=0)
    return fine, normals, paint(fine.vertices + 1e-3 * (middle - fine.vertices))
