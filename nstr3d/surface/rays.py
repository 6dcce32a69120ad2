"""Crossings of rays with a surface, all or the first, and the thickness of a solid along a ray.

Each crossing is found by sphere tracing: outside the solid with the distance, inside with its
negative. A ray that comes close to the surface but does not cross it goes on behind that place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.sdf.answers import Crossings, RayHits
from nstr3d.surface.asking import Back, asked, check_tolerance
from nstr3d.surface.closest import project
from nstr3d.surface.roots import between
from nstr3d.surface.trace import sphere_trace
from nstr3d.types import Rays

BEHIND = 4.0  # accuracies behind a crossing or a near miss from which a ray goes on
LARGEST_SKIP = 1e-3  # diagonals of the bounds: the longest step along a surface that is not crossed


def raycast(sdf: Sdf, origins: Any, directions: Any, tolerance: float) -> RayHits:
    """See `nstr3d.sdf.queries.Queries.raycast`."""
    rays, back, given = _rays(sdf, origins, directions, tolerance)
    march = _March(sdf, rays, tolerance * sdf.bounds.diagonal)
    which, depth = march.following()
    distances = torch.full_like(rays.origins[:, 0], torch.inf)
    distances[which] = depth
    hit = torch.isfinite(distances)
    safe = torch.where(hit, distances, 0.0)[:, None]
    points = rays.origins + safe * rays.directions
    normals = torch.where(hit[:, None], sdf.normals(points.detach()), 0.0)
    if given is not None:
        distances = _attached(sdf, given, distances, hit)
        points = given.origins + torch.where(hit, distances, 0.0)[:, None] * given.directions
    points = torch.where(hit[:, None], points, torch.inf)
    return RayHits(back(hit), back(distances), back(points), back(normals))


def crossings(sdf: Sdf, origins: Any, directions: Any, tolerance: float) -> Crossings:
    """See `nstr3d.sdf.queries.Queries.crossings`."""
    rays, back, _ = _rays(sdf, origins, directions, tolerance)
    march = _March(sdf, rays, tolerance * sdf.bounds.diagonal)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    while len(march.active):
        outside = march.sign.clone() > 0
        which, depth = march.following()
        found.append((which, depth, outside[which]))
        march.go_on(which)
    which, depth, enters = (torch.cat(each) for each in zip(*found)) if found else _none(rays)
    order = torch.argsort(which, stable=True)  # those of a ray were found in rising order
    which, depth, enters = which[order], depth[order], enters[order]
    counts = torch.bincount(which, minlength=len(rays.origins))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
    points = rays.origins[which] + depth[:, None] * rays.directions[which]
    return Crossings(back(starts), back(depth), back(points), back(enters))


def thickness(sdf: Sdf, points: Any, tolerance: float) -> Any:
    """See `nstr3d.sdf.queries.Queries.thickness`."""
    check_tolerance(tolerance)
    at, back = asked(sdf, points)
    accuracy = tolerance * sdf.bounds.diagonal
    with torch.no_grad():
        surface, _ = project(sdf, at, accuracy)
        rays = Rays(surface, -sdf.normals(surface))
        march = _March(sdf, rays, accuracy, inside=True)
        which, depth = march.following()
    result = torch.zeros_like(at[:, 0])
    result[which] = depth
    return back(result)


class _March:
    """Rays on their way from crossing to crossing.

    ``depth (n,)`` is where each ray goes on, ``sign (n,)`` is 1 for a ray that is outside there and
    -1 for one inside. ``active`` are the rays that may cross again. With ``inside``, all rays start
    on the surface and go into the solid.
    """

    def __init__(self, sdf: Sdf, rays: Rays, accuracy: float, inside: bool = False) -> None:
        self.sdf, self.rays, self.accuracy = sdf, rays, accuracy
        self.depth = torch.full_like(rays.origins[:, 0], BEHIND * accuracy if inside else 0.0)
        self.skip = torch.full_like(self.depth, BEHIND * accuracy)
        everyone = torch.arange(len(self.depth), device=self.depth.device)
        value = self._values(everyone, self.depth)
        self.sign = torch.where(value <= 0, -1.0, 1.0).to(self.depth)
        self.active = everyone[value < 0] if inside else everyone[rays.directions.any(dim=1)]

    def following(self) -> tuple[Tensor, Tensor]:
        """The next crossings of the active rays: which rays, and the depths. Rays that have no
        other are no longer active."""
        found, depths, waiting = [], [], self.active
        while len(waiting):
            hits = [self._trace(waiting[self.sign[waiting] == side], side) for side in (1.0, -1.0)]
            which, depth = (torch.cat(each) for each in zip(*hits))
            behind = depth + self.skip[which]
            crossed = self._values(which, behind) * self.sign[which] <= 0
            at = which[crossed]
            found.append(at)
            depths.append(self._root(at, self.depth[at], depth[crossed], behind[crossed]))
            waiting = which[~crossed]
            self.depth[waiting] = behind[~crossed]
            longest = LARGEST_SKIP * self.sdf.bounds.diagonal
            self.skip[waiting] = (2 * self.skip[waiting]).clamp_max(max(longest, self.accuracy))
        which, depth = (torch.cat(each) if each else self.active for each in (found, depths))
        self.active = which
        self.depth[which] = depth.to(self.depth)
        return which, depth.to(self.depth)

    def go_on(self, which: Tensor) -> None:
        """Lets the rays ``which``, which have just crossed, go on behind the crossing."""
        self.sign[which] *= -1
        self.skip[which] = BEHIND * self.accuracy
        self.depth[which] += self.accuracy

    def _values(self, which: Tensor, depth: Tensor) -> Tensor:
        return self.sdf(
            self.rays.origins[which] + depth[:, None] * self.rays.directions[which]
        ).detach()

    def _trace(self, which: Tensor, side: float) -> tuple[Tensor, Tensor]:
        """The rays of ``which``, on one side of the surface, that come to it, and the depths."""
        start = self.rays.origins[which] + self.depth[which][:, None] * self.rays.directions[which]
        sdf = self.sdf
        if side < 0:
            sdf = Sdf(lambda points: -self.sdf.distance(points), sdf.bounds, sdf.lipschitz)
        tolerance = self.accuracy / sdf.bounds.diagonal
        hits = sphere_trace(sdf, Rays(start, self.rays.directions[which]), tolerance / 2)
        reached = which[hits.mask]
        return reached, self.depth[reached] + hits.depth[hits.mask]

    def _root(self, which: Tensor, start: Tensor, near: Tensor, behind: Tensor) -> Tensor:
        """The depths between ``start`` and ``behind`` where the rays cross, beside ``near``."""
        if not len(which):
            return near
        before = torch.maximum(near - self.skip[which], start)
        sides = self._values(which, before) * self.sign[which]
        before = torch.where(sides > 0, before, start)
        ends = [
            self.rays.origins[which] + depth[:, None] * self.rays.directions[which]
            for depth in (before, behind)
        ]
        entering = (self.sign[which] > 0)[:, None]
        inside, outside = (
            torch.where(entering, ends[1], ends[0]),
            torch.where(entering, ends[0], ends[1]),
        )
        points, _ = between(self.sdf, inside, outside, self.accuracy / 64)
        return ((points - self.rays.origins[which]) * self.rays.directions[which]).sum(dim=1)


def _rays(
    sdf: Sdf, origins: Any, directions: Any, tolerance: float
) -> tuple[Rays, Back, Rays | None]:
    """The rays without derivatives, the way back, and the rays with their derivatives, if there are
    any."""
    check_tolerance(tolerance)
    starts, back = asked(sdf, origins, "origins")
    along, _ = asked(sdf, directions, "directions")
    if starts.shape != along.shape or isinstance(origins, Tensor) != isinstance(directions, Tensor):
        raise ValueError(
            "origins and directions must have one shape and be of one kind, not "
            f"{tuple(starts.shape)} and {tuple(along.shape)}."
        )
    # The largest component is taken out first, so that the squares of tiny ones do not vanish.
    largest = along.detach().abs().amax(dim=1, keepdim=True)
    if not bool((largest > 0).all()):
        at = int(torch.nonzero(largest[:, 0] == 0)[0])
        raise ValueError(f"directions must not be zero, as direction {at} is.")
    along = along / largest
    along = along / along.norm(dim=1, keepdim=True)
    attached = torch.is_grad_enabled() and isinstance(origins, Tensor)
    given = Rays(starts, along) if attached else None
    return Rays(starts.detach(), along.detach()), back, given


def _attached(sdf: Sdf, rays: Rays, distances: Tensor, hit: Tensor) -> Tensor:
    """``distances`` with their derivatives in the rays and in the parameters of the distance, by
    one step of Newton's method along the ray, which does not change them."""
    reached = torch.where(hit, distances, 0.0)[:, None]
    points = rays.origins + reached * rays.directions
    value = sdf(points)
    if not value.requires_grad:
        return distances
    slope = (sdf.gradient(points.detach()) * rays.directions.detach()).sum(dim=1)
    step = (value - value.detach()) / torch.where(slope == 0, 1.0, slope)
    return torch.where(hit, distances - torch.where(hit, step, 0.0), distances)


def _none(rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    empty = rays.origins[:0, 0]
    return empty.long(), empty, empty.bool()
