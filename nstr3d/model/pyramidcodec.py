"""Compressed files of shapes: a pyramid of distances near the surface, without training.

The distance is sampled on a coarse grid and on refinements of it. Each grid predicts the next, and
only nodes near the predicted surface are corrected, so that their places cost nothing. The
corrections are coded with adaptive probabilities (`nstr3d.kernels.pyramid`). A file holds a header
(`nstr3d.model.shapeheader`), the code, and a checksum. Decoding is exact integer arithmetic.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.closed.pyramid import made_of
from nstr3d.kernels.available import need_numba
from nstr3d.model.header import read_marked
from nstr3d.model.shapeheader import LENGTH, MAGIC, REACH, STEEP, Plan, ShapeHeader, unpack
from nstr3d.training.fit import Fit, lipschitz_estimate
from nstr3d.types import Box, Frame, Up

CODE = "Compressed shapes (.nstq)"  # the feature that needs numba
ROUNDING = 0.42  # fraction of a step added before rounding down; 0.5 rounds to the nearest
GRIDS = ((8, 2), (12, 2), (8, 3), (12, 3), (8, 4), (12, 4), (8, 5))  # roots and depths
FINE = 0.35  # quantisation step, in cells of the finest grid, that suits most sizes
# Reaches of the corrections in the finest grid and in the others, in parts of a cell; the next pair
# is used where parts of the surface are lost.
REACHES = ((5, 16), (16, 32), (32, 64))
ROOM = 16_000  # bytes from which the second grid is corrected everywhere too
LOST = 1.5  # cells: a surface point with a larger distance lies on a part that is lost
GROWTH = 1.4  # cells of the grid that suits a size, over those of one whose code has the size
STEPS = 7  # largest number of codes made for a grid in the search for the quantisation step
CLOSE = 0.985  # fraction of the size that ends this search
SLOPE = -0.75  # d log(bytes) / d log(step), about
AIM = 0.993  # of the size, that the next guess aims at
FINEST, WIDEST = 2e-5, 0.1  # quantisation steps; with a finer one, values take more than 32 bits
SPARE = 0.1  # cells by which the bounds are larger than the surface seems
MOST_BYTES = 1 << 26  # a larger size changes nothing


@dataclass(frozen=True)
class Target:
    """A shape in the unit box: its signed ``distance``, ``(n, 3)`` to ``(n,)`` float64, points
    ``surface (m, 3)`` on it, and its ``bounds``; the ``frame`` of the unit box in the world and the
    axis ``up`` of pictures."""

    distance: Callable[[np.ndarray], np.ndarray]
    surface: np.ndarray
    bounds: Box
    frame: Frame
    up: Up = "y"


@dataclass(frozen=True)
class _Coded:
    """A code with its plan and step, and the integers ``values (n, n, n)`` that it holds. The code
    is cut where it is much longer than the size; ``length`` is its whole length in bytes."""

    plan: Plan
    step: float
    code: bytes
    length: int
    values: np.ndarray

    def judged(self, points: Tensor) -> tuple[float, float]:
        """The share of ``points (m, 3)`` on the surface that lie on lost parts of it, and the mean
        distance at these points, in the unit box."""
        with torch.no_grad():
            errors = made_of(_nodes(self.values, self.step))(points).abs()
        lost = (errors > LOST * 2 / self.plan.cells).double().mean()
        return float(lost), float(errors.mean())


def compress_shape(target: Target, size: int) -> bytes:
    """The shape as a file of at most ``size`` bytes.

    Of the grids that suit the size, the one whose surface is nearest to the points of ``target``
    is used. Raises ValueError for a size that is too small, and ModuleNotFoundError if numba is
    missing.
    """
    need_numba(CODE)
    maker = _Maker(target, size)
    lost, best = maker.best(*REACHES[0])
    for reaches in REACHES[1:]:
        if lost == 0:
            break
        still, wider = maker.best(*reaches)
        if still < lost:
            lost, best = still, wider
    field, bounds = made_of(_nodes(best.values, best.step)), _enclosing(best.values, target.bounds)
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.rand(len(maker.points), 3, generator=generator) * 2 - 1
    steep = lipschitz_estimate(field, torch.cat([maker.points, anywhere]))
    steep = min(max(steep, STEEP[0]), STEEP[1])
    header = ShapeHeader(best.plan, best.step, target.frame, bounds, steep, target.up)
    data = header.pack() + best.code
    return data + struct.pack("<I", zlib.crc32(data))


def decompress_shape(data: bytes, name: str = "the data") -> Fit:
    """The fit in ``data`` from `compress_shape`. Raises ValueError naming ``name`` for damaged or
    other data, and ModuleNotFoundError if numba is missing."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{name} is not a compressed shape of nstr3d.")
    if len(data) < LENGTH + 4 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError(f"{name} is damaged: it is truncated or was changed.")
    need_numba(CODE)
    try:
        header = unpack(data)
        nodes = _decode(header, np.frombuffer(data[LENGTH:-4], np.uint8))
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}.") from error
    field, about = made_of(nodes), {"up": header.up}
    return Fit(field, header.frame, header.world_bounds, header.lipschitz, provenance=about)


