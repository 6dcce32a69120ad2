"""The exact union of closed shells, by manifold3d."""

from __future__ import annotations

import math

import numpy as np

from nstr3d.geometry.mesh.boxes import bounding_boxes, layers
from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.types import Mesh


def union_of_shells(vertices: np.ndarray, fans: np.ndarray, label: np.ndarray) -> Mesh | None:
    """The union of closed shells that face outward.

    ``fans (f, 3)`` are faces whose every edge has exactly two faces, ``vertices (v, 3)`` are the
    positions, and ``label (f,)`` is the shell of each face. The result is None if manifold3d is
    absent or does not accept the shells.
    """
    try:
        import manifold3d
    except ModuleNotFoundError:
        return None
    mesh = Mesh(vertices, fans)
    bounds = mesh.bounds
    # manifold3d's tolerance is relative to the largest coordinate.
    centre, scale = bounds.centre, math.ldexp(1.0, math.frexp(float(bounds.extent.max()))[1])
    # The disjoint shells of a layer are one solid to manifold3d, which is much faster than a solid
    # for each shell.
    _, owner = np.unique(label, return_inverse=True)
    layer = layers(*bounding_boxes(mesh, owner))[owner]
    solids = []
    for number in range(int(layer.max()) + 1):
        part = drop_unused_vertices(Mesh(vertices, fans[layer == number]))
        solid = manifold3d.Manifold(
            manifold3d.Mesh64(
                np.ascontiguousarray((part.vertices - centre) / scale, np.float64),
                np.ascontiguousarray(part.faces, np.uint64),
            )
        )
        if solid.status() != manifold3d.Error.NoError:
            return None
        solids.append(solid)
    united = manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add)
    if united.status() != manifold3d.Error.NoError or united.is_empty():
        return None
    result = united.to_mesh64()
    positions = np.asarray(result.vert_properties, np.float64)[:, :3] * scale + centre
    return Mesh(positions, np.asarray(result.tri_verts).astype(np.int64))
