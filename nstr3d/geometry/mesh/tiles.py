"""Sets groups of triangles far apart, so that one search tree gives the winding number of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.boxes import corner_boxes
from nstr3d.types import Mesh

# Distance of two tiles in sizes of a tile. An open surface adds its solid angle to the winding
# number elsewhere, which falls with the square of the distance.
SPACING = 30.0
# Groups are neighbours if their bounding spheres meet, each enlarged by this factor.
REACH = 1.1


@dataclass(frozen=True)
class Tiles:
    """The places of groups: group i is moved by -``lower[i]``, divided by ``size[i]``, which makes
    its longest extent 1, and moved by ``place[i]``."""

    lower: np.ndarray
    size: np.ndarray
    place: np.ndarray

    @staticmethod
    def around(corners: np.ndarray, owner: np.ndarray) -> Tiles:
        """A tile for each group of triangles with ``corners (f, 3, 3)``; ``owner (f,)`` are the
        groups, counted from 0."""
        lower, upper = corner_boxes(corners, owner)
        count = len(lower)
        side = int(np.ceil(count ** (1 / 3)))
        cells = np.stack(np.unravel_index(np.arange(count), (side,) * 3), axis=1)
        size = np.maximum((upper - lower).max(axis=1), 1e-300)
        return Tiles(lower, size, SPACING * cells)

    def move(self, points: np.ndarray, owner: np.ndarray) -> np.ndarray:
        """``points (n, 3)`` of the groups ``owner (n,)`` in their tiles."""
        return (points - self.lower[owner]) / self.size[owner, None] + self.place[owner]

    def mesh(self, corners: np.ndarray, owner: np.ndarray) -> Mesh:
        """Triangles with ``corners (f, 3, 3)`` in the tiles of their groups ``owner (f,)``."""
        moved = self.move(corners.reshape(-1, 3), np.repeat(owner, 3))
        return Mesh(moved, np.arange(len(moved)).reshape(-1, 3))


def label_neighbours(corners: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """A label ``(n,)`` for each group of triangles; groups close to one another share a label.

    Groups are compared in classes of similar size, so that few pairs lie further apart.
    """
    from scipy.spatial import KDTree

    lower, upper = corner_boxes(corners, owner)
    centre, radius = (lower + upper) / 2, REACH * np.linalg.norm(upper - lower, axis=1) / 2
    kind = np.frexp(radius)[1]
    classes = [np.flatnonzero(kind == value) for value in np.unique(kind)]
    trees = [KDTree(centre[rows]) for rows in classes]
    pairs = [np.zeros((0, 2), np.int64)]
    for index, (rows, tree) in enumerate(zip(classes, trees)):
        for others, other in zip(classes[index:], trees[index:]):
            reach = float(radius[rows].max() + radius[others].max())
            near = tree.sparse_distance_matrix(other, reach, output_type="ndarray")
            one, two = rows[near["i"]], others[near["j"]]
            meets = near["v"] <= radius[one] + radius[two]
            pairs.append(np.column_stack([one[meets], two[meets]]))
    return label_components(len(centre), *np.concatenate(pairs).T)
