"""Metrics of surfaces of scans: against their points, and against a reference in each direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.surface.metrics import TAU
from nstr3d.types import Mesh


@dataclass(frozen=True)
class OneSided:
    """The one-sided distances between a mesh and a reference, in diagonals of the reference.

    ``accuracy`` is the mean distance from the mesh to the reference, and ``completeness`` is the
    mean distance back. ``precision`` and ``recall`` are the fractions of these distances below TAU.
    ``sides_samples`` points are drawn on each mesh.
    """

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
    """Measure the distances from ``mesh`` to ``reference`` and back separately.

    ``distance`` answers exact point queries of ``reference``. ``own`` answers queries of ``mesh``,
    and is built if it is None. ``samples`` points are drawn on each mesh.
    """
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
    """The distances between a mesh and the points that it was made from, in units of ``diagonal``.

    ``mean`` and ``root_mean_square`` are over the distances of ``points`` points to the mesh, and
    ``near`` is the fraction of these distances below ``tau``. ``gap`` is the mean distance from as
    many samples of the mesh to the nearest point; holes in the points make it large.
    """

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
    """Compare ``mesh`` with ``points (n, 3)``, an array or a search tree.

    ``generator`` draws ``samples`` of the points if there are more. ``diagonal`` is the unit of the
    result, in world units. ``own`` is the distance to ``mesh``, and is built if it is None.
    """
    tree = Neighbours.of(points)
    points = tree.points
    chosen = (
        points
        if len(points) <= samples
        else points[np.sort(generator.permutation(len(points))[:samples])]
    )
    there = (own or MeshDistance(mesh)).unsigned(chosen) / diagonal
    back = tree.nearest(sample_surface(mesh, len(chosen), generator)[0])[0] / diagonal
    rms = float(np.sqrt(np.mean(there**2)))
    return CloudFidelity(
        float(there.mean()),
        rms,
        float(np.mean(there < TAU)),
        float(back.mean()),
        TAU,
        diagonal,
        len(chosen),
    )
