"""Properties of a mesh that make a fit coarse or wrong: far parts, thin walls, rounded coordinates.

Each function measures one property; jobs turn the measures into warnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.surface import area, face_areas, volume
from nstr3d.geometry.mesh.topology import directed_edges, drop_unused_vertices, label_vertices
from nstr3d.types import Box, Mesh

# A part is far if the gap to the main parts exceeds this many times the longest side of their box.
FAR = 2.0
EMPTY = 1e-12  # fraction of the whole area up to which a part has no area but for rounding
STRAY = 0.01  # fraction of the whole area below which an open far part counts as a stray
# Steps of single precision above this fraction of the extent change the shape visibly.
COARSE_STEP = 1e-4
LEAST_VERTICES = 100  # a smaller mesh may lie on a coarse lattice because it was drawn there


@dataclass(frozen=True)
class FarPart:
    """A part that lies far from the main parts.

    It has ``bounds``, a number of ``faces``, the fraction ``area`` of the whole area, and the
    ``gap`` to the box of the main parts. It is ``closed`` if each of its edges has an
    even number of faces.
    """

    bounds: Box
    faces: int
    area: float
    gap: float
    closed: bool

    @property
    def stray(self) -> bool:
        """Whether the part is a small open flake, which is no solid."""
        return not self.closed and self.area < STRAY

    @property
    def empty(self) -> bool:
        """Whether the part has no area."""
        return self.area <= EMPTY


@dataclass(frozen=True)
class FarParts:
    """The far ``parts`` of a mesh, those with most area first.

    ``main`` is the box of the main parts. ``share`` is the fraction of the longest side of the
    whole box that only the far parts need. ``part (f,)`` is the index in ``parts`` of every face,
    -1 for a face of a main part.
    """

    parts: tuple[FarPart, ...]
    main: Box
    share: float
    part: np.ndarray


def far_parts(mesh: Mesh) -> FarParts:
    """The parts of ``mesh`` that lie far from its main parts.

    A part is a set of faces connected by vertices. The main parts are the part with most area and,
    repeatedly, every part whose gap to the box of the main parts is at most FAR times the longest
    side of that box. ``mesh`` must have faces; `merge_vertices` merges those that seams repeat.
    """
    mesh = drop_unused_vertices(mesh)
    label = label_vertices(mesh)
    count = int(label.max()) + 1
    part = label[mesh.faces[:, 0]]
    if count == 1:
        return FarParts((), mesh.bounds, 0.0, np.full(len(part), -1))
    order = np.argsort(label, kind="stable")
    starts = np.searchsorted(label[order], np.arange(count))
    lower = np.minimum.reduceat(mesh.vertices[order], starts)
    upper = np.maximum.reduceat(mesh.vertices[order], starts)
    areas = np.bincount(part, face_areas(mesh), count)
    main, box = _main_parts(lower, upper, areas)
    if main.all():
        return FarParts((), box, 0.0, np.full(len(part), -1))
    gap, torn = _gaps(lower, upper, box), _torn(mesh, part, count)
    order = np.argsort(-areas, kind="stable")
    order = order[~main[order]]
    faces, total = np.bincount(part, minlength=count), max(float(areas.sum()), 1e-300)
    parts = tuple(
        FarPart(
            Box(tuple(lower[at].tolist()), tuple(upper[at].tolist())),
            int(faces[at]),
            float(areas[at]) / total,
            float(gap[at]),
            not torn[at],
        )
        for at in order
    )
    share = 1 - float(box.extent.max()) / float(mesh.bounds.extent.max())
    index = np.full(count, -1)
    index[order] = np.arange(len(order))
    return FarParts(parts, box, share, index[part])


def without_parts(mesh: Mesh, far: FarParts, dropped: Sequence[bool]) -> Mesh:
    """``mesh`` without those of its ``far`` parts that are ``dropped``, a flag for each part."""
    if not any(dropped):
        return mesh
    kept = ~np.append(np.asarray(dropped, bool), False)[far.part]  # the last is that of index -1
    return drop_unused_vertices(Mesh(mesh.vertices, mesh.faces[kept]))


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


def _torn(mesh: Mesh, part: np.ndarray, count: int) -> np.ndarray:
    """Mask ``(count,)`` of the parts with an edge of an odd number of faces. ``part (f,)`` is the
    part of each face."""
    key = directed_edges(mesh.faces)[2]
    _, first, uses = np.unique(key, return_index=True, return_counts=True)
    return np.bincount(part[first[uses % 2 == 1] // 3], minlength=count) > 0


def _main_parts(lower: np.ndarray, upper: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, Box]:
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
