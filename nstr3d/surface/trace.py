"""Sphere tracing: rays -> hits, with steps that the signed distance guarantees to be empty.

The method is Hart, "Sphere tracing: a geometric method for the antialiased ray tracing of implicit
surfaces" (1996). A step may be longer than the distance. It is taken back if the balls about its
two ends do not touch (Keinert et al., "Enhanced sphere tracing", 2014), so a longer step skips
nothing that plain sphere tracing would find. The length of the step is the one at which the balls
would touch if the surface ahead were flat (Balint and Valasek, "Accelerating sphere tracing",
2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.surface.emptyspace import MARGIN, EmptySpace, array, compiles, marching
from nstr3d.types import Hits, Rays, expect

POLISH_STEPS = 24
# Fraction of the step for a flat surface that is tried, since surfaces are not flat.
FLATNESS = 0.95


def sphere_trace(
    sdf: Sdf,
    rays: Rays,
    tolerance: float = 1e-5,
    footprint: float = 0.0,
    relaxation: float = 2.0,
    max_steps: int = 512,
    empty: EmptySpace | None = None,
) -> Hits:
    """Find the first intersection of each ray with the surface, within enlarged ``sdf.bounds``.

    Depths are in world units. The bounds are enlarged by 1% of their diagonal on every side. A ray
    hits where the distance changes sign, or where it comes closer to the surface than ``tolerance``
    diagonals of the bounds. Root finding then refines the depth to ``tolerance`` diagonals, even if
    ``sdf.lipschitz`` is only an estimate. Parts that are thinner along a ray than ``footprint``
    times their depth may be missed; a footprint of a small fraction of a pixel's size at depth 1
    keeps rays from creeping along the surface. A ray that starts inside the surface has depth 0. A
    ray that enters the bounds inside the surface has the depth of its entry. Steps are up to
    ``relaxation``, from 1 to 2, times the distance. A ray that is undecided after ``max_steps``
    steps is a miss. The computation has the dtype and device of the rays. ``steps`` of the result
    counts all evaluations. ``empty``, the empty space of the same ``sdf``, saves evaluations if
    there are many rays.

    Raises TypeError for objects of other types, and ValueError if the tolerance, footprint,
    relaxation or Lipschitz bound is out of range.
    """
    expect(sdf, Sdf, "sdf")
    expect(rays, Rays, "rays")
    for name, number in (("tolerance", tolerance), ("footprint", footprint)):
        expect(number, (int, float), name)
    expect(relaxation, (int, float), "relaxation")
    if tolerance <= 0 or footprint < 0 or not 1 <= relaxation <= 2 or sdf.lipschitz <= 0:
        raise ValueError(
            "sphere tracing needs tolerance > 0, footprint >= 0, 1 <= relaxation <= 2 and a "
            "positive Lipschitz bound, "
            f"not {tolerance}, {footprint}, {relaxation} and {sdf.lipschitz}"
        )
    with torch.no_grad():
        trace = _Trace(sdf, rays, tolerance * sdf.bounds.diagonal, footprint, empty)
        trace.march(relaxation, max_steps)
        trace.polish()
        return trace.hits()


class _Trace:
    """The state of the rays, one entry of every tensor ``(n,)`` for each ray.

    ``depth`` and ``value`` (distance over Lipschitz bound) belong to the latest sample, ``before``
    and ``value_before`` to the sample before the latest.
    """

    def __init__(
        self, sdf: Sdf, rays: Rays, accuracy: float, footprint: float, empty: EmptySpace | None
    ) -> None:
        self.sdf, self.rays, self.accuracy, self.footprint = sdf, rays, accuracy, footprint
        self.depth, self.far = clip(sdf, rays)
        if empty is not None:
            self.depth = empty.leave(rays, self.depth, self.far)
        self.before = self.depth.clone()
        self.value = torch.full_like(self.depth, torch.inf)
        self.value_before = torch.zeros_like(self.depth)
        self.hit = torch.zeros_like(self.depth, dtype=torch.bool)
        self.steps = torch.zeros_like(self.depth, dtype=torch.int64)

    def sample(self, which: Tensor, depth: Tensor) -> Tensor:
        """Distance over Lipschitz bound ``(m,)`` at ``depth (m,)`` along rays ``which (m,)``."""
        self.steps[which] += 1
        points = torch.addcmul(
            self.rays.origins[which], depth[:, None], self.rays.directions[which]
        )
        return self.sdf.bound(points).to(depth.dtype) / self.sdf.lipschitz

    def march(self, relaxation: float, max_steps: int) -> None:
        """Step every ray until it hits the surface or leaves the bounds."""
        active = torch.nonzero(self.depth < self.far).squeeze(1)
        if compiles(self.depth):
            self._march_compiled(active, relaxation, max_steps)
        else:
            self._march(active, relaxation, max_steps)

    def _march_compiled(self, active: Tensor, relaxation: float, max_steps: int) -> None:
        columns = (self.rays.origins, self.rays.directions, self.far, self.depth, self.before)
        columns += (self.value, self.value_before, self.hit, torch.zeros_like(self.hit), self.steps)
        kernels = marching()
        state = kernels.State(*map(array, columns))
        stepping = kernels.Stepping(
            float(self.accuracy), float(self.footprint), float(relaxation), FLATNESS
        )
        points = torch.addcmul(
            self.rays.origins[active], self.depth[active, None], self.rays.directions[active]
        )
        for _ in range(max_steps):
            if not len(active):
                return
            values = (self.sdf.bound(points).double() / self.sdf.lipschitz).numpy()
            # The distance may keep the points: the next ones are written to another tensor.
            points = torch.empty_like(points)
            left = kernels.advance(active.numpy(), values, state, stepping, points.numpy())
            active, points = active[:left], points[:left]

    def _march(self, active: Tensor, relaxation: float, max_steps: int) -> None:
        # Each step synchronises host and device once, to drop the finished rays.
        longer = torch.zeros_like(self.hit)  # whether the latest step was longer than the distance
        for _ in range(max_steps):
            if not len(active):
                return
            depth, before, reach = (
                self.depth[active],
                self.before[active],
                self.value_before[active],
            )
            value = self.sample(active, depth)
            # Keinert's test: balls that do not touch leave a gap. Return to the edge of the first
            # ball, and make a plain step from there.
            step, thin = depth - before, self.footprint * depth
            gap = longer[active] & (value.abs() + reach + thin < step)
            arrived = (value <= self.accuracy) & ~gap
            self.hit[active] = arrived
            self.value[active] = value
            # If the surface is flat, the ball after a step of 2 / (1 + fall) times the distance
            # touches this ball.
            fall = torch.where(step > 0, (reach - value) / step, 1.0).clamp(0, 1)
            ahead = (
                (2 * FLATNESS / (1 + fall)).clamp(1, max(1.0, relaxation))
                if relaxation > 1
                else torch.ones_like(fall)
            )
            stride = ahead * value + thin / 2
            far = self.far[active]
            on = torch.where(depth + value < far, torch.minimum(depth + stride, far), torch.inf)
            following = torch.where(gap, before + reach, on)
            longer[active] = ~gap & (stride > value)
            self.before[active] = torch.where(gap | arrived, before, depth)
            self.value_before[active] = torch.where(gap | arrived, reach, value)
            self.depth[active] = torch.where(arrived, depth, following)
            active = active[~arrived & (following < torch.inf)]

    def polish(self) -> None:
        """Refine the hits by the Illinois secant method between the last two samples.

        If the samples do not bracket a root, the search goes beyond them. A grazing ray, whose
        distance no longer falls, stays where it is closest to the surface.
        """
        active = torch.nonzero(self.hit & (self.depth > self.before)).squeeze(1)
        # The end of the bracket that stayed in the last step: -1 near, +1 far, 0 neither.
        kept = torch.zeros_like(self.depth)
        for _ in range(POLISH_STEPS):
            if not len(active):
                return
            near, far = self.before[active], self.depth[active]
            f_near, f_far = self.value_before[active], self.value[active]
            bracketed = f_far < 0
            slope = (f_far - f_near) / (far - near)
            secant = far - f_far / torch.where(slope == 0, torch.ones_like(slope), slope)
            reach = torch.maximum(32 * f_far.abs(), torch.full_like(f_far, self.accuracy / 4))
            beyond = torch.where(secant > far, torch.minimum(secant, far + reach), far + reach)
            at = torch.where(bracketed, secant, beyond)
            value = self.sample(active, at)
            active = self._narrow(active, at, value, bracketed, kept)

    def _narrow(
        self, active: Tensor, at: Tensor, value: Tensor, bracketed: Tensor, kept: Tensor
    ) -> Tensor:
        """Replace one end of each interval by the new sample; return the rays that need another."""
        near, far = self.before[active], self.depth[active]
        f_near, f_far = self.value_before[active], self.value[active]
        rising = ~bracketed & (value >= f_far)
        outside = bracketed & (value > 0)
        moves_near = outside | (~bracketed & ~rising)
        # Illinois: halve the value of an end that stays twice, so that the secant leaves it.
        halve_far = outside & (kept[active] == 1)
        halve_near = bracketed & ~outside & (kept[active] == -1)
        kept[active] = torch.where(bracketed, torch.where(outside, 1.0, -1.0), 0.0).to(kept.dtype)
        new_near = torch.where(outside, at, torch.where(moves_near, far, near))
        new_far = torch.where(outside | rising, far, at)
        self.before[active] = new_near
        self.depth[active] = new_far
        self.value_before[active] = torch.where(
            outside,
            value,
            torch.where(moves_near, f_far, torch.where(halve_near, f_near / 2, f_near)),
        )
        self.value[active] = torch.where(
            rising, f_far, torch.where(outside, torch.where(halve_far, f_far / 2, f_far), value)
        )
        # The next secant step estimates the distance to the root; a halved end lengthens the step.
        drop = torch.where(bracketed, (f_near - f_far) / (far - near), (f_far - value) / (at - far))
        settled = ~rising & (value.abs() < drop * self.accuracy / 4)
        self.depth[active] = torch.where(settled, at, self.depth[active])
        return active[~rising & ~settled & ((new_far - new_near > self.accuracy / 2) | ~bracketed)]

    def hits(self) -> Hits:
        """The hits of all rays; the depth and the point of a miss are infinite."""
        depth = torch.where(self.hit, self.depth, torch.inf)
        points = (
            self.rays.origins
            + torch.where(self.hit, self.depth, 0.0)[:, None] * self.rays.directions
        )
        return Hits(self.hit, depth, torch.where(self.hit[:, None], points, torch.inf), self.steps)


def clip(sdf: Sdf, rays: Rays) -> tuple[Tensor, Tensor]:
    """Depths ``(n,)`` at which the rays enter and leave the enlarged bounds.

    The entry is 0 if the ray starts within the bounds. If the ray misses them, entry >= exit.
    """
    margin = MARGIN * sdf.bounds.diagonal
    lower = (
        torch.as_tensor(sdf.bounds.lower, dtype=rays.origins.dtype, device=rays.origins.device)
        - margin
    )
    upper = (
        torch.as_tensor(sdf.bounds.upper, dtype=rays.origins.dtype, device=rays.origins.device)
        + margin
    )
    # A direction of zero along an axis would give 0 / 0 on the face of a slab. The smallest
    # positive number gives the same side without this quotient.
    tiny = torch.finfo(rays.directions.dtype).tiny
    directions = torch.where(rays.directions == 0, tiny, rays.directions)
    a, b = (lower - rays.origins) / directions, (upper - rays.origins) / directions
    near = torch.minimum(a, b).amax(dim=-1).clamp_min(0)
    return near, torch.maximum(a, b).amin(dim=-1)
