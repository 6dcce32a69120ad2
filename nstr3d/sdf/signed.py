"""`Sdf`, a signed distance in world units: the input of isosurface extraction, sphere tracing and
metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.autodiff import gradient
from nstr3d.sdf.above import above
from nstr3d.sdf.algebra import Algebra
from nstr3d.sdf.queries import Queries
from nstr3d.sdf.recipe import Recipe
from nstr3d.types import Box, Frame, Rays, expect

Points = TypeVar("Points", np.ndarray, Tensor)
# Points that a field evaluates at once without derivatives. It bounds memory and fits the cache.
CHUNK = 1 << 16
SIDE = 12  # points along a face of the unit box, from which the surface is seen from outside
TURNS = 3  # corrections of the point at which the way from outside enters the unit box
PIECE = 1 << 13  # points outside the unit box that are compared with those of its faces at once


@dataclass(frozen=True)
class Sdf(Queries, Algebra):
    """A signed distance function in world units, negative inside.

    ``distance`` maps torch points ``(n, 3)`` to ``(n,)`` and must be differentiable. ``bounds``
    contains the surface. ``lipschitz`` bounds ``|distance(p) - distance(q)| / |p - q|``: 1 for an
    exact distance, more for a fitted one. The optional ``both`` maps points to the distance and its
    gradient ``(n, 3)`` in closed form, detached; without it, autograd differentiates ``distance``.
    ``below`` maps points to a value ``(n,)`` of the same sign that, over ``lipschitz``, exceeds the
    distance to the surface nowhere; without it, ``distance`` is such a value. ``cast`` maps rays to
    the depths ``(n,)`` of their first hits, infinite on a miss, and to the normals ``(n, 3)`` of
    shading there; without it, pictures are sphere traced. ``paint`` maps points on the surface to
    their display RGB ``(n, 3)`` in [0, 1], if the shape has colours. ``recipe`` says how the
    distance was made, if it can be saved. An analytic shape, a baseline, a fitted field and a
    combination of them are interchangeable as an `Sdf`.
    """

    distance: Callable[[Tensor], Tensor]
    bounds: Box
    lipschitz: float = 1.0
    both: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    below: Callable[[Tensor], Tensor] | None = None
    cast: Callable[[Rays], tuple[Tensor, Tensor]] | None = None
    paint: Callable[[Tensor], Tensor] | None = None
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
        return _differentiated(self.distance, points)

    def bound(self, points: Tensor) -> Tensor:
        """A value ``(n,)`` at torch ``points (n, 3)`` that, over ``lipschitz``, never exceeds the
        distance to the surface: what a step along a ray may rely on."""
        return self.distance(points) if self.below is None else self.below(points)

    def bound_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`bound` ``(n,)`` and its gradient ``(n, 3)`` at torch points of floats ``(n, 3)``,
        detached."""
        if self.below is None:
            return self.value_and_gradient(points)
        return _differentiated(self.below, points)

    def normals(self, points: Points) -> Points:
        """Unit outward normals ``(n, 3)``, zero where the gradient vanishes. Raises the errors of a
        call."""
        slope = self.gradient(points)
        if isinstance(slope, np.ndarray):
            return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-12)
        return slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def colour(self, points: Points) -> Points:
        """Display RGB ``(n, 3)`` in [0, 1] at the surface points closest to ``points (n, 3)``, so
        that it is constant along normals. Raises ValueError if the shape has no colours, and the
        errors of `closest_points`."""
        if self.paint is None:
            raise ValueError("This shape has no colours; fit a file that has them.")
        on = self.closest_points(self.checked(points)).points
        if isinstance(on, Tensor):
            return self.paint(on)
        with torch.no_grad():
            return self.paint(torch.from_numpy(on)).cpu().numpy()

    def __repr__(self) -> str:
        lower, upper = (
            " ".join(f"{float(value):.4g}" for value in corner)
            for corner in (self.bounds.lower, self.bounds.upper)
        )
        return f"<Sdf in the box ({lower}) to ({upper}), Lipschitz bound {self.lipschitz:.3g}>"

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
    field: nn.Module,
    frame: Frame,
    bounds: Box,
    lipschitz: float,
    chunk: int = CHUNK,
    fit: Any = None,
) -> Sdf:
    """The signed distance in world units of a field ``(n, 3) -> (n, 1)`` on the unit box.

    ``frame`` maps the unit box to the world; see `world_distance`. More than ``chunk`` points are
    evaluated in pieces unless they require a gradient. ``fit`` is the `nstr3d.training.fit.Fit`
    that saving writes. Raises ValueError for a field of other dimensions.
    """
    if getattr(field, "in_dim", 3) != 3 or getattr(field, "out_dim", 1) != 1:
        raise ValueError(
            f"A surface needs a field from 3 dimensions to 1 value, not {field.in_dim} to "
            f"{field.out_dim}."
        )

    def chunked(
        function: Callable[[nn.Module, Frame, Tensor], Tensor],
    ) -> Callable[[Tensor], Tensor]:
        def values(points: Tensor) -> Tensor:
            if not points.is_floating_point():
                points = points.to(torch.get_default_dtype())
            if len(points) <= chunk or (points.requires_grad and torch.is_grad_enabled()):
                return function(field, frame, points)
            return torch.cat([function(field, frame, piece) for piece in points.split(chunk)])

        return values

    def closed(points: Tensor) -> tuple[Tensor, Tensor]:
        unit, inside = placed(frame, points)
        value, steep = _value_and_gradient(field, inside)
        outside = (unit != inside).any(dim=1)
        if outside.any():
            value[outside], steep[outside] = _extended(field, unit[outside])
        return value * frame.scale, steep

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = zip(*map(closed, points.split(chunk)))
        return torch.cat(value), torch.cat(slope)

    made = both if hasattr(field, "value_and_gradient") else None
    recipe = None if fit is None else Recipe("fit", {"fit": fit})
    below = chunked(world_bound)
    return Sdf(chunked(world_distance), bounds, lipschitz, made, below, recipe=recipe)


