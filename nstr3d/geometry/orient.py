"""Normals for points that have none, and outward directions for normals that do not agree about them.

Directions are those of least variance among the neighbours (Hoppe et al., Surface reconstruction from unorganized points, 1992),
of as many as it takes to see beyond the noise. Their signs spread along a minimum spanning tree of the neighbour graph, across
nearly parallel normals first. What the tree leaves inside out, a whole component or a part, the winding number tells (Barill et
al., Fast winding numbers for soups and clouds, 2018): it is about 1/2 on a surface that faces outward.
"""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloudwinding import CloudWinding
from nstr3d.geometry.neighbours import Neighbours, connected

SCALES = (10, 16, 26, 42, 68, 110, 180, 290)  # neighbours to take directions from, in turn
SLAB_RADII = 6.0  # how far the neighbourhood must reach, in standard deviations of the noise
LINKS = 10  # neighbours that a point passes its sign on to
REPRESENTATIVES = 30_000  # points whose signs are sought; the others follow the nearest of them
DISCORD = 0.1  # share of neighbours that disagree, from which on given normals' signs are sought anew
OPPOSED = -0.5  # cosine of normals that disagree about their sign: at a crease it is about 0
INVERTED = -0.1  # mean winding number on a component given inside out, which is -1/2 if closed
SMALLEST = 50  # points of a component whose side can be told
PROBES = 2000  # points that a component's side is told from
CHUNK = 1 << 14


def estimate_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals ``(n, 3)`` of ``points (n, 3)``, of either sign."""
    neighbours = Neighbours(points)
    probes = np.linspace(0, len(points) - 1, min(len(points), 2000)).astype(int)
    size = SCALES[0]
    for size in [k for k in SCALES if k < len(points)] or [len(points)]:
        reach, near = neighbours(points[probes], size)
        thickness = float(np.sqrt(np.median(_spread(points[near])[0][:, 0])))
        if np.median(reach[:, -1]) > SLAB_RADII * thickness:
            break
    parts = np.array_split(np.arange(len(points)), len(points) // CHUNK + 1)
    return np.concatenate([_spread(points[neighbours(points[rows], size)[1]])[1][:, :, 0] for rows in parts])


def orient(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, int]:
    """``normals (n, 3)`` of ``points (n, 3)`` turned outward whatever their signs, and how many were turned over."""
    chosen = _representatives(points)
    some = _along_tree(points[chosen], normals[chosen])
    some = _outward(points[chosen], some, nested=True)
    _, nearest = Neighbours(points[chosen]).nearest(points)
    turned = np.einsum("nd,nd->n", normals, some[nearest]) < 0
    return np.where(turned[:, None], -normals, normals), int(turned.sum())


def turn_outward(points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, int]:
    """``normals (n, 3)`` with every component that is inside out turned over, and how many normals that were.

    Where neighbours disagree more often than noise and creases explain, all signs are sought anew.
    """
    _, near = Neighbours(points)(points, LINKS + 1, skip=1)
    agree = np.einsum("nd,nkd->nk", normals, normals[near]) > OPPOSED
    if np.mean(~agree) > DISCORD:
        return orient(points, normals)
    outward = _outward(points, normals, nested=False)
    return outward, int((np.einsum("nd,nd->n", outward, normals) < 0).sum())


def _spread(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances ``(m, 3)``, ascending, and their directions ``(m, 3, 3)`` in columns, of the groups ``near (m, k, 3)``."""
    offset = near - near.mean(axis=1, keepdims=True)
    return np.linalg.eigh(np.einsum("mki,mkj->mij", offset, offset) / near.shape[1])


def _representatives(points: np.ndarray) -> np.ndarray:
    if len(points) <= REPRESENTATIVES:
        return np.arange(len(points))
    return np.sort(np.random.default_rng(0).permutation(len(points))[:REPRESENTATIVES])


def _links(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends ``(m,)`` of the edges to each point's nearest neighbours."""
    _, near = Neighbours(points)(points, LINKS + 1, skip=1)
    return np.repeat(np.arange(len(points)), near.shape[1]), near.ravel()


def _along_tree(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """``normals`` whose signs agree along a spanning tree of the neighbours, in each component from its topmost point."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

    start, end = _links(points)
    flat = np.abs(np.einsum("md,md->m", normals[start], normals[end]))
    weight = 1 + 1e-6 - np.minimum(flat, 1)
    graph = coo_array((weight, (start, end)), shape=(len(points),) * 2).tocsr()
    graph = graph.maximum(graph.T)
    tree = minimum_spanning_tree(graph)
    tree = tree + tree.T
    label = connected_components(tree, directed=False)[1]
    result = normals.copy()
    order = np.lexsort((-points[:, 2], label))
    for root in order[np.unique(label[order], return_index=True)[1]]:
        if result[root, 2] < 0:
            result[root] *= -1
        visited, before = breadth_first_order(tree, root, directed=False)
        for child in visited[1:]:
            if result[child] @ result[before[child]] < 0:
                result[child] *= -1
    return result


def _outward(points: np.ndarray, normals: np.ndarray, nested: bool) -> np.ndarray:
    """``normals`` with every connected component that faces the wrong way turned over.

    ``nested``: nothing is known of their signs, so what lies in another component bounds a cavity.
    """
    result, label = normals.copy(), _components(points, normals)
    size = np.bincount(label)
    parts = [np.flatnonzero(label == part) for part in np.argsort(-size) if size[part] >= SMALLEST]
    for member in parts:
        probes = np.arange(0, len(member), len(member) // PROBES + 1)
        if nested:
            inverted = CloudWinding(points[member], result[member]).side(probes) < 0
        else:
            inverted = CloudWinding(points, result).side(member[probes]) < INVERTED
        if inverted:
            result[member] *= -1
    if nested:
        windings = [CloudWinding(points[member], result[member]) for member in parts]
        for index, member in enumerate(parts):
            some = points[member[:: len(member) // PROBES + 1]]
            around = [winding(some).mean() for other, winding in enumerate(windings) if other != index]
            if sum(number > 0.5 for number in around) % 2:
                result[member] *= -1
    return result


def _components(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """A label ``(n,)`` for each point: neighbours whose normals agree share it."""
    start, end = _links(points)
    agree = np.einsum("md,md->m", normals[start], normals[end]) > OPPOSED
    return connected(len(points), start[agree], end[agree])
