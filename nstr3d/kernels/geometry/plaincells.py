"""Sparse grids of bricks of 2 x 2 x 2 cells in NumPy: the indices of a brick's 27 nodes, and
marching cubes over bricks. Twin of `kernels.geometry.cells` for use without numba, with the same
results in the same order.

A brick owns the eight nodes at its lower corner. In the numbering of nodes and of a cell's corners,
the last of the three coordinates varies fastest. Marching cubes (Lorensen and Cline, 1987) uses
libigl's case table. A vertex is stored at its edge, and an edge at its lower node, so faces share
vertices without a search.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# the corners of a cell in libigl's order: around the lower face, then the upper
AROUND = (0, 4, 6, 2, 1, 5, 7, 3)
STEPS = np.array((9, 3, 1))  # index difference of adjacent nodes of a brick along each axis
OCTANTS = np.stack(np.unravel_index(np.arange(8), (2, 2, 2)), axis=1)
# (27, 3): grid offsets of a brick's nodes
PLACES = np.stack(np.unravel_index(np.arange(27), (3, 3, 3)), axis=1)
# (8, 8): the nodes at the corners of a brick's cells
CORNERS = (OCTANTS[:, None] + OCTANTS) @ STEPS
BRICKS = 1 << 16  # bricks per pass of marching cubes: bounds memory


def march(
    index: np.ndarray, values: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(v, 3)`` and faces ``(f, 3)`` of the surface where ``values (m,)`` change sign.
    Vertices are in units of grid cells.

    ``index (n, 27)`` holds the indices into ``values`` of each brick's nodes, ``nodes (n, 3)`` the
    grid position of each brick's first node.
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
    """The indices ``(n, 27)`` int64 of the 27 nodes of each brick of ``keys (n,)``.

    The indices count the nodes owned by the bricks with the sorted keys ``known (m,)``, eight per
    brick. The nodes of a brick belong to the bricks whose keys are ``steps (8,)`` larger: itself
    and its upper neighbours. All these keys must be in ``known``.
    """
    owners = np.searchsorted(known, keys[:, None] + steps)
    return 8 * owners[:, (PLACES >> 1) @ (4, 2, 1)] + (PLACES & 1) @ (4, 2, 1)


def unknown(index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The entries of ``index`` at which ``values (m,)`` is NaN, each once. Sets these values to
    infinity."""
    unknowns = index.ravel()
    unknowns = unknowns[np.isnan(values[unknowns])]
    unknowns = unknowns[_firsts(unknowns, len(values))]
    values[unknowns] = np.inf
    return unknowns


@lru_cache
def cases() -> tuple[np.ndarray, np.ndarray]:
    """The table of marching cubes: for each of the 256 sets of corners that are inside (bit i for
    corner i), the number ``(256,)`` of triangles and the edges ``(256, 15)`` of their corners. An
    edge's number is 3 times its lower corner plus its axis."""
    import igl

    counts, edges = np.zeros(256, np.int64), np.zeros((256, 15), np.int64)
    order, cell = list(AROUND), np.arange(8)[None]
    for case in range(1, 255):
        inside = np.array([case >> corner & 1 for corner in order])
        at, faces = map(
            np.asarray,
            igl.marching_cubes(1.0 - 2.0 * inside, OCTANTS[order].astype(float), cell, 0.0)[:2],
        )
        lower = np.floor(at).astype(int) @ (4, 2, 1)  # vertices are at the midpoints of edges
        on = 3 * lower + np.argmax(at % 1, axis=1)
        counts[case], edges[case, : faces.size] = len(faces), on[faces].ravel()
    return counts, edges


def _crossings(
    index: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The corners of all faces in bricks ``index (n, 27)``, three to a face: the number of each
    corner's edge, its brick, the brick's node at the edge's lower end, and the edge's axis."""
    counts, edges = cases()
    kinds = ((values[index] < 0)[:, CORNERS] << np.arange(8)).sum(axis=2)
    brick, cell = np.nonzero(counts[kinds])
    kind = kinds[brick, cell]
    row, place = np.nonzero(np.arange(15) < 3 * counts[kind][:, None])
    corner, axis = np.divmod(edges[kind[row], place], 3)
    brick, lower = brick[row], CORNERS[cell[row], corner]
    return 3 * index[brick, lower] + axis, brick, lower, axis


def _firsts(numbers: np.ndarray, limit: int) -> np.ndarray:
    """The indices, ascending, at which each distinct value of ``numbers (n,)`` occurs first. The
    numbers are in ``[0, limit)``."""
    first, places = np.empty(limit, np.int64), np.arange(len(numbers))
    first[numbers[::-1]] = places[::-1]  # for equal indices, NumPy keeps the last value
    return places[first[numbers] == places]
