"""Which axis of a mesh points up, which most formats do not say."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.surface import face_areas, face_normals
from nstr3d.types import Mesh, Up

FORMATS: dict[str, Up] = {".glb": "y", ".gltf": "y", ".stl": "z", ".3mf": "z"}
# A base is flat surface in the lowest part of the extent whose normals point down to this cosine.
LOWEST, DOWN = 0.02, 0.9
# The base that a shape stands on has at least this share of the area, and as many times that of the
# other axis.
BASE, CLEAR = 0.03, 2.0


def guess_up(mesh: Mesh, suffix: str = "") -> Up:
    """The axis of ``mesh`` that points up, "y" or "z"; ``suffix`` is that of its file.

    The format decides where it defines the axis or nearly all its programs agree. Elsewhere it is
    z for a shape that stands on a flat base across z, and y for all others.
    """
    named = FORMATS.get(suffix.lower())
    if named is not None:
        return named
    across_y, across_z = _base(mesh, 1), _base(mesh, 2)
    return "z" if across_z >= max(BASE, CLEAR * across_y) else "y"


def _base(mesh: Mesh, axis: int) -> float:
    """The share of the area that is a flat base at the lower end of an axis."""
    areas, normals, bounds = face_areas(mesh), face_normals(mesh), mesh.bounds
    extent = float(bounds.extent[axis])
    height = np.take(mesh.vertices[:, axis], mesh.faces).mean(axis=1) - bounds.lower[axis]
    flat = (height <= LOWEST * extent) & (normals[:, axis] <= -DOWN)
    return float(areas[flat].sum() / max(float(areas.sum()), 1e-300))
