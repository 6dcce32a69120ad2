"""Removes surface that no point supports: what a reconstruction invented to close an open scan."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.mesh.topology import drop_unused_vertices, label_vertices
from nstr3d.system import Message
from nstr3d.types import Mesh


def trim(mesh: Mesh, points: np.ndarray | Neighbours, reach: float) -> Mesh:
    """``mesh`` without the faces that have no vertex within ``reach`` of one of ``points (n, 3)``,
    or of those that a tree holds.

    Raises ValueError where nothing would be left.
    """
    near = Neighbours.of(points).nearest(mesh.vertices)[0] <= reach
    faces = mesh.faces[near[mesh.faces].any(axis=1)]
    if len(faces) == 0:
        raise ValueError(
            Message(
                "No surface lies within {:.3g} of a point, so <trim> would remove all; raise it.",
                reach,
            )
        )
    return drop_unused_vertices(Mesh(mesh.vertices, faces))


def supported(mesh: Mesh, points: np.ndarray, least: int) -> Mesh:
    """``mesh`` without the components that are nearest to fewer than ``least`` of ``points (n,
    3)``; the one with most stays.

    A reconstruction makes such bubbles around a few wrong normals, where no point lies.
    """
    label = label_vertices(mesh)
    near = Neighbours(mesh.vertices).nearest(points)[1]
    support = np.bincount(label[near], minlength=int(label.max()) + 1)
    kept = support >= min(least, int(support.max()))
    faces = mesh.faces[kept[label[mesh.faces[:, 0]]]]
    return drop_unused_vertices(Mesh(mesh.vertices, faces))
