"""Removes surface that no point supports: what a reconstruction invented to close an open scan."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.neighbours import Neighbours
from nstr3d.types import Mesh


def trim(mesh: Mesh, points: np.ndarray, reach: float) -> Mesh:
    """``mesh`` without the faces that have no vertex within ``reach`` of one of ``points (n, 3)``.

    Raises ValueError where nothing would be left.
    """
    near = Neighbours(points).nearest(mesh.vertices)[0] <= reach
    faces = mesh.faces[near[mesh.faces].any(axis=1)]
    if len(faces) == 0:
        raise ValueError(f"no surface lies within {reach:.3g} of a point, so --trim would remove all; raise it")
    used = np.zeros(len(mesh.vertices), bool)
    used[faces] = True
    return Mesh(mesh.vertices[used], (np.cumsum(used) - 1)[faces])
