"""Crossings of rays with a surface, all or the first, and the thickness of a solid along a ray.

The way of a ray is the same for the first crossing and for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nstr3d.kernels.field.fused import unchanged
from nstr3d.sdf import Sdf
from nstr3d.sdf.answers import Crossings, RayHits
from nstr3d.surface.asking import Back, asked, check_tolerance, pieces
from nstr3d.surface.closest import project
from nstr3d.surface.march import March, empty_space
from nstr3d.types import Rays

BELOW = 4.0  # accuracies below the surface, from which the thickness is looked for


@unchanged()
def raycast(sdf: Sdf, origins: Any, directions: Any, tolerance: float) -> RayHits:
    """See `nstr3d.sdf.queries.Queries.raycast`."""
    rays, back, given = _rays(sdf, origins, directions, tolerance)
    distances = torch.full_like(rays.origins[:, 0], torch.inf)
    normals = torch.zeros_like(rays.origins)
    for rows, march in _marches(sdf, rays, tolerance):
        which, depth, _ = march.following()
        distances[rows.start + which] = depth
        met = _points(rays, rows.start + which, depth)
        normals[rows.start + which] = sdf.normals(met).to(normals)
    hit = torch.isfinite(distances)
    if given is not None:
        distances = _attached(sdf, given, distances, hit)
        rays = given
    points = rays.origins + torch.where(hit, distances, 0.0)[:, None] * rays.directions
    points = torch.where(hit[:, None], points, torch.inf)
    return RayHits(back(hit), back(distances), back(points), back(normals))


@unchanged()
def crossings(sdf: Sdf, origins: Any, directions: Any, tolerance: float) -> Crossings:
    """See `nstr3d.sdf.queries.Queries.crossings`."""
    rays, back, _ = _rays(sdf, origins, directions, tolerance)
    empty = rays.origins[:0, 0]
    found = [(empty.long(), empty, empty.bool())]
    for rows, march in _marches(sdf, rays, tolerance):
        while len(march.front.which):
            which, depth, enters = march.following()
            found.append((rows.start + which, depth, enters))
    which, depth, enters = (torch.cat(each) for each in zip(*found))
    order = torch.argsort(which, stable=True)  # those of a ray were found in rising order
    which, depth, enters = which[order], depth[order], enters[order]
    counts = torch.bincount(which, minlength=len(rays.origins))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
    return Crossings(back(starts), back(depth), back(_points(rays, which, depth)), back(enters))


@unchanged()
def thickness(sdf: Sdf, points: Any, tolerance: float) -> Any:
    """See `nstr3d.sdf.queries.Queries.thickness`."""
    check_tolerance(tolerance)
    at, back = asked(sdf, points)
    at = at.detach()
    accuracy = tolerance * sdf.bounds.diagonal
    result = torch.zeros_like(at[:, 0])
    surface, _ = project(sdf, at, accuracy)
    for rows in pieces(len(at)):
        rays = Rays(surface[rows], -sdf.normals(surface[rows]))
        march = March(sdf, rays, accuracy, None, BELOW * accuracy)
        march.front = march.front.taken(march.front.inside)
        which, depth, _ = march.following()
        result[rows.start + which] = depth
    return back(result)


def _marches(sdf: Sdf, rays: Rays, tolerance: float) -> Iterator[tuple[slice, March]]:
    """The rays in pieces, which bound the memory."""
    empty = empty_space(sdf, rays)
    for rows in pieces(len(rays.origins)):
        piece = Rays(rays.origins[rows], rays.directions[rows])
        yield rows, March(sdf, piece, tolerance * sdf.bounds.diagonal, empty)


def _points(rays: Rays, which: Tensor, depth: Tensor) -> Tensor:
    return torch.addcmul(rays.origins[which], depth[:, None], rays.directions[which])


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
