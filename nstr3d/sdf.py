"""`Sdf`: a signed distance in world units, the one thing that extraction, tracing and metrics
consume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.autodiff import gradient
from nstr3d.types import Box, Frame

Points = TypeVar("Points", np.ndarray, Tensor)
# points a field sees at once where no derivative is asked for: bounds memory, stays in cache
CHUNK = 1 << 16


@dataclass(frozen=True)
class Sdf:
    """A signed distance function in world units, negative inside.

    ``distance`` maps torch points ``(n, 3)`` to ``(n,)`` and must be differentiable; ``bounds``
    holds the surface; ``lipschitz`` bounds ``|distance(p) - distance(q)| / |p - q|``: 1 for an
    exact distance, more for a fitted one. ``slope``, where there is a closed form, maps points to
    the gradient ``(n, 3)`` of the distance; otherwise it is differentiated. An analytic shape, a
    baseline and a fitted field are interchangeable here.
    """

    distance: Callable[[Tensor], Tensor]
    bounds: Box
    lipschitz: float = 1.0
    slope: Callable[[Tensor], Tensor] | None = None

    def __call__(self, points: Points) -> Points:
        """Signed distance ``(n,)`` of ``points (n, 3)``: numpy in, numpy out; torch in, torch out
        on the same device."""
        if isinstance(points, np.ndarray):
            with torch.no_grad():
                return (
                    self.distance(torch.from_numpy(np.ascontiguousarray(points)))
                    .detach()
                    .cpu()
                    .numpy()
                )
        return self.distance(points)

    def gradient(self, points: Points) -> Points:
        """Spatial gradient ``(n, 3)``, dimensionless; near 1 in length where the distance is
        good."""
        if isinstance(points, np.ndarray):
            return (
                self.gradient(torch.from_numpy(np.ascontiguousarray(points))).detach().cpu().numpy()
            )
        return gradient(self.distance, points) if self.slope is None else self.slope(points)

    def normals(self, points: Points) -> Points:
        """Unit outward normals ``(n, 3)``; zero where the gradient vanishes."""
        slope = self.gradient(points)
        if isinstance(slope, np.ndarray):
            return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-12)
        return slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def level(self, value: float) -> Sdf:
        """The surface where this distance is ``value``: larger than the zero level set where
        positive, smaller where negative."""
        grown = tuple(np.subtract(self.bounds.lower, max(value, 0.0)).tolist())
        bounds = Box(grown, tuple(np.add(self.bounds.upper, max(value, 0.0)).tolist()))
        return Sdf(lambda points: self.distance(points) - value, bounds, self.lipschitz, self.slope)


def from_field(
    field: nn.Module, frame: Frame, bounds: Box, lipschitz: float, chunk: int = CHUNK
) -> Sdf:
    """The signed distance in world units of a field ``(n, 3) -> (n, 1)`` on the unit box that
    ``frame`` places.

    See `world_distance`; more than ``chunk`` points are evaluated in pieces. Raises ValueError for
    a field of other dimensions.
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
        value, steep = (found.to(unit) for found in answer)
        beyond = unit - inside
        steep = torch.where(
            beyond == 0, steep, 0.0
        )  # the nearest point of the box does not move along those axes
        away = beyond + value.clamp_min(0) * steep
        length = (beyond.square().sum(dim=1, keepdim=True) + value.clamp_min(0).square()).sqrt()
        return torch.where(
            (beyond == 0).all(dim=1, keepdim=True), steep, away / length.clamp_min(1e-30)
        )

    return Sdf(distance, bounds, lipschitz, slope if hasattr(field, "value_and_gradient") else None)


def world_distance(field: nn.Module, frame: Frame, points: Tensor) -> Tensor:
    """Signed distance ``(n,)`` in world units at ``points (n, 3)``, of a field ``(n, 3) -> (n, 1)``
    that ``frame`` places.

    Computed on the field's device in the field's precision, after the frame was applied in the
    points' own; returned in the points' dtype on their device. Outside the unit box, where the
    field is not defined, it is ``sqrt(r^2 + max(f, 0)^2)`` with r the distance to the box and f the
    field at the nearest point of it: never more than the distance to anything inside, so that
    sphere tracing stays safe.
    """
    unit, inside = _placed(frame, points)
    value = field(inside.to(next(field.parameters()))).to(unit)[:, 0]
    gap = (unit - inside).square().sum(dim=1)
    outside = gap > 0
    # The square root's slope at 0 is infinite: keep it away from the points that do not need it.
    beyond = torch.sqrt(torch.where(outside, gap + value.clamp_min(0).square(), 1.0))
    return torch.where(outside, beyond, value) * frame.scale


def _placed(frame: Frame, points: Tensor) -> tuple[Tensor, Tensor]:
    """The points in the unit box's coordinates, and the nearest to them in the box."""
    unit = (points - points.new_tensor(frame.centre)) / frame.scale
    return unit, unit.clamp(-1, 1)
