"""Rays against triangles: the first point of a mesh on each ray, and the normal of its shading."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.normals import corner_normals
from nstr3d.types import Mesh

# libigl takes a ray for parallel to a triangle if the volume that they span is below 1e-6. Larger
# coordinates keep small triangles that are seen from the side.
ENLARGED = 2.0**20
ASIDE = 1e-7  # extents; by this a ray is moved that slips between two triangles


class MeshCaster:
    """The first hits of rays on the triangles ``faces (f, 3)`` of ``vertices (v, 3)``, by the
    search tree of libigl. The faces are oriented outward and the mesh has an extent of about 1."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        import igl

        self._mesh = vertices * ENLARGED, faces
        self._tree = igl.AABB()
        self._tree.init(*self._mesh)
        a, b, c = (self._mesh[0][faces[:, corner]] for corner in range(3))
        self._outward = np.cross(b - a, c - a)
        self._normals = corner_normals(Mesh(vertices, faces))

    def __call__(
        self, origins: np.ndarray, directions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depths ``(n,)``, infinite on a miss, and unit normals ``(n, 3)``, zero on a miss, of rays
        from ``origins (n, 3)``, outside the mesh, along unit ``directions (n, 3)``.

        The normals are interpolated between the corners of a face, across edges that turn by less
        than CREASE of `nstr3d.geometry.mesh.normals`.
        """
        face, depth, at = self._first(origins, directions)
        behind = np.einsum("nd,nd->n", self._outward[face], directions) > 0
        if len(leaks := np.flatnonzero((face >= 0) & behind)):
            again = self._first(origins[leaks] + ASIDE, directions[leaks])
            face[leaks], depth[leaks], at[leaks] = again
        hit = face >= 0
        at = at[hit]  # on a miss the weights hold whatever was in memory
        weights = np.stack([1 - at.sum(axis=1), at[:, 0], at[:, 1]], axis=1)
        normals = np.zeros_like(directions)
        mixed = np.einsum("nc,ncd->nd", weights, self._normals[face[hit]])
        normals[hit] = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
        depths = np.full(len(hit), np.inf)
        depths[hit] = depth[hit] / ENLARGED
        return depths, normals

    def _first(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, ...]:
        """The face ``(n,)`` that each ray meets first, -1 if none, its depth and the weights ``(n,
        2)`` of the second and the third corner there."""
        starts = np.ascontiguousarray(origins * ENLARGED)
        hits = self._tree.intersect_ray_first(*self._mesh, starts, directions)
        return tuple(np.asarray(each) for each in hits)