def world_distance(field: nn.Module, frame: Frame, points: Tensor) -> Tensor:
    """Signed distance ``(n,)`` in world units of a field ``(n, 3) -> (n, 1)`` at ``points (n, 3)``.

    ``frame`` maps the unit box of the field to the world. The frame is applied in the points'
    dtype; the field is evaluated on its own device in its own dtype; the result has the dtype and
    device of the points. The field is not defined outside the unit box. There the distance is the
    least sum of the way to a point of the box and the field at that point, over the points that a
    short search finds. For an exact field it is at least the distance, and it is the distance where
    the search ends at the surface's nearest point. Its derivative there is in the points alone, not
    in the field's parameters.
    """
    unit, inside = placed(frame, points)
    if torch.equal(unit, inside):
        return field(inside.to(next(field.parameters()))).to(unit)[:, 0] * frame.scale
    outside = (unit != inside).any(dim=1)
    value = field(inside[~outside].to(next(field.parameters()))).to(unit)[:, 0]
    beyond, steep = _extended(field, unit[outside].detach())
    if unit.requires_grad:
        beyond = beyond + ((unit - unit.detach())[outside] * steep).sum(dim=1)
    whole = unit.new_zeros(len(unit)).masked_scatter(~outside, value)
    return whole.masked_scatter(outside, beyond) * frame.scale


def world_bound(field: nn.Module, frame: Frame, points: Tensor) -> Tensor:
    """A lower bound ``(n,)`` of the distance in world units: as `world_distance`, but outside the
    unit box ``sqrt(r^2 + max(f, 0)^2)``, where r is the distance to the box and f is the field at
    the nearest point of the box.

    For an exact f, this is at most the distance to any surface in the box, so sphere tracing stays
    safe.
    """
    unit, inside = placed(frame, points)
    value = field(inside.to(next(field.parameters()))).to(unit)[:, 0]
    # Inside the box the rest changes nothing. The host would have to wait for a GPU's answer to the
    # question, and an exported graph cannot ask it.
    on_cpu = unit.device.type == "cpu"
    asked = on_cpu and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
    if asked and torch.equal(unit, inside):
        return value * frame.scale
    gap = (unit - inside).square().sum(dim=1)
    outside = gap > 0
    # The slope of the square root is infinite at 0, so points inside the box get the constant 1.
    beyond = torch.sqrt(torch.where(outside, gap + value.clamp_min(0).square(), 1.0))
    return torch.where(outside, beyond, value) * frame.scale


