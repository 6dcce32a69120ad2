"""Signed distance to a triangle mesh that may have holes, overlaps and self-contact.

The magnitude is the exact distance to the nearest triangle. The sign comes from the generalised
winding number, which degrades gracefully with holes, overlaps and self-contact (Jacobson et al.,
Robust inside-outside segmentation using generalized winding numbers, 2013; Barill et al., Fast
winding numbers for soups and clouds, 2018).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from nstr3d.geometry.mesh.raycast import MeshCaster
from nstr3d.geometry.mesh.surface import face_normals
from nstr3d.geometry.mesh.topology import directed_edges
from nstr3d.kernels.available import numba_found
from nstr3d.kernels.geometry.plaintriangles import Nearest
from nstr3d.types import Frame, Mesh, expect

if TYPE_CHECKING:
    from nstr3d.sdf import Sdf

# Points per query: few enough to bound temporary memory, enough to keep all threads busy.
CHUNK = 1 << 20
# In units of the longest extent, rounded up to a power of two. Closer to the surface, rounding
# dominates the direction to the nearest point, so the gradient is the face normal.
CONTACT = 1e-9


class MeshDistance:
    """Signed distance to ``mesh`` in the units of the mesh.

    It is negative where the winding number exceeds 1/2, so faces must be oriented outward (`repair`
    ensures it): an inside-out mesh has no inside. Points are ``(n, 3)`` of any float type; results
    are float64. The object holds two search trees, one for the nearest point and one for the
    winding number; each is built at its first use.

    Raises ``ValueError`` if the mesh has no faces, if a vertex is not finite, or if a face refers
    to a vertex that does not exist. Every query raises ``ValueError`` if the points do not have
    shape ``(n, 3)`` or are not finite.
    """

    def __init__(self, mesh: Mesh) -> None:
        expect(mesh, Mesh, "mesh")
        if len(mesh.faces) == 0:
            raise ValueError("the mesh has no faces, so there is no surface to measure from")
        if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
            raise ValueError(
                f"the faces refer to vertices outside 0..{len(mesh.vertices) - 1}; repair the mesh "
                "first"
            )
        if not np.isfinite(mesh.vertices).all():
            raise ValueError("the mesh has vertices that are not finite; remove them first")
        self.mesh = mesh
        bounds = mesh.bounds
        self._centre = bounds.centre
        # The trees work on coordinates of size about 1, so very large or small units are safe.
        # Division by a power of two adds no rounding error.
        self._scale = math.ldexp(1.0, math.frexp(float(bounds.extent.max()))[1])
        self._vertices = np.ascontiguousarray(
            (mesh.vertices - self._centre) / self._scale, np.float64
        )
        self._faces = np.ascontiguousarray(mesh.faces, np.int64)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(n,)`` at ``points (n, 3)``."""
        points = _checked(points)
        return self._signed(points, self._nearest(points))

    def placed(self, mesh: Mesh, frame: Frame) -> MeshDistance:
        """The distance to ``mesh``, a copy of this object's mesh in the world units of ``frame``.

        The values equal those of ``MeshDistance(mesh)`` to rounding. The result shares the search
        trees that this object has built so far.
        """
        moved = copy.copy(self)
        moved.mesh = mesh
        moved._centre = frame.to_world(self._centre)
        moved._scale = self._scale * frame.scale
        return moved

    def unsigned(self, points: np.ndarray) -> np.ndarray:
        """Unsigned distance ``(n,)`` from ``points (n, 3)`` to the nearest triangle."""
        return self.nearest(points)[0]

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest point on the mesh to each of ``points (n, 3)``.

        Returns the distance ``(n,)``, the index ``(n,)`` of the nearest face, and the nearest point
        ``(n, 3)`` on that face.
        """
        hits = self._nearest(_checked(points))
        return hits.distance * self._scale, hits.face, hits.closest * self._scale + self._centre

    def winding(self, points: np.ndarray) -> np.ndarray:
        """Generalised winding number ``(n,)`` at ``points (n, 3)``.

        It is 1 inside, 0 outside, between 0 and 1 near holes, and 2 where two solids overlap.
        """
        points = self._placed(_checked(points))
        # In this order, consecutive points visit the same branches of the tree.
        number, order = np.empty(len(points)), np.argsort(_interleaved(points))
        for rows in _chunks(order):
            number[rows] = self._winding_tree.winding_number(points[rows])
        return number

    def value_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance ``(n,)`` and its unit gradient ``(n, 3)``.

        On the surface the gradient is the normal of the nearest face.
        """
        points = _checked(points)
        hits = self._nearest(points)
        value, away = (
            self._signed(points, hits),
            points - (hits.closest * self._scale + self._centre),
        )
        length = np.linalg.norm(away, axis=1, keepdims=True)
        clear = length > CONTACT * self._scale
        slope = np.divide(
            away, np.copysign(length, value[:, None]), out=np.zeros_like(away), where=clear
        )
        return value, np.where(clear, slope, self._normals[hits.face])

    def sdf(self) -> Sdf:
        """The mesh as an `Sdf` with Lipschitz bound 1.

        It takes torch points and returns distances of the same dtype on the same device. It can be
        differentiated once. Of a closed mesh, pictures cast rays on the triangles.
        """
        from nstr3d.geometry.mesh.meshsdf import sdf_of  # imports torch, which takes a second

        return sdf_of(self)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays first hit the triangles.

        The rays start at ``origins (n, 3)``, outside the mesh, in the unit ``directions (n, 3)``.
        Returns depths ``(n,)``, infinite on a miss, and unit normals ``(n, 3)``, zero on a miss.
        """
        depth, normals = self._caster(self._placed(origins), np.ascontiguousarray(directions))
        return depth * self._scale, normals

    @cached_property
    def _caster(self) -> MeshCaster:
        return MeshCaster(self._vertices, self._faces)

    @cached_property
    def _tree(self) -> Any:
        return _kernels().Triangles(self._vertices[self._faces])

    @cached_property
    def _winding_tree(self) -> Any:
        import igl

        tree = igl.FastWindingNumberBVH()
        tree.init(self._vertices, self._faces)
        return tree

    @cached_property
    def _normals(self) -> np.ndarray:
        return face_normals(Mesh(self._vertices, self._faces))

    @cached_property
    def closed(self) -> bool:
        """Whether every edge has as many faces in one direction as in the other.

        The winding number is then an integer and changes only on the surface.
        """
        start, end, key = directed_edges(self._faces)
        return np.array_equal(np.sort(key[start < end]), np.sort(key[start > end]))

    def _nearest(self, points: np.ndarray) -> Nearest:
        """The nearest triangles of ``points (n, 3)``, in the coordinates of the trees."""
        chunks = [self._tree.nearest(chunk) for chunk in _chunks(self._placed(points))]
        chunks = [
            hits._replace(alike=hits.alike + index * CHUNK) for index, hits in enumerate(chunks)
        ]
        return chunks[0]._make(np.concatenate(parts) for parts in zip(*chunks))

    def _signed(self, points: np.ndarray, hits: Nearest) -> np.ndarray:
        """Signed distance ``(n,)`` in the mesh's units.

        On a closed mesh, points known to lie on the same side share one representative (``alike``),
        and the winding number is computed only for the representatives.
        """
        distance, inside = hits.distance * self._scale, np.zeros(len(points), bool)
        if self.closed:
            asked = np.flatnonzero(hits.alike == np.arange(len(points)))
            inside[asked] = self.winding(points[asked]) > 0.5
            inside = inside[hits.alike]
        else:
            inside = self.winding(points) > 0.5
        return np.where(inside, -distance, distance)

    def _placed(self, points: np.ndarray) -> np.ndarray:
        """``points (n, 3)`` in the coordinates of the trees."""
        return (points - self._centre) / self._scale


def _kernels() -> ModuleType:
    """The module with the search tree and the Hilbert curve: compiled, or plain without numba."""
    if numba_found():
        from nstr3d.kernels.geometry import triangles
    else:
        from nstr3d.kernels.geometry import plaintriangles as triangles
    return triangles


def _chunks(points: np.ndarray) -> Iterator[np.ndarray]:
    """Yields ``points`` in pieces of at most `CHUNK` rows; one empty piece if there are none."""
    for start in range(0, max(len(points), 1), CHUNK):
        yield points[start : start + CHUNK]


def _interleaved(points: np.ndarray) -> np.ndarray:
    """The positions ``(n,)`` uint32 of ``points (n, 3)`` along a Morton curve through [-1, 1]^3:
    the bits of the three coordinates in turn. Points outside are clamped to the cube."""
    cell = ((points + 1) * 512).clip(0, 1023).astype(np.uint32)
    for step, kept in ((16, 0x30000FF), (8, 0x300F00F), (4, 0x30C30C3), (2, 0x9249249)):
        cell = (cell | cell << step) & kept
    return cell[:, 0] | cell[:, 1] << 1 | cell[:, 2] << 2


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must have shape (n, 3), not {points.shape}")
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"point {int(np.argmin(finite))} is not finite; drop such points before asking for "
            "distances"
        )
    return points
