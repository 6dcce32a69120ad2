"""Accuracy metrics of surfaces: functions of arrays, and `score` for a fitted field and its mesh.

The Chamfer distance is the mean of the two one-sided mean distances, unsquared. The Hausdorff
distance is the maximum over the samples. The normal error is the mean angle in degrees, averaged
over both directions. The intersection over union is a Monte Carlo estimate over a stated number of
points.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.sdf import Sdf
from nstr3d.surface.overlap import common_box, stated_iou
from nstr3d.types import Frame, Mesh, expect

BAND = 0.01  # standard deviation of the points near the surface, in the unit box
TAU = 0.005  # threshold of the F-score, in diagonals of the reference's bounding box
CHUNK = 1 << 16


@dataclass(frozen=True)
class SurfaceComparison:
    """The comparison of two meshes, in their own units, over ``samples`` points on each.

    ``normal_error`` is in degrees.
    """

    chamfer: float
    hausdorff: float
    f_score: float
    normal_error: float
    samples: int


@dataclass(frozen=True)
class Accuracy:
    """The errors of a signed distance, and of the mesh extracted from it, against a reference mesh.

    The volume measures use ``samples`` uniform points in the unit box. The near measures use
    ``samples`` points on the reference, each moved by a Gaussian of standard deviation ``band``.
    The surface measures use ``samples`` points on the reference, and the mesh measures use
    ``samples`` points on each mesh. Distance errors and ``band`` are in units of the unit box;
    ``chamfer``, ``hausdorff`` and ``tau`` are in diagonals of the reference's bounding box. Normal
    errors are in degrees: ``normal_error_field`` of the field's gradient on the reference,
    ``normal_error_mesh`` of the faces of the extracted mesh.

    Where fewer than 100 of the points in the unit box are inside a shape, as for a long rod,
    ``iou_volume`` uses ``samples`` points in the bounding box of both meshes instead. An
    intersection over union is None if even then fewer points are inside; ``iou_volume_failed`` or
    ``iou_near_failed`` is then the reason.
    """

    iou_volume: float | None
    iou_near: float | None
    distance_error_volume: float
    distance_error_near: float
    distance_error_surface: float
    normal_error_field: float
    normal_error_mesh: float
    chamfer: float
    hausdorff: float
    f_score: float
    tau: float
    band: float
    samples: int
    iou_volume_failed: str | None = None
    iou_near_failed: str | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """The figures by name, for a report, with reasons only for those that are None."""
        figures = dataclasses.asdict(self)
        for name in ("iou_volume_failed", "iou_near_failed"):
            if figures[name] is None:
                del figures[name]
        return figures


def chamfer(forward: np.ndarray, backward: np.ndarray) -> float:
    """Chamfer distance: the mean of the two one-sided mean distances.

    ``forward (n,)`` are the distances of samples on A to B, and ``backward (m,)`` are the distances
    of samples on B to A.
    """
    return (float(np.mean(forward)) + float(np.mean(backward))) / 2


def hausdorff(forward: np.ndarray, backward: np.ndarray) -> float:
    """Hausdorff distance over the samples, from the same one-sided distances as `chamfer`."""
    return max(float(np.max(forward)), float(np.max(backward)))


def f_score(forward: np.ndarray, backward: np.ndarray, tau: float) -> float:
    """F-score in [0, 1]: the harmonic mean of precision and recall.

    Precision and recall are the fractions of ``forward`` and ``backward`` below ``tau`` (Knapitsch
    et al., "Tanks and Temples", 2017).
    """
    precision, recall = float(np.mean(forward < tau)), float(np.mean(backward < tau))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mean_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Mean angle in degrees between the rows of ``a`` and ``b (n, d)``.

    Rows of length zero count as 90 degrees.
    """
    return math.degrees(float(np.mean(angles(a, b))))


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles ``(n,)`` in radians between the rows of ``a`` and ``b (n, d)``.

    Rows of length zero count as a right angle.
    """
    # The half-angle form is accurate for small angles; the arc cosine loses half of the digits.
    a_length, b_length = (
        np.linalg.norm(a, axis=1, keepdims=True),
        np.linalg.norm(b, axis=1, keepdims=True),
    )
    scaled_a, scaled_b = a * b_length, b * a_length
    angle = 2 * np.arctan2(
        np.linalg.norm(scaled_a - scaled_b, axis=1), np.linalg.norm(scaled_a + scaled_b, axis=1)
    )
    degenerate = (a_length * b_length)[:, 0] == 0
    return np.where(degenerate, np.pi / 2, angle)


def mean_abs_error(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Mean of ``|estimate - reference|``."""
    return float(np.mean(np.abs(np.subtract(estimate, reference, dtype=np.float64))))