def load_shape(path: str | os.PathLike[str]) -> Fit:
    """The fit in a compressed shape. Raises FileNotFoundError, IsADirectoryError and the errors of
    `decompress_shape`."""
    return decompress_shape(read_marked(Path(path), MAGIC), str(path))


class _Maker:
    """Makes codes of one shape; distances that were asked for are kept."""

    def __init__(self, target: Target, size: int) -> None:
        self.target, self.size = target, min(size, MOST_BYTES)
        self.room = self.size - LENGTH - 4
        self.points = torch.from_numpy(target.surface).float()
        self.known: dict[int, np.ndarray] = {}

    def best(self, finest: int, reach: int) -> tuple[float, _Coded]:
        """The best code with these reaches, and the share of the surface that it has lost. Raises
        ValueError if none fits."""
        whole = 2 if self.size >= ROOM else 1
        plans = [Plan(root, depth, whole, reach, finest) for root, depth in GRIDS]
        first = self.coded(plans[2], FINE * 2 / plans[2].cells)
        cells = GROWTH * plans[2].cells * math.sqrt(max(self.room, 1) / first.length)
        plans.sort(key=lambda plan: abs(math.log(plan.cells / cells)))
        found = [self.fitting(plan) for plan in plans[:2]] if self.room > 0 else []
        fits = [each for each in found if each is not None]
        smaller = [plan for plan in plans[2:] if plan.cells < min(each.cells for each in plans[:2])]
        while not fits and smaller and self.room > 0:  # the guess was too large
            fits = [each for each in [self.fitting(smaller.pop(0))] if each is not None]
        if not fits:
            coarsest = min(plans, key=lambda plan: plan.cells)
            least = LENGTH + 4 + self.coded(coarsest, WIDEST).length
            raise ValueError(
                f"{self.size:,} bytes are too few for this shape; allow at least {least:,}."
            )
        ranked = [(*each.judged(self.points), place) for place, each in enumerate(fits)]
        lost, _, place = min(ranked)
        return lost, fits[place]

    def fitting(self, plan: Plan) -> _Coded | None:
        """The code of the finest step that fits; None if none fits."""
        lowest, widest = math.log(FINEST), math.log(WIDEST)
        low, high, best = lowest, widest, None  # steps that are too fine, and coarse enough
        guess = math.log(FINE * 2 / plan.cells)
        for _ in range(STEPS):
            coded = self.coded(plan, float(np.float32(math.exp(guess))))
            length = coded.length
            if length <= self.room:
                high, best = guess, coded
                if length > CLOSE * self.room or guess == lowest:
                    break
            elif guess == widest:
                return None
            else:
                low = guess
            guess += (math.log(AIM * max(self.room, 1)) - math.log(length)) / SLOPE
            if not low < guess < high:  # an end is tried itself if nothing is known of it
                untried = best is None if guess >= high else low == lowest
                guess = (high if guess >= high else low) if untried else (low + high) / 2
        return best

    def coded(self, plan: Plan, step: float) -> _Coded:
        """The code of the shape with the quantisation ``step``."""
        from nstr3d.kernels import pyramid as kernels

        unit = step / kernels.UNIT
        coder, out = kernels.begin(), np.zeros(max(2 * self.size, 1 << 20), np.uint8)

        def correct(values, marks, chosen, places, depth):
            wanted = self.distances(len(values) - 1, places) / unit
            rounding = 0.5 if depth < 0 else ROUNDING
            kernels.encode(coder, out, values, marks, chosen, places, depth, wanted, rounding)
            return True

        values = _walk(plan, step, correct)
        length = kernels.end(coder[0], out)
        return _Coded(plan, step, out[:length].tobytes(), length, values)

    def distances(self, cells: int, places: np.ndarray) -> np.ndarray:
        """The distances at nodes ``places (m, 3)`` of the grid of ``cells`` cells per axis."""
        if cells not in self.known:
            self.known[cells] = np.full((cells + 1,) * 3, np.nan, np.float32)
        table = self.known[cells]
        index = tuple(places.T)
        unknown = np.isnan(table[index])
        if unknown.any():
            asked = places[unknown]
            table[tuple(asked.T)] = self.target.distance(asked * (2 / cells) - 1)
        return table[index].astype(np.float64)


