"""How good is a surface? Closed forms on arrays, and `score`, which puts a fitted field and its
mesh against a reference.

Conventions: Chamfer is the mean of the two one-sided mean distances, unsquared; Hausdorff is over
the samples; the normal error is the mean angle in degrees, both ways; an intersection over union is
by Monte Carlo over points whose number is stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.sdf import Sdf
from nstr3d.types import Frame, Mesh

BAND = 0.01  # standard deviation of the points near the surface, in units of the unit box
TAU = 0.005  # F-score threshold, in diagonals of the reference's bounding box
CHUNK = 1 << 16


@dataclass(frozen=True)
class SurfaceComparison:
    """Two meshes against each other, in their own units, over ``samples`` points on each."""

    chamfer: float
    hausdorff: float
    f_score: float
    normal_error: float
    samples: int


@dataclass(frozen=True)
class Accuracy:
    """A signed distance and the mesh extracted from it against a reference mesh.

    Volume: ``samples`` uniform points in the unit box. Near: ``samples`` points on the reference,
    each moved by a Gaussian of standard deviation ``band``. Surface: ``samples`` points on the
    reference; meshes: ``samples`` on each. Distance errors and ``band`` are in units of the unit
    box; ``chamfer``, ``hausdorff`` and ``tau`` in diagonals of the reference's bounding box; normal
    errors in degrees, of the field's gradient and of the extracted mesh's faces.
    """

    iou_volume: float
    iou_near: float
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


def chamfer(forward: np.ndarray, backward: np.ndarray) -> float:
    """Chamfer distance from the distances of samples on A to B ``(n,)`` and of samples on B to A
    ``(m,)``."""
    return (float(np.mean(forward)) + float(np.mean(backward))) / 2


def hausdorff(forward: np.ndarray, backward: np.ndarray) -> float:
    """Hausdorff distance over the samples, from the same one-sided distances as `chamfer`."""
    return max(float(np.max(forward)), float(np.max(backward)))


def f_score(forward: np.ndarray, backward: np.ndarray, tau: float) -> float:
    """Harmonic mean of the shares of samples nearer than ``tau``, in [0, 1] (Knapitsch et al.,
    "Tanks and Temples", 2017)."""
    precision, recall = float(np.mean(forward < tau)), float(np.mean(backward < tau))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mean_angle(a: np.ndarray, b: np.ndarray) -> float:
    """Mean angle in degrees between the rows of ``a`` and ``b (n, d)``; rows of length zero count
    as 90 degrees off."""
    return math.degrees(float(np.mean(angles(a, b))))


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles ``(n,)`` in radians between the rows of ``a`` and ``b (n, d)``; rows of length zero
    count as a right angle off."""
    # Half-angle form: accurate for small angles, where the arc cosine loses half of the digits.
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


def iou(inside_a: np.ndarray, inside_b: np.ndarray) -> float:
    """Intersection over union from what the same ``n`` points say, ``(n,)`` bool each.

    Raises ValueError where no point is inside either shape: then nothing was measured.
    """
    union = int(np.count_nonzero(inside_a | inside_b))
    if union == 0:
        raise ValueError(
            f"none of {len(inside_a)} points is inside either shape, so their overlap is unknown; "
            "sample near them"
        )
    return int(np.count_nonzero(inside_a & inside_b)) / union