def compare_surfaces(
    mesh: Mesh,
    reference: Mesh,
    distance: MeshDistance,
    generator: np.random.Generator,
    tau: float,
    samples: int = 100_000,
    own: MeshDistance | None = None,
) -> SurfaceComparison:
    """Compare ``mesh`` with ``reference`` over ``samples`` points on each.

    ``distance`` answers exact point queries of ``reference``. ``own`` answers queries of ``mesh``,
    and is built if it is None. ``tau`` is the threshold of the F-score in the meshes' units.
    Distances are exact from each sample to the other mesh. Normals are face normals.
    """
    on_mesh, mesh_faces = sample_surface(mesh, samples, generator)
    on_reference, reference_faces = sample_surface(reference, samples, generator)
    forward, met_reference, _ = distance.nearest(on_mesh)
    backward, met_mesh, _ = (own or MeshDistance(mesh)).nearest(on_reference)
    mesh_normals, reference_normals = face_normals(mesh), face_normals(reference)
    normal_errors = (
        mean_angle(mesh_normals[mesh_faces], reference_normals[met_reference]),
        mean_angle(reference_normals[reference_faces], mesh_normals[met_mesh]),
    )
    return SurfaceComparison(
        chamfer(forward, backward),
        hausdorff(forward, backward),
        f_score(forward, backward, tau),
        sum(normal_errors) / 2,
        samples,
    )


def score(
    sdf: Sdf,
    extracted: Mesh,
    reference: Mesh,
    distance: MeshDistance,
    frame: Frame,
    generator: np.random.Generator,
    samples: int = 100_000,
    own: MeshDistance | None = None,
) -> Accuracy:
    """Compare ``sdf``, and the mesh ``extracted`` from it, with ``reference``.

    ``distance`` is the signed distance of ``reference``. ``own`` is the signed distance of
    ``extracted``, and is built if it is None. All inputs are in world units; ``frame`` places the
    unit box. All random points come from ``generator``. Raises TypeError for objects of other
    types, and ValueError if there are no ``samples``.
    """
    _expect_score(sdf, extracted, reference, distance, frame, generator, samples)
    diagonal = reference.bounds.diagonal
    surfaces = compare_surfaces(
        extracted, reference, distance, generator, TAU * diagonal, samples, own
    )
    volume = frame.to_world(generator.uniform(-1, 1, (samples, 3)))
    surface, faces = sample_surface(reference, samples, generator)
    near = surface + BAND * frame.scale * generator.standard_normal((samples, 3))
    f_volume, d_volume = _in_chunks(sdf, volume), distance(volume)
    f_near, d_near = _in_chunks(sdf, near), distance(near)
    normal_error_field = mean_angle(
        _in_chunks(sdf.gradient, surface), face_normals(reference)[faces]
    )
    iou_volume, volume_failed = stated_iou(f_volume < 0, d_volume < 0)
    if volume_failed:
        # The overlap does not depend on the box that holds both shapes, but the number of points
        # that are inside does.
        box = common_box(extracted, reference)
        within = generator.uniform(box.lower, box.upper, (samples, 3))
        iou_volume, volume_failed = stated_iou(_in_chunks(sdf, within) < 0, distance(within) < 0)
    iou_near, near_failed = stated_iou(f_near < 0, d_near < 0)
    return Accuracy(
        iou_volume=iou_volume,
        iou_near=iou_near,
        distance_error_volume=mean_abs_error(f_volume, d_volume) / frame.scale,
        distance_error_near=mean_abs_error(f_near, d_near) / frame.scale,
        distance_error_surface=mean_abs_error(_in_chunks(sdf, surface), 0 * d_near) / frame.scale,
        normal_error_field=normal_error_field,
        normal_error_mesh=surfaces.normal_error,
        chamfer=surfaces.chamfer / diagonal,
        hausdorff=surfaces.hausdorff / diagonal,
        f_score=surfaces.f_score,
        tau=TAU,
        band=BAND,
        samples=samples,
        iou_volume_failed=volume_failed,
        iou_near_failed=near_failed,
    )


def _expect_score(
    sdf: Any,
    extracted: Any,
    reference: Any,
    distance: Any,
    frame: Any,
    generator: Any,
    samples: Any,
) -> None:
    """Raises the errors of `score` for its arguments."""
    expect(sdf, Sdf, "sdf")
    for mesh, name in ((extracted, "extracted"), (reference, "reference")):
        expect(mesh, Mesh, name)
    if not callable(distance):
        raise TypeError(f"distance must be a function of points, not {type(distance).__name__}.")
    expect(frame, Frame, "frame")
    expect(generator, np.random.Generator, "generator")
    expect(samples, (int, np.integer), "samples")
    if samples < 1:
        raise ValueError(f"a score needs at least 1 sample, not {samples}.")


def _in_chunks(function: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """``function`` of ``points (n, 3)``, computed in chunks to bound the memory."""
    return np.concatenate(
        [function(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)]
    )
