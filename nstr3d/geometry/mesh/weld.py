"""Welds borders that coincide to a tolerance but not bit for bit.

Exporters write the patches of a solid apart, and rounding moves their borders. Only borders change:
vertices close to one another become one vertex, and an edge that passes through vertices of other
borders is split there (a T-junction).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.topology import Edges, directed_edges
from nstr3d.types import Mesh

# The largest gap that is welded, in longest extents of the mesh: a tenth of what a fit resolves.
WELD = 1e-4
# The largest gap in lengths of the shortest edge at a vertex, so that small parts keep their shape.
SNUG = 0.25
# Gaps up to this, in longest extents, are rounding errors and are welded whatever the edges are.
ROUNDING = 1e-9
# Pairs of an edge and a vertex that one query may return, which bounds temporary memory.
PAIRS = 1 << 22


@dataclass(frozen=True)
class Welding:
    """What `weld` did: ``vertices`` were joined to others, ``edges`` were split at T-junctions, and
    gaps up to ``tolerance``, in mesh units, were closed."""

    vertices: int
    edges: int
    tolerance: float


def weld(
    mesh: Mesh, gap: float = WELD, edges: Edges | None = None
) -> tuple[Mesh, np.ndarray, Welding]:
    """Joins the borders of ``mesh`` that lie within ``gap`` longest extents of one another.

    Returns the mesh, the face ``(f,)`` of ``mesh`` that each face stems from, and the counts. The
    result may have degenerate faces and unused vertices. Equal positions must be merged already.
    ``edges`` are those of the mesh, if they are known.
    """
    extent = float(mesh.bounds.extent.max())
    tolerance, rounding = gap * extent, ROUNDING * extent
    borders = _borders(mesh.faces, edges or Edges.of(mesh.faces))
    faces, joined = _join_vertices(mesh, borders, tolerance, rounding)
    if joined:
        borders = _borders(faces, Edges.of(faces))
    faces, source, split = _split_edges(Mesh(mesh.vertices, faces), borders, tolerance, rounding)
    return Mesh(mesh.vertices, faces), source, Welding(joined, split, tolerance)


class _Borders(NamedTuple):
    """Start and end vertex ``(n,)`` of the edges with one face, and the directed ``edge (n,)``."""

    start: np.ndarray
    end: np.ndarray
    edge: np.ndarray


def _borders(faces: np.ndarray, edges: Edges) -> _Borders:
    edge = edges.alone
    following = edge + np.where(edge % 3 == 2, -2, 1)
    flat = faces.ravel()
    return _Borders(flat[edge], flat[following], edge)


def _join_vertices(
    mesh: Mesh, borders: _Borders, tolerance: float, rounding: float
) -> tuple[np.ndarray, int]:
    """The faces after the vertices of borders were joined, and the number of joined vertices.

    Of vertices that become one, the first is kept.
    """
    border = np.unique(np.concatenate(borders[:2]))
    if len(border) == 0:
        return mesh.faces, 0
    reach = np.maximum(rounding, np.minimum(tolerance, SNUG * _shortest_edges(mesh, border)))
    pairs = _close_pairs(mesh.vertices[border], reach)
    label = label_components(len(border), *pairs.T)
    first = np.full(label.max() + 1, len(border))
    np.minimum.at(first, label, np.arange(len(border)))
    target = np.arange(len(mesh.vertices))
    target[border] = border[first[label]]
    return target[mesh.faces], len(border) - len(first)


def _shortest_edges(mesh: Mesh, border: np.ndarray) -> np.ndarray:
    """The length of the shortest edge at each vertex in ``border``, ``(n,)``."""
    at_border = np.zeros(len(mesh.vertices), bool)
    at_border[border] = True
    faces = mesh.faces[at_border[mesh.faces].any(axis=1)]
    shortest = np.full(len(mesh.vertices), np.inf)
    for one, other in ((0, 1), (1, 2), (2, 0)):
        a, b = faces[:, one], faces[:, other]
        length = np.linalg.norm(mesh.vertices[a] - mesh.vertices[b], axis=1)
        np.minimum.at(shortest, a, length)
        np.minimum.at(shortest, b, length)
    return shortest[border]


def _close_pairs(points: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Pairs ``(m, 2)`` of ``points (n, 3)`` whose distance is at most the smaller ``reach (n,)``.

    Points are taken in classes of similar reach, so that few pairs lie further apart than both.
    """
    from scipy.spatial import KDTree

    kind = np.frexp(reach)[1]
    found = [np.zeros((0, 2), np.int64)]
    for value in np.unique(kind):
        own, other = np.flatnonzero(kind == value), np.flatnonzero(kind > value)
        tree, limit = KDTree(points[own]), float(reach[own].max())
        found.append(own[tree.query_pairs(limit, output_type="ndarray")])
        if len(other):
            near = tree.sparse_distance_matrix(KDTree(points[other]), limit, output_type="ndarray")
            found.append(np.column_stack([own[near["i"]], other[near["j"]]]))
    pairs = np.concatenate(found)
    apart = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    return pairs[apart <= reach[pairs].min(axis=1)]


