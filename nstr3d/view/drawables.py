"""Meshes as Open3D's window shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nstr3d.geometry.mesh.normals import corner_normals
from nstr3d.types import Mesh


def drawable(open3d: Any, mesh: Mesh, normals: np.ndarray | None = None) -> Any:
    """An Open3D mesh with a separate vertex for each face corner, with the ``normals (3 f, 3)`` of
    the corners. By default they are `corner_normals`, which keep sharp edges sharp and shade other
    edges smoothly."""
    result = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.corners.reshape(-1, 3)),
        open3d.utility.Vector3iVector(
            np.arange(3 * len(mesh.faces), dtype=np.int32).reshape(-1, 3)
        ),
    )
    result.compute_triangle_normals()  # Open3D lights a mesh only if it has triangle normals
    normals = corner_normals(mesh).reshape(-1, 3) if normals is None else normals
    result.vertex_normals = open3d.utility.Vector3dVector(normals)
    return result


def painted(
    open3d: Any,
    shape: Any,
    mesh: Mesh,
    colours: np.ndarray | None,
    plain: tuple[float, float, float],
    place: np.ndarray,
) -> Any:
    """A copy of ``shape``, the `drawable` of ``mesh``, moved by ``place (3,)``: in the ``plain``
    colour, or in ``colours (v, 3)`` of the vertices."""
    result = open3d.geometry.TriangleMesh(shape)
    if colours is None:
        result.paint_uniform_color(plain)
    else:
        result.vertex_colors = open3d.utility.Vector3dVector(colours[mesh.faces.ravel()])
    return result.translate(place)
