"""Thickens open surfaces into thin solids, so that a signed distance can hold them."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.surface import face_areas, face_normals
from nstr3d.geometry.mesh.topology import Edges, drop_unused_vertices
from nstr3d.types import Mesh

# A vertex moves at most so many half thicknesses, so that a sharp fold gets a blunt edge.
LONGEST = 3.0
# Planes that bend by less than this square of a sine count as one plane.
LEAST_BEND = 0.02


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
    corner ``(n, 3)``, the position of each copy, and the offset of each copy (`_offsets`).
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
    return corner, point, _offsets(mesh, rows, corner, distance)


def _offsets(mesh: Mesh, rows: np.ndarray, corner: np.ndarray, distance: float) -> np.ndarray:
    """The vectors ``(n, 3)`` that move the planes of the faces at each vertex by ``distance``, in
    the sense of least squares weighted by area."""
    normals, weights = face_normals(mesh)[rows], face_areas(mesh)[rows]
    products = np.einsum("f,fi,fj->fij", weights, normals, normals).reshape(-1, 9)
    count = int(corner.max()) + 1
    matrix, total, weight = np.zeros((count, 9)), np.zeros((count, 3)), np.zeros(count)
    for column in corner.T:
        np.add.at(matrix, column, products)
        np.add.at(total, column, weights[:, None] * normals)
        np.add.at(weight, column, weights)
    weight = np.maximum(weight, 1e-300)[:, None]
    sizes, axes = np.linalg.eigh((matrix / weight).reshape(-1, 3, 3))
    along = np.einsum("nij,ni->nj", axes, total / weight)
    along = np.where(sizes > LEAST_BEND, along / np.maximum(sizes, LEAST_BEND), 0.0)
    offset = np.einsum("nij,nj->ni", axes, along)
    length = np.linalg.norm(offset, axis=1, keepdims=True)
    return distance * offset * np.minimum(1.0, LONGEST / np.maximum(length, 1e-300))
