"""Normals for drawing a mesh: smooth on smooth parts, sharp at sharp edges."""

from __future__ import annotations

import math

import numpy as np

from nstr3d.types import Mesh

CREASE = 35.0  # degrees between two face normals, above which the common edge is drawn sharp


def corner_normals(mesh: Mesh, crease: float = CREASE) -> np.ndarray:
    """Unit normals ``(f, 3, 3)`` at the three corners of every face.

    The normal at a corner is the area-weighted mean of the normals of the faces at that vertex
    whose normals are within ``crease`` degrees of this face's normal. It is zero on faces without
    area. Raises ValueError if ``crease`` is not from 0 to 180 degrees.
    """
    if not 0 <= crease <= 180:
        raise ValueError(f"A crease is 0 to 180 degrees between two normals, not {crease}.")
    corners = mesh.corners
    vector = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(vector, axis=1)  # twice the faces' areas
    unit, bound = vector / np.maximum(area, 1e-300)[:, None], math.cos(math.radians(crease))
    flat = mesh.faces.ravel()
    order = np.argsort(flat, kind="stable")  # the corners of one vertex become consecutive
    count = np.bincount(flat, minlength=len(mesh.vertices))
    first = (np.cumsum(count) - count)[flat[order]]
    valence, rank, face = count[flat[order]], np.arange(len(order)) - first, order // 3
    total = vector[face].copy()
    active = np.arange(len(order))
    # Each turn pairs every corner with one more of the other corners at its vertex.
    for turn in range(1, int(count.max())):
        active = active[valence[active] > turn]
        other = face[first[active] + (rank[active] + turn) % valence[active]]
        mine = face[active]
        # A face without area has no normal to compare, and adds nothing to those of the others.
        alike = ((unit[mine] * unit[other]).sum(axis=1) > bound) & (area[mine] > 0)
        total[active] += vector[other] * alike[:, None]
    normals = np.empty_like(total)
    normals[order] = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)
    return normals.reshape(-1, 3, 3)