def _split_edges(
    mesh: Mesh, borders: _Borders, tolerance: float, rounding: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Splits the edges of borders at the vertices of other borders that they pass through.

    An edge is split if that gives one of its pieces a partner. Returns the faces, the face that
    each of them stems from, and the number of edges that were split.
    """
    start, end, _ = borders
    source = np.arange(len(mesh.faces))
    if len(start) == 0:
        return mesh.faces, source, 0
    which, vertex, place = _touching(mesh, borders, tolerance, rounding)
    order = np.lexsort((place, which))
    which, vertex = which[order], vertex[order]
    kept = _with_partner(start, end, which, vertex, len(mesh.vertices))
    which, vertex = which[kept[which]], vertex[kept[which]]
    split = len(np.unique(which))
    faces = mesh.faces
    # A face is split at one edge at a time; the pieces keep its other edges.
    while len(which):
        faces, source, which, vertex = _split_one(faces, source, start, end, which, vertex)
    return faces, source, split


def _touching(
    mesh: Mesh, borders: _Borders, tolerance: float, rounding: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which edges of borders pass through which vertices of borders, and where.

    Returns the index of the edge, the vertex, and the place along the edge from 0 to 1.
    """
    start, end, edge = borders
    border = np.unique(np.concatenate([start, end]))
    points = mesh.vertices[border]
    tail, along = mesh.vertices[start], mesh.vertices[end] - mesh.vertices[start]
    length = np.linalg.norm(along, axis=1)
    opposite = mesh.faces[edge // 3, (edge + 2) % 3]
    found = []
    for rows, near in _near_middles(points, tail + along / 2, length, tolerance):
        vertex = border[near]
        there = (vertex != start[rows]) & (vertex != end[rows]) & (vertex != opposite[rows])
        there &= length[rows] > 0  # welding may have made an edge a point
        rows, vertex = rows[there], vertex[there]
        offset = mesh.vertices[vertex] - tail[rows]
        place = np.einsum("ij,ij->i", offset, along[rows]) / length[rows] ** 2
        aside = np.linalg.norm(offset - place[:, None] * along[rows], axis=1)
        limit = np.maximum(rounding, np.minimum(tolerance, SNUG * length[rows]))
        inner = limit / length[rows]
        there = (aside <= limit) & (place > inner) & (place < 1 - inner)
        found.append((rows[there], vertex[there], place[there]))
    return tuple(np.concatenate(each) for each in zip(*found))  # type: ignore[return-value]


def _near_middles(points: np.ndarray, middle: np.ndarray, length: np.ndarray, tolerance: float):
    """Yields pairs of arrays: rows of ``middle (n, 3)`` and rows of ``points`` that lie within half
    of ``length (n,)`` of it, and some further ones.

    Edges are taken in classes of similar length, so that few pairs lie further apart.
    """
    from scipy.spatial import KDTree

    tree, kind = KDTree(points), np.frexp(length)[1]
    for value in np.unique(kind):
        rows = np.flatnonzero(kind == value)
        reach = float(length[rows].max()) / 2 + tolerance
        count = np.cumsum(tree.query_ball_point(middle[rows], reach, return_length=True))
        cuts = np.searchsorted(count, np.arange(PAIRS, int(count[-1]), PAIRS))
        for some in np.split(rows, np.unique(cuts)):
            if len(some):
                near = KDTree(middle[some]).sparse_distance_matrix(
                    tree, reach, output_type="ndarray"
                )
                yield some[near["i"]], near["j"]


def _with_partner(
    start: np.ndarray, end: np.ndarray, which: np.ndarray, vertex: np.ndarray, count: int
) -> np.ndarray:
    """Mask of the edges of which a piece, after all splits, is also a piece of another edge."""
    size = np.bincount(which, minlength=len(start))
    first, last = _pieces(start, end, size, vertex)
    key = np.minimum(first, last) * count + np.maximum(first, last)
    _, inverse, number = np.unique(key, return_inverse=True, return_counts=True)
    owner = np.repeat(np.arange(len(start)), size + 1)
    return np.bincount(owner, number[inverse] > 1, len(start)) > 0


def _pieces(
    start: np.ndarray, end: np.ndarray, size: np.ndarray, vertex: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the pieces of edges, of which edge i is split at the next ``size[i]``
    entries of ``vertex``."""
    last = np.cumsum(size + 1) - 1
    place = np.arange(len(vertex)) + np.repeat(np.arange(len(size)), size)
    first, final = np.empty((2, len(vertex) + len(size)), np.int64)
    final[last], final[place] = end, vertex
    first[last - size], first[place + 1] = start, vertex
    return first, final


def _split_one(
    faces: np.ndarray,
    source: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    which: np.ndarray,
    vertex: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Splits each face that has edges to split at the first of them.

    Returns the faces, their sources, and the splits that remain to be done. Edge i runs from
    ``start[i]`` to ``end[i]`` and has one face.
    """
    count = int(faces.max()) + 1
    edges, size = np.unique(which, return_counts=True)
    wanted = start[edges] * count + end[edges]
    begin, finish, _ = directed_edges(faces)
    order = np.argsort(wanted)
    key = begin * count + finish
    slot = np.minimum(np.searchsorted(wanted[order], key), len(wanted) - 1)
    hits = np.flatnonzero(wanted[order][slot] == key)
    _, earliest = np.unique(hits // 3, return_index=True)
    hits = hits[earliest]
    done = order[slot[hits]]  # positions in `edges`
    cut, apex = hits // 3, faces[hits // 3, (hits + 2) % 3]
    # The splits of an edge are consecutive in `which`.
    begins = np.cumsum(size) - size
    rows = np.repeat(begins[done] - (np.cumsum(size[done]) - size[done]), size[done])
    rows += np.arange(len(rows))
    first, last = _pieces(start[edges[done]], end[edges[done]], size[done], vertex[rows])
    pieces = np.column_stack([first, last, np.repeat(apex, size[done] + 1)])
    kept = np.ones(len(faces), bool)
    kept[cut] = False
    left = ~np.isin(which, edges[done])
    return (
        np.concatenate([faces[kept], pieces]),
        np.concatenate([source[kept], np.repeat(source[cut], size[done] + 1)]),
        which[left],
        vertex[left],
    )
