"""Where sparse levels store nodes: near a shape."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from nstr3d.fields.lattice import lattice_nodes
from nstr3d.kernels.field.interpolate import nodes_per_axis
from nstr3d.types import Mesh

STEPS_PER_CELL = 8  # to which the points of a surface are rounded where weights decide


class Vicinity:
    """What sparse levels cover: the nodes near ``shape``, a mesh or points ``(n, dim)`` in the unit
    box. The nodes of each resolution are computed once, so a field that is sized to a budget and
    then built does not compute them twice."""

    def __init__(self, shape: Mesh | np.ndarray):
        self.shape = shape
        self.dim = 3 if isinstance(shape, Mesh) else np.asarray(shape).shape[1]
        self._packed: dict[tuple[float, ...], np.ndarray] = {}

    @classmethod
    def of(cls, near: Near) -> Vicinity:
        """The vicinity of ``near``: a new one, or ``near`` itself where it is one."""
        return near if isinstance(near, Vicinity) else cls(near)

    def corners(self, resolution: int) -> np.ndarray:
        """The corners of all cells that touch the shape: bool ``((resolution + 1)^dim,)``."""
        key = (resolution,)
        if key not in self._packed:
            self._packed[key] = np.packbits(self._corners(resolution))
        count = (resolution + 1) ** self.dim
        return np.unpackbits(self._packed[key], count=count).astype(bool)

    def nodes(self, resolution: int, order: int, least_weight: float) -> np.ndarray:
        """The nodes whose B-spline of degree ``order`` is at least ``least_weight`` somewhere on
        the shape: bool ``(edge^dim,)``; see `kernels.field.interpolate.NodeGrid`."""
        key = (resolution, order, least_weight)
        if key not in self._packed:
            weights = self._largest_weights(resolution, order)
            self._packed[key] = np.packbits(weights >= least_weight)
        count = nodes_per_axis(resolution, order) ** self.dim
        return np.unpackbits(self._packed[key], count=count).astype(bool)

    def _corners(self, resolution: int) -> np.ndarray:
        points = self._points(1.0 / resolution)
        cells = np.clip(((points + 1) * (resolution / 2)).astype(np.int64), 0, resolution - 1)
        touched = np.zeros((resolution,) * self.dim, bool)
        touched[tuple(cells.T)] = True
        nodes = np.zeros((resolution + 1,) * self.dim, bool)
        for corner in np.ndindex(*(2,) * self.dim):
            nodes[tuple(slice(c, c + resolution) for c in corner)] |= touched
        return nodes.ravel()

    def _largest_weights(self, resolution: int, order: int) -> np.ndarray:
        """The largest weight of each node on the shape, whose points are rounded first, so that
        many cost as much as few."""
        steps = resolution * STEPS_PER_CELL
        shape = (steps,) * self.dim
        points = self._points(0.5 / resolution)
        step = np.clip(((points + 1) * (steps / 2)).astype(np.int64), 0, steps - 1)
        step = np.unravel_index(np.unique(np.ravel_multi_index(tuple(step.T), shape)), shape)
        rounded = (np.stack(step, axis=1) + 0.5) * (2 / steps) - 1
        nodes, weights = lattice_nodes(rounded, resolution, order)
        largest = np.zeros(nodes_per_axis(resolution, order) ** self.dim, np.float32)
        np.maximum.at(largest, nodes.ravel(), weights.ravel())
        return largest

    def _points(self, spacing: float) -> np.ndarray:
        """Points of the shape, of a mesh no further apart than about ``spacing``."""
        if isinstance(self.shape, Mesh):
            return surface_lattice(self.shape, spacing)
        return np.asarray(self.shape)


Near: TypeAlias = Mesh | np.ndarray | Vicinity


def surface_lattice(mesh: Mesh, spacing: float) -> np.ndarray:
    """Points on every triangle no further apart than about ``spacing``: its corners and midpoints,
    split until it is small."""
    corners, found = mesh.corners, []
    while len(corners):
        found.append(corners.reshape(-1, 3))
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        large = corners[edges.max(axis=1) > spacing]
        a, b, c = large[:, 0], large[:, 1], large[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        corners = np.concatenate([np.stack(q, axis=1) for q in quarters])
    return np.concatenate(found)
