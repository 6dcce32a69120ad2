"""Leaves out walls inside the solid: pairs of coincident faces of opposite orientation."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.cutting import INSIDE, beside
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_normals
from nstr3d.geometry.mesh.topology import directed_edges, drop_unused_vertices
from nstr3d.types import Mesh

# The cosine of the angle between the two faces of a quadrilateral is at least this.
PLANE = 1 - 1e-9


def without_walls(mesh: Mesh) -> tuple[Mesh, int]:
    """``mesh`` without the walls inside the solid, and the number of faces that were left out.

    A wall is a pair of faces with the same vertices and opposite orientation, or a pair of flat
    quadrilaterals of two faces each. The cubes of a voxel model touch in such walls. Leaving a wall
    out changes no winding number.
    """
    count = len(mesh.faces)
    for sides_of in (_triangles, _quadrilaterals):
        normals = face_normals(mesh)
        walls = _walls(mesh, normals, sides_of(mesh, normals))
        if len(walls):
            kept = np.delete(mesh.faces, walls, axis=0)
            mesh = drop_unused_vertices(Mesh(mesh.vertices, kept))
    return mesh, count - len(mesh.faces)


def _triangles(mesh: Mesh, normals: np.ndarray) -> np.ndarray:
    """Every face alone ``(f, 1)``."""
    return np.arange(len(mesh.faces))[:, None]


def _quadrilaterals(mesh: Mesh, normals: np.ndarray) -> np.ndarray:
    """The pairs ``(q, 2)`` of faces that share an edge, which has no other face, in one plane."""
    start, _, key = directed_edges(mesh.faces)
    order = np.argsort(key, kind="stable")
    first = np.flatnonzero(np.append(True, key[order[1:]] != key[order[:-1]]))
    two = first[np.diff(np.append(first, len(order))) == 2]
    one, other = order[two], order[two + 1]
    flat = (normals[one // 3] * normals[other // 3]).sum(axis=1) >= PLANE
    flat &= start[one] != start[other]
    return np.column_stack([one[flat], other[flat]]) // 3


def _walls(mesh: Mesh, normals: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The faces ``(n,)`` of the walls among the ``sides``: polygons of k faces each ``(s, k)``."""
    corners = np.sort(mesh.faces[sides].reshape(-1, 3 * sides.shape[1]), axis=1)
    if sides.shape[1] == 2:  # the shared edge names two corners twice
        corners = _distinct(corners)
    order = np.lexsort(corners.T)
    same = np.flatnonzero((corners[order[1:]] == corners[order[:-1]]).all(axis=1))
    one, two = sides[order[same]], sides[order[same + 1]]
    facing = (normals[one[:, 0]] * normals[two[:, 0]]).sum(axis=1) < 0
    pairs = np.concatenate([one, two], axis=1)[facing]
    if len(pairs) == 0:
        return pairs.ravel()
    # A face that two pairs claim would leave half a wall behind.
    pairs = pairs[(np.bincount(pairs.ravel())[pairs] == 1).all(axis=1)]
    face = pairs[:, 0]
    extent = float(mesh.bounds.extent.max())
    front, back = beside(mesh.corners[face], normals[face], extent, MeshDistance(mesh))
    return pairs[np.minimum(front, back) > INSIDE].ravel()


def _distinct(corners: np.ndarray) -> np.ndarray:
    """The four distinct numbers ``(s, 4)`` of sorted rows ``(s, 6)`` in which two occur twice."""
    fresh = np.column_stack([np.ones(len(corners), bool), corners[:, 1:] != corners[:, :-1]])
    return corners[fresh].reshape(-1, 4)
