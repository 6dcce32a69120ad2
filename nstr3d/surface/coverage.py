"""The share of a mesh's surface that a result lacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.types import Mesh


@dataclass(frozen=True)
class Coverage:
    """Which shares of a mesh's surface are not on a result, over ``samples`` points on the mesh.

    ``missing`` is the share further than ``tolerance`` from the result, in the mesh's units, unless
    it lies deeper than that inside the solid. ``inside`` is the share that does.
    """

    missing: float
    inside: float
    tolerance: float
    samples: int


def measure_coverage(
    mesh: Mesh,
    result: MeshDistance,
    solid: MeshDistance,
    tolerance: float,
    generator: np.random.Generator,
    samples: int = 100_000,
) -> Coverage:
    """How much of ``mesh`` is on the surface ``result``.

    ``solid`` is the solid that the result approximates; faces of ``mesh`` inside it are no surface.
    """
    points, _ = sample_surface(mesh, samples, generator)
    apart = result.unsigned(points) > tolerance
    inside = np.zeros(samples, bool)
    inside[apart] = solid(points[apart]) < -tolerance
    return Coverage(
        float((apart & ~inside).mean()), float(inside.mean()), float(tolerance), samples
    )
