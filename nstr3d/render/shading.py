"""Shadings, which turn the surface points that a camera sees into colours.

A shading is a frozen dataclass with ``colours(seen: Surface) -> (n, 3)``, display RGB in [0, 1]. It
works with any `Sdf`. Users can add shadings of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nstr3d.io.meshformats import CLAY
from nstr3d.render.clearance import clearance
from nstr3d.render.colours import BLUE_TO_RED, GAMMA, colour_map, display
from nstr3d.render.shadow import Shadow
from nstr3d.render.softlight import SoftLight
from nstr3d.sdf import Sdf
from nstr3d.surface.curvature import curvatures_at
from nstr3d.surface.emptyspace import EmptySpace

Vector = tuple[float, float, float]
LIFT = 0.004  # diagonals; height above the surface from which a light is looked for


@dataclass(frozen=True)
class Surface:
    """The points of ``sdf`` that a camera sees.

    ``points (n, 3)`` have unit outward ``normals (n, 3)`` and ``steepness (n,)``, the length of the
    gradient. ``directions (n, 3)`` are the unit directions of the rays, and ``depth (n,)`` is along
    them. ``axes (3, 3)`` are the camera's right, up and backward axes, and ``up (3,)`` is the
    world's up. ``span`` is the nearest and the farthest depth of the bounds from the camera, and
    ``empty`` the empty space of ``sdf``. In a picture, ``light`` keeps what changes slowly over it,
    ``at (n, 2)`` are the rows and columns of the points, and ``pixel`` is the width of a pixel at
    depth 1. Lengths are in world units.
    """

    sdf: Sdf
    empty: EmptySpace
    axes: Tensor
    up: Tensor
    span: tuple[float, float]
    points: Tensor
    normals: Tensor
    steepness: Tensor
    directions: Tensor
    depth: Tensor
    light: SoftLight | None = None
    at: Tensor | None = None
    pixel: float = 0.0

    def slowly(self, values: Callable[[Surface], Tensor]) -> Tensor:
        """``values (n, 2)`` of the points, which change slowly over a picture: where they do, most
        are interpolated between every other pixel."""
        if self.light is None or self.at is None:
            return values(self)
        place = self.at, self.points, self.facing, self.pixel * self.depth
        return self.light.spread(*place, lambda which: values(self._part(which)))

    def _part(self, which: Tensor) -> Surface:
        names = ("points", "normals", "steepness", "directions", "depth")
        parts = {name: getattr(self, name)[which] for name in names}
        return replace(self, **parts, light=None, at=None)

    def paint(self) -> Tensor:
        """The display RGB ``(n, 3)`` of the shape at the points; that of `CLAY` without colours."""
        if self.sdf.paint is None:
            clay = self.points.new_tensor(CLAY) ** (1 / GAMMA)
            return clay.expand(len(self.points), 3)
        with torch.no_grad():
            return self.sdf.paint(self.points)

    @property
    def facing(self) -> Tensor:
        """The normals, mirrored towards the eye where they point away from it.

        A step along them leaves the surface on the side of the eye.
        """
        away = (self.normals * self.directions).sum(dim=-1, keepdim=True)
        return torch.where(away > 0, self.normals - 2 * away * self.directions, self.normals)


class Shading(Protocol):
    """The appearance of a surface."""

    def colours(self, seen: Surface) -> Tensor:
        """Display RGB ``(n, 3)`` of the seen points."""
        ...


@dataclass(frozen=True)
class Light:
    """A distant light with a linear RGB ``colour``.

    ``direction`` points towards the light, as (right, up, towards the camera).
    """

    direction: Vector
    colour: Vector


@dataclass(frozen=True)
class Studio:
    """Three lights, a sky and a ground.

    Colours are linear RGB. The lights turn with the camera; the sky and the ground do not.
    ``albedo`` is the surface's colour, or a function from world points ``(n, 3)`` to colours
    ``(n, 3)``; None takes the colours of the shape, and `CLAY` if it has none.
    ``occlusion_taps`` distances along the normal, up to ``occlusion_reach`` diagonals of the
    bounds, darken hollows. ``shadow_steps`` steps towards the key light find its shadow. The shadow
    is softer for a larger ``shadow_softness``, the tangent of the light's half angle. 0 taps or 0
    steps turn the effect off.
    """

    albedo: Vector | Callable[[Tensor], Tensor] | None = None
    key: Light = Light((-0.55, 0.75, 0.70), (1.00, 0.95, 0.88))
    fill: Light = Light((0.90, 0.15, 0.55), (0.17, 0.20, 0.25))
    rim: Light = Light((0.45, 0.55, -0.80), (0.42, 0.45, 0.50))
    sky: Vector = (0.30, 0.32, 0.35)
    ground: Vector = (0.16, 0.14, 0.13)
    gloss: float = 0.10
    occlusion_taps: int = 4
    occlusion_reach: float = 0.06
    shadow_steps: int = 16
    shadow_softness: float = 0.12

    def colours(self, seen: Surface) -> Tensor:
        points, normals, directions = seen.points, seen.facing, seen.directions
        row = points.new_tensor
        albedo = self._albedo(seen)
        key = _towards(self.key, seen)
        soft = seen.slowly(lambda part: self._soft(part, key)).to(points)
        open_sky, shadow = soft.split(1, dim=1)
        above = 0.5 + 0.5 * (normals @ seen.up)[:, None]
        light = (row(self.ground) * (1 - above) + row(self.sky) * above) * open_sky
        lit = (normals @ key).clamp_min(0)[:, None] * shadow
        light = light + lit * row(self.key.colour)
        # The fill light is a broad panel: it reaches beyond the terminator, and hollows see less of
        # it.
        fill = (0.75 * (normals @ _towards(self.fill, seen)) + 0.25).clamp_min(0)[:, None]
        light = light + fill * open_sky * row(self.fill.colour)
        grazing = (1 + (normals * directions).sum(dim=-1, keepdim=True)).clamp(0, 1)
        rim = (normals @ _towards(self.rim, seen)).clamp_min(0)[:, None] * grazing**2
        light = light + 2 * rim * open_sky * row(self.rim.colour)
        half = key - directions
        half = half / half.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        shine = (normals * half).sum(dim=-1, keepdim=True).clamp_min(0) ** 48 * lit
        return display(light * albedo + self.gloss * shine * row(self.key.colour))

    def _albedo(self, seen: Surface) -> Tensor:
        if self.albedo is None:
            return seen.paint() ** GAMMA
        if callable(self.albedo):
            return self.albedo(seen.points).to(seen.points)
        return seen.points.new_tensor(self.albedo)

    def _soft(self, seen: Surface, key: Tensor) -> Tensor:
        """The shares ``(n, 2)`` of the sky and of the light in the direction ``key`` that reach the
        points."""
        normals = seen.facing
        return torch.stack([self.openness(seen, normals), self._shadow(seen, normals, key)], dim=1)

    def _shadow(self, seen: Surface, normals: Tensor, towards: Tensor) -> Tensor:
        size = seen.sdf.bounds.diagonal
        # The start is lifted so that the surface does not shade itself.
        starts = seen.points + LIFT * size * normals
        shadow = Shadow(seen.sdf, seen.empty, towards, self.shadow_steps, self.shadow_softness)
        # Points that face away are dark already.
        return shadow.light(starts, seen.steepness, normals @ towards > 0)

    def openness(self, seen: Surface, normals: Tensor) -> Tensor:
        """The fraction ``(n,)`` of the sky that each point sees, in [0, 1].

        Near walls, the distance at a height above the surface is less than the height.
        """
        taps = self.occlusion_taps
        blocked, total = torch.zeros_like(seen.depth), 0.0
        for tap in range(1, taps + 1):
            height = self.occlusion_reach * seen.sdf.bounds.diagonal * (tap / taps) ** 2
            weight = 0.75**tap
            reach = height * seen.steepness
            free = clearance(seen.sdf, seen.points + height * normals, reach) / reach
            blocked += weight * (1 - free).clamp(0, 1)
            total += weight
        return (1 - blocked / total).clamp(0, 1) ** 1.5 if taps else torch.ones_like(blocked)


@dataclass(frozen=True)
class Flat:
    """The colours of the shape as they are, without light."""

    def colours(self, seen: Surface) -> Tensor:
        return seen.paint()


@dataclass(frozen=True)
class Normals:
    """The unit outward normal n as the colour (n + 1) / 2, in world axes."""

    def colours(self, seen: Surface) -> Tensor:
        return 0.5 + 0.5 * seen.normals


@dataclass(frozen=True)
class Depth:
    """Light where near and dark where far, over the depths of the bounds."""

    def colours(self, seen: Surface) -> Tensor:
        near, far = seen.span
        fraction = ((seen.depth - near) / (far - near)).clamp(0, 1)
        return (0.95 - 0.85 * fraction)[:, None].expand(-1, 3)


@dataclass(frozen=True)
class Curvature:
    """Mean curvature, blue in hollows and red on ridges.

    The colour is nearly full at a radius of ``radius`` diagonals of the bounds. Curvature is
    measured over ``reach`` diagonals to each side, so finer relief is averaged.
    """

    radius: float = 0.03
    reach: float = 0.004

    def colours(self, seen: Surface) -> Tensor:
        size = seen.sdf.bounds.diagonal
        step = self.reach * size
        bend = curvatures_at(seen.sdf, seen.points, seen.normals, step)[0] * self.radius * size
        light = (0.55 - 0.45 * (seen.facing * seen.directions).sum(dim=-1, keepdim=True)).clamp(
            0, 1
        )
        return colour_map(0.5 + 0.5 * torch.tanh(bend), BLUE_TO_RED) * light


def _towards(light: Light, seen: Surface) -> Tensor:
    direction = seen.points.new_tensor(light.direction)
    return direction / direction.norm() @ seen.axes
