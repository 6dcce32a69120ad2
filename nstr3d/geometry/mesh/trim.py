"""Removes surface that no point of the scan supports.

A reconstruction adds such surface to close an open scan.
"""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.mesh.topology import drop_unused_vertices, label_vertices
from nstr3d.system import Message
from nstr3d.types import Mesh


def trim(mesh: Mesh, points: np.ndarray | Neighbours, reach: float) -> Mesh:
    """``mesh`` without the faces that have no vertex within ``reach`` of a point.

    ``points`` are ``(n, 3)``, or a search tree over them; ``reach`` is in the units of the mesh.
    Raises ``ValueError`` if no face would remain.
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
    """``mesh`` without the components that fewer than ``least`` of ``points (n, 3)`` support.

    A point supports the component that has the vertex nearest to it. The component with the most
    points always stays. A reconstruction makes small unsupported bubbles around a few wrong
    normals.
    """
    label = label_vertices(mesh)
    near = Neighbours(mesh.vertices).nearest(points)[1]
    support = np.bincount(label[near], minlength=int(label.max()) + 1)
    kept = support >= min(least, int(support.max()))
    faces = mesh.faces[kept[label[mesh.faces[:, 0]]]]
    return drop_unused_vertices(Mesh(mesh.vertices, faces))
