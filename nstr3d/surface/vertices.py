"""Normals and colours at the vertices of a mesh, by the distance whose surface it is."""

from __future__ import annotations

import numpy as np
import torch

from nstr3d.geometry.mesh.surface import face_normals
from nstr3d.sdf import Sdf
from nstr3d.types import Mesh


def vertex_normals(sdf: Sdf, mesh: Mesh) -> np.ndarray:
    """Unit outward normals ``(v, 3)`` at the vertices of ``mesh``, a surface of ``sdf``.

    They are the direction of the gradient. Where it is undefined or points into the solid, as may
    happen at sharp edges, the mean of the normals of the faces at the vertex stands in.
    """
    slope = np.asarray(sdf.gradient(mesh.vertices), np.float64)
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        normals = slope / length
    around = _mean_normals(mesh)
    good = np.isfinite(normals).all(axis=1) & (length[:, 0] > 1e-6)
    good &= (np.where(good[:, None], normals, 0.0) * around).sum(axis=1) > 0
    return np.where(good[:, None], normals, around)


def vertex_colours(sdf: Sdf, mesh: Mesh) -> np.ndarray | None:
    """Display RGB ``(v, 3)`` in [0, 1] at the vertices of ``mesh``, a surface of ``sdf``; None if
    the shape has no colours."""
    if sdf.paint is None:
        return None
    with torch.no_grad():
        return sdf.paint(torch.from_numpy(mesh.vertices)).cpu().numpy()


def _mean_normals(mesh: Mesh) -> np.ndarray:
    """Unit means ``(v, 3)`` of the faces' normals at each vertex, weighted by angle."""
    corners, unit = mesh.corners, face_normals(mesh)
    total = np.zeros_like(mesh.vertices)
    for at in range(3):
        ahead = corners[:, (at + 1) % 3] - corners[:, at]
        behind = corners[:, (at + 2) % 3] - corners[:, at]
        lengths = np.linalg.norm(ahead, axis=1) * np.linalg.norm(behind, axis=1)
        cosine = (ahead * behind).sum(axis=1) / np.maximum(lengths, 1e-300)
        angle = np.arccos(cosine.clip(-1, 1))[:, None]
        for axis in range(3):
            total[:, axis] += np.bincount(
                mesh.faces[:, at], (angle * unit)[:, axis], len(mesh.vertices)
            )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    # A vertex of no area has no normal; any unit vector will do.
    return np.where(length > 1e-12, total / np.maximum(length, 1e-300), [0.0, 0.0, 1.0])
