"""Signed distance to a triangle mesh that need be neither closed nor clean.

The magnitude is the exact distance to the nearest triangle; the sign comes from the generalised
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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nstr3d.geometry.mesh.surface import face_normals
from nstr3d.geometry.mesh.topology import directed_edges
from nstr3d.kernels.available import numba_found
from nstr3d.kernels.geometry.plaintriangles import Nearest
from nstr3d.sdf import Sdf
from nstr3d.types import Frame, Mesh

# Points per query: bounds the temporaries without starving the threads.
CHUNK = 1 << 20
# In extents of the mesh: nearer than this, rounding decides where the nearest point lies, so the
# face normal is used.
CONTACT = 1e-9


class MeshDistance:
    """Signed distance to ``mesh`` in its own units, negative where the winding number exceeds 1/2.

    Faces must look outward (`repair` sees to it): an inside-out mesh has no inside. Holds one
    search tree for each of nearest point and winding number, built when first asked for. Points are
    ``(n, 3)`` of any float type; results float64. Raises ``ValueError`` for a mesh without faces,
    with non-finite vertices or with faces out of range, and for points of another shape or not
    finite.
    """

    def __init__(self, mesh: Mesh) -> None:
        if len(mesh.faces) == 0:
            raise ValueError("the mesh has no faces, so there is no surface to measure from")
        if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
            raise ValueError(
                f"the faces name vertices outside 0..{len(mesh.vertices) - 1}; repair the mesh "
                "first"
            )
        if not np.isfinite(mesh.vertices).all():
            raise ValueError("the mesh has vertices that are not finite; remove them first")
        self.mesh = mesh
        bounds = mesh.bounds
        self._centre = bounds.centre
        # The trees work at size ~1, so absurd units are safe; a power of two makes the scaling
        # itself free of rounding.
        self._scale = math.ldexp(1.0, math.frexp(float(bounds.extent.max()))[1])
        self._vertices = np.ascontiguousarray(
            (mesh.vertices - self._centre) / self._scale, np.float64
        )
        self._faces = np.ascontiguousarray(mesh.faces, np.int64)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(n,)``."""
        points = _checked(points)
        return self._signed(points, self._nearest(points))

    def placed(self, mesh: Mesh, frame: Frame) -> MeshDistance:
        """The distance to ``mesh``, which is this one's in the world units of ``frame``: equal to
        rounding, and answered by the trees that this one has built by now."""
        moved = copy.copy(self)
        moved.mesh = mesh
        moved._centre = frame.to_world(self._centre)
        moved._scale = self._scale * frame.scale
        return moved

    def unsigned(self, points: np.ndarray) -> np.ndarray:
        """Distance to the nearest triangle ``(n,)``."""
        return self.nearest(points)[0]

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance ``(n,)``, index of the nearest face ``(n,)`` and the point nearest on it ``(n,
        3)``."""
        found = self._nearest(_checked(points))
        return found.distance * self._scale, found.face, found.closest * self._scale + self._centre

    def winding(self, points: np.ndarray) -> np.ndarray:
        """Generalised winding number ``(n,)``: 1 inside, 0 outside, in between near holes, 2 where
        solids overlap."""
        points = self._placed(_checked(points))
        number, order = (
            np.empty(len(points)),
            np.argsort(_kernels().along(points)),
        )  # neighbours in space walk the same branches
        for rows in _chunks(order):
            number[rows] = self._winding_tree.winding_number(points[rows])
        return number

    def value_and_gradient(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance ``(n,)`` and its unit gradient ``(n, 3)``; on the surface, the normal of
        the nearest face."""
        points = _checked(points)
        found = self._nearest(points)
        value, away = (
            self._signed(points, found),
            points - (found.closest * self._scale + self._centre),
        )
        length = np.linalg.norm(away, axis=1, keepdims=True)
        clear = length > CONTACT * self._scale
        slope = np.divide(
            away, np.copysign(length, value[:, None]), out=np.zeros_like(away), where=clear
        )
        return value, np.where(clear, slope, self._normals[found.face])

    def sdf(self) -> Sdf:
        """The mesh as an `Sdf`: torch in and out, same device and dtype, with one derivative;
        Lipschitz bound 1."""

        def distance(points: Tensor) -> Tensor:
            return _Distance.apply(points, self)  # type: ignore[return-value]

        return Sdf(distance, self.mesh.bounds, lipschitz=1.0)

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
    def _closed(self) -> bool:
        """Whether the faces' edges cancel: then the winding number is whole and changes nowhere but
        on the surface."""
        start, end, key = directed_edges(self._faces)
        return np.array_equal(np.sort(key[start < end]), np.sort(key[start > end]))

    def _nearest(self, points: np.ndarray) -> Nearest:
        """As the tree says, in its units."""
        chunks = [self._tree.nearest(chunk) for chunk in _chunks(self._placed(points))]
        chunks = [
            found._replace(alike=found.alike + index * CHUNK) for index, found in enumerate(chunks)
        ]
        return chunks[0]._make(np.concatenate(parts) for parts in zip(*chunks))

    def _signed(self, points: np.ndarray, found: Nearest) -> np.ndarray:
        """The signed distance; where one point can answer for others on its side, only that one's
        winding number is computed."""
        distance, inside = found.distance * self._scale, np.zeros(len(points), bool)
        if self._closed:
            asked = np.flatnonzero(found.alike == np.arange(len(points)))
            inside[asked] = self.winding(points[asked]) > 0.5
            inside = inside[found.alike]
        else:
            inside = self.winding(points) > 0.5
        return np.where(inside, -distance, distance)

    def _placed(self, points: np.ndarray) -> np.ndarray:
        """Points in the trees' coordinates."""
        return (points - self._centre) / self._scale


def _kernels() -> ModuleType:
    """The search tree and the curve: compiled, or their twins where numba is absent."""
    if numba_found():
        from nstr3d.kernels.geometry import triangles
    else:
        from nstr3d.kernels.geometry import plaintriangles as triangles
    return triangles


def _chunks(points: np.ndarray) -> Iterator[np.ndarray]:
    """At least one."""
    for start in range(0, max(len(points), 1), CHUNK):
        yield points[start : start + CHUNK]


class _Distance(torch.autograd.Function):
    """`MeshDistance` on tensors: the trees run on the CPU in double precision whatever the tensor
    is."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, distance: MeshDistance) -> Tensor:
        at = points.detach().cpu().double().numpy()
        if not ctx.needs_input_grad[0]:
            return torch.from_numpy(distance(at)).to(points)
        value, slope = distance.value_and_gradient(at)
        ctx.save_for_backward(torch.from_numpy(slope).to(points))
        return torch.from_numpy(value).to(points)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return upstream[:, None] * slope, None


def _checked(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points have shape (n, 3), not {points.shape}")
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"point {int(np.argmin(finite))} is not finite; drop such points before asking for "
            "distances"
        )
    return points
