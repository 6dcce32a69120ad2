"""Streamlines: integral curves of vector fields and of line fields, whose vectors have no sign.

All lines advance together, by the classical fourth-order Runge-Kutta step; its error is estimated
by Zonneveld's embedded third-order formula (Hairer, Norsett, Wanner, "Solving Ordinary Differential
Equations I", 1993, table II.4.2). Lines are parametrised by arc length, so that a step is a length.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from nstr3d.types import Box, Polylines

VectorField = Callable[[Tensor], Tensor]
SMALLEST_STEP = 1e-3  # of the first: where even that is too long, the field turns on the spot
FIFTH = (5 / 32, 7 / 32, 13 / 32, -1 / 32)  # Zonneveld's additional stage, at 3/4 of the step
THIRD = (-1 / 2, 7 / 3, 7 / 3, 13 / 6, -16 / 3)


class End(IntEnum):
    """Why a line ends: at the arc length asked for, at the bounds, where the field vanishes, turns
    back or is not finite, or after the greatest number of steps."""

    LENGTH = 0
    BOUNDS = 1
    STAGNATION = 2
    STEPS = 3


@dataclass(frozen=True)
class StreamConfig:
    """``length`` is the arc length to each side of a seed and ``step`` the first and longest step,
    in the units of the points.

    Steps adapt so that each errs by at most ``tolerance``, in the same units; None keeps them at
    ``step``. A line ends after ``steps`` steps to a side, and where the field is shorter than
    ``stagnation``. ``both`` follows the field backwards too.
    """

    length: float = 1.0
    step: float = 0.02
    tolerance: float | None = 1e-4
    steps: int = 200
    stagnation: float = 1e-9
    both: bool = True

    def __post_init__(self):
        if not (
            0 < self.length < math.inf
            and 0 < self.step < math.inf
            and self.steps >= 1
            and self.stagnation >= 0
        ):
            raise ValueError(
                "Streamlines need a positive length and step, at least 1 step and a stagnation of "
                "0 or more."
            )
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(
                f"The tolerance of adaptive steps is positive, not {self.tolerance}; None keeps "
                "steps equal."
            )


@dataclass(frozen=True)
class Streamlines:
    """``lines``, one per seed in order, the row ``seeds (m,)`` of each line's seed among its
    points, and ``ends (m, 2)``, an `End` for the line's first and last point (a line that was
    followed one way starts with `End.LENGTH`)."""

    lines: Polylines
    seeds: np.ndarray
    ends: np.ndarray


def streamlines(
    field: VectorField,
    seeds: Tensor,
    bounds: Box,
    config: StreamConfig | None = None,
    signed: bool = True,
    project: Callable[[Tensor], Tensor] | None = None,
) -> Streamlines:
    """Lines through ``seeds (m, d)`` along ``field``, which maps points ``(n, d)`` within
    ``bounds`` to vectors ``(n, d)``.

    Only directions matter, lengths only for stagnation. With ``signed`` false the field is a line
    field, v and -v are the same, and every vector is taken with the sign that continues the line.
    ``project`` puts points back where lines have to stay, on a surface for instance, after every
    step. Computed in the seeds' dtype on their device. Raises ValueError where there are no seeds,
    or some are not finite or outside the bounds.
    """
    config = config or StreamConfig()
    _check(seeds, bounds)
    with torch.no_grad():
        trace = _Trace(field, seeds, bounds, config, signed, project)
        trace.run()
    return trace.joined(len(seeds))


class _Trace:
    """The lines under way, one row of every tensor each; ``heading`` is the unit direction that
    continues the line."""

    def __init__(
        self, field, seeds: Tensor, bounds: Box, config: StreamConfig, signed: bool, project
    ):
        self.field, self.config, self.signed, self.project = field, config, signed, project
        self.lower, self.upper = seeds.new_tensor(bounds.lower), seeds.new_tensor(bounds.upper)
        first = field(seeds).to(seeds)
        self.heading = first / first.norm(dim=1, keepdim=True).clamp_min(1e-30)
        self.sense = torch.ones_like(seeds[:, :1])
        if config.both:
            self.heading, self.sense = (
                torch.cat([forward, -forward]) for forward in (self.heading, self.sense)
            )
            seeds = torch.cat([seeds, seeds])
        self.at = seeds.clone()
        self.step = torch.full_like(seeds[:, 0], config.step)
        self.left = torch.full_like(seeds[:, 0], config.length)
        self.end = torch.full((len(seeds),), int(End.STEPS), device=seeds.device)
        self.count = torch.ones(len(seeds), dtype=torch.int64, device=seeds.device)
        self.path = seeds.new_empty(len(seeds), config.steps + 1, seeds.shape[1])
        self.path[:, 0] = seeds

    def run(self) -> None:
        """Advance every line until it ends."""
        active = torch.arange(len(self.at), device=self.at.device)
        for _ in range(self.config.steps):
            if not len(active):
                return
            active = self.advance(active)

    def advance(self, active: Tensor) -> Tensor:
        """One step of the lines ``active``; returns those that go on."""
        start, heading, length = (
            self.at[active],
            self.heading[active],
            torch.minimum(self.step[active], self.left[active]),
        )
        first, speed = self.direction(start, heading, active)
        still = ~(speed >= max(self.config.stagnation, 1e-30)) | ((first * heading).sum(dim=1) < 0)
        after, error = self.runge_kutta(start, first, length, active)
        if self.project is not None:
            after = self.project(after).to(start)
        taken = ~still & torch.isfinite(after).all(dim=1)
        if self.config.tolerance is not None:
            taken &= error <= self.config.tolerance
            scale = (0.9 * (self.config.tolerance / error.clamp_min(1e-30)) ** 0.25).clamp(0.2, 2.0)
            # A step that the line's end cut short says nothing against longer ones.
            self.step[active] = torch.where(
                taken & (length < self.step[active]), self.step[active], length * scale
            ).clamp(max=self.config.step)
            still |= ~taken & (length <= SMALLEST_STEP * self.config.step)
        else:
            still |= ~taken
        after, share = self.inside(start, after)
        moved = active[taken]
        self.at[moved], self.heading[moved] = after[taken], self.turned(first, start, after)[taken]
        self.left[moved] -= (length * share)[taken]
        self.path[moved, self.count[moved]] = after[taken]
        self.count[moved] += 1
        out, done = taken & (share < 1), taken & (self.left[active] <= 1e-9 * self.config.length)
        for mask, why in ((still, End.STAGNATION), (done, End.LENGTH), (out, End.BOUNDS)):
            self.end[active[mask]] = int(why)
        return active[~(still | out | done)]

    def direction(self, points: Tensor, heading: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Unit directions ``(n, d)`` at the nearest points within the bounds, and the field's
        length there ``(n,)``."""
        vector = self.field(torch.minimum(torch.maximum(points, self.lower), self.upper)).to(points)
        speed = vector.norm(dim=1)
        unit = vector / speed.clamp_min(1e-30)[:, None]
        if self.signed:
            return unit * self.sense[active], speed
        return torch.where((unit * heading).sum(dim=1, keepdim=True) < 0, -unit, unit), speed

    def runge_kutta(
        self, start: Tensor, first: Tensor, length: Tensor, active: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Points after a step of ``length (n,)``, and the error's estimate ``(n,)``, zero where
        steps are equal."""
        h = length[:, None]
        k1 = first
        k2, _ = self.direction(start + h / 2 * k1, first, active)
        k3, _ = self.direction(start + h / 2 * k2, first, active)
        k4, _ = self.direction(start + h * k3, first, active)
        after = start + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        if self.config.tolerance is None:
            return after, torch.zeros_like(length)
        stages = (k1, k2, k3, k4)
        k5, _ = self.direction(start + h * sum(a * k for a, k in zip(FIFTH, stages)), first, active)
        lower = start + h * sum(b * k for b, k in zip(THIRD, (*stages, k5)))
        return after, (after - lower).norm(dim=1)

    def inside(self, start: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """``after``, cut back to where the bounds were left, and the share of the way that was gone
        ``(n,)``."""
        way = after - start
        room = torch.where(way > 0, self.upper - start, self.lower - start)
        shares = torch.where(
            (after < self.lower) | (after > self.upper), room / torch.where(way == 0, 1.0, way), 1.0
        )
        share = shares.amin(dim=1).clamp(0, 1)
        cut = start + share[:, None] * way
        return torch.where(
            (share < 1)[:, None], torch.minimum(torch.maximum(cut, self.lower), self.upper), after
        ), share

    def turned(self, first: Tensor, start: Tensor, after: Tensor) -> Tensor:
        """The heading after a step: along the chord, which a constraint may have turned."""
        chord = after - start
        size = chord.norm(dim=1, keepdim=True)
        return torch.where(size > 0, chord / size.clamp_min(1e-30), first)

    def joined(self, count: int) -> Streamlines:
        """The lines as arrays: what was followed backwards comes first, reversed, without its
        seed."""
        path, length, end = (
            self.path.cpu().double().numpy(),
            self.count.cpu().numpy(),
            self.end.cpu().numpy(),
        )
        parts, seeds, ends = [], np.zeros(count, np.int64), np.full((count, 2), int(End.LENGTH))
        sizes = np.zeros(count, np.int64)
        for line in range(count):
            behind = (
                path[count + line, 1 : length[count + line]][::-1]
                if self.config.both
                else path[line, :0]
            )
            seeds[line], sizes[line] = len(behind), len(behind) + length[line]
            ends[line] = end[count + line] if self.config.both else End.LENGTH, end[line]
            parts += [behind, path[line, : length[line]]]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return Streamlines(Polylines(np.concatenate(parts), starts), starts[:-1] + seeds, ends)


def evenly_spaced(
    flow: Streamlines, separation: float, least: float = 0.0, closest: float = 0.5
) -> Streamlines:
    """Of ``flow`` the lines, or their parts about the seed, that keep their distance; earlier lines
    go first.

    A line is kept where its seed is at least ``separation`` from all lines kept before, and cut
    where it comes nearer than ``closest * separation`` to one of them, or back to itself; parts
    shorter than ``least`` are dropped (after Jobard and Lefer, "Creating evenly-spaced streamlines
    of arbitrary density", 1997, with candidates that were integrated before). Raises ValueError for
    a separation that is not positive.
    """
    from scipy.spatial import KDTree

    if not separation > 0 or not 0 < closest <= 1:
        raise ValueError(
            f"Lines are spaced by a positive separation and a share in (0, 1], not {separation} "
            f"and {closest}."
        )
    lines = flow.lines
    along = lines.along()
    tree = KDTree(lines.points)
    kept = np.zeros(len(lines.points), bool)
    chosen = []
    for index, (first, last) in enumerate(zip(lines.starts[:-1], lines.starts[1:])):
        seed = flow.seeds[index]
        if kept[tree.query_ball_point(lines.points[seed], separation)].any():
            continue
        own = slice(first, last)
        near = tree.query_ball_point(lines.points[own], closest * separation)
        free = np.array(
            [
                not _crowded(np.array(found), row, kept, along, own, separation, seed)
                for row, found in enumerate(near)
            ]
        )
        blocked = np.flatnonzero(~free) + first
        low = max(blocked[blocked < seed], default=first - 1) + 1
        high = min(blocked[blocked > seed], default=last)
        if high - low < 2 or along[high - 1] - along[low] < least:
            continue
        kept[low:high] = True
        chosen.append((index, low, high))
    return _parts(flow, chosen)


def _crowded(
    found: np.ndarray,
    row: int,
    kept: np.ndarray,
    along: np.ndarray,
    own: slice,
    separation: float,
    seed: int,
) -> bool:
    """Whether the point ``row`` of the line ``own`` has among ``found`` a point of a kept line, or
    one of its own line that is nearer to the seed and far behind along the line."""
    if kept[found].any():
        return True
    here = own.start + row
    mine = found[(found >= own.start) & (found < own.stop)]
    between = np.abs(along[mine] - along[seed]) < abs(along[here] - along[seed])
    return bool((between & (np.abs(along[mine] - along[here]) > 2 * separation)).any())


def _parts(flow: Streamlines, chosen: list[tuple[int, int, int]]) -> Streamlines:
    """The rows ``low`` to ``high`` of each chosen line; ends that were cut count as
    `End.LENGTH`."""
    lines, parts, ends, seeds, sizes = flow.lines, [], [], [], [0]
    for index, low, high in chosen:
        whole = low == lines.starts[index], high == lines.starts[index + 1]
        ends.append([flow.ends[index, side] if whole[side] else End.LENGTH for side in (0, 1)])
        seeds.append(sum(sizes) + flow.seeds[index] - low)
        sizes.append(high - low)
        parts.append(np.arange(low, high))
    rows = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    values = None if lines.values is None else lines.values[rows]
    shape = np.array(ends, np.int64).reshape(-1, 2)
    return Streamlines(
        Polylines(lines.points[rows], np.cumsum(sizes), values), np.array(seeds, np.int64), shape
    )


def _check(seeds: Tensor, bounds: Box) -> None:
    dim = len(bounds.lower)
    if seeds.ndim != 2 or seeds.shape[1] != dim or not seeds.is_floating_point():
        raise ValueError(
            f"Seeds are floating-point points (m, {dim}) within the bounds, not "
            f"{tuple(seeds.shape)} {seeds.dtype}."
        )
    if not len(seeds):
        raise ValueError(
            "There are no seeds, so there is no line to follow; give at least one point."
        )
    lower, upper = seeds.new_tensor(bounds.lower), seeds.new_tensor(bounds.upper)
    inside = ((seeds >= lower) & (seeds <= upper)).all(dim=1)  # written so that NaN fails too
    if not inside.all():
        first = int((~inside).nonzero()[0])
        raise ValueError(
            f"{int((~inside).sum())} of {len(seeds)} seeds are outside the bounds or not finite, "
            f"first seed {first}."
        )
