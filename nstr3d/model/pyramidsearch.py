"""Compresses shapes: finds the grids and the quantisation step of a size or an error, or takes
fixed ones.

A grid is judged at points of the surface. The distances at its nodes are asked for once: all grids
are parts of the finest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nstr3d.fields.closed.pyramid import Pyramid, made_of
from nstr3d.kernels.available import need_numba
from nstr3d.kernels.pyramidwalk import MOST_CELLS, Plan, nodes_of, walk
from nstr3d.model.pyramidcodec import CODE, FIXED, shape_of
from nstr3d.model.shapeheader import STEEP, ShapeHeader, unpack
from nstr3d.training.fit import Fit, lipschitz_estimate
from nstr3d.types import Box, Frame, Up

ROUNDING = 0.42  # fraction of a step added before rounding down; 0.5 rounds to the nearest
# Roots and depths. Grids of 48, 96 and 192 cells were nearer than both neighbours at no size.
GRIDS = ((4, 3), (4, 4), (4, 5), (8, 5))
FINE = 0.35  # quantisation step, in cells of the finest grid, that suits most sizes
# Reaches of the corrections in the finest grid and in the others, in parts of a cell; the next pair
# is used where parts of the surface are lost.
REACHES = ((5, 16), (16, 32), (32, 64))
ROOM = 16_000  # bytes from which the second grid behind 8 cells is corrected everywhere too
LOST = 1.5  # cells: a surface point with a larger distance lies on a part that is lost
GROWTH = 1.4  # cells of the grid that suits a size, over those of one whose code has the size
CHEAP = 128  # cells per axis up to which a second grid is tried
STEPS = 7  # largest number of codes made for a grid in the search for the quantisation step
CLOSE = 0.985  # fraction of the size, or of the error, that ends this search
SLOPE = -0.75  # d log(bytes) / d log(step), about
AIM = 0.993  # of the size, that the next guess aims at
FINEST = 2e-5  # quantisation step; with a finer one, values take more than 32 bits
FINER = 0.01  # cells: a step below which the error of a grid hardly falls
FIRST = 0.2  # cells: the first step in the search for an error
HOPELESS = 1.6  # a grid whose error with this step is so many times the goal is too coarse
SPARE = 0.1  # cells by which the bounds are larger than the surface seems
MOST_BYTES = 1 << 26  # a larger size changes nothing
INSTANT, INSTANT_FINE = (32, 32), 0.05  # reaches, and step in cells, of a fit without a search


@dataclass(frozen=True)
class Target:
    """A shape in the unit box: its signed ``distance``, ``(n, 3)`` to ``(n,)`` float64, points
    ``surface (m, 3)`` on it, and its ``bounds``; the ``frame`` of the unit box in the world and the
    axis ``up`` of pictures. ``unsigned`` gives the distance without its sign if that is faster."""

    distance: Callable[[np.ndarray], np.ndarray]
    surface: np.ndarray
    bounds: Box
    frame: Frame
    up: Up = "y"
    unsigned: Callable[[np.ndarray], np.ndarray] | None = None

    def away(self, points: np.ndarray) -> np.ndarray:
        """The distances ``(n,)`` of ``points (n, 3)`` without a sign."""
        return np.abs((self.unsigned or self.distance)(points))


@dataclass(frozen=True)
class Coded:
    """A code with its plan and step, and the integers ``values (n, n, n)`` that it holds. The code
    is cut where it is much longer than the room; ``length`` is its whole length in bytes."""

    plan: Plan
    step: float
    code: np.ndarray
    length: int
    values: np.ndarray

    @property
    def field(self) -> Pyramid:
        """The field of the values."""
        return made_of(nodes_of(self.values, self.step))


def compress_shape(target: Target, size: int) -> Fit:
    """The shape as a fit whose file (`pack_shape`) has at most ``size`` bytes.

    Of the grids that suit the size, the one whose surface is nearest to the points of ``target``
    is used. Raises ValueError for a size that is too small, and ModuleNotFoundError if numba is
    missing.
    """
    need_numba(CODE)
    maker, size = Maker(target), min(size, MOST_BYTES)
    return maker.fit(maker.whole(lambda *reaches: _sized(maker, size, *reaches)))


def compress_to_error(target: Target, error: float) -> Fit:
    """The shape as a fit whose mean distance to the surface of ``target``, over both directions,
    is at most ``error`` in the unit box, as `Maker.error` measures it, in as few bytes as the grids
    allow.

    Raises ValueError for an error that no grid reaches, and ModuleNotFoundError if numba is
    missing.
    """
    need_numba(CODE)
    maker = Maker(target)
    return maker.fit(maker.whole(lambda *reaches: _near(maker, error, *reaches)))


def compress_instantly(target: Target) -> Fit:
    """The shape as a fit on the finest grid with a fixed step, without a search. Raises
    ModuleNotFoundError if numba is missing."""
    need_numba(CODE)
    maker = Maker(target)
    finest, reach = INSTANT
    plan = _plan(*GRIDS[-1], MOST_BYTES, finest, reach)
    return maker.fit(maker.coded(plan, INSTANT_FINE * 2 / plan.cells, MOST_BYTES))


class Maker:
    """Makes codes of one shape; distances that were asked for are kept."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.points = torch.from_numpy(target.surface).float()
        self.known = np.full((MOST_CELLS + 1,) * 3, np.nan, np.float32)

    def whole(self, best: Callable[[int, int], Coded]) -> Coded:
        """The code that ``best`` makes with the smallest reaches that lose no part of the surface,
        or the one of those tried that loses least."""
        found, lost = None, math.inf
        for reaches in REACHES:
            try:
                code = best(*reaches)
            except ValueError:
                if found is None:
                    raise
                break  # wider reaches take more bytes
            still = self.judged(code)[0]
            if still < lost:
                found, lost = code, still
            if lost == 0:
                break
        assert found is not None
        return found

    def fit(self, code: Coded) -> Fit:
        """The fit of a code that was not cut."""
        field, bounds = code.field, _enclosing(code.values, self.target.bounds)
        generator = torch.Generator().manual_seed(0)
        anywhere = torch.rand(len(self.points), 3, generator=generator) * 2 - 1
        steep = lipschitz_estimate(field, torch.cat([self.points, anywhere]))
        steep = min(max(steep, STEEP[0]), STEEP[1])
        target = self.target
        header = ShapeHeader(code.plan, code.step, target.frame, bounds, steep, target.up)
        # The header as it is read, so that the fit equals that of its file.
        return shape_of(unpack(header.pack()), code.code, field.nodes.detach().numpy())

    def judged(self, code: Coded) -> tuple[float, float]:
        """The share of the points on the surface that lie on lost parts of it, and the mean
        distance at these points, in the unit box."""
        with torch.no_grad():
            errors = code.field(self.points).abs()
        lost = (errors > LOST * 2 / code.plan.cells).double().mean()
        return float(lost), float(errors.mean())

    def error(self, code: Coded) -> float:
        """The mean distance between the surface and that of ``code``, over both directions.

        The distance from a point of the surface is the field's value over its slope. One Newton
        step of the field leads from there to its surface, from which the exact distance back is
        taken.
        """
        value, slope = code.field.value_and_gradient(self.points)
        steep = slope.norm(dim=1, keepdim=True).clamp_min(0.5)
        there = value / steep
        back = self.target.away((self.points - there * slope / steep).double().numpy())
        return (float(there.abs().mean()) + float(np.abs(back).mean())) / 2

    def coded(self, plan: Plan, step: float, room: int) -> Coded:
        """The code of the shape with the quantisation ``step``, cut at twice ``room`` bytes."""
        from nstr3d.kernels import pyramid as kernels

        step = float(np.float32(step))
        unit = step / kernels.UNIT
        coder, out = kernels.begin(), np.zeros(min(max(2 * room, 1 << 20), MOST_BYTES), np.uint8)

        def correct(values, marks, chosen, groups, depth):
            # One query for all nodes of a grid: neighbours share the work of finding their sign.
            wanted = self.distances(len(values) - 1, np.concatenate(groups)) / unit
            rounding, ends = 0.5 if depth < 0 else ROUNDING, np.cumsum([len(g) for g in groups])
            for places, part in zip(groups, np.split(wanted, ends[:-1])):
                kernels.encode(coder, out, values, marks, chosen, places, depth, part, rounding)
            return True

        values = walk(plan, step, correct)
        length = kernels.end(coder[0], out)
        return Coded(plan, step, out[:length].copy(), length, values)

    def distances(self, cells: int, places: np.ndarray) -> np.ndarray:
        """The distances at nodes ``places (m, 3)`` of the grid of ``cells`` cells per axis."""
        index = tuple(places.T * (MOST_CELLS // cells))
        unknown = np.isnan(self.known[index])
        if unknown.any():
            asked = tuple(each[unknown] for each in index)
            self.known[asked] = self.target.distance(places[unknown] * (2 / cells) - 1)
        return self.known[index].astype(np.float64)


def _plan(root: int, depth: int, size: int, finest: int, reach: int) -> Plan:
    """The plan of a grid for a file of ``size`` bytes."""
    halvings = 1 if root == 4 else 0  # of the coarsest grid of 8 cells
    return Plan(root, depth, (2 if size >= ROOM else 1) + halvings, reach, finest)


def _steps(plan: Plan) -> tuple[float, float]:
    """The finest quantisation step, and the widest: with a wider one than a cell, codes become
    longer again."""
    return FINEST, 2 / plan.cells


def _sized(maker: Maker, size: int, finest: int, reach: int) -> Coded:
    """The best code of at most ``size`` bytes, the file's, with these reaches. Raises ValueError if
    none fits."""
    room = size - FIXED
    plans = [_plan(*grid, size, finest, reach) for grid in GRIDS]
    sample = plans[1]
    first = maker.coded(sample, FINE * 2 / sample.cells, room)
    cells = GROWTH * sample.cells * math.sqrt(max(room, 1) / first.length)
    plans.sort(key=lambda plan: abs(math.log(plan.cells / cells)))
    tried = [plans[0], *(plan for plan in plans[1:2] if plan.cells <= CHEAP)]
    found = [_fitting(maker, plan, room) for plan in tried] if room > 0 else []
    fits = [each for each in found if each is not None]
    smaller = [plan for plan in plans if plan.cells < min(each.cells for each in tried)]
    while not fits and smaller and room > 0:  # the guess was too large
        fits = [each for each in [_fitting(maker, smaller.pop(0), room)] if each is not None]
    if not fits:
        coarsest = min(plans, key=lambda plan: plan.cells)
        least = FIXED + maker.coded(coarsest, _steps(coarsest)[1], room).length
        raise ValueError(f"{size:,} bytes are too few for this shape; allow at least {least:,}.")
    ranked = [(*maker.judged(each), place) for place, each in enumerate(fits)]
    return fits[min(ranked)[2]]


def _fitting(maker: Maker, plan: Plan, room: int) -> Coded | None:
    """The code of the finest step that fits ``room``; None if none fits."""
    lowest, widest = (math.log(step) for step in _steps(plan))
    low, high, best = lowest, widest, None  # steps that are too fine, and coarse enough
    guess = math.log(FINE * 2 / plan.cells)
    for _ in range(STEPS):
        coded = maker.coded(plan, math.exp(guess), room)
        length = coded.length
        if length <= room:
            high, best = guess, coded
            if length > CLOSE * room or guess == lowest:
                break
        elif guess == widest:
            return None
        else:
            low = guess
        guess += (math.log(AIM * max(room, 1)) - math.log(length)) / SLOPE
        if not low < guess < high:  # an end is tried itself if nothing is known of it
            untried = best is None if guess >= high else low == lowest
            guess = (high if guess >= high else low) if untried else (low + high) / 2
    return best


def _near(maker: Maker, error: float, finest: int, reach: int) -> Coded:
    """The shortest code with an error of at most ``error`` in the unit box, with these reaches.
    Raises ValueError if none reaches it."""
    best = None
    for grid in GRIDS:  # from the coarsest: the codes become shorter until a grid suits the error
        plan, last = _plan(*grid, ROOM, finest, reach), grid == GRIDS[-1]
        code, least = _reaching(maker, plan, error, last and best is None)
        if code is not None and best is not None and code.length > best.length:
            break
        best = code or best
    if best is None:
        raise ValueError(
            f"An error of {error:.3g} cannot be reached: the finest code of this shape is "
            f"{least:.3g} from it; allow more."
        )
    return best


def _reaching(maker: Maker, plan: Plan, goal: float, needed: bool) -> tuple[Coded | None, float]:
    """The code of the widest step whose error is at most ``goal``, and the least error found.

    Unless it is ``needed``, a grid is given up (None) that would reach the goal with steps far
    smaller than usual: a finer grid then has a shorter code.
    """
    cell, best, low, high = 2 / plan.cells, None, (0.0, 0.0), (0.0, 0.0)  # steps and errors
    finest, widest = max(FINER * cell, FINEST), _steps(plan)[1]
    step, least = min(FIRST * cell, widest), math.inf
    for _ in range(STEPS):
        coded = maker.coded(plan, step, MOST_BYTES)
        error = maker.error(coded)
        least = min(least, error)
        if error > goal:
            high = step, error
            if best is None and (step == finest or (error > HOPELESS * goal and not needed)):
                return None, least
        else:
            low, best = (step, error), coded
            if error > CLOSE * goal or step == widest:
                break
        if high[0] == 0:
            step = min(2 * step, widest)
        elif best is None:
            step = max(step / 4, finest)
        else:  # the error is about linear in the step
            share = (AIM * goal - low[1]) / (high[1] - low[1])
            step = low[0] + min(max(share, 0.05), 0.95) * (high[0] - low[0])
    return best, least


def _enclosing(values: np.ndarray, bounds: Box) -> Box:
    """``bounds`` in the unit box, grown to enclose the surface of ``values (n, n, n)``."""
    cell, lower, upper = 2 / (len(values) - 1), list(bounds.lower), list(bounds.upper)
    for axis in range(3):
        planes = np.moveaxis(values, axis, 0)
        inner = np.flatnonzero((planes < 0).any(axis=(1, 2)))
        if len(inner):
            low, high = int(inner[0]), int(inner[-1])
            first, last = low - _beyond(planes, low, -1), high + _beyond(planes, high, 1)
            lower[axis] = min(lower[axis], max(first * cell - 1, -1.0))
            upper[axis] = max(upper[axis], min(last * cell - 1, 1.0))
    return Box((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))


def _beyond(planes: np.ndarray, last: int, step: int) -> float:
    """How far the surface lies beyond the ``last`` plane with inner nodes, in cells."""
    if not 0 <= last + step < len(planes):
        return 0.0
    places = np.clip([last - step, last, last + step, last + 2 * step], 0, len(planes) - 1)
    a, b, c, d = (planes[at][planes[last] < 0].astype(np.float64) for at in places)
    t = np.linspace(0, 1, 33)[:, None]  # the cubic through the inner nodes of the plane
    along = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return float((t * (along < 0)).max()) + SPARE
