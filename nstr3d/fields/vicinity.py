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
        """The largest weight of each node over the shape. Points are rounded to steps first, so
        that all cells share one table of weights."""
        dim, most = self.dim, resolution * STEPS_PER_CELL - 1
        steps = ((self._points(0.5 / resolution) + 1) * ((most + 1) / 2)).astype(np.int64)
        cell, inner = np.divmod(np.clip(steps, 0, most), STEPS_PER_CELL)
        flat, patterns = _flat(cell, resolution), STEPS_PER_CELL**dim
        touched = np.unique(flat * patterns + _flat(inner, STEPS_PER_CELL))
        cell, inner = np.divmod(touched, patterns)
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        weights = np.maximum.reduceat(_weights_of_steps(dim, order)[inner], starts)
        edge = nodes_per_axis(resolution, order)
        first = _flat(np.stack(np.unravel_index(cell[starts], (resolution,) * dim), axis=1), edge)
        largest = np.zeros(edge**dim, np.float32)
        for places, column in zip(np.ndindex(*(order + 1,) * dim), weights.T):
            nodes = first + _flat(np.array([places]), edge)  # each of them once
            largest[nodes] = np.maximum(largest[nodes], column)
        return largest

    def _points(self, spacing: float) -> np.ndarray:
        """The shape's points, or points on the mesh about ``spacing`` apart or less."""
        if isinstance(self.shape, Mesh):
            return surface_lattice(self.shape, spacing)
        return np.asarray(self.shape)


def _flat(index: np.ndarray, edge: int) -> np.ndarray:
    """Flat indices ``(n,)`` of ``index (n, dim)`` in a cube with ``edge`` entries per axis."""
    return index @ (edge ** np.arange(index.shape[1] - 1, -1, -1))


def _weights_of_steps(dim: int, order: int) -> np.ndarray:
    """The weights of a cell's nodes at the middles of its steps, ``(steps, nodes)`` float32."""
    steps = np.stack(np.unravel_index(np.arange(STEPS_PER_CELL**dim), (STEPS_PER_CELL,) * dim), 1)
    return lattice_nodes((steps + 0.5) * (2 / STEPS_PER_CELL) - 1, 1, order)[1]


Near: TypeAlias = Mesh | np.ndarray | Vicinity


def surface_lattice(mesh: Mesh, spacing: float) -> np.ndarray:
    """Points ``(n, 3)`` on the triangles of ``mesh``, about ``spacing`` (in the mesh's units) apart
    or less, some of them repeated.

    Each triangle is split at its edges' midpoints, and again, until no edge is longer than
    ``spacing``; the points are the corners of the triangles so made.
    """
    corners = mesh.corners
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1, initial=0)
    halvings = np.ceil(np.log2(np.maximum(longest / spacing, 1))).astype(int)
    batches = [corners[:0, 0]]
    for times in np.unique(halvings):
        parts = 2**times  # of an edge
        first, second = np.indices((parts + 1, parts + 1)).reshape(2, -1)
        shares = np.stack([first, second, parts - first - second], axis=1)
        shares = shares[shares[:, 2] >= 0] / parts
        batches.append((shares @ corners[halvings == times]).reshape(-1, 3))
    return np.concatenate(batches)
