"""Streamlines: integral curves of vector fields and of line fields, whose vectors have no sign.

All lines advance together by the classical fourth-order Runge-Kutta step. Its error is estimated by
Zonneveld's embedded third-order formula (Hairer, Norsett, Wanner, "Solving Ordinary Differential
Equations I", 1993, table II.4.2). Lines are parametrised by arc length, so a step is a length.
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
# Fraction of the first step below which a line ends: if this step is too long, the field turns on
# the spot.
SMALLEST_STEP = 1e-3
FIFTH = (5 / 32, 7 / 32, 13 / 32, -1 / 32)  # Zonneveld's additional stage, at 3/4 of the step
THIRD = (-1 / 2, 7 / 3, 7 / 3, 13 / 6, -16 / 3)  # weights of the third-order formula


class End(IntEnum):
    """Why a line ends.

    A line ends at the requested arc length, at the bounds, where the field vanishes, turns back or
    is not finite (STAGNATION), or after the greatest number of steps.
    """

    LENGTH = 0
    BOUNDS = 1
    STAGNATION = 2
    STEPS = 3


@dataclass(frozen=True)
class StreamConfig:
    """The lengths and the accuracy of streamlines, in the units of the points.

    ``length`` is the arc length to each side of a seed, and ``step`` the first and longest step.
    Steps adapt so that the error of each is at most ``tolerance``; None keeps every step at
    ``step``. A line ends after ``steps`` steps to a side, and where the field's vector is shorter
    than ``stagnation``. ``both`` also follows the field backwards. Raises ValueError if a value is
    out of range.
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
                f"The tolerance of adaptive steps must be positive, not {self.tolerance}; None "
                "keeps steps equal."
            )


@dataclass(frozen=True)
class Streamlines:
    """Streamlines ``lines``, one for each seed in order.

    ``seeds (m,)`` are the rows of the seeds among the points of the lines. ``ends (m, 2)`` holds an
    `End` for the first and the last point of each line; a line that was followed in one direction
    starts with `End.LENGTH`.
    """

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
    """Follow ``field`` from ``seeds (m, d)``.

    ``field`` maps points ``(n, d)`` within ``bounds`` to vectors ``(n, d)``. Only the directions of
    the vectors matter; their lengths matter for stagnation. If ``signed`` is false, the field is a
    line field: v and -v are the same, and every vector gets the sign that continues the line.
    ``project`` moves points back to a set that the lines must stay on, such as a surface, after
    every step. The computation has the dtype and device of the seeds. Raises ValueError if there
    are no seeds, their shape or dtype does not fit, or a seed is not finite or outside the bounds.
    """
    config = config or StreamConfig()
    _check(seeds, bounds)
    with torch.no_grad():
        trace = _Trace(field, seeds, bounds, config, signed, project)
        trace.run()
    return trace.joined(len(seeds))


class _Trace:
    """The state of the lines, one row of every tensor for each line.

    ``heading`` is the unit direction that continues the line.
    """

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
        self.remaining = torch.full_like(seeds[:, 0], config.length)
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
        """Advance the lines ``active`` by one step; return the lines that continue."""
        start, heading, length = (
            self.at[active],
            self.heading[active],
            torch.minimum(self.step[active], self.remaining[active]),
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
            # A step that was cut short at the line's end does not limit later steps.
            self.step[active] = torch.where(
                taken & (length < self.step[active]), self.step[active], length * scale
            ).clamp(max=self.config.step)
            still |= ~taken & (length <= SMALLEST_STEP * self.config.step)
        else:
            still |= ~taken
        after, fraction = self.inside(start, after)
        moved = active[taken]
        self.at[moved], self.heading[moved] = after[taken], self.turned(first, start, after)[taken]
        self.remaining[moved] -= (length * fraction)[taken]
        self.path[moved, self.count[moved]] = after[taken]
        self.count[moved] += 1
        out, done = (
            taken & (fraction < 1),
            taken & (self.remaining[active] <= 1e-9 * self.config.length),
        )
        for mask, why in ((still, End.STAGNATION), (done, End.LENGTH), (out, End.BOUNDS)):
            self.end[active[mask]] = int(why)
        return active[~(still | out | done)]

    def direction(self, points: Tensor, heading: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Unit directions ``(n, d)`` and vector lengths ``(n,)`` of the field.

        They are evaluated at the points within the bounds that are nearest to ``points (n, d)``.
        """
        vector = self.field(torch.minimum(torch.maximum(points, self.lower), self.upper)).to(points)
        speed = vector.norm(dim=1)
        unit = vector / speed.clamp_min(1e-30)[:, None]
        if self.signed:
            return unit * self.sense[active], speed
        return torch.where((unit * heading).sum(dim=1, keepdim=True) < 0, -unit, unit), speed

    def runge_kutta(
        self, start: Tensor, first: Tensor, length: Tensor, active: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Points ``(n, d)`` after a step of ``length (n,)``, and estimates of its error ``(n,)``.

        The estimates are zero if the steps are equal.
        """
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
        """``after`` cut back to the bounds, and the fraction ``(n,)`` of the way within them."""
        way = after - start
        room = torch.where(way > 0, self.upper - start, self.lower - start)
        fractions = torch.where(
            (after < self.lower) | (after > self.upper), room / torch.where(way == 0, 1.0, way), 1.0
        )
        fraction = fractions.amin(dim=1).clamp(0, 1)
        cut = start + fraction[:, None] * way
        return torch.where(
            (fraction < 1)[:, None],
            torch.minimum(torch.maximum(cut, self.lower), self.upper),
            after,
        ), fraction

    def turned(self, first: Tensor, start: Tensor, after: Tensor) -> Tensor:
        """The heading after a step: along the chord, which the constraint may have turned."""
        chord = after - start
        size = chord.norm(dim=1, keepdim=True)
        return torch.where(size > 0, chord / size.clamp_min(1e-30), first)

    def joined(self, count: int) -> Streamlines:
        """The lines as arrays.

        The part that was followed backwards comes first, reversed and without its seed.
        """
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
    inside = ((seeds >= lower) & (seeds <= upper)).all(dim=1)  # NaN fails this form of the test
    if not inside.all():
        first = int((~inside).nonzero()[0])
        raise ValueError(
            f"{int((~inside).sum())} of {len(seeds)} seeds are outside the bounds or not finite, "
            f"first seed {first}."
        )
