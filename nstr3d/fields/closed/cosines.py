"""The closed-form field for complete samples of a line or a plane: staggered cosines, the largest
coefficients kept.

It is an NSTR field with a linear decoder whose frequencies and phases are chosen: K = hop cosines
per axis with frequencies ``pi (k + 1/2) / hop``, and amplitudes on two interleaved grids in
quadrature, so that waves and windows are one orthonormal basis (`nstr3d.fields.closed.lapped`). The
best amplitudes are then one product with the samples, and keeping the P largest is the best field
of P amplitudes. It is sparse transform coding, an overlapped JPEG so to say, and still a
continuous, differentiable f(x).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.closed.lapped import analyse, basis, blocks, resample, synthesise
from nstr3d.fields.closed.positions import pack, unpack
from nstr3d.fields.vicinity import Near
from nstr3d.kernels.field.interpolate import rows_of
from nstr3d.types import Lattice

GATHER = 1 << 22  # coefficients that `forward` looks up at a time
TRIAL = 1 << 20  # samples on which hops are tried
LONG_ROW = 1024  # entries that rows of positions have at least, if there are as many


@dataclass(frozen=True)
class CosineConfig:
    """Samples along each axis of the array that the field stands for, and the hop along each: even,
    or 1 for one sample.

    ``smooth`` windows have a continuous slope: better for tones, while pictures have fewer large
    amplitudes without. ``rate`` is the learning rate of the amplitudes, should they be trained
    further.
    """

    shape: tuple[int, ...]
    hops: tuple[int, ...]
    smooth: bool = False
    rate: float = 1e-3

    def __post_init__(self):
        if len(self.shape) != len(self.hops):
            raise ValueError(
                f"Every axis needs a hop: {self.shape} samples do not go with hops {self.hops}."
            )
        _ = self.blocks

    @property
    def lattice(self) -> Lattice:
        """Where the samples are."""
        return Lattice(self.shape)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(blocks(length, hop) for length, hop in zip(self.shape, self.hops))

    def table(self, out_dim: int) -> tuple[int, int]:
        """Rows and columns of the table of all amplitudes: a row for each output and frequency, a
        column for each block."""
        return out_dim * math.prod(self.hops), math.prod(self.blocks)

    def packing(self, out_dim: int) -> tuple[int, int]:
        """The same entries in fewer and longer rows, where a count for each row would take much."""
        rows, columns = self.table(out_dim)
        merged = math.gcd(math.prod(self.hops), 1 << max(0, (LONG_ROW - 1) // columns).bit_length())
        return rows // merged, columns * merged

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Cosines:
        """A field that keeps every amplitude, all zero; neither ``near`` nor ``generator`` plays a
        part."""
        kept = np.ones(self.packing(out_dim), bool)
        return Cosines(self, in_dim, out_dim, pack(kept), np.zeros(kept.size, np.float32))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Cosines:
        """The field that ``tensors`` (its saved state) came from. Raises ValueError naming what is
        missing or damaged."""
        if "positions" not in tensors:
            raise ValueError("tensor positions is missing")
        packed = tensors["positions"].numpy()
        count = len(unpack(packed, *self.packing(out_dim)))
        return Cosines(self, in_dim, out_dim, packed, np.zeros(count, np.float32))


class Cosines(Field):
    """A sparse sum of staggered cosines; see `CosineConfig`.

    ``amplitudes (kept,)`` are the parameters, ``positions`` says which they are
    (`nstr3d.fields.closed.positions`), and values are ``amplitudes' sum @ colours + offset`` with
    ``colours (out_dim, out_dim)`` orthogonal.
    """

    positions: Tensor
    colours: Tensor
    offset: Tensor

    def __init__(
        self,
        config: CosineConfig,
        in_dim: int,
        out_dim: int,
        packed: np.ndarray,
        amplitudes: np.ndarray,
    ):
        super().__init__()
        if in_dim != len(config.shape):
            raise ValueError(
                f"A field for {len(config.shape)} axes of samples cannot be built over {in_dim} "
                "dimensions."
            )
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.amplitudes = nn.Parameter(torch.from_numpy(amplitudes))
        self.register_buffer("positions", torch.from_numpy(packed))
        self.register_buffer("colours", torch.eye(out_dim))
        self.register_buffer("offset", torch.zeros(out_dim))
        self._rows: Tensor | None = None

    @property
    def stored_parameters(self) -> int:
        """Everything that a file holds, in units of one 32-bit number: amplitudes, positions,
        colours and offset."""
        return (
            self.parameter_count
            + -(-len(self.positions) // 4)
            + self.colours.numel()
            + self.offset.numel()
        )

    def forward(self, points: Tensor) -> Tensor:
        """Values ``(n, out_dim)`` at ``points (n, in_dim)`` of the unit box; zero waves outside the
        lattice's bounds.

        Places are computed in double precision: with float32 points a sound of more than some
        million samples loses its place.
        """
        width = self.out_dim * math.prod(self.config.hops) * 2**self.in_dim
        chunks = points.split(max(1, GATHER // width))
        return torch.cat([self._values(chunk) for chunk in chunks])

    def rates(self) -> list[dict]:
        return [{"params": [self.amplitudes], "lr": self.config.rate}]

    def raster(self, factor: int = 1) -> np.ndarray:
        """Values ``(*shape * factor, out_dim)`` float32 at the sample centres, or at those of
        ``factor`` times as many samples: what `forward` says there, through the fast transform."""
        shape, hops, counts = self.config.shape, self.config.hops, self.config.blocks
        table = self.table()
        total = np.empty((*(length * factor for length in shape), self.out_dim), np.float32)
        for channel, spectrum in enumerate(table.reshape(self.out_dim, *hops, *counts)):
            total[..., channel] = synthesise_all(spectrum, self.config, factor)
        colours, offset = self.colours.cpu().numpy(), self.offset.cpu().numpy()
        flat = total.reshape(-1, self.out_dim)
        for start in range(0, len(flat), TRIAL):  # in place, to hold one picture and not three
            flat[start : start + TRIAL] = flat[start : start + TRIAL] @ colours + offset
        return total

    def table(self) -> np.ndarray:
        """All amplitudes ``(rows, columns)`` float32, those that are not kept being 0; see
        `CosineConfig.table`."""
        rows, columns = self.config.table(self.out_dim)
        table = np.zeros(rows * columns, np.float32)
        table[self.index()] = self.amplitudes.detach().cpu().numpy()
        return table.reshape(rows, columns)

    def index(self) -> np.ndarray:
        """Flat index ``(kept,)`` int64 of each amplitude in the table."""
        return unpack(self.positions.cpu().numpy(), *self.config.packing(self.out_dim))

    def _values(self, points: Tensor) -> Tensor:
        config = self.config
        frame = config.lattice.frame
        places = points.double() * frame.scale + points.new_tensor(
            frame.centre, dtype=torch.float64
        )
        total = torch.zeros(len(points), self.out_dim, dtype=points.dtype, device=points.device)
        bits = [(0,) if hop == 1 else (0, 1) for hop in config.hops]
        order = self._row_index(points.device)
        padded = torch.cat(
            [self.amplitudes.to(points.dtype), self.amplitudes.new_zeros(1).to(points.dtype)]
        )[:, None]
        columns = math.prod(config.blocks)
        starts = torch.arange(self.out_dim * math.prod(config.hops), device=points.device) * columns
        for corner in itertools.product(*bits):
            column = torch.zeros(len(points), dtype=torch.int64, device=points.device)
            waves = torch.ones(len(points), 1, 1, dtype=points.dtype, device=points.device)
            for axis, (bit, hop, count) in enumerate(zip(corner, config.hops, config.blocks)):
                place = places[:, axis]
                block = bit + (place.detach() / hop).floor().long().clamp(0, max(0, count - 2))
                column = column * count + block
                within = torch.where(
                    (place.detach() < 0) | (place.detach() > config.shape[axis]), 0.0, 1.0
                )
                along = basis(place - (block - 1) * hop, hop, config.smooth) * within[:, None]
                waves = (waves[:, 0, :, None] * along.to(points.dtype)[:, None, :]).flatten(1)[
                    :, None
                ]
            found = rows_of(padded, order[starts + column[:, None]])[..., 0]
            found = found.view(len(points), self.out_dim, waves.shape[2])
            total = total + (found * waves).sum(dim=2)
        return total @ self.colours.to(points.dtype) + self.offset.to(points.dtype)

    def _row_index(self, device: torch.device) -> Tensor:
        """For every entry of the table where its amplitude is, or -1. Made when first asked for:
        samples do without."""
        if self._rows is None or self._rows.device != device:
            rows = np.full(math.prod(self.config.table(self.out_dim)), -1, np.int32)
            rows[self.index()] = np.arange(len(self.amplitudes))
            self._rows = torch.from_numpy(rows).to(device)
        return self._rows


def analyse_all(
    values: np.ndarray, config: CosineConfig, offset: np.ndarray, colours: np.ndarray
) -> np.ndarray:
    """The table of all amplitudes of ``values (*shape, c)``."""
    rows, columns = config.table(values.shape[-1])
    table = np.empty((values.shape[-1], rows // values.shape[-1], columns), np.float32)
    for channel in range(values.shape[-1]):
        spectrum = values @ colours[:, channel] - offset @ colours[:, channel]
        for hop in config.hops:  # (..., blocks, hop) replaces the axis in front: shapes rotate
            spectrum = analyse(np.moveaxis(spectrum, 0, -1), hop, config.smooth)
        dim = len(config.hops)
        order = [
            *range(1, 2 * dim, 2),
            *range(0, 2 * dim, 2),
        ]  # (J0, K0, J1, K1) -> (K0, K1, J0, J1)
        table[channel] = spectrum.transpose(order).reshape(table.shape[1:])
    return table.reshape(rows, columns)


def synthesise_all(spectrum: np.ndarray, config: CosineConfig, factor: int) -> np.ndarray:
    """Values ``(*shape * factor)`` from the amplitudes ``(*hops, *blocks)`` of one channel."""
    dim, smooth = len(config.shape), config.smooth
    order = [place for axis in range(dim) for place in (dim + axis, axis)]
    values = np.ascontiguousarray(spectrum.transpose(order))
    for length in reversed(config.shape):
        along = (
            synthesise(values, length, smooth)
            if factor == 1
            else resample(values, length, factor, smooth)
        )
        values = np.ascontiguousarray(np.moveaxis(along, -1, 0))
    return values
