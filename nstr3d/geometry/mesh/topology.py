"""Mesh topology: edges, used vertices, connected components and genus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.types import Mesh


def directed_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start vertex, end vertex and undirected key of the edges of ``faces (f, 3)``.

    Returns three int64 arrays ``(3 f,)``; edge e belongs to face e // 3. Both directions of an edge
    have the same key. Keys are ordered by the lower vertex, then by the upper one.
    """
    start = faces.astype(np.int64).ravel()
    end = np.roll(faces, -1, axis=1).astype(np.int64).ravel()
    count = int(faces.max(initial=0)) + 1
    return start, end, np.minimum(start, end) * count + np.maximum(start, end)


@dataclass(frozen=True)
class Edges:
    """The three directed edges of every face, grouped by undirected edge.

    Directed edge e belongs to face e // 3. ``order (3 f,)`` sorts the directed edges so that those
    on one undirected edge are consecutive. ``joined (3 f - 1,)`` says whether two consecutive
    directed edges in that order lie on the same undirected edge. ``twins (m, 2)`` are the two
    directed edges of every undirected edge with exactly two. ``agree (m,)`` says whether these run
    in opposite directions, as consistent orientation requires. ``boundary`` counts edges with one
    face, ``branching`` edges with more than two.
    """

    order: np.ndarray
    joined: np.ndarray
    twins: np.ndarray
    agree: np.ndarray
    boundary: int
    branching: int

    @property
    def pairs(self) -> np.ndarray:
        """The two faces ``(m, 2)`` at every undirected edge with exactly two."""
        return self.twins // 3

    @property
    def alone(self) -> np.ndarray:
        """The directed edges ``(boundary,)`` that have one face, in ascending order."""
        fresh = np.concatenate([[True], ~self.joined, [True]])
        return np.sort(self.order[fresh[1:] & fresh[:-1]])

    @property
    def all_paired(self) -> bool:
        return self.boundary == 0 and self.branching == 0

    @staticmethod
    def of(faces: np.ndarray) -> Edges:
        start, _, key = directed_edges(faces)
        order = np.argsort(key, kind="stable")
        joined = key[order[1:]] == key[order[:-1]]
        first = np.flatnonzero(np.concatenate([[True], ~joined]))
        count = np.diff(np.append(first, len(order)))
        one, two = order[first[count == 2]], order[first[count == 2] + 1]
        return Edges(
            order,
            joined,
            np.column_stack([one, two]),
            start[one] != start[two],
            int((count == 1).sum()),
            int((count > 2).sum()),
        )


def drop_unused_vertices(mesh: Mesh) -> Mesh:
    """``mesh`` without the vertices that no face uses.

    The remaining vertices and the faces keep their order.
    """
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    return Mesh(mesh.vertices[used], (np.cumsum(used) - 1)[mesh.faces])


def label_vertices(mesh: Mesh) -> np.ndarray:
    """A component label ``(v,)`` for each vertex; vertices connected by faces share a label."""
    return label_components(
        len(mesh.vertices), mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel()
    )


def genera(mesh: Mesh) -> list[int | None]:
    """The genus of each connected component of ``mesh``, the component with most faces first.

    The genus is (2 - V + E - F) / 2 (Euler-Poincare). It is None for a component that is not
    closed, which means that some edge does not have exactly two faces.
    """
    label = label_vertices(mesh)
    start, _, key = directed_edges(mesh.faces)
    _, first, uses = np.unique(key, return_index=True, return_counts=True)
    size = int(label.max()) + 1
    used = np.unique(mesh.faces)
    vertex, edge, face = (
        np.bincount(label[rows], minlength=size) for rows in (used, start[first], mesh.faces[:, 0])
    )
    torn = np.bincount(label[start[first][uses != 2]], minlength=size) > 0
    genus = (2 - (vertex - edge + face)) // 2
    order = np.argsort(-face, kind="stable")
    return [None if torn[part] else int(genus[part]) for part in order if face[part]]
