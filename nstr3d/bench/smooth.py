"""Smooth analytic shapes and their track: normals, kinks, ripples and curvature against truth."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from nstr3d.bench.tracks import TESTS, MeshTrack
from nstr3d.fields.base import Field
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.geometry.shapes.primitives import (
    capsule,
    ellipsoid,
    gyroid_slab,
    rotate,
    scale,
    smooth_union,
    sphere,
    torus,
    translate,
)
from nstr3d.jobs.surface import cells_of
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.surface.smoothness import (
    Spread,
    measure_bands,
    measure_curvature,
    measure_kink,
    measure_normals,
)
from nstr3d.training.fit import Fit
from nstr3d.types import Frame, Mesh

RESOLUTION = 320  # cells per axis of the training mesh
RADIUS = 0.03  # unit box: ripples of the normals within this radius are counted
EXACT = 1e-10  # diagonals of the bounds: distance of points of the true surface from it
CURVATURE_STEP = 4e-3  # unit box: of the central differences; 32 cells per axis are 0.0625 wide


def smooth_shapes() -> dict[str, Sdf]:
    """Four shapes without edges, turned so that no axis of symmetry is an axis of the grid."""
    blobs = smooth_union(
        sphere(0.5, (-0.3, 0.1, 0.0)),
        sphere(0.35, (0.35, 0.3, 0.1)),
        capsule((0.0, -0.5, 0.2), (0.5, -0.3, -0.3), 0.2),
        k=0.25,
    )
    shapes = {
        "torus": torus(0.7, 0.25),
        "blobs": blobs,
        "ellipsoid": ellipsoid((0.9, 0.5, 0.35)),
        "gyroid": gyroid_slab(period=1.3, thickness=0.3, radius=0.9, rim=0.3),
    }
    return {name: rotate(shape, (1.0, 2.0, 3.0), 33.0) for name, shape in shapes.items()}


def tessellate(shape: Sdf, resolution: int = RESOLUTION) -> Mesh:
    """``shape`` as a mesh of ``resolution`` cells per axis, whose vertices lie on the surface."""
    mesh = extract_mesh(shape, resolution)
    return Mesh(shape.closest_points(mesh.vertices, EXACT).points, mesh.faces)


@dataclass(frozen=True)
class SmoothTrack(MeshTrack):
    """The track of a finely tessellated smooth shape, whose surface ``truth`` knows exactly.

    ``truth`` is the shape in the unit box of the track. Its values may be a bound on the distance;
    its zero level set and its normals there are exact.
    """

    truth: Sdf | None = None

    @staticmethod
    def smooth(name: str, shape: Sdf, tests: int = TESTS) -> SmoothTrack:
        """The track of ``shape`` with ``tests`` test points of each kind."""
        mesh = tessellate(shape)
        plain, frame = MeshTrack.around(name, mesh, tests), normalise(mesh)[1]
        parts: dict[str, Any] = {part.name: getattr(plain, part.name) for part in fields(plain)}
        return SmoothTrack(**parts | {"meshed": False, "truth": _placed(shape, frame)})

    def measure_end(self, field: Field) -> dict[str, float]:
        """Means and 99th percentiles on the true surface.

        Angles of the normals to the true normals, their ripples and the kinks are in degrees;
        errors of the mean curvature are in 1 / unit-box length. Kinks are missing for a field
        without levels.
        """
        assert self.truth is not None
        points = self.truth.closest_points(self.surface_points[0], EXACT).points
        sdf = Fit(field, Frame.identity(3), self.near.bounds, 1.0).sdf()
        normals, true_normals = sdf.normals(points), self.truth.normals(points)
        spreads = {
            "true_normals": measure_normals(normals, true_normals),
            "bands": measure_bands(points, normals, true_normals, RADIUS),
            "curvature": measure_curvature(sdf, self.truth, points, CURVATURE_STEP),
        }
        if levels := cells_of(field):
            kink = measure_kink(sdf.gradient, points, levels)
            spreads["kink"] = Spread(kink.kink_mean, kink.kink_p99)
            spreads["control"] = Spread(kink.kink_control_mean, kink.kink_control_p99)
        return {
            f"{name}_{part}": getattr(spread, part)
            for name, spread in spreads.items()
            for part in ("mean", "p99")
        }


def _placed(shape: Sdf, frame: Frame) -> Sdf:
    """``shape`` in the coordinates of the unit box of ``frame``."""
    x, y, z = frame.centre
    return scale(translate(shape, (-x, -y, -z)), 1 / frame.scale)