@torch.no_grad()
def _extended(field: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    """The distance ``(n,)`` of a field and its gradient ``(n, 3)`` at ``points (n, 3)`` outside
    the unit box.

    The straight way from a point to the surface enters the box at some q. There the field knows how
    far the surface is, and its gradient where. The search starts at the nearest point of the box,
    and on the way to the part of the surface that is nearest among those seen from the faces.
    """
    seen = _foot(field, _faces().to(points))[1]
    nearest = [torch.cdist(piece, seen).argmin(dim=1) for piece in points.split(PIECE)]
    best, steep = torch.full_like(points[:, 0], torch.inf), torch.zeros_like(points)
    for at in (points.clamp(-1, 1), _entry(points, seen[torch.cat(nearest)])):
        for _ in range(TURNS):
            value, foot = _foot(field, at)
            total = (points - at).norm(dim=1) + value
            better = total < best
            best = torch.where(better, total, best)
            away = torch.nn.functional.normalize(points - foot, dim=1)
            steep = torch.where(better[:, None], away, steep)
            at = _entry(points, foot)
    return best, steep


def _foot(field: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    """The distance ``(n,)`` to the surface, and the point of it ``(n, 3)`` that a step of this
    length along the gradient reaches, clipped to the box."""
    value, slope = _value_and_gradient(field, points)
    value = value.clamp_min(0)
    step = value[:, None] * torch.nn.functional.normalize(slope, dim=1)
    return value, (points - step).clamp(-1, 1)


def _entry(points: Tensor, targets: Tensor) -> Tensor:
    """Where the ways from ``points (n, 3)`` outside the unit box to ``targets`` in it enter it."""
    ahead = (points.abs() - 1).clamp_min(0)
    share = torch.where(ahead > 0, ahead / (points - targets).abs(), 0.0).amax(dim=1, keepdim=True)
    return torch.lerp(points, targets, share).clamp(-1, 1)


def _faces() -> Tensor:
    """Points ``(6 * SIDE^2, 3)`` on the faces of the unit box, at the centres of squares."""
    middles = (torch.arange(SIDE, dtype=torch.float64) + 0.5) * (2 / SIDE) - 1
    sides = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    face = torch.cartesian_prod(sides, middles, middles)
    return torch.cat([face.roll(axis, dims=1) for axis in range(3)])


def _value_and_gradient(field: nn.Module, points: Tensor) -> tuple[Tensor, Tensor]:
    """The field ``(n,)`` and its gradient ``(n, 3)`` at points of the unit box, of their dtype."""
    at = points.to(next(field.parameters()))
    if hasattr(field, "value_and_gradient"):
        value, slope = field.value_and_gradient(at)  # type: ignore[operator]
    else:
        value, slope = field(at), gradient(field, at)
    return value[:, 0].detach().to(points), slope.to(points)


def _differentiated(function: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
    """The values ``(n,)`` of ``function`` and their gradient ``(n, 3)``, detached."""
    with torch.enable_grad():
        at = points.detach().requires_grad_(True)
        value = function(at)
        return value.detach(), torch.autograd.grad(value.sum(), at)[0]


def placed(frame: Frame, points: Tensor) -> tuple[Tensor, Tensor]:
    """The points in unit-box coordinates, and the nearest point of the unit box to each."""
    if points.device.type == "cpu":
        nearest, lost = _centre(frame.centre, points.dtype)
    else:
        nearest, lost = _centre_on(frame.centre, points.dtype, points.device)
    moved = points - nearest
    if lost is not None:
        moved = moved - lost
    unit = moved / frame.scale
    return unit, unit.clamp(-1, 1)


def _centre(centre: tuple[float, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """A frame's centre in ``dtype``, and what rounding took from it; None for float64.

    Far from the origin the centre itself is rounded. There the difference of a point and the
    centre is exact, and what rounding took from the centre is subtracted from it.
    """
    exact = torch.tensor(centre, dtype=torch.float64)
    nearest = exact.to(dtype)
    return nearest, None if dtype == torch.float64 else (exact - nearest.double()).to(dtype)


@lru_cache(maxsize=64)
def _centre_on(
    centre: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """`_centre` on a GPU, kept, so that no query copies it there."""
    with torch.inference_mode(False), torch.no_grad():
        nearest, lost = _centre(centre, dtype)
        return nearest.to(device), None if lost is None else lost.to(device)
