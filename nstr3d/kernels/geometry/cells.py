"""Sparse grids of bricks, two cells to an edge, compiled by numba: where a brick's 27 nodes are,
and marching cubes over bricks. Twin: `kernels.geometry.plaincells`, which says how bricks, nodes
and edges are counted.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from nstr3d.kernels.geometry.plaincells import STEPS, cases


def march(
    index: np.ndarray, values: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(v, 3)`` and faces ``(f, 3)`` of the surface where ``values (m,)`` change sign, in
    units of the grid.

    ``index (n, 27)`` says where in ``values`` the nodes of each brick are, ``nodes (n, 3)`` where
    on the grid the first of them.
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
    """Where the 27 nodes of each brick are, ``(n, 27)`` int64, among those that the bricks of the
    sorted keys ``known (m,)`` own, eight each. A brick's nodes are its own and those of the
    neighbours whose keys are ``steps (8,)`` larger; all must be known.
    """
    index, last, slots = (
        np.empty((len(keys), 27), np.int64),
        np.zeros(8, np.int64),
        np.empty(8, np.int64),
    )
    for n in range(len(keys)):
        for corner in range(8):
            key, slot = keys[n] + steps[corner], last[corner]
            for _ in range(4):  # bricks often come in the order of their keys
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
    """The places in ``index`` whose values are not a number, each once; they are infinite after
    that."""
    found, count = np.empty(len(values), np.int64), 0
    for place in index.ravel():
        if np.isnan(values[place]):
            values[place] = np.inf
            found[count] = place
            count += 1
    return found[:count].copy()


@njit(cache=True, inline="always")
def _corner(cell, corner):
    """Where in a brick a corner of one of its cells is."""
    return (
        9 * ((cell >> 2) + (corner >> 2))
        + 3 * ((cell >> 1 & 1) + (corner >> 1 & 1))
        + (cell & 1)
        + (corner & 1)
    )


@njit(cache=True)
def _number(index, values, counts, edges, made, kinds):
    """How many vertices and faces there are; the case of every cell and the number of every vertex,
    by its edge."""
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
    """The corners of every face, and the vertices where the values along their edges interpolate to
    zero."""
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
