"""Selects the nodes that sparse levels store: the nodes near a shape."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from nstr3d.fields.lattice import lattice_nodes
from nstr3d.kernels.field.interpolate import nodes_per_axis
from nstr3d.types import Mesh

STEPS_PER_CELL = 8  # steps per cell and axis to which points are rounded before they are weighted


class Vicinity:
    """The region that sparse levels cover: the nodes near ``shape``, which is a mesh or points
    ``(n, dim)`` in the unit box.

    The nodes of each resolution are cached, so that a field that is first sized to a budget and
    then built computes them once.
    """

    def __init__(self, shape: Mesh | np.ndarray):
        self.shape = shape
        self.dim = 3 if isinstance(shape, Mesh) else np.asarray(shape).shape[1]
        self._packed: dict[tuple[float, ...], np.ndarray] = {}

    @classmethod
    def of(cls, near: Near) -> Vicinity:
        """``near`` itself if it is a `Vicinity`, otherwise a new vicinity of it."""
        return near if isinstance(near, Vicinity) else cls(near)

    def corners(self, resolution: int) -> np.ndarray:
        """Mask of the corners of all cells that the shape touches: bool
        ``((resolution + 1)^dim,)``, last axis fastest."""
        key = (resolution,)
        if key not in self._packed:
            self._packed[key] = np.packbits(self._corners(resolution))
        count = (resolution + 1) ** self.dim
        return np.unpackbits(self._packed[key], count=count).astype(bool)

    def nodes(self, resolution: int, order: int, least_weight: float) -> np.ndarray:
        """Mask of the nodes whose B-spline of degree ``order`` has a weight of at least
        ``least_weight`` somewhere on the shape: bool ``((resolution + order)^dim,)``, last axis
        fastest. See `kernels.field.interpolate.NodeGrid`."""
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
        """The largest weight of each node over the shape. Points are rounded first, which bounds
        the cost for many points."""
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
        """The shape's points, or points on the mesh about ``spacing`` apart or less."""
        if isinstance(self.shape, Mesh):
            return surface_lattice(self.shape, spacing)
        return np.asarray(self.shape)


Near: TypeAlias = Mesh | np.ndarray | Vicinity


def surface_lattice(mesh: Mesh, spacing: float) -> np.ndarray:
    """Points ``(n, 3)`` on the triangles of ``mesh``, about ``spacing`` (in the mesh's units) apart
    or less, some of them repeated.

    Each triangle is split at its edges' midpoints until no edge is longer than ``spacing``; the
    points are the corners of all triangles so made.
    """
    corners, batches = mesh.corners, []
    while len(corners):
        batches.append(corners.reshape(-1, 3))
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        large = corners[edges.max(axis=1) > spacing]
        a, b, c = large[:, 0], large[:, 1], large[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        corners = np.concatenate([np.stack(q, axis=1) for q in quarters])
    return np.concatenate(batches)
