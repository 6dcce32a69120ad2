"""`Sdf`, a signed distance in world units: the input of isosurface extraction, sphere tracing and
metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.autodiff import gradient
from nstr3d.types import Box, Frame, Rays, expect

Points = TypeVar("Points", np.ndarray, Tensor)
# Points that a field evaluates at once without derivatives. It bounds memory and fits the cache.
CHUNK = 1 << 16
ROUNDING = 1e-6  # unit box; a rounding error of a frame's centre below it does not show


@dataclass(frozen=True)
class Sdf:
    """A signed distance function in world units, negative inside.

    ``distance`` maps torch points ``(n, 3)`` to ``(n,)`` and must be differentiable. ``bounds``
    contains the surface. ``lipschitz`` bounds ``|distance(p) - distance(q)| / |p - q|``: 1 for an
    exact distance, more for a fitted one. The optional ``slope`` maps points to the gradient
    ``(n, 3)`` of the distance in closed form; without it, autograd differentiates ``distance``. The
    optional ``cast`` maps rays to the depths ``(n,)`` of their first hits, infinite on a miss, and
    to the normals ``(n, 3)`` of shading there; without it, pictures are sphere traced. An analytic
    shape, a baseline and a fitted field are interchangeable as an `Sdf`.
    """

    distance: Callable[[Tensor], Tensor]
    bounds: Box
    lipschitz: float = 1.0
    slope: Callable[[Tensor], Tensor] | None = None
    cast: Callable[[Rays], tuple[Tensor, Tensor]] | None = None

    def __call__(self, points: Points) -> Points:
        """Signed distance ``(n,)`` at world ``points (n, 3)``: a numpy array for numpy points, a
        torch tensor on the same device for torch points. Raises TypeError for other objects, and
        ValueError for points of another shape."""
        points = self._checked(points)
        if isinstance(points, np.ndarray):
            with torch.no_grad():
                return self.distance(torch.from_numpy(points)).detach().cpu().numpy()
        return self.distance(points)

    def gradient(self, points: Points) -> Points:
        """Spatial gradient ``(n, 3)``, dimensionless. It has length 1 for an exact distance. Raises
        the errors of a call."""
        points = self._checked(points)
        if isinstance(points, np.ndarray):
            return self.gradient(torch.from_numpy(points)).detach().cpu().numpy()
        if not points.is_floating_point():
            points = points.to(torch.get_default_dtype())
        return gradient(self.distance, points) if self.slope is None else self.slope(points)

    def normals(self, points: Points) -> Points:
        """Unit outward normals ``(n, 3)``, zero where the gradient vanishes. Raises the errors of a
        call."""
        slope = self.gradient(points)
        if isinstance(slope, np.ndarray):
            return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-12)
        return slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def level(self, value: float) -> Sdf:
        """The signed distance minus ``value``, in world units. Its surface is the level set at
        ``value``, which grows for a positive ``value`` and shrinks for a negative one. Raises
        TypeError if it is no number, and ValueError if it is not finite."""
        expect(value, (int, float, np.number), "the value of a level set")
        if not math.isfinite(value):
            raise ValueError(f"the value of a level set must be finite, not {value}.")
        grown = tuple(np.subtract(self.bounds.lower, max(value, 0.0)).tolist())
        bounds = Box(grown, tuple(np.add(self.bounds.upper, max(value, 0.0)).tolist()))
        return Sdf(lambda points: self.distance(points) - value, bounds, self.lipschitz, self.slope)

    def _repr_png_(self) -> bytes | None:
        """A small picture, which a notebook shows; None if there is nothing to draw."""
        # The package that draws stands above this module, so that only the call imports it.
        return import_module("nstr3d.view.notebook").png_of(self)

    def _checked(self, points: Points) -> Points:
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

    def slope(points: Tensor) -> Tensor:
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
        return torch.where(
            (beyond == 0).all(dim=1, keepdim=True), steep, away / length.clamp_min(1e-30)
        )

    return Sdf(distance, bounds, lipschitz, slope if hasattr(field, "value_and_gradient") else None)


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
    if not (unit.is_cuda or torch.is_grad_enabled()) and torch.equal(unit, inside):
        return value * frame.scale  # the same, sooner; a GPU would have to wait for the answer
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
