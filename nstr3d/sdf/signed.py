"""`Sdf`, a signed distance in world units: the input of isosurface extraction, sphere tracing and
metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.autodiff import gradient
from nstr3d.sdf.above import above
from nstr3d.sdf.algebra import Algebra
from nstr3d.sdf.queries import Queries
from nstr3d.sdf.recipe import Recipe
from nstr3d.types import Box, Frame, expect

Points = TypeVar("Points", np.ndarray, Tensor)
# Points that a field evaluates at once without derivatives. It bounds memory and fits the cache.
CHUNK = 1 << 16
ROUNDING = 1e-6  # unit box; a rounding error of a frame's centre below it does not show


@dataclass(frozen=True)
class Sdf(Queries, Algebra):
    """A signed distance function in world units, negative inside.

    ``distance`` maps torch points ``(n, 3)`` to ``(n,)`` and must be differentiable. ``bounds``
    contains the surface. ``lipschitz`` bounds ``|distance(p) - distance(q)| / |p - q|``: 1 for an
    exact distance, more for a fitted one. The optional ``both`` maps points to the distance and its
    gradient ``(n, 3)`` in closed form, detached; without it, autograd differentiates ``distance``.
    ``recipe`` says how the distance was made, if it can be saved. An analytic shape, a baseline, a
    fitted field and a combination of them are interchangeable as an `Sdf`.
    """

    distance: Callable[[Tensor], Tensor]
    bounds: Box
    lipschitz: float = 1.0
    both: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    recipe: Recipe | None = dataclass_field(default=None, compare=False, repr=False)

    def __call__(self, points: Points) -> Points:
        """Signed distance ``(n,)`` at world ``points (n, 3)``: a numpy array for numpy points, a
        torch tensor on the same device for torch points. Raises TypeError for other objects, and
        ValueError for points of another shape."""
        points = self.checked(points)
        if isinstance(points, np.ndarray):
            with torch.no_grad():
                return self.distance(torch.from_numpy(points)).detach().cpu().numpy()
        return self.distance(points)

    def gradient(self, points: Points) -> Points:
        """Spatial gradient ``(n, 3)``, dimensionless. It has length 1 for an exact distance. Raises
        the errors of a call."""
        points = self.checked(points)
        if isinstance(points, np.ndarray):
            return self.gradient(torch.from_numpy(points)).detach().cpu().numpy()
        if not points.is_floating_point():
            points = points.to(torch.get_default_dtype())
        if self.both is None:
            return gradient(self.distance, points)
        return self.both(points.detach())[1]

    def value_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance ``(n,)`` and gradient ``(n, 3)`` at torch points of floats ``(n, 3)``,
        detached."""
        if self.both is not None:
            return self.both(points.detach())
        with torch.enable_grad():
            at = points.detach().requires_grad_(True)
            value = self.distance(at)
            return value.detach(), torch.autograd.grad(value.sum(), at)[0]

    def normals(self, points: Points) -> Points:
        """Unit outward normals ``(n, 3)``, zero where the gradient vanishes. Raises the errors of a
        call."""
        slope = self.gradient(points)
        if isinstance(slope, np.ndarray):
            return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-12)
        return slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def _repr_png_(self) -> bytes | None:
        """A small picture, which a notebook shows; None if there is nothing to draw."""
        return above("view.notebook").png_of(self)

    def checked(self, points: Points) -> Points:
        """``points``, as a contiguous array of a type that torch has if they are NumPy's. Raises
        the errors of a call."""
        expect(points, (np.ndarray, Tensor), "points")
        width = len(self.bounds.lower)
        if points.ndim != 2 or points.shape[1] != width:
            raise ValueError(f"points must have the shape (n, {width}), not {tuple(points.shape)}.")
        if isinstance(points, Tensor):
            if points.is_complex() or points.dtype == torch.bool:
                raise TypeError(f"points must be real numbers, not of the type {points.dtype}.")
            return points
        if points.dtype.kind not in "iuf":
            raise TypeError(f"points must be real numbers, not of the type {points.dtype}.")
        if points.dtype not in (np.float16, np.float32, np.float64):
            points = points.astype(np.float64)
        return np.ascontiguousarray(points)


