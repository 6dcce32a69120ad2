"""Finds the pairs of faces that cross, overlap in a plane, or touch."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.surface import face_normals
from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.types import Mesh

# Faces at a vertex lie in one plane if the cosine of the angle between their normals is this far
# from 1 or -1 at most.
PARALLEL = 1e-10
# Triangles overlap if they do so by more than this, relative to their size.
OVERLAP = 1e-9
# Vertices with more faces are left out of the search for overlaps of faces with a common vertex.
VALENCE = 512


def crossings(mesh: Mesh, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs ``(p, 2)`` among the ``faces`` that cross, overlap in a plane, or touch.

    Faces that merely share an edge or a vertex are no pair. The second result ``(p,)`` says which
    pairs overlap in a plane.
    """
    import igl.predicates

    part = drop_unused_vertices(Mesh(mesh.vertices, mesh.faces[faces]))
    _, pairs, coplanar = igl.predicates.find_self_intersections(
        np.ascontiguousarray(part.vertices, np.float64),
        np.ascontiguousarray(part.faces, np.int64),
    )
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    flat = np.asarray(coplanar).reshape(-1).astype(bool)
    # libigl misses triangles that overlap in a plane and share a vertex, or their common plane.
    more = _overlapping(part)
    both = np.sort(np.concatenate([more, pairs]), axis=1)
    both, first = np.unique(both, axis=0, return_index=True)
    return faces[both], np.append(np.ones(len(more), bool), flat)[first]


def _overlapping(mesh: Mesh) -> np.ndarray:
    """The pairs ``(p, 2)`` of faces that share a vertex and overlap in a plane."""
    vertex = mesh.faces.ravel()
    order = np.argsort(vertex, kind="stable")
    size = np.bincount(vertex)
    size = size[size > 0]
    last = np.repeat(np.cumsum(size), size)
    later = np.where(np.repeat(size, size) <= VALENCE, last - np.arange(len(order)) - 1, 0)
    one = np.repeat(np.arange(len(order)), later)
    two = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(later) - later, later)
    one, two = order[one] // 3, order[two] // 3
    normals = face_normals(mesh)
    cosine = np.einsum("ij,ij->i", normals[one], normals[two])
    flat = (np.abs(cosine) >= 1 - PARALLEL) & (one != two)
    one, two = one[flat], two[flat]
    apart = np.zeros(len(one), bool)
    corners = mesh.corners
    for first, second in ((one, two), (two, one)):
        for corner in range(3):
            start = corners[first, corner]
            edge = corners[first, (corner + 1) % 3] - start
            outward = np.cross(edge, normals[first])
            reach = np.einsum("ijk,ik->ij", corners[second] - start[:, None], outward)
            # Heights over the edge, times its length.
            apart |= reach.min(axis=1) > -OVERLAP * np.einsum("ij,ij->i", edge, edge)
    return np.column_stack([one[~apart], two[~apart]])
