"""Closes the holes of an open mesh, so that its signed distance is continuous.

Across an open hole the winding number still changes sign, but no surface lies there. The signed
distance would jump from +d to -d, and a continuous field cannot represent such a jump.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.topology import directed_edges
from nstr3d.types import Mesh


@dataclass(frozen=True)
class Closing:
    """What `close_holes` did.

    ``holes`` is the number of holes that were closed. ``widest`` is the width of the widest of
    them in mesh units: twice the largest distance from a vertex of its boundary to the centroid.
    ``left`` is the number of boundary edges that are still open.
    """

    holes: int
    widest: float
    left: int


def close_holes(mesh: Mesh) -> tuple[Mesh, Closing]:
    """Closes every simple boundary loop of ``mesh`` with a fan of triangles about its centroid.

    Returns the closed mesh and the counts. A loop is simple if each of its vertices has exactly one
    incoming and one outgoing boundary edge; other boundaries stay open. Faces must be consistently
    oriented (`repair` ensures it). Each fan is oriented like the faces around it.
    """
    start, end = _boundary(mesh.faces)
    count = len(mesh.vertices)
    if not len(start):
        return mesh, Closing(0, 0.0, 0)
    label = label_components(count, start, end)
    simple_vertex = (np.bincount(start, minlength=count) == 1) & (
        np.bincount(end, minlength=count) == 1
    )
    tangled = np.zeros(label.max() + 1, bool)
    tangled[label[np.concatenate([start, end])][~simple_vertex[np.concatenate([start, end])]]] = (
        True
    )
    closed = ~tangled[label[start]]
    start, end = start[closed], end[closed]
    if not len(start):
        return mesh, Closing(0, 0.0, int((~closed).sum()))
    _, loop = np.unique(label[start], return_inverse=True)
    size = np.bincount(loop)
    centroid = np.stack([np.bincount(loop, axis) / size for axis in mesh.vertices[start].T], axis=1)
    widest = 2 * float(np.linalg.norm(mesh.vertices[start] - centroid[loop], axis=1).max())
    fans = np.column_stack([end, start, count + loop])
    capped = Mesh(np.concatenate([mesh.vertices, centroid]), np.concatenate([mesh.faces, fans]))
    return capped, Closing(len(size), widest, int((~closed).sum()))


def _boundary(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and end vertex ``(n,)`` of every directed edge whose undirected edge has one face."""
    start, end, key = directed_edges(faces)
    _, first, number = np.unique(key, return_index=True, return_counts=True)
    alone = first[number == 1]
    return start[alone], end[alone]