def _nodes(values: np.ndarray, step: float) -> np.ndarray:
    """The distances float32 at the nodes, of which ``values`` are the integers."""
    from nstr3d.kernels.pyramid import UNIT

    return values.astype(np.float32) * np.float32(step / UNIT)


def _decode(header: ShapeHeader, code: np.ndarray) -> np.ndarray:
    """The nodes of the finest grid, float32. Raises ValueError, with a clause, if the code does not
    hold them."""
    from nstr3d.kernels import pyramid as kernels

    coder = kernels.begin(code)

    def correct(values, marks, chosen, places, depth):
        return kernels.decode(coder, code, values, marks, chosen, places, depth)

    values = _walk(header.plan, header.step, correct)
    if coder[0][2] != len(code):  # an encoder ends with all bytes that its decoder reads
        raise ValueError(f"its code does not end with its {len(code):,} bytes")
    return _nodes(values, header.step)


def _walk(plan: Plan, step: float, correct: Callable[..., bool]) -> np.ndarray:
    """The finest grid ``(n, n, n)`` int32, with the corrections that ``correct`` makes of some
    nodes of each grid, from the coarsest to the finest. Raises ValueError, with a clause, if it
    returns false."""
    from nstr3d.kernels import pyramid as kernels

    nodes = plan.root + 1
    values, marks = np.zeros((nodes,) * 3, np.int32), np.zeros((nodes,) * 3, np.uint8)
    chosen = np.full(values.shape, kernels.NEAR, np.uint8)
    places = np.indices(values.shape).reshape(3, -1).T.astype(np.int32)
    _need(correct(values, marks, chosen, np.ascontiguousarray(places), -1))
    marks[:] = 0
    for number in range(plan.depth):
        values, marks = kernels.refine(values, marks)
        last = plan.depth - 1 - number
        reach = (plan.reach if last else plan.finest) / REACH * 2 / (len(values) - 1)
        limit = int(reach / (step / kernels.UNIT))
        chosen = kernels.choose(values, limit, number < plan.whole)
        for odd in (1, 2, 3):
            places = kernels.nodes(chosen, odd)
            _need(correct(values, marks, chosen, places, min(last, 2)))
    return values


def _need(whole: bool) -> None:
    if not whole:
        raise ValueError("its code ends too early or holds numbers that are too large")


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
