"""Rays that march from crossing to crossing of a surface.

A ray steps by the distance over its Lipschitz bound, or further where the balls of two samples
still touch. Close to the surface it steps just behind the predicted crossing. Every change of sign
is a bracket that root finding narrows. A ray that comes close but does not cross goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.surface.emptyspace import EMPTY_CELLS, EmptySpace
from nstr3d.surface.roots import between
from nstr3d.surface.trace import FLATNESS, clip
from nstr3d.types import Rays

NEAR = 4e-3  # diagonals of the bounds: the distance from which a ray steps behind the crossing
BEHIND = 1.02  # predicted ways to the crossing
STEEP = 0.05  # least slope of the distance along a ray that predicts a crossing
FLAT = 1e-3  # a smaller slope means that a ray runs along the surface
SKIP = 10.0  # accuracies: the step along a surface that is not crossed, which grows
LONGEST = 1e-3  # diagonals of the bounds: the longest of these steps
GROWTH = 1.3  # of such a step after another
BENT = 0.1  # share of the values around a crossing by which the distance may differ from a line
BETWEEN = 0.2, 0.8  # shares of a bracket: where the distance is compared with a line
FINE = 8.0  # accuracies: a bracket of this width holds one crossing
FEWEST = 2000  # rays for which a grid of empty space pays
SHARE = 0.5  # of the number of rays: cells of this grid


@dataclass(frozen=True)
class Front:
    """Rays on their way, one entry of every tensor ``(n, ...)`` for each.

    ``depth`` is where a ray goes on, and ``value`` the distance over the Lipschitz bound there,
    positive on both sides; ``inside`` tells the side. ``slope`` is the fall of the value for a unit
    of length over the latest step. Up to the depth ``plain``, steps stay inside balls. ``skip`` is
    the next step along a surface.
    """

    which: Tensor
    origins: Tensor
    directions: Tensor
    far: Tensor
    depth: Tensor
    value: Tensor
    inside: Tensor
    slope: Tensor
    plain: Tensor
    skip: Tensor

    def taken(self, rows: Tensor) -> Front:
        """The rays ``rows``, a mask or indices."""
        return Front(*(getattr(self, each.name)[rows] for each in fields(self)))

    def at(self, depth: Tensor) -> Tensor:
        """The points ``(n, 3)`` at ``depth (n,)``."""
        return torch.addcmul(self.origins, depth[:, None], self.directions)


def joined(fronts: list[Front]) -> Front:
    """The rays of all ``fronts``, at least one."""
    names = [each.name for each in fields(Front)]
    return Front(*(torch.cat([getattr(front, name) for front in fronts]) for name in names))


def empty_space(sdf: Sdf, rays: Rays) -> EmptySpace | None:
    """The empty space of ``sdf``, if there are enough rays that it pays."""
    count = len(rays.origins)
    if count < FEWEST:
        return None
    cells = min(EMPTY_CELLS, round((SHARE * count) ** (1 / 3)))
    return EmptySpace.of(sdf, rays.origins.device, rays.origins.dtype, cells)


class March:
    """Rays ``(n,)`` of float64 that go from crossing to crossing.

    They begin at depth ``start``. ``empty`` saves evaluations. ``front`` holds the rays that may
    cross again.
    """

    def __init__(
        self, sdf: Sdf, rays: Rays, accuracy: float, empty: EmptySpace | None, start: float = 0.0
    ) -> None:
        self.sdf, self.accuracy, self.diagonal = sdf, accuracy, sdf.bounds.diagonal
        near, far = clip(sdf, rays)
        near = near.clamp_min(start)
        depth = near if empty is None else empty.leave(rays, near, far)
        # Depths count from where the bounds are entered, so that far origins take no digits.
        self.entry = near
        which = torch.nonzero(depth < far).squeeze(1)
        zero = torch.zeros_like(near[which])
        self.front = Front(
            which, (rays.origins + near[:, None] * rays.directions)[which], rays.directions[which],
            (far - near)[which], (depth - near)[which], zero, zero.bool(), zero, zero - torch.inf,
            zero + SKIP * accuracy,
        )  # fmt: skip
        signed = self._signed(self.front, self.front.depth)
        self.front = replace(self.front, value=signed.abs(), inside=signed <= 0)
        self._return_to(torch.full_like(near, start) - near)

    def _return_to(self, start: Tensor) -> None:
        """Lets rays that enter the bounds inside the solid begin at their origin: the solid may
        reach beyond the bounds."""
        front, start = self.front, start[self.front.which]
        early = front.inside & (start < 0)
        if not bool(early.any()):
            return
        rows = torch.nonzero(early).squeeze(1)
        signed = self._signed(front.taken(rows), start[rows])
        for name, column in (
            ("depth", start[rows]), ("value", signed.abs()), ("inside", signed <= 0)
        ):  # fmt: skip
            getattr(front, name)[rows] = column

    def following(self) -> tuple[Tensor, Tensor, Tensor]:
        """The next crossing of each ray of the front: the rays that cross, the depths, and whether
        they enter the solid. The front goes on behind the crossings, without the other rays."""
        crossed, depths, waiting = [], [], self.front
        while len(waiting.which):
            brackets = []
            while len(waiting.which):
                waiting, bracket = self._stepped(waiting)
                if bracket is not None:
                    brackets.append(bracket)
            if not brackets:
                break
            before, behind = (joined(list(each)) for each in zip(*brackets))
            bent, depth = self._root(before, behind)
            crossed.append(behind.taken(~bent))
            depths.append(depth)
            waiting = replace(before, plain=behind.depth).taken(bent)
        self.front = joined(crossed) if crossed else waiting
        depth = torch.cat(depths) if depths else waiting.depth
        return self.front.which, depth + self.entry[self.front.which], self.front.inside

    def _stepped(self, front: Front) -> tuple[Front, tuple[Front, Front] | None]:
        """The rays that go on, one step further; and those that crossed, before and behind it."""
        front = front.taken(front.depth + front.value < front.far)
        stride, gap, aimed = self._stride(front)
        ahead = torch.minimum(front.depth + stride, front.far)
        signed = self._signed(front, ahead)
        value, inside = signed.abs(), signed <= 0
        step = ahead - front.depth
        crossed = inside != front.inside
        # Keinert's test: balls that do not touch leave a gap. Go back, and take plain steps. Behind
        # a change of sign the gap may hold more of them, unless the step was aimed at this one.
        # A plain step itself never fails, so that each ray comes on.
        failed = ~(crossed & aimed) & (step - front.value - value > gap)
        failed &= front.depth >= front.plain
        early = crossed & failed
        crossed &= ~failed
        moved = replace(
            front,
            depth=ahead,
            value=value,
            slope=(front.value - value) / step,
            skip=torch.where(
                stride > front.value * 2,
                (front.skip * GROWTH).clamp_max(max(LONGEST * self.diagonal, self.accuracy)),
                SKIP * self.accuracy,
            ),
        )
        bracket = None
        if bool(crossed.any()):
            fresh = torch.full_like(value, SKIP * self.accuracy)
            behind = replace(
                moved, inside=inside, skip=fresh, slope=torch.zeros_like(value),
                plain=torch.full_like(value, -torch.inf),
            ).taken(crossed)  # fmt: skip
            bracket = front.taken(crossed), behind
        if bool(failed.any()):
            for name, column in (("depth", front.depth), ("value", front.value),
                                 ("slope", front.slope), ("skip", front.skip)):  # fmt: skip
                moved = replace(moved, **{name: torch.where(failed, column, getattr(moved, name))})
            until = torch.where(early, front.depth + front.value, ahead)  # one step, if it crossed
            moved = replace(moved, plain=torch.where(failed, until, front.plain))
        return (moved if bracket is None else moved.taken(~crossed)), bracket

    def _stride(self, front: Front) -> tuple[Tensor, Tensor, Tensor]:
        """The next steps, the gaps between balls that they may leave, and whether they are plain
        or aimed at a crossing."""
        value, slope = front.value, front.slope
        relaxed = value * (2 * FLATNESS / (1 + slope.clamp(0, 1)))
        predicted = value / slope.clamp_min(1e-9)
        along = torch.where(slope > FLAT, torch.minimum(front.skip, predicted / 2), front.skip)
        along = along.clamp_min(self.accuracy)
        closing = (value < NEAR * self.diagonal) & (slope > STEEP)
        stride = torch.where(
            closing, BEHIND * predicted + self.accuracy / 2, torch.maximum(relaxed, along)
        )
        plain = front.depth < front.plain
        gap = torch.where(closing | plain, self.accuracy, along)
        return torch.where(plain, value.clamp_min(self.accuracy), stride), gap, closing | plain

    def _root(self, before: Front, behind: Front) -> tuple[Tensor, Tensor]:
        """Which brackets may hold several crossings, as the distance bends there, and the depths of
        the crossings of the others."""
        width, whole = behind.depth - before.depth, before.value + behind.value
        # Not at an end: where the distance there is tiny, the crossing may still be far away.
        share = torch.where(whole > 0, before.value / whole, 0.5).clamp(*BETWEEN)
        middle = before.depth + share * width
        signed = self._signed(before, middle)
        straight = torch.where(before.inside, -1.0, 1.0) * (before.value - share * whole)
        bent = ((signed - straight).abs() > BENT * whole) & (width > FINE * self.accuracy)
        bent &= before.depth >= before.plain
        good = ~bent
        beyond = (signed <= 0) != before.inside
        # The middle takes the place of the end on its side.
        low, high = (
            torch.where(beyond, before.depth, middle),
            torch.where(beyond, middle, behind.depth),
        )
        f_low = torch.where(beyond, before.value, signed.abs())
        f_high = torch.where(beyond, signed.abs(), behind.value)
        entering = ~before.inside
        inner, outer = torch.where(entering, high, low), torch.where(entering, low, high)
        steep = self.sdf.lipschitz
        ends = (
            -torch.where(entering, f_high, f_low)[good] * steep,
            torch.where(entering, f_low, f_high)[good] * steep,
        )
        rays = before.taken(good)
        points, _ = between(
            self.sdf, rays.at(inner[good]), rays.at(outer[good]), self.accuracy / 16, ends
        )
        return bent, ((points - rays.origins) * rays.directions).sum(dim=1)

    def _signed(self, front: Front, depth: Tensor) -> Tensor:
        """Distance over Lipschitz bound ``(n,)`` at ``depth (n,)``, negative inside."""
        with torch.no_grad():
            return self.sdf.bound(front.at(depth)).to(depth) / self.sdf.lipschitz
