"""Normals for drawing a mesh: smooth on smooth parts, sharp at sharp edges."""

from __future__ import annotations

import numpy as np

from nstr3d.types import Mesh

CREASE = 30.0  # degrees between two face normals, above which the common edge is drawn sharp


def corner_normals(mesh: Mesh, crease: float = CREASE) -> np.ndarray:
    """Unit normals ``(f, 3, 3)`` at the three corners of every face.

    The normal at a corner is the area-weighted mean of the normals of the faces at that vertex
    whose normals are within ``crease`` degrees of this face's normal. It is zero on faces without
    area. Raises ValueError if ``crease`` is not from 0 to 180 degrees.
    """
    if not 0 <= crease <= 180:
        raise ValueError(f"A crease is 0 to 180 degrees between two normals, not {crease}.")
    import igl

    corners = mesh.corners
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    normals, proper = np.zeros((len(mesh.faces), 3, 3)), area > 0
    if proper.any():
        faces = np.ascontiguousarray(mesh.faces[proper], np.int64)
        found = igl.per_corner_normals(np.ascontiguousarray(mesh.vertices), faces, crease)
        normals[proper] = np.asarray(found).reshape(-1, 3, 3)
    return normals
