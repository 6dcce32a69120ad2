"""Sparse grids of bricks of 2 x 2 x 2 cells (numba): the indices of a brick's 27 nodes, and
marching cubes over bricks. Twin: `kernels.geometry.plaincells`, which describes the numbering of
bricks, nodes and edges.
"""

from __future__ import annotations

import numpy as np

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.geometry.plaincells import STEPS, cases


def march(
    index: np.ndarray, values: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(v, 3)`` and faces ``(f, 3)`` of the surface where ``values (m,)`` change sign.
    Vertices are in units of grid cells.

    ``index (n, 27)`` holds the indices into ``values`` of each brick's nodes, ``nodes (n, 3)`` the
    grid position of each brick's first node.
    """
    counts, edges = cases()
    made = np.full(3 * len(values), -1, np.int32)
    kinds = np.empty((len(index), 8), np.uint8)
    size = _number(index, values, counts, edges, made, kinds)
    vertices, faces = np.empty((size[0], 3)), np.empty((size[1], 3), np.int64)
    _place(index, values, nodes, counts, edges, made, kinds, vertices, faces)
    return vertices, faces


@njit(cache=True)
def locate(keys, steps, known):
    """The indices ``(n, 27)`` int64 of the 27 nodes of each brick of ``keys (n,)``.

    The indices count the nodes owned by the bricks with the sorted keys ``known (m,)``, eight per
    brick. The nodes of a brick belong to the bricks whose keys are ``steps (8,)`` larger: itself
    and its upper neighbours. All these keys must be in ``known``.
    """
    index, last, slots = (
        np.empty((len(keys), 27), np.int64),
        np.zeros(8, np.int64),
        np.empty(8, np.int64),
    )
    for n in range(len(keys)):
        for corner in range(8):
            key, slot = keys[n] + steps[corner], last[corner]
            for _ in range(4):  # often enough: bricks mostly come sorted by key
                if known[slot] < key and slot + 1 < len(known):
                    slot += 1
            if known[slot] != key:
                slot = np.searchsorted(known, key)
            slots[corner] = last[corner] = slot
        for node in range(27):
            i, j, k = node // 9, node // 3 % 3, node % 3
            index[n, node] = (
                8 * slots[4 * (i >> 1) + 2 * (j >> 1) + (k >> 1)]
                + 4 * (i & 1)
                + 2 * (j & 1)
                + (k & 1)
            )
    return index


@njit(cache=True)
def unknown(index, values):
    """The entries of ``index`` at which ``values (m,)`` is NaN, each once. Sets these values to
    infinity."""
    unknowns, count = np.empty(len(values), np.int64), 0
    for place in index.ravel():
        if np.isnan(values[place]):
            values[place] = np.inf
            unknowns[count] = place
            count += 1
    return unknowns[:count].copy()


@njit(cache=True, inline="always")
def _corner(cell, corner):
    """The index, among a brick's 27 nodes, of a corner of one of its cells."""
    return (
        9 * ((cell >> 2) + (corner >> 2))
        + 3 * ((cell >> 1 & 1) + (corner >> 1 & 1))
        + (cell & 1)
        + (corner & 1)
    )


@njit(cache=True)
def _number(index, values, counts, edges, made, kinds):
    """Counts the vertices and the faces. Writes the case of every cell to ``kinds`` and the number
    of every vertex to ``made``, at its edge."""
    vertices, faces = 0, 0
    for brick in range(len(index)):
        for cell in range(8):
            case = 0
            for corner in range(8):
                case |= (values[index[brick, _corner(cell, corner)]] < 0) << corner
            kinds[brick, cell] = case
            faces += counts[case]
            for n in range(3 * counts[case]):
                corner, axis = edges[case, n] // 3, edges[case, n] % 3
                edge = 3 * index[brick, _corner(cell, corner)] + axis
                if made[edge] < 0:
                    made[edge] = vertices
                    vertices += 1
    return vertices, faces


@njit(cache=True)
def _place(index, values, nodes, counts, edges, made, kinds, vertices, faces):
    """Writes the corners of every face to ``faces``, and to ``vertices`` the zeros of the linear
    interpolant of the values along the edges."""
    face = 0
    for brick in range(len(index)):
        for cell in range(8):
            case = kinds[brick, cell]
            for n in range(3 * counts[case]):
                corner, axis = edges[case, n] // 3, edges[case, n] % 3
                lower = _corner(cell, corner)
                low, high = values[index[brick, lower]], values[index[brick, lower + STEPS[axis]]]
                vertex = made[3 * index[brick, lower] + axis]
                vertices[vertex, 0] = nodes[brick, 0] + lower // 9
                vertices[vertex, 1] = nodes[brick, 1] + lower // 3 % 3
                vertices[vertex, 2] = nodes[brick, 2] + lower % 3
                vertices[vertex, axis] += low / (low - high)
                faces[face + n // 3, n % 3] = vertex
            face += counts[case]
