"""The header of a compressed shape, which is read without the code and without torch."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from nstr3d.kernels.pyramidwalk import Plan
from nstr3d.model.header import begins_with, check_regular, read_marked
from nstr3d.types import Box, Frame, Up

MAGIC = b"NSTS1"  # the first bytes of a compressed shape
FORM = "<6Bf4df6H"  # what follows: plan and up; step; frame; Lipschitz bound; bounds
LENGTH = len(MAGIC) + struct.calcsize(FORM)
CHECK = 4  # bytes of the checksum at the end of the file
UPS: tuple[Up, ...] = get_args(Up)
TICKS = 65535  # of the bounds, from -1 to 1
SLACK = 1e-3  # ticks: bounds that were read are written as they were, despite rounding
# Ranges of the quantisation step, of coordinates in the world, and of the Lipschitz bound.
STEP, FAR, STEEP = (1e-6, 1.0), 1e100, (0.1, 1e3)


@dataclass(frozen=True)
class ShapeHeader:
    """What the header of a compressed shape holds: the ``plan``, the quantisation ``step`` in the
    unit box, the ``frame`` of the unit box in the world, the ``bounds`` of the surface in the unit
    box, the estimate ``lipschitz`` of its Lipschitz bound, and the axis ``up``."""

    plan: Plan
    step: float
    frame: Frame
    bounds: Box
    lipschitz: float
    up: Up

    def pack(self) -> bytes:
        """The header as bytes; the bounds are rounded outward."""
        plan, lower, upper = self.plan, np.array(self.bounds.lower), np.array(self.bounds.upper)
        ticks = [
            *np.floor((lower + 1) / 2 * TICKS + SLACK).clip(0, TICKS).astype(int).tolist(),
            *np.ceil((upper + 1) / 2 * TICKS - SLACK).clip(0, TICKS).astype(int).tolist(),
        ]
        numbers = plan.root, plan.depth, plan.whole, plan.reach, plan.finest, UPS.index(self.up)
        placed = self.step, *self.frame.centre, self.frame.scale
        return MAGIC + struct.pack(FORM, *numbers, *placed, self.lipschitz, *ticks)

    @property
    def world_bounds(self) -> Box:
        """The bounds of the surface in the world."""
        lower, upper = self.frame.to_world(np.array([self.bounds.lower, self.bounds.upper]))
        return Box(tuple(lower.tolist()), tuple(upper.tolist()))


def unpack(data: bytes) -> ShapeHeader:
    """The header at the front of ``data``. Raises ValueError with a clause about the first
    fault."""
    if len(data) < LENGTH:
        raise ValueError("it ends within its header")
    root, depth, whole, reach, finest, up, *rest = struct.unpack_from(FORM, data, len(MAGIC))
    step, x, y, z, scale, lipschitz, *ticks = rest
    plan = Plan(root, depth, whole, reach, finest)
    if plan.fault:
        raise ValueError(plan.fault)
    numbers = step, x, y, z, scale, lipschitz
    ranges = STEP, (-FAR, FAR), (-FAR, FAR), (-FAR, FAR), (1 / FAR, FAR), STEEP
    if not all(low <= number <= high for number, (low, high) in zip(numbers, ranges)):
        raise ValueError("a number of its header is out of range")
    ends = np.array(ticks).reshape(2, 3) / TICKS * 2 - 1
    if up >= len(UPS) or not (ends[0] < ends[1]).all():
        raise ValueError("its bounds or its upward axis are out of range")
    bounds = Box(tuple(ends[0].tolist()), tuple(ends[1].tolist()))
    return ShapeHeader(plan, step, Frame((x, y, z), scale), bounds, lipschitz, UPS[up])


def is_intact(data: bytes) -> bool:
    """Whether the checksum at the end of a compressed shape's ``data`` is right."""
    if len(data) < LENGTH + CHECK:
        return False
    return zlib.crc32(data[:-CHECK]) == struct.unpack("<I", data[-CHECK:])[0]


def is_whole_shape(path: Path) -> bool:
    """Whether the compressed shape at ``path`` is there, and its checksum right."""
    try:
        data = read_marked(path, MAGIC)
    except (OSError, ValueError):
        return False
    return data[: len(MAGIC)] == MAGIC and is_intact(data)


def is_shape(path: Path) -> bool:
    """Whether the file at ``path`` begins as a compressed shape does."""
    return begins_with(path, MAGIC)


def load_shape_header(path: Path) -> ShapeHeader:
    """The header of the compressed shape at ``path``. The code is not read or checked.

    Raises FileNotFoundError, IsADirectoryError, and ValueError naming the path for another file.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(LENGTH)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} is not a compressed shape of nstr3d.")
    try:
        return unpack(data)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
