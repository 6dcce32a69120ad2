"""The closest surface point to a point, and whether a point is inside.

Newton's method follows the gradient from the point. It is believed where it ends on the surface and
its way is about as long as the distance at its start: no surface point can then be much closer.
Other points start again from the nearest point of a coarse mesh, whose vertices are on the surface
for sure: each lies between two grid nodes of different sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.kernels.field.fused import unchanged
from nstr3d.sdf import Sdf
from nstr3d.sdf.answers import ClosestPoints
from nstr3d.surface.asking import asked, check_tolerance, pieces
from nstr3d.surface.bricks import Grid
from nstr3d.surface.curvature import hessian
from nstr3d.surface.extract import EmptySurface, extract
from nstr3d.surface.roots import between, newton, stepped
from nstr3d.types import Mesh

COARSE = 64  # cells along the longest side of the mesh from which points start again
DETOUR = 1.02  # a way that is longer than the distance by this factor is not believed
SLANT = 0.05  # sine of the angle between a way and the normal that is still believed
TURNS = 16  # steps along the surface towards the point
SHORTEST = 0.01  # share of a step at which a point stays


@unchanged()
def contains(sdf: Sdf, points: Any) -> Any:
    """See `nstr3d.sdf.queries.Queries.contains`."""
    at, back = asked(sdf, points)
    inside = at.new_empty(len(at), dtype=torch.bool)
    with torch.no_grad():
        for rows in pieces(len(at)):
            inside[rows] = sdf.bound(at[rows]) <= 0  # which has the sign of the distance
    return back(inside)


@unchanged()
def closest_points(sdf: Sdf, points: Any, tolerance: float) -> ClosestPoints:
    """See `nstr3d.sdf.queries.Queries.closest_points`."""
    check_tolerance(tolerance)
    at, back = asked(sdf, points)
    closest, residual = project(sdf, at.detach(), tolerance * sdf.bounds.diagonal)
    if torch.is_grad_enabled() and isinstance(points, Tensor):
        closest = _attached(sdf, at, closest)
    return ClosestPoints(back(closest), back(residual))


def project(sdf: Sdf, points: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
    """The closest surface points ``(n, 3)`` to ``points (n, 3)`` float64, and the magnitude of the
    distance there, at most ``accuracy`` in world units. Raises ValueError if the surface is
    empty."""
    found, residual = torch.empty_like(points), points.new_empty(len(points))
    doubtful = []
    for rows in pieces(len(points)):
        piece = points[rows]
        first = sdf.value_and_gradient(piece)
        # One step brings most points on to the surface. Its way is along the gradient, so a small
        # distance there says that the surface lies across it.
        at, value = stepped(sdf, piece, first)
        longest = first[0].abs() * DETOUR + 2 * accuracy
        way = piece - at
        settled = (value <= accuracy) & (torch.linalg.vecdot(way, way) <= longest.square())
        found[rows], residual[rows] = at, value
        if len(rest := rows.start + torch.nonzero(~settled).squeeze(1)):
            here = first[0][rest - rows.start], first[1][rest - rows.start]
            at, value, sure = _followed(sdf, points[rest], here, accuracy)
            found[rest], residual[rest] = at, value
            doubtful.append(rest[~sure])
    again = torch.cat(doubtful) if doubtful else points.new_empty(0)
    if len(again):
        seeds = Seeds.of(sdf, accuracy)
        for rows in pieces(len(again)):
            which = again[rows]
            best = _from_seeds(sdf, seeds, points[which], (found[which], residual[which]), accuracy)
            found[which], residual[which] = best
    return found, residual


def _followed(
    sdf: Sdf, points: Tensor, first: tuple[Tensor, Tensor], accuracy: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Surface points that Newton's method finds from ``points``, their residuals, and whether they
    are believed. ``first`` holds distance and gradient at ``points``."""
    at, value, slope = newton(sdf, points, accuracy, first)
    short, straight = _believed(points - at, first[0], slope, accuracy)
    on = value.abs() <= accuracy
    if len(slanted := torch.nonzero(on & short & ~straight).squeeze(1)):
        turned = _slide(
            sdf, points[slanted], (at[slanted], value[slanted], slope[slanted]), accuracy
        )
        at[slanted], value[slanted], slope[slanted] = turned
        again = _believed(points[slanted] - at[slanted], first[0][slanted], turned[2], accuracy)
        on[slanted], straight[slanted] = turned[1].abs() <= accuracy, again[0] & again[1]
    return at, value.abs(), on & short & straight


def _believed(
    way: Tensor, distance: Tensor, slope: Tensor, accuracy: float
) -> tuple[Tensor, Tensor]:
    """Whether ways ``(n, 3)`` from the surface to points at these distances are no longer than the
    distance, and whether they go along the normal."""
    length = torch.linalg.vecdot(way, way)
    short = length <= (distance.abs() * DETOUR + 2 * accuracy).square()
    across = torch.linalg.vecdot(way, slope).square()
    steep = torch.linalg.vecdot(slope, slope) * (1 - SLANT**2)
    return short, (across >= length * steep) | (length <= (4 * accuracy) ** 2)


