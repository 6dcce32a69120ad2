"""What questions about a signed distance are answered with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class ClosestPoints(Generic[Array]):
    """Surface points ``points (n, 3)`` and their ``residual (n,)``, the magnitude of the signed
    distance there, both in world units."""

    points: Array
    residual: Array


@dataclass(frozen=True)
class RayHits(Generic[Array]):
    """First crossings of rays with a surface: ``hit (n,)`` bool; ``distances (n,)`` along the rays
    and ``points (n, 3)``, both inf without a crossing; outward unit ``normals (n, 3)``, zero
    without a crossing."""

    hit: Array
    distances: Array
    points: Array
    normals: Array

    def __repr__(self) -> str:
        count, total = int(self.hit.sum()), len(self.hit)
        nearest = f", the nearest at {float(self.distances.min()):.4g}" if count else ""
        return f"<RayHits: {count} of {total} rays hit{nearest}>"


@dataclass(frozen=True)
class Crossings(Generic[Array]):
    """All crossings of rays with a surface: those of ray i are rows ``starts[i] : starts[i + 1]``
    of ``distances (m,)``, in rising order, and of ``points (m, 3)``. ``enters (m,)`` is true where
    the ray enters the solid. ``starts (n + 1,)`` is int64."""

    starts: Array
    distances: Array
    points: Array
    enters: Array


@dataclass(frozen=True)
class Contacts:
    """Contacts of two solids, the deepest first: ``depth (n,)``, negative for a gap; ``points (n,
    3)``, in the middle between both surfaces; and unit ``normals (n, 3)`` from the first solid to
    the second one, which is free of the contact after a translation by ``depth`` along it. World
    units of the first solid."""

    depth: np.ndarray
    points: np.ndarray
    normals: np.ndarray

    def __len__(self) -> int:
        return len(self.depth)

    def __repr__(self) -> str:
        deepest = f", the deepest {self.depth.max():.4g}" if len(self) else ""
        return f"<Contacts: {len(self)}{deepest}>"


@dataclass(frozen=True)
class Solid:
    """Measures of a solid of density 1: ``volume``, ``area``, ``centroid (3,)``, and ``inertia
    (3, 3)`` about the centroid, in world units.

    ``volume_error`` and ``area_error`` estimate the absolute errors: the changes by the last
    refinement of the surface. An empty solid has the measures 0 and no centroid, None.
    """

    volume: float
    area: float
    centroid: np.ndarray | None
    inertia: np.ndarray
    volume_error: float
    area_error: float


@dataclass(frozen=True)
class Curvatures(Generic[Array]):
    """``mean (n,)`` and ``gaussian (n,)`` curvature, in 1 / length and 1 / length^2. Both are
    positive on a ball."""

    mean: Array
    gaussian: Array
