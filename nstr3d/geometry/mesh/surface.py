"""Measures of a triangle mesh: normals, areas, volume, uniform samples and the unit-box frame."""

from __future__ import annotations

import numpy as np

from nstr3d.types import Frame, Mesh, expect

# Largest half extent in the unit box: it leaves room for a narrow band around the surface.
UNIT_HALF_EXTENT = 0.9


def normalise(mesh: Mesh) -> tuple[Mesh, Frame]:
    """Places ``mesh`` in the unit box; returns it and the frame that maps it back to world units.

    The bounding box is centred at the origin and its largest half extent becomes 0.9. Raises
    ``TypeError`` for another object than a mesh, and ``ValueError`` if the mesh has no faces or all
    of its vertices coincide.
    """
    expect(mesh, Mesh, "mesh")
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces, so there is nothing to normalise")
    bounds = mesh.bounds
    half_extent = float(bounds.extent.max()) / 2
    if not half_extent > 0:
        raise ValueError(
            "all vertices of the mesh coincide, so it has no size to normalise; check the file"
        )
    frame = Frame(tuple(bounds.centre.tolist()), half_extent / UNIT_HALF_EXTENT)
    return Mesh(frame.to_unit(mesh.vertices), mesh.faces), frame


def face_normals(mesh: Mesh) -> np.ndarray:
    """Unit outward normals ``(f, 3)``; zero where a face has no area."""
    cross = _doubled_area_vectors(mesh)
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    return np.divide(cross, length, out=np.zeros_like(cross), where=length > 0)


def face_areas(mesh: Mesh) -> np.ndarray:
    """Area of every face ``(f,)``, in squared mesh units."""
    return np.linalg.norm(_doubled_area_vectors(mesh), axis=1) / 2


def area(mesh: Mesh) -> float:
    """Total area, in squared mesh units."""
    return float(face_areas(mesh).sum())


def volume(mesh: Mesh) -> float:
    """Enclosed volume of a closed mesh, in cubed mesh units.

    It is positive if the faces are oriented outward.
    """
    centred = mesh.vertices - mesh.bounds.centre
    a, b, c = (np.take(centred, mesh.faces[:, corner], axis=0) for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def volumes(mesh: Mesh, label: np.ndarray) -> np.ndarray:
    """The volume ``(s,)`` that each closed part encloses; ``label (f,)`` is the part of a face.

    Each is measured from a point of the part, so that one far from the others is exact too.
    """
    corners = mesh.corners
    _, first = np.unique(label, return_index=True)
    a, b, c = np.moveaxis(corners - corners[first, :1][label], 1, 0)
    return np.bincount(label, np.einsum("ij,ij->i", a, np.cross(b, c)) / 6)


def sample_surface(
    mesh: Mesh, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws ``count`` uniform surface points ``(count, 3)`` in random order.

    The second result is the face ``(count,)`` of each point. The area is cut into ``count`` equal
    strata with one point in each, so coverage is more even than that of independent draws. Raises
    ``ValueError`` if the mesh has no area.
    """
    reach = np.cumsum(face_areas(mesh))
    if len(reach) == 0 or not reach[-1] > 0:
        raise ValueError("the mesh has no area to sample; repair it first")
    at = (generator.permutation(count) + generator.random(count)) / max(count, 1) * reach[-1]
    # Rounding may make `at` the total itself; side="right" would then pass the last face with area.
    chosen = np.minimum(np.searchsorted(reach, at, side="right"), np.searchsorted(reach, reach[-1]))
    # Folding the unit square onto its lower triangle gives uniform barycentric coordinates.
    weights = generator.random((count, 2))
    weights = np.where(weights.sum(axis=1, keepdims=True) > 1, 1 - weights, weights)
    a, b, c = (mesh.vertices[mesh.faces[chosen, corner]] for corner in range(3))
    return a + weights[:, :1] * (b - a) + weights[:, 1:] * (c - a), chosen


def _doubled_area_vectors(mesh: Mesh) -> np.ndarray:
    a, b, c = (np.take(mesh.vertices, mesh.faces[:, corner], axis=0) for corner in range(3))
    return np.cross(b - a, c - a)