@dataclass(frozen=True)
class Seeds:
    """A coarse mesh whose vertices are on the surface."""

    distance: MeshDistance

    @staticmethod
    def of(sdf: Sdf, accuracy: float) -> Seeds:
        """The seeds of ``sdf``: vertices of its mesh, each moved to the root on its grid edge.
        Raises `EmptySurface`."""
        try:
            mesh = polished(sdf, COARSE, accuracy)
        except EmptySurface:
            raise EmptySurface(
                "the surface is empty, so no point of it is closest; check the bounds"
            ) from None
        return Seeds(MeshDistance(mesh))

    def nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest point of the mesh to each of ``points``, and the nearest corner of its
        face."""
        query = points.cpu().numpy()
        _, face, closest = self.distance.nearest(query)
        corners = self.distance.mesh.vertices[self.distance.mesh.faces[face]]
        near = ((corners - query[:, None]) ** 2).sum(axis=2).argmin(axis=1)
        corner = corners[np.arange(len(face)), near]
        place, vertex = (torch.from_numpy(each).to(points) for each in (closest, corner))
        return place, vertex


def polished(sdf: Sdf, resolution: int, accuracy: float) -> Mesh:
    """The surface as a mesh whose vertices are within ``accuracy``, in world units, of it. Raises
    the errors of `extract`."""
    mesh = extract(sdf, resolution).mesh
    grid = Grid.over(sdf.bounds, resolution, 0.0)
    places = (mesh.vertices - grid.origin) / grid.cell
    # A vertex lies on an edge of the grid: its one coordinate that is not whole is between two.
    axis = np.abs(places - np.round(places)).argmax(axis=1)
    rows = np.arange(len(places))
    ends = [np.round(places), np.round(places)]
    for end, rounded in zip(ends, (np.floor, np.ceil)):
        end[rows, axis] = rounded(places[rows, axis])
    lower, upper = (torch.from_numpy(grid.origin + end * grid.cell) for end in ends)
    swap = (sdf(lower).detach() > 0)[:, None]
    inside, outside = torch.where(swap, upper, lower), torch.where(swap, lower, upper)
    vertices, _ = between(sdf, inside, outside, accuracy)
    return Mesh(vertices.numpy(), mesh.faces)


def _from_seeds(
    sdf: Sdf, seeds: Seeds, points: Tensor, tried: tuple[Tensor, Tensor], accuracy: float
) -> tuple[Tensor, Tensor]:
    """The closest of the points ``tried``, of those found from the mesh, and of its corners."""
    place, corner = seeds.nearest(points)
    start = newton(sdf, place, accuracy)
    slid, value, _ = _slide(sdf, points, start, accuracy)
    best, residual = corner, sdf(corner).detach().abs()
    for at, here in (tried, (start[0], start[1].abs()), (slid, value.abs())):
        closer = (at - points).norm(dim=1) < (best - points).norm(dim=1)
        taken = (here <= accuracy) & (closer | (residual > accuracy))
        best = torch.where(taken[:, None], at, best)
        residual = torch.where(taken, here, residual)
    return best, residual


def _slide(
    sdf: Sdf, points: Tensor, start: tuple[Tensor, Tensor, Tensor], accuracy: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Goes from surface points along the surface, as long as ``points`` come nearer.

    ``start`` and the result are surface points, distances and gradients there. Each step is that
    to the closest point of the tangent plane. It is cut where the way and twice the distance do not
    become less.
    """
    at, value, slope = (each.clone() for each in start)
    active = torch.arange(len(at), device=at.device)
    share = torch.ones_like(value)
    for _ in range(TURNS):
        here, f, g, to = at[active], value[active], slope[active], points[active]
        away, steep = to - here, torch.linalg.vecdot(g, g).clamp_min(1e-6)
        rise = (torch.linalg.vecdot(away, g) + f) / steep
        step = away - rise[:, None] * g
        far = torch.linalg.vecdot(step, step) > _slack(away, accuracy).square()
        far |= f.abs() > accuracy
        far &= share > SHORTEST
        if not bool(far.any()):
            break
        active, share, here, to, step = active[far], share[far], here[far], to[far], step[far]
        merit = away[far].norm(dim=1) + 2 * f[far].abs()
        moved = here + share[:, None] * step
        f_moved, g_moved = sdf.value_and_gradient(moved)
        good = (to - moved).norm(dim=1) + 2 * f_moved.abs() < merit
        taken = active[good]
        at[taken], value[taken], slope[taken] = moved[good], f_moved[good], g_moved[good]
        share = torch.where(good, 1.0, share / 3)
    return newton(sdf, at, accuracy, (value, slope)) if len(at) else (at, value, slope)


def _slack(way: Tensor, accuracy: float) -> Tensor:
    """The length of a step along the surface that is not worth a turn."""
    return (way.norm(dim=1) * (SLANT / 2)).clamp_min(2 * accuracy)


def _attached(sdf: Sdf, points: Tensor, closest: Tensor) -> Tensor:
    """``closest`` with its derivatives in ``points`` and in the parameters of the distance.

    The closest point q satisfies ``p - q = t g(q)`` and ``f(q) = 0``. Differentiated, this is a
    linear system with the Hessian of the distance.
    """
    value = sdf(closest)  # 0 up to the residual; carries the derivatives in the parameters
    if not (points.requires_grad or value.requires_grad):
        return closest
    _, slope = sdf.value_and_gradient(closest)
    steep = slope.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
    result = closest
    if value.requires_grad:
        result = result - ((value - value.detach())[:, None] / steep) * slope
    if points.requires_grad:
        share = ((points.detach() - closest) * slope).sum(dim=1, keepdim=True) / steep
        system = torch.zeros(len(points), 4, 4).to(points)
        system[:, :3, :3] = torch.eye(3).to(points) + share[:, :, None] * hessian(sdf, closest)
        system[:, :3, 3] = system[:, 3, :3] = slope
        rates = torch.linalg.pinv(system.detach())[:, :3, :3]
        moves = points - points.detach()
        result = result + (rates @ moves[:, :, None])[:, :, 0]
    return result
