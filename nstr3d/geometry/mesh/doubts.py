"""Properties of a mesh that make a fit coarse or wrong: far parts, thin walls, rounded coordinates.

Each function measures one property; jobs turn the measures into warnings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.surface import area, face_areas, volume
from nstr3d.geometry.mesh.topology import drop_unused_vertices, label_vertices
from nstr3d.types import Box, Mesh

# A part is far if the gap to the main parts exceeds this many times the longest side of their box.
FAR = 2.0
# Steps of single precision above this fraction of the extent change the shape visibly.
COARSE_STEP = 1e-4
LEAST_VERTICES = 100  # a smaller mesh may lie on a coarse lattice because it was drawn there


@dataclass(frozen=True)
class FarPart:
    """A part that lies far from the main parts: its ``bounds``, its number of ``faces``, its
    fraction ``area`` of the whole area, and the ``gap`` to the box of the main parts."""

    bounds: Box
    faces: int
    area: float
    gap: float


@dataclass(frozen=True)
class FarParts:
    """The far ``parts`` of a mesh, those with most area first.

    ``main`` is the box of the main parts. ``share`` is the fraction of the longest side of the
    whole box that only the far parts need. ``faces (f,)`` bool marks the faces of far parts.
    """

    parts: tuple[FarPart, ...]
    main: Box
    share: float
    faces: np.ndarray


def far_parts(mesh: Mesh) -> FarParts:
    """The parts of ``mesh`` that lie far from its main parts.

    A part is a set of faces connected by vertices. The main parts are the part with most area and,
    repeatedly, every part whose gap to the box of the main parts is at most FAR times the longest
    side of that box. ``mesh`` must have faces; `repair` merges the vertices that seams repeat.
    """
    label = label_vertices(mesh)[mesh.faces[:, 0]]
    _, part = np.unique(label, return_inverse=True)
    count = int(part.max()) + 1
    lower, upper = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(lower, part, mesh.corners.min(axis=1))
    np.maximum.at(upper, part, mesh.corners.max(axis=1))
    areas = np.bincount(part, face_areas(mesh), count)
    main, box = _main_parts(lower, upper, areas)
    gap = _gaps(lower, upper, box)
    order = [index for index in np.argsort(-areas, kind="stable") if not main[index]]
    faces, total = np.bincount(part, minlength=count), max(float(areas.sum()), 1e-300)
    parts = tuple(
        FarPart(
            Box(tuple(lower[at].tolist()), tuple(upper[at].tolist())),
            int(faces[at]),
            float(areas[at]) / total,
            float(gap[at]),
        )
        for at in order
    )
    whole = float((upper.max(axis=0) - lower.min(axis=0)).max())
    share = 1 - float(box.extent.max()) / whole if parts else 0.0
    return FarParts(parts, box, share, ~main[part])


def without_far(mesh: Mesh, far: FarParts) -> Mesh:
    """``mesh`` without the faces of its ``far`` parts."""
    return drop_unused_vertices(Mesh(mesh.vertices, mesh.faces[~far.faces]))


def mean_thickness(mesh: Mesh) -> float:
    """Twice the volume of a closed ``mesh`` over its area, in mesh units.

    It is the thickness of a wide sheet, half the width of a long square rod, and 2/3 of the radius
    of a ball.
    """
    return 2 * abs(volume(mesh)) / area(mesh)


def coordinate_step(vertices: np.ndarray) -> float | None:
    """The step of single precision at ``vertices (v, 3)`` if it may have changed the shape.

    It is None unless all coordinates are single precision numbers and the largest step along an
    axis exceeds COARSE_STEP of the longest side, as happens to map coordinates in PLY or STL files.
    """
    if len(vertices) < LEAST_VERTICES:
        return None
    with np.errstate(over="ignore"):
        single = vertices.astype(np.float32)
    if not np.array_equal(single.astype(np.float64), vertices):
        return None
    step = float(np.spacing(np.abs(single).max()))
    return step if step > COARSE_STEP * float(np.ptp(vertices, axis=0).max()) else None


def _main_parts(
    lower: np.ndarray, upper: np.ndarray, areas: np.ndarray
) -> tuple[np.ndarray, Box]:
    """Mask ``(n,)`` of the main parts and their box, from the corners ``(n, 3)`` of all boxes."""
    main = np.zeros(len(areas), bool)
    main[np.argmax(areas)] = True
    while True:
        low, high = lower[main].min(axis=0), upper[main].max(axis=0)
        box = Box(tuple(low.tolist()), tuple(high.tolist()))
        near = _gaps(lower, upper, box) <= FAR * float(box.extent.max())
        if not (near & ~main).any():
            return main, box
        main |= near


def _gaps(lower: np.ndarray, upper: np.ndarray, box: Box) -> np.ndarray:
    """The gap ``(n,)`` along the widest separated axis between each box and ``box``, at least 0."""
    return np.maximum(lower - box.upper, box.lower - upper).max(axis=1).clip(0)
