"""Sparse grids of bricks, two cells to an edge, in numpy: where a brick's 27 nodes are, and
marching cubes over bricks. Twin of `kernels.geometry.cells` for where numba is absent, with the
same results in the same order.

A brick owns the eight nodes at its lower corner; the last of three coordinates counts fastest, in
nodes and in corners of cells. Marching cubes (Lorensen and Cline, 1987) has libigl's cases. A
vertex belongs to an edge, and an edge to its lower node, so that vertices are shared without a
search.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

AROUND = (
    0,
    4,
    6,
    2,
    1,
    5,
    7,
    3,
)  # the corners of a cell as libigl counts them: around the lower face, then the upper
STEPS = np.array((9, 3, 1))  # from a node of a brick to the next along each axis
OCTANTS = np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), axis=1)
PLACES = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), axis=1)  # of a brick's nodes
CORNERS = (
    OCTANTS[:, None] + OCTANTS
) @ STEPS  # (8, 8): the nodes at the corners of a brick's cells
BRICKS = 1 << 16  # that are marched over at a time


def march(
    index: np.ndarray, values: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(v, 3)`` and faces ``(f, 3)`` of the surface where ``values (m,)`` change sign, in
    units of the grid.

    ``index (n, 27)`` says where in ``values`` the nodes of each brick are, ``nodes (n, 3)`` where
    on the grid the first of them.
    """
    vertices: list[np.ndarray] = [np.empty((0, 3))]
    faces: list[np.ndarray] = [np.empty((0, 3), np.int64)]
    made, count = np.full(3 * len(values), -1, np.int32), 0
    for start in range(0, len(index), BRICKS):
        part = slice(start, start + BRICKS)
        edge, brick, lower, axis = _crossings(index[part], values)
        new = _firsts(edge, len(made))
        new = new[made[edge[new]] < 0]
        made[edge[new]] = count + np.arange(len(new))
        count += len(new)
        faces.append(made[edge].reshape(-1, 3))
        brick, lower, axis = brick[new], lower[new], axis[new]
        low, high = (values[index[part][brick, node]] for node in (lower, lower + STEPS[axis]))
        vertices.append((nodes[part][brick] + PLACES[lower]).astype(float))
        vertices[-1][np.arange(len(new)), axis] += low / (low - high)
    return np.concatenate(vertices), np.concatenate(faces)


def locate(keys: np.ndarray, steps: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where the 27 nodes of each brick are, ``(n, 27)`` int64, among those that the bricks of the
    sorted keys ``known (m,)`` own, eight each. A brick's nodes are its own and those of the
    neighbours whose keys are ``steps (8,)`` larger; all must be known.
    """
    owners = np.searchsorted(known, keys[:, None] + steps)
    return 8 * owners[:, (PLACES >> 1) @ (4, 2, 1)] + (PLACES & 1) @ (4, 2, 1)


def unknown(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The places in ``index`` whose values are not a number, each once; they are infinite after
    that."""
    found = index.ravel()
    found = found[np.isnan(values[found])]
    found = found[_firsts(found, len(values))]
    values[found] = np.inf
    return found


@lru_cache
def cases() -> tuple[np.ndarray, np.ndarray]:
    """Of each of the 256 sets of corners that may lie inside (bit o: corner o), the number of
    triangles, and the edges ``(256, 15)`` that their corners are on: 3 times the lower corner and
    the axis."""
    import igl

    counts, edges = np.zeros(256, np.int64), np.zeros((256, 15), np.int64)
    order, cell = list(AROUND), np.arange(8)[None]
    for case in range(1, 255):
        inside = np.array([case >> corner & 1 for corner in order])
        at, faces = map(
            np.asarray,
            igl.marching_cubes(1.0 - 2.0 * inside, OCTANTS[order].astype(float), cell, 0.0)[:2],
        )
        lower = np.floor(at).astype(int) @ (4, 2, 1)  # vertices are half-way along the edges
        on = 3 * lower + np.argmax(at % 1, axis=1)
        counts[case], edges[case, : faces.size] = len(faces), on[faces].ravel()
    return counts, edges


def _crossings(
    index: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The corners of all faces over bricks ``index (n, 27)``, three to a face: the edge that each
    is on, by number, then its brick, the node there at the edge's lower end, and the edge's
    axis."""
    counts, edges = cases()
    kinds = ((values[index] < 0)[:, CORNERS] << np.arange(8)).sum(axis=2)
    brick, cell = np.nonzero(counts[kinds])
    kind = kinds[brick, cell]
    row, place = np.nonzero(np.arange(15) < 3 * counts[kind][:, None])
    corner, axis = np.divmod(edges[kind[row], place], 3)
    brick, lower = brick[row], CORNERS[cell[row], corner]
    return 3 * index[brick, lower] + axis, brick, lower, axis


def _firsts(numbers: np.ndarray, limit: int) -> np.ndarray:
    """Where each of the ``numbers (n,)``, from 0 to below ``limit``, comes first, in ascending
    order."""
    first, places = np.empty(limit, np.int64), np.arange(len(numbers))
    first[numbers[::-1]] = places[::-1]  # of several, the last that is written stays
    return places[first[numbers] == places]
