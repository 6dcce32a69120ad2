"""Splits a mesh into shells: surfaces that are closed on their own.

Solids that touch share edges with four faces or more. Around such an edge, the faces that bound one
wedge of solid belong together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.topology import directed_edges
from nstr3d.types import Mesh

# Decimals of an angle in radians, by which the faces around an edge are sorted. Faces that
# coincide differ by rounding errors alone.
ANGLE_DECIMALS = 9


@dataclass(frozen=True)
class Shells:
    """The shells of a mesh, whose faces are ``faces (f, 3)``.

    ``label (f,)`` is the shell of each face. ``closed (s,)`` says which shells are closed. All
    faces whose surface has an edge without a partner form one shell, which is not closed.
    ``pairs (m, 2)`` are the directed edges that belong together; directed edge e starts at corner e
    of ``faces.ravel()``.
    """

    faces: np.ndarray
    label: np.ndarray
    closed: np.ndarray
    pairs: np.ndarray

    @staticmethod
    def of(mesh: Mesh) -> Shells:
        """The shells of ``mesh``, whose faces are oriented consistently (`repair` ensures it)."""
        start, end, key = directed_edges(mesh.faces)
        order = np.argsort(key, kind="stable")
        fresh = np.concatenate([[True], key[order[1:]] != key[order[:-1]]])
        group = np.cumsum(fresh) - 1
        first, count = np.flatnonzero(fresh), np.bincount(group)
        balanced = np.bincount(group, np.where(start < end, 1, -1)[order]) == 0
        simple, tangled = balanced & (count == 2), balanced & (count > 2)
        two = np.column_stack([order[first[simple]], order[first[simple] + 1]])
        many = tangled[group]
        pairs = np.concatenate([two, _pair_around(mesh, order[many], group[many])])
        label = label_components(len(mesh.faces), *(pairs // 3).T)
        is_open = np.zeros(int(label.max()) + 1, bool)
        is_open[label[order[~balanced[group]] // 3]] = True
        name = np.cumsum(~is_open) - 1
        if is_open.any():
            name[is_open] = name.max() + 1
        label = name[label]
        closed = np.ones(int(label.max()) + 1, bool)
        closed[name[is_open]] = False
        return Shells(mesh.faces, label, closed, pairs)

    @property
    def fans(self) -> np.ndarray:
        """A vertex of its own ``(f, 3)`` for every corner, shared by the corners of one fan.

        A fan is a set of corners at one vertex that pairs of edges connect. Every edge between two
        such vertices has exactly two faces.
        """
        after = self.pairs // 3 * 3 + (self.pairs % 3 + 1) % 3
        start = np.concatenate([self.pairs[:, 0], after[:, 0]])
        end = np.concatenate([after[:, 1], self.pairs[:, 1]])
        return label_components(self.faces.size, start, end).reshape(-1, 3)


def _pair_around(mesh: Mesh, edges: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Pairs the directed ``edges (n,)`` of each group: ``(n / 2, 2)``.

    A group holds the directed edges on one undirected edge, as many in either direction. On a turn
    about the edge, a face through which the turn enters solid belongs to the next face through
    which it leaves solid.
    """
    if len(edges) == 0:
        return np.empty((0, 2), np.int64)
    angle, leaving = _turn(mesh, edges, group)
    order = np.lexsort((~leaving, angle, group))
    edges, group, leaving = edges[order], group[order], leaving[order]
    found = []
    while len(edges):
        # The circular successor within the group.
        following = np.arange(1, len(edges) + 1)
        last = np.append(group[1:] != group[:-1], True)
        following[last] = np.flatnonzero(np.append(True, last[:-1]))
        here = np.flatnonzero(~leaving & leaving[following])
        found.append(np.column_stack([edges[here], edges[following[here]]]))
        kept = np.ones(len(edges), bool)
        kept[here] = kept[following[here]] = False
        edges, group, leaving = edges[kept], group[kept], leaving[kept]
    return np.concatenate(found)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """``vectors (n, 3)`` at length 1. Those of needles, which have no length, stay zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def _turn(mesh: Mesh, edges: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The angle ``(n,)`` of the face of each directed edge on a turn about the edge of its group.

    The second result says whether the turn leaves solid through the face. The turn is
    counter-clockwise about the direction from the edge's lower to its upper vertex.
    """
    corner = mesh.faces.ravel()
    start = corner[edges]
    end, apex = (corner[edges // 3 * 3 + (edges % 3 + step) % 3] for step in (1, 2))
    low, high = np.minimum(start, end), np.maximum(start, end)
    axis = mesh.vertices[high] - mesh.vertices[low]
    axis = _unit(axis)
    arm = mesh.vertices[apex] - mesh.vertices[low]
    arm -= (arm * axis).sum(axis=1, keepdims=True) * axis
    arm = _unit(arm)
    first = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    zero = np.repeat(arm[first], np.diff(np.append(first, len(group))), axis=0)
    angle = np.arctan2((arm * np.cross(axis, zero)).sum(axis=1), (arm * zero).sum(axis=1))
    angle = np.round(angle, ANGLE_DECIMALS)
    return np.where(angle < 0, angle + 2 * np.pi, angle), start < end
