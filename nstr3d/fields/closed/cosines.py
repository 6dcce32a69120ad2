"""The closed-form field for complete samples of a sound or a picture: the largest amplitudes of a
lapped cosine basis.

The field is an NSTR field with a linear decoder and with chosen frequencies and phases: K = hop
cosines per axis with the frequencies ``pi (k + 1/2) / hop``, and amplitudes on two interleaved
grids in quadrature, so that waves and windows form an orthonormal basis
(`nstr3d.fields.closed.lapped`). The best amplitudes are therefore one matrix product with the
samples, and the P largest give the best field of P amplitudes. This is sparse transform coding,
similar to JPEG with overlapping blocks. The field is a continuous, differentiable function f(x).
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
from nstr3d.fields.closed.positions import count_packed, pack, unpack
from nstr3d.fields.layers import is_outline
from nstr3d.fields.vicinity import Near
from nstr3d.kernels.field.interpolate import rows_of
from nstr3d.types import Lattice

GATHER = 1 << 22  # most coefficients that `forward` looks up at a time
TRIAL = 1 << 20  # most samples on which hops are tried
MOST_AMPLITUDES = 1 << 30  # of a table in a file, kept or not; so many take 4 GB
LONG_ROW = 1024  # entries that a row of packed positions has at least, where the table allows it


@dataclass(frozen=True)
class CosineConfig:
    """The options of a cosine field: the ``shape`` of the array of samples, and the hop in samples
    along each axis, which is even, or 1 on an axis of one sample.

    ``smooth`` selects the window with a continuous slope. This window is better for tones; pictures
    have fewer large amplitudes without it. ``rate`` is the learning rate of the amplitudes if they
    are trained further. Raises ValueError if the numbers of axes differ, an axis has no sample, or
    a hop is not allowed.
    """

    shape: tuple[int, ...]
    hops: tuple[int, ...]
    smooth: bool = False
    rate: float = 1e-3

    def __post_init__(self):
        if len(self.shape) != len(self.hops):
            raise ValueError(
                f"Every axis needs a hop, but there are {len(self.hops)} hops {self.hops} for "
                f"samples of shape {self.shape}."
            )
        _ = self.blocks

    @property
    def lattice(self) -> Lattice:
        """The lattice of the samples, which gives their positions."""
        return Lattice(self.shape)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return tuple(blocks(length, hop) for length, hop in zip(self.shape, self.hops))

    def table(self, out_dim: int) -> tuple[int, int]:
        """Number of rows and columns of the table of all amplitudes, which has a row for each
        output and frequency and a column for each block."""
        return out_dim * math.prod(self.hops), math.prod(self.blocks)

    def packing(self, out_dim: int) -> tuple[int, int]:
        """Number of rows and columns of the table when its positions are packed. Short rows are
        merged into longer ones, because the packed positions hold a count for each row."""
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
        """A field that keeps all amplitudes, each with the value 0. ``near`` and ``generator`` are
        ignored. Raises ValueError if ``in_dim`` is not the number of axes."""
        kept = np.ones(self.packing(out_dim), bool)
        return Cosines(self, in_dim, out_dim, pack(kept), np.zeros(kept.size, np.float32))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Cosines:
        """A field with the positions of ``tensors`` (a saved state), whose other tensors can then
        be loaded into it. Raises ValueError if the positions are missing or damaged, or ``in_dim``
        is not the number of axes."""
        if "positions" not in tensors:
            raise ValueError("tensor positions is missing")
        if (size := math.prod(self.table(out_dim))) > MOST_AMPLITUDES:
            raise ValueError(f"its table has {size:,} amplitudes and may have {MOST_AMPLITUDES:,}")
        packed = tensors["positions"].numpy()
        count = count_packed(packed, *self.packing(out_dim))
        return Cosines(self, in_dim, out_dim, packed, np.zeros(count, np.float32))


class Cosines(Field):
    """A sparse sum of lapped cosines; see `CosineConfig`.

    ``amplitudes (kept,)`` are the parameters. ``positions`` are their packed indices in the table
    of all amplitudes (`nstr3d.fields.closed.positions`). The values are ``sums @ colours + offset``
    with the sums of cosines ``(n, out_dim)``, the orthogonal matrix ``colours (out_dim, out_dim)``
    and ``offset (out_dim,)``.
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
                f"A field for samples along {len(config.shape)} axes cannot be built over {in_dim} "
                "dimensions."
            )
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.amplitudes = nn.Parameter(torch.from_numpy(amplitudes))
        self.register_buffer("positions", torch.from_numpy(packed))
        colours = torch.empty(out_dim, out_dim) if is_outline() else torch.eye(out_dim)
        self.register_buffer("colours", colours)
        self.register_buffer("offset", torch.zeros(out_dim))
        self._rows: Tensor | None = None

    @property
    def stored_parameters(self) -> int:
        """Size of all that a saved file holds, in 32-bit numbers: amplitudes, packed positions,
        colours and offset."""
        return (
            self.parameter_count
            + -(-len(self.positions) // 4)
            + self.colours.numel()
            + self.offset.numel()
        )

    def forward(self, points: Tensor) -> Tensor:
        """Values ``(n, out_dim)`` at ``points (n, in_dim)`` of the unit box. Outside the lattice's
        bounds the waves are zero and the value is ``offset``.

        Positions in samples are computed in double precision. The points themselves limit the
        precision: float32 points are too coarse for a sound of more than a few million samples.
        """
        width = self.out_dim * math.prod(self.config.hops) * 2**self.in_dim
        chunks = points.split(max(1, GATHER // width))
        return torch.cat([self._values(chunk) for chunk in chunks])

    def rates(self) -> list[dict]:
        return [{"params": [self.amplitudes], "lr": self.config.rate}]

    def raster(self, factor: int = 1) -> np.ndarray:
        """Values ``(*(shape * factor), out_dim)`` float32 at the sample centres, or at the centres
        of ``factor`` times as many samples per axis. They equal those of `forward`, but come from
        the fast transform."""
        shape, hops, counts = self.config.shape, self.config.hops, self.config.blocks
        table = self.table()
        total = np.empty((*(length * factor for length in shape), self.out_dim), np.float32)
        for channel, spectrum in enumerate(table.reshape(self.out_dim, *hops, *counts)):
            total[..., channel] = synthesise_all(spectrum, self.config, factor)
        colours, offset = self.colours.cpu().numpy(), self.offset.cpu().numpy()
        flat = total.reshape(-1, self.out_dim)
        for start in range(0, len(flat), TRIAL):  # in place and in parts, to save memory
            flat[start : start + TRIAL] = flat[start : start + TRIAL] @ colours + offset
        return total

    def table(self) -> np.ndarray:
        """The table of all amplitudes ``(rows, columns)`` float32, with 0 for those that are not
        kept; see `CosineConfig.table`."""
        rows, columns = self.config.table(self.out_dim)
        table = np.zeros(rows * columns, np.float32)
        table[self.index()] = self.amplitudes.detach().cpu().numpy()
        return table.reshape(rows, columns)

    def index(self) -> np.ndarray:
        """Flat index ``(kept,)`` int64 of each kept amplitude in the table."""
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
            local = rows_of(padded, order[starts + column[:, None]])[..., 0]
            local = local.view(len(points), self.out_dim, waves.shape[2])
            total = total + (local * waves).sum(dim=2)
        return total @ self.colours.to(points.dtype) + self.offset.to(points.dtype)

    def _row_index(self, device: torch.device) -> Tensor:
        """For every entry of the table, the index of its amplitude, or -1. It is made on first use,
        because `raster` does not need it."""
        if self._rows is None or self._rows.device != device:
            rows = np.full(math.prod(self.config.table(self.out_dim)), -1, np.int32)
            rows[self.index()] = np.arange(len(self.amplitudes))
            self._rows = torch.from_numpy(rows).to(device)
        return self._rows


def analyse_all(
    values: np.ndarray, config: CosineConfig, offset: np.ndarray, colours: np.ndarray
) -> np.ndarray:
    """The table of all amplitudes ``(rows, columns)`` float32 of ``values (*shape, c)``, after
    ``offset (c,)`` is subtracted and the channels are rotated by the columns of ``colours (c, c)``;
    see `CosineConfig.table`."""
    rows, columns = config.table(values.shape[-1])
    table = np.empty((values.shape[-1], rows // values.shape[-1], columns), np.float32)
    for channel in range(values.shape[-1]):
        spectrum = values @ colours[:, channel] - offset @ colours[:, channel]
        for hop in config.hops:  # the first axis moves to the end and becomes (blocks, hop)
            spectrum = analyse(np.moveaxis(spectrum, 0, -1), hop, config.smooth)
        dim = len(config.hops)
        order = [
            *range(1, 2 * dim, 2),
            *range(0, 2 * dim, 2),
        ]  # (J0, K0, J1, K1) -> (K0, K1, J0, J1)
        table[channel] = spectrum.transpose(order).reshape(table.shape[1:])
    return table.reshape(rows, columns)


def synthesise_all(spectrum: np.ndarray, config: CosineConfig, factor: int) -> np.ndarray:
    """The values ``(*(shape * factor))`` of one channel from its amplitudes ``(*hops, *blocks)``,
    at ``factor`` times as many samples per axis."""
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
