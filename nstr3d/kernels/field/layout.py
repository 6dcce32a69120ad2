"""The fused kernels' description of a field: its levels as `Part`, its decoder as `Weights`, and
the places of both in flat arrays as `Layout`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nstr3d.kernels.field.interpolate import NodeGrid

PLAIN, AMPLITUDE, COMPLEX, PHASE = range(4)  # kinds of waves
LANES = 8  # of a vector of spectrum channels; the row of a packed table is a multiple of LANES
ROW_MULTIPLE = 16  # of the columns of a packed weight: the widest vector of any machine
TILE = 8  # rows of a matrix product that are summed in registers
# columns of a layout's meta
RESOLUTION, ROW, TABLE, STRIDE, PLAINS, KIND, WAVES = range(7)
FEATURE, CARRIER, LOCAL, CHANNELS, ORDER = range(7, 12)


@dataclass(frozen=True)
class Part:
    """One level.

    ``table (m, c)`` holds ``plain`` channels first, then the channels of the waves of ``kind``:
    amplitudes; real parts, then imaginary parts; or amplitudes, then phases in units of
    ``radians``. The waves' carriers are ``omega (k, 3) . x + phase (k,)``. See
    `kernels.field.interpolate` and `fields.waves`.
    """

    grid: NodeGrid
    table: Tensor
    plain: int
    kind: int = PLAIN
    omega: Tensor | None = None
    phase: Tensor | None = None
    radians: float = 1.0

    @property
    def waves(self) -> int:
        """The number of waves."""
        return 0 if self.phase is None else len(self.phase)


class Weights(NamedTuple):
    """A decoder of one hidden layer: ``w2 softplus(w1 f + b1) + b2``, with the softplus's
    sharpness."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    sharpness: float


class Layout:
    """The places of a field's parts in the kernels' flat arrays, computed once per field."""

    def __init__(self, parts: Sequence[Part]) -> None:
        lines, places, row, table, feature, carrier, local = [], [], 0, 0, 0, 0, 0
        for part in parts:
            channels = part.table.shape[1]
            stride, width = up(channels, LANES), up(part.waves, LANES)
            waves = part.plain, part.kind, part.waves
            lines.append(
                [part.grid.resolution, row, table, stride, *waves]
                + [feature, carrier, local, channels, part.grid.order]
            )
            # the row before a table's first row is zero and serves the nodes that are not stored
            places.append(table + (part.grid.rows.long() + 1) * stride)
            row, table = row + len(part.grid.rows), table + (len(part.table) + 1) * stride
            feature += part.plain + part.waves
            carrier, local = carrier + 4 * width, local + width * (3 if part.kind == COMPLEX else 2)
        if table >= 1 << 31:
            raise ValueError(
                f"The levels hold {table:,} values where the kernels count to {1 << 31:,}; make "
                "them coarser."
            )
        # the place of each node's row in the flat table
        self.places = torch.cat(places).int().contiguous()
        self.fitted = [(part.grid.rows, len(part.table)) for part in parts]
        self.meta = np.array(lines, np.int64)
        self.radians = np.array([part.radians for part in parts], np.float32)
        self.table_size, self.carrier_size, self.inputs = (
            up(table, ROW_MULTIPLE) + 2 * LANES,
            carrier,
            feature,
        )
        # A row of features has room for the values that whole vectors write past its end.
        self.line, self.local_line = (
            max(up(feature, ROW_MULTIPLE), up(feature + LANES - 1, LANES)),
            local,
        )

    def fits(self, parts: Sequence[Part]) -> bool:
        """Whether ``parts`` have the nodes that the layout was made for."""
        return all(
            part.grid.rows is rows and len(part.table) == count
            for part, (rows, count) in zip(parts, self.fitted, strict=True)
        )


def up(count: int, multiple: int) -> int:
    """``count`` rounded up to a ``multiple``."""
    return -(-count // multiple) * multiple
