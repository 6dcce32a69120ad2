"""The nearest of many triangles by libigl's tree: twin of `kernels.geometry.triangles` for use
without numba.

The twins' distances are equal to rounding. Among faces at the same distance, the twins may return
different ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BITS = 10  # bits per axis of the Hilbert curve
BACK = 32  # how many earlier points are searched for one on the same side
WITHIN = 1 - 1e-9  # scale of a ball's radius: nearer its rim, rounding decides what is inside


class Nearest(NamedTuple):
    """The nearest triangle to each of ``n`` points: the ``distance (n,)`` to it, its index
    ``face (n,)``, and the point ``closest (n, 3)`` on it.

    ``alike (n,)`` is the index of a point on the same side of a closed surface. Many points have
    the same ``alike``, so a winding number is needed only at these representatives.
    """

    distance: np.ndarray
    face: np.ndarray
    closest: np.ndarray
    alike: np.ndarray


class Triangles:
    """A search tree over the triangles ``corners (n, 3, 3)``: finite float64 in about [-1, 1]^3, at
    least one triangle."""

    def __init__(self, corners: np.ndarray) -> None:
        import igl

        self.vertices = np.ascontiguousarray(corners.reshape(-1, 3))
        self.faces = np.arange(len(self.vertices)).reshape(-1, 3)
        self.tree = igl.AABB()
        self.tree.init(self.vertices, self.faces)

    def nearest(self, points: np.ndarray) -> Nearest:
        """The nearest triangle to each of ``points (n, 3)``, finite float64."""
        count, order = (
            len(points),
            np.argsort(along(points)),
        )  # neighbours visit the same branches
        points = points[order]
        squared, faces, places = self.tree.squared_distance(self.vertices, self.faces, points)
        reach = np.sqrt(squared)
        distance, closest = np.empty(count), np.empty((count, 3))
        face, alike = np.empty(count, np.int64), np.empty(count, np.int64)
        distance[order], face[order], closest[order], alike[order] = (
            reach,
            faces,
            places,
            order[_alike(points, reach)],
        )
        return Nearest(distance, face, closest, alike)


def along(points: np.ndarray) -> np.ndarray:
    """The positions ``(n,)`` uint32 of ``points (n, 3)`` along a Hilbert curve through [-1, 1]^3
    (Skilling, Programming the Hilbert curve, 2004). Points outside are clamped to the cube."""
    top = 1 << (BITS - 1)
    cell = ((points.T + 1) * top).clip(0, 2 * top - 1).astype(np.uint32)
    for bit in (1 << place for place in range(BITS - 1, 0, -1)):
        for axis in range(3):
            inverted = (cell[axis] & bit) != 0
            turned = np.where(inverted, 0, (cell[0] ^ cell[axis]) & (bit - 1)).astype(np.uint32)
            cell[0] ^= np.where(inverted, np.uint32(bit - 1), turned)
            cell[axis] ^= turned
    cell[1] ^= cell[0]
    cell[2] ^= cell[1]
    flip = np.zeros_like(cell[0])
    for bit in (1 << place for place in range(BITS - 1, 0, -1)):
        flip ^= np.where(cell[2] & bit, np.uint32(bit - 1), np.uint32(0))
    cell ^= flip
    code = np.zeros_like(flip)
    for place in range(BITS - 1, -1, -1):
        for axis in range(3):
            code = code << 1 | cell[axis] >> place & 1
    return code


def _alike(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Indices ``(n,)`` of points on the same side of the surface as ``points (n, 3)``, which are in
    the order of the Hilbert curve.

    The ball around a point with the radius ``distance (n,)`` contains no surface, so all points in
    it are on the same side. Among the `BACK` points before it, each point is linked to the last one
    that is in its ball or whose ball contains it. The point at the end of a chain of links
    represents the whole chain.
    """
    root, alone = np.arange(len(points)), np.arange(len(points))
    for back in range(1, BACK + 1):
        alone = alone[alone >= back]
        gap = points[alone] - points[alone - back]
        reach = np.maximum(distance[alone], distance[alone - back]) * WITHIN
        together = np.einsum("nd,nd->n", gap, gap) < reach * reach
        root[alone[together]] -= back
        alone = alone[~together]
    while not np.array_equal(further := root[root], root):
        root = further
    return root