def from_field(
    field: nn.Module, frame: Frame, bounds: Box, lipschitz: float, chunk: int = CHUNK
) -> Sdf:
    """The signed distance in world units of a field ``(n, 3) -> (n, 1)`` on the unit box.

    ``frame`` maps the unit box to the world; see `world_distance`. More than ``chunk`` points are
    evaluated in pieces unless they require a gradient. Raises ValueError for a field of other
    dimensions.
    """
    if getattr(field, "in_dim", 3) != 3 or getattr(field, "out_dim", 1) != 1:
        raise ValueError(
            f"A surface needs a field from 3 dimensions to 1 value, not {field.in_dim} to "
            f"{field.out_dim}."
        )

    def distance(points: Tensor) -> Tensor:
        if not points.is_floating_point():
            points = points.to(torch.get_default_dtype())
        if len(points) <= chunk or (points.requires_grad and torch.is_grad_enabled()):
            return world_distance(field, frame, points)
        return torch.cat([world_distance(field, frame, piece) for piece in points.split(chunk)])

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        unit, inside = _placed(frame, points)
        at = inside.to(next(field.parameters()))
        answer = field.value_and_gradient(at)  # type: ignore[operator]
        value, steep = (tensor.to(unit) for tensor in answer)
        beyond = unit - inside
        steep = torch.where(
            beyond == 0, steep, 0.0
        )  # along the other axes the nearest point of the box does not move
        away = beyond + value.clamp_min(0) * steep
        length = (beyond.square().sum(dim=1, keepdim=True) + value.clamp_min(0).square()).sqrt()
        within = (beyond == 0).all(dim=1, keepdim=True)
        slope = torch.where(within, steep, away / length.clamp_min(1e-30))
        return torch.where(within, value, length)[:, 0] * frame.scale, slope

    return Sdf(distance, bounds, lipschitz, both if hasattr(field, "value_and_gradient") else None)


def world_distance(field: nn.Module, frame: Frame, points: Tensor) -> Tensor:
    """Signed distance ``(n,)`` in world units of a field ``(n, 3) -> (n, 1)`` at ``points (n, 3)``.

    ``frame`` maps the unit box of the field to the world. The frame is applied in the points'
    dtype; the field is evaluated on its own device in its own dtype; the result has the dtype and
    device of the points. The field is not defined outside the unit box. There the distance is
    ``sqrt(r^2 + max(f, 0)^2)``, where r is the distance to the box and f is the field at the
    nearest point of the box. For an exact f, this is at most the distance to any surface in the
    box, so sphere tracing stays safe.
    """
    unit, inside = _placed(frame, points)
    value = field(inside.to(next(field.parameters()))).to(unit)[:, 0]
    gap = (unit - inside).square().sum(dim=1)
    outside = gap > 0
    # The slope of the square root is infinite at 0, so points inside the box get the constant 1.
    beyond = torch.sqrt(torch.where(outside, gap + value.clamp_min(0).square(), 1.0))
    return torch.where(outside, beyond, value) * frame.scale


def _placed(frame: Frame, points: Tensor) -> tuple[Tensor, Tensor]:
    """The points in unit-box coordinates, and the nearest point of the unit box to each."""
    moved = points - points.new_tensor(frame.centre)
    if points.dtype == torch.float32:
        # Far from the origin the centre itself is rounded. There the difference is exact, and what
        # rounding took from the centre is subtracted from it.
        rest = np.subtract(frame.centre, np.asarray(frame.centre, np.float32))
        if np.abs(rest).max() > ROUNDING * frame.scale:
            moved = moved - points.new_tensor(rest.tolist())
    unit = moved / frame.scale
    return unit, unit.clamp(-1, 1)
