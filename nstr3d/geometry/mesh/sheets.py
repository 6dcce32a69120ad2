"""Thickens open surfaces into thin solids, so that a signed distance can hold them."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.surface import face_areas, face_normals
from nstr3d.geometry.mesh.topology import Edges, drop_unused_vertices
from nstr3d.types import Mesh

# Least cosine between the normal of a vertex and of a face there. A sharper fold is made thinner.
SHARPEST = 0.5


def thicken(mesh: Mesh, thickness: float) -> tuple[Mesh, np.ndarray]:
    """``mesh`` with every open component turned into a solid of the given ``thickness``.

    The faces of an open component move half of the thickness outward; their copies move as far
    inward and are turned over, and walls join the two along the borders. Closed components stay.
    Returns the mesh, and a mask ``(f,)`` of the faces of open components. Raises ``ValueError`` if
    the thickness is not positive.
    """
    if not thickness > 0:
        raise ValueError(f"the thickness of a sheet must be positive, not {thickness}")
    edges = Edges.of(mesh.faces)
    part = label_components(len(mesh.faces), *edges.pairs.T)
    joined = edges.twins[edges.agree]
    alone = np.ones(3 * len(mesh.faces), bool)
    alone[joined] = False
    # An edge that more than two faces share, or across which faces are turned, is a border of each
    # component; it makes a component open if the component has an odd number of faces there.
    opened = np.zeros(int(part.max()) + 1, bool)
    opened[part[_odd_edges(edges, part) // 3]] = True
    opened[part[edges.pairs[~edges.agree]].ravel()] = True
    sheet = opened[part]
    rows = np.flatnonzero(sheet)
    if len(rows) == 0:
        return mesh, sheet
    corner, point, offset = _fans(mesh, rows, joined, thickness / 2)
    count, first = len(point), len(mesh.vertices)
    front = first + corner
    rim = alone.reshape(-1, 3)[rows]
    tail, head = front[rim], np.roll(front, -1, axis=1)[rim]
    walls = [
        np.column_stack([head, tail, tail + count]),
        np.column_stack([head, tail + count, head + count]),
    ]
    faces = [mesh.faces[~sheet], front, front[:, ::-1] + count, *walls]
    vertices = np.concatenate([mesh.vertices, point + offset, point - offset])
    return drop_unused_vertices(Mesh(vertices, np.concatenate(faces))), sheet


def _odd_edges(edges: Edges, part: np.ndarray) -> np.ndarray:
    """The directed edges at which their component has an odd number of faces."""
    group = np.concatenate([[0], np.cumsum(~edges.joined)])
    key = group * (int(part.max()) + 1) + part[edges.order // 3]
    _, which, number = np.unique(key, return_inverse=True, return_counts=True)
    return edges.order[number[which] % 2 == 1]


def _fans(
    mesh: Mesh, rows: np.ndarray, joined: np.ndarray, distance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vertices of the faces ``rows (n,)``, with one copy for each fan of faces around a vertex.

    ``joined (m, 2)`` are the directed edges that faces share. Returns the index of the copy at each
    corner ``(n, 3)``, the position of each copy, and the offset of each copy: the vector that moves
    the planes of its faces by ``distance``.
    """
    one, other = joined.T
    after = np.arange(3 * len(mesh.faces)) + np.tile([1, 1, -2], len(mesh.faces))
    # Joined edges run in opposite directions: the tail of one is the head of the other.
    fan = label_components(
        3 * len(mesh.faces),
        np.concatenate([one, after[one]]),
        np.concatenate([after[other], other]),
    ).reshape(-1, 3)[rows]
    names, corner = np.unique(fan, return_inverse=True)
    corner = corner.reshape(-1, 3)
    point = np.empty((len(names), 3))
    point[corner] = mesh.vertices[mesh.faces[rows]]
    normals = face_normals(mesh)[rows]
    weighted = normals * face_areas(mesh)[rows][:, None]
    total = np.zeros((len(names), 3))
    for column in corner.T:
        np.add.at(total, column, weighted)
    total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)
    cosine = np.ones(len(names))
    for column in corner.T:
        np.minimum.at(cosine, column, (total[column] * normals).sum(axis=1))
    return corner, point, total * (distance / np.maximum(cosine, SHARPEST))[:, None]
