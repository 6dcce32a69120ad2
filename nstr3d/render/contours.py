"""A plane through a shape: the contour lines on it, and the part of a mesh on one side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from nstr3d.render.colours import BLUE_TO_RED, colour_map
from nstr3d.sdf import Sdf
from nstr3d.types import Box, Mesh

CELLS = 160  # cells of the grid on the plane along the longest side of the bounds
LINES = 40  # approximate number of contour values across the bounds
GROWN = 1.15  # size of the grid on the plane in sizes of the bounds


@dataclass(frozen=True)
class Plane:
    """The plane on which the coordinate ``axis`` (0, 1, 2) is ``offset``, in world units.

    The kept side has smaller coordinates. Raises ValueError if ``axis`` is another number or
    ``offset`` is not finite.
    """

    axis: int
    offset: float

    def __post_init__(self):
        if self.axis not in (0, 1, 2) or not math.isfinite(self.offset):
            raise ValueError(
                f"A plane has axis 0, 1 or 2 and a finite offset, not {self.axis} and "
                f"{self.offset}."
            )


def contours(
    sdf: Sdf, plane: Plane, level: float = 0.0, cells: int = CELLS
) -> tuple[np.ndarray, np.ndarray]:
    """Lines of equal distance on ``plane`` about the bounds of ``sdf``.

    Returns segments ``(s, 2, 3)`` in world units and their distances ``(s,)``. The distances are
    ``level`` and evenly spaced values on both sides of it. ``cells`` is the number of grid cells
    along the longest side of the bounds.
    """
    import igl

    box = sdf.bounds.scaled(GROWN)
    vertices, faces = _sheet(box, plane, cells)
    values = sdf(vertices)
    step = rounded(float(box.extent.max()) / LINES)
    lowest, highest = (
        math.floor((float(end) - level) / step) for end in (values.min(), values.max())
    )
    wanted = level + step * np.arange(lowest, highest + 1)
    points, ends, which = igl.isolines(vertices, faces, values, wanted)
    return np.asarray(points)[np.asarray(ends)].reshape(-1, 2, 3), wanted[
        np.asarray(which, np.int64)
    ]


def cap(sdf: Sdf, plane: Plane, level: float = 0.0, cells: int = CELLS) -> Mesh:
    """The part of ``plane`` where ``sdf`` is below ``level``: the face of a `cut`.

    Its normals point away from the kept side. It has no faces if the plane misses the shape.
    """
    vertices, faces = _sheet(sdf.bounds.scaled(GROWN), plane, cells)
    # Raised by the distance, the sheet is cut where that is zero.
    raised = vertices.copy()
    raised[:, plane.axis] = sdf(vertices) - level
    below = cut(Mesh(raised, faces[:, ::-1] if plane.axis == 1 else faces), Plane(plane.axis, 0.0))
    flat = np.array(below.vertices)
    flat[:, plane.axis] = plane.offset
    return Mesh(flat, below.faces)


def contour_colours(distances: np.ndarray, level: float, size: float) -> np.ndarray:
    """Colours ``(s, 3)`` of contour lines at ``distances (s,)``.

    Lines at ``level`` are near black, lines inside it blue and lines outside it red, paler towards
    the level. ``size`` is the size of the shape in world units.
    """
    shades = (
        colour_map(
            torch.from_numpy(0.5 + 0.5 * np.tanh((distances - level) / size * 25)), BLUE_TO_RED
        ).numpy()
        * 0.9
    )
    shades[np.abs(distances - level) < 1e-9 * size] = 0.05
    return shades


def cut(mesh: Mesh, plane: Plane) -> Mesh:
    """The part of ``mesh`` on the kept side of ``plane``, open along the cut.

    It has no faces if nothing is on the kept side.
    """
    from trimesh.intersections import slice_faces_plane

    if not len(mesh.faces):
        return mesh
    kept = -np.eye(3)[plane.axis]
    height = (plane.offset - mesh.vertices[:, plane.axis]) / mesh.bounds.diagonal
    vertices, faces, _ = slice_faces_plane(
        mesh.vertices, mesh.faces, kept, -plane.offset * kept, cached_dots=height
    )
    return Mesh(vertices, faces)


def rounded(step: float) -> float:
    """The number 1, 2 or 5 times a power of ten that is nearest to ``step`` by ratio."""
    power = 10.0 ** math.floor(math.log10(step))
    return min(
        (power * factor for factor in (1, 2, 5, 10)), key=lambda value: abs(math.log(value / step))
    )


def _sheet(box: Box, plane: Plane, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """A triangulated rectangle on the plane: vertices ``(n, 3)`` and faces ``(f, 3)``."""
    first, second = (axis for axis in range(3) if axis != plane.axis)
    cell = float(box.extent.max()) / cells
    counts = [max(1, math.ceil(float(box.extent[axis]) / cell)) + 1 for axis in (first, second)]
    u, v = (
        np.linspace(box.lower[axis], box.upper[axis], count)
        for axis, count in zip((first, second), counts)
    )
    vertices = np.full((counts[0] * counts[1], 3), plane.offset)
    vertices[:, first], vertices[:, second] = (
        grid.ravel() for grid in np.meshgrid(u, v, indexing="ij")
    )
    index = np.arange(len(vertices)).reshape(counts)
    a, b, c, d = (
        index[:-1, :-1].ravel(),
        index[1:, :-1].ravel(),
        index[1:, 1:].ravel(),
        index[:-1, 1:].ravel(),
    )
    return vertices, np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