def mean_abs_error(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Mean of ``|estimate - reference|``."""
    return float(np.mean(np.abs(np.subtract(estimate, reference, dtype=np.float64))))


def psnr(estimate: np.ndarray, reference: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(peak^2 / mean squared error)``; infinite where
    they are equal."""
    return _decibels(peak**2, _mean_square(estimate, reference))


def snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, ``10 log10(mean reference^2 / mean squared error)``; infinite
    where they are equal.

    Raises ValueError for a reference that is zero throughout.
    """
    power = _mean_square(reference)
    if power == 0:
        raise ValueError(
            "the reference signal is zero throughout, so a signal-to-noise ratio has no meaning"
        )
    return _decibels(power, _mean_square(estimate, reference))


def compare_surfaces(
    mesh: Mesh,
    reference: Mesh,
    distance: MeshDistance,
    generator: np.random.Generator,
    tau: float,
    samples: int = 100_000,
    own: MeshDistance | None = None,
) -> SurfaceComparison:
    """``mesh`` against ``reference``, whose exact point queries ``distance`` answers, over
    ``samples`` points on each.

    ``own`` answers those of ``mesh``, and is built where it is None. ``tau`` is in the meshes'
    units. Distances are exact from each sample to the other mesh; normals
    are those of the faces.
    """
    on_mesh, mesh_faces = sample_surface(mesh, samples, generator)
    on_reference, reference_faces = sample_surface(reference, samples, generator)
    forward, met_reference, _ = distance.nearest(on_mesh)
    backward, met_mesh, _ = (own or MeshDistance(mesh)).nearest(on_reference)
    mesh_normals, reference_normals = face_normals(mesh), face_normals(reference)
    angles = (
        mean_angle(mesh_normals[mesh_faces], reference_normals[met_reference]),
        mean_angle(reference_normals[reference_faces], mesh_normals[met_mesh]),
    )
    return SurfaceComparison(
        chamfer(forward, backward),
        hausdorff(forward, backward),
        f_score(forward, backward, tau),
        sum(angles) / 2,
        samples,
    )


@dataclass(frozen=True)
class OneSided:
    """Mean distances in diagonals of the reference over ``sides_samples`` points each: from a mesh
    to the reference (``accuracy``) and back (``completeness``), and the shares that are nearer than
    TAU, ``precision`` and ``recall``."""

    accuracy: float
    completeness: float
    precision: float
    recall: float
    sides_samples: int


def one_sided(
    mesh: Mesh,
    reference: Mesh,
    distance: MeshDistance,
    generator: np.random.Generator,
    samples: int = 100_000,
    own: MeshDistance | None = None,
) -> OneSided:
    """``mesh`` against ``reference``, whose exact point queries ``distance`` answers, each way by
    itself. ``own`` answers those of ``mesh``, and is built where it is None."""
    diagonal = reference.bounds.diagonal
    forward = distance.unsigned(sample_surface(mesh, samples, generator)[0]) / diagonal
    on_reference = sample_surface(reference, samples, generator)[0]
    backward = (own or MeshDistance(mesh)).unsigned(on_reference) / diagonal
    return OneSided(
        float(forward.mean()),
        float(backward.mean()),
        float(np.mean(forward < TAU)),
        float(np.mean(backward < TAU)),
        samples,
    )


@dataclass(frozen=True)
class CloudFidelity:
    """A mesh against the points it was made from, in units of ``diagonal``: the ``mean`` and
    ``root_mean_square`` distance of ``points`` points to it, the share of them nearer than ``tau``,
    and the mean distance back from ``points`` samples of it to the nearest point (``gap``), which
    holes make large."""

    mean: float
    root_mean_square: float
    near: float
    gap: float
    tau: float
    diagonal: float
    points: int


def compare_cloud(
    mesh: Mesh,
    points: np.ndarray | Neighbours,
    diagonal: float,
    generator: np.random.Generator,
    samples: int = 100_000,
    own: MeshDistance | None = None,
) -> CloudFidelity:
    """``mesh`` against ``points (n, 3)``, or those that a tree holds, of which at most ``samples``
    are looked at. ``own`` is the distance to ``mesh``, and is built where it is None."""
    tree = Neighbours.of(points)
    points = tree.points
    chosen = (
        points
        if len(points) <= samples
        else points[np.sort(generator.permutation(len(points))[:samples])]
    )
    there = (own or MeshDistance(mesh)).unsigned(chosen) / diagonal
    back = tree.nearest(sample_surface(mesh, len(chosen), generator)[0])[0] / diagonal
    rms = float(np.sqrt(_mean_square(there)))
    return CloudFidelity(
        float(there.mean()),
        rms,
        float(np.mean(there < TAU)),
        float(back.mean()),
        TAU,
        diagonal,
        len(chosen),
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
    """``sdf`` and the mesh ``extracted`` from it against ``reference``, whose signed distance is
    ``distance``. ``own`` is that of ``extracted``, and is built where it is None.

    Everything is in world units; ``frame`` places the unit box. All random points come from
    ``generator``.
    """
    diagonal = reference.bounds.diagonal
    surfaces = compare_surfaces(
        extracted, reference, distance, generator, TAU * diagonal, samples, own
    )
    volume = frame.to_world(generator.uniform(-1, 1, (samples, 3)))
    surface, faces = sample_surface(reference, samples, generator)
    near = surface + BAND * frame.scale * generator.standard_normal((samples, 3))
    f_volume, d_volume = _in_chunks(sdf, volume), distance(volume)
    f_near, d_near = _in_chunks(sdf, near), distance(near)
    return Accuracy(
        iou_volume=iou(f_volume < 0, d_volume < 0),
        iou_near=iou(f_near < 0, d_near < 0),
        distance_error_volume=mean_abs_error(f_volume, d_volume) / frame.scale,
        distance_error_near=mean_abs_error(f_near, d_near) / frame.scale,
        distance_error_surface=mean_abs_error(_in_chunks(sdf, surface), np.zeros(samples))
        / frame.scale,
        normal_error_field=mean_angle(
            _in_chunks(sdf.gradient, surface), face_normals(reference)[faces]
        ),
        normal_error_mesh=surfaces.normal_error,
        chamfer=surfaces.chamfer / diagonal,
        hausdorff=surfaces.hausdorff / diagonal,
        f_score=surfaces.f_score,
        tau=TAU,
        band=BAND,
        samples=samples,
    )


def _in_chunks(function: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """``function`` of ``points (n, 3)``, computed piece by piece to bound the memory that it
    takes."""
    return np.concatenate(
        [function(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)]
    )


def _mean_square(values: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Of ``values``, or of their difference from ``reference``; summed in double precision, piece
    by piece."""
    flat, other = np.ravel(values), None if reference is None else np.ravel(reference)
    total = 0.0
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        if other is not None:
            part -= other[start : start + CHUNK]
        total += float(np.dot(part, part))
    return total / len(flat)


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if noise else math.inf
