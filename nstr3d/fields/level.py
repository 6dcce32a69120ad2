"""One level of the local spectrum S(x): a dense or sparse node grid, its table of coefficients, and
its waves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.layers import is_outline
from nstr3d.fields.vicinity import Near, Vicinity
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves, draw_frequencies
from nstr3d.kernels.field.interpolate import (
    NodeGrid,
    gather,
    nodes_per_axis,
    spectrum_with_slope,
)
from nstr3d.kernels.field.layout import Part

MOST_NODES = 1 << 28  # of a level in a file; the index of that many takes 1 GB
PART = 1 << 20  # bytes of a bitmap that are counted at a time


_FIXED: ContextVar[bool] = ContextVar("_FIXED", default=False)


@contextmanager
def nodes_fixed() -> Iterator[None]:
    """A context for a trace of a field that has been asked and keeps its nodes: their index is a
    constant of the trace, which need not be able to make it."""
    before = _FIXED.set(True)
    try:
        yield
    finally:
        _FIXED.reset(before)


@dataclass(frozen=True)
class LevelConfig:
    """A level of ``resolution`` cells per axis with ``plain`` channels without a wave, and
    optionally ``waves``.

    ``order`` is the degree of the B-splines: 1 is multilinear, with creases at the cells' faces; 2
    is quadratic, with a continuous gradient. A ``sparse`` level stores only nodes near the shape
    that the field is built for, and is zero elsewhere. With order 1 it stores the corners of the
    cells that the shape touches. With order 2 it stores the nodes whose weight is at least
    ``least_weight`` somewhere on the shape: every subset of the B-splines is as smooth as the full
    set, and the other nodes would spend parameters that few samples reach.

    Raises ValueError if ``order`` is not 1 or 2, ``resolution`` is less than 1, ``plain`` is
    negative, or the level has no channel.
    """

    resolution: int
    plain: int = 0
    waves: AmplitudeWaves | ComplexWaves | PhaseWaves | None = None
    sparse: bool = True
    order: int = 1
    least_weight: float = 0.04

    def __post_init__(self):
        if self.order not in (1, 2):
            raise ValueError(
                f"A level's order is 1 (multilinear) or 2 (quadratic), not {self.order}."
            )
        if self.resolution < 1:
            raise ValueError(
                f"A level needs a resolution of at least 1 cell per axis, not {self.resolution}."
            )
        if self.plain < 0:
            raise ValueError(f"A level's plain channels are 0 or more, not {self.plain}.")
        if self.channels == 0:
            raise ValueError("A level needs at least one channel; give it plain channels or waves.")

    @property
    def channels(self) -> int:
        """Spectrum channels stored per node."""
        return self.plain + (self.waves.count * self.waves.channels_per_wave if self.waves else 0)

    @property
    def edge(self) -> int:
        """Nodes per axis."""
        return nodes_per_axis(self.resolution, self.order)

    @property
    def features(self) -> int:
        """Number of features that the decoder receives from the level."""
        return self.plain + (self.waves.count if self.waves else 0)


class Level(nn.Module):
    """S(x) of one level: a sum of B-splines with the coefficients ``table (nodes, channels)``, with
    the plain channels first and then the waves' channels.

    ``nodes`` is the bitmap of the stored nodes, ``((resolution + order)^dim,)`` bits packed eight
    to a byte. The rows of the table are the stored nodes in this order, so a saved file needs only
    the bitmap. Raises the errors of `count_nodes`.
    """

    table: nn.Parameter
    nodes: Tensor

    def __init__(
        self,
        config: LevelConfig,
        dim: int,
        nodes: np.ndarray,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.config, self.dim = config, dim
        self.register_buffer("nodes", torch.from_numpy(nodes.copy()))
        self._index: tuple[Tensor, int | None, Tensor] | None = None
        table, omega, phase = _initial(config, dim, count_nodes(config, dim, nodes), generator)
        if omega is not None and phase is not None:
            if config.waves and config.waves.learned:
                self.omega, self.phase = nn.Parameter(omega), nn.Parameter(phase)
            else:
                self.register_buffer("omega", omega)
                self.register_buffer("phase", phase)
        self.table = nn.Parameter(table)

    def forward(self, points: Tensor) -> Tensor:
        """Features ``(n, plain + waves)`` at ``points (n, dim)``."""
        spectrum = self.spectrum(points)
        waves = self.config.waves
        if waves is None:
            return spectrum
        plain, local = spectrum[:, : self.config.plain], spectrum[:, self.config.plain :]
        return torch.cat(
            [plain, waves.features(local, torch.addmm(self.phase, points, self.omega.T))], dim=1
        )

    @property
    def rows(self) -> Tensor:
        """The row of each node, or -1: int32 ``((resolution + order)^dim,)``. Made from ``nodes``
        at first use, because it is larger than a file and loading needs none of it."""
        count = self.config.edge**self.dim
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            if _FIXED.get() and self._index is not None:
                return self._index[2]
            return _index_rows(self.nodes, count)  # of a stand-in for nodes, or of other nodes
        version = None if self.nodes.is_inference() else self.nodes._version
        if (
            self._index is None
            or self._index[0] is not self.nodes
            or self._index[1] != version
            or self._index[2].device != self.nodes.device
        ):
            self._index = self.nodes, version, _index_rows(self.nodes, count)
        return self._index[2]

    @property
    def grid(self) -> NodeGrid:
        """The nodes in the form that the kernels read."""
        return NodeGrid(self.rows, self.config.resolution, self.config.order)

    def places(self) -> Tensor:
        """Positions ``(nodes, dim)`` of the stored nodes in unit-box coordinates, in the order of
        the table. The nodes of a quadratic level are the cells' centres and one more layer just
        outside the box."""
        config = self.config
        stored = self.rows.reshape((config.edge,) * self.dim) >= 0
        return (torch.nonzero(stored) - (config.order - 1) / 2) * (2 / config.resolution) - 1

    def part(self) -> Part:
        """The level in the form that the fused kernels read."""
        config, waves = self.config, self.config.waves
        if waves is None:
            return Part(self.grid, self.table, config.plain)
        radians = waves.radians if isinstance(waves, PhaseWaves) else 1.0
        return Part(
            self.grid,
            self.table,
            config.plain,
            waves.kind,
            self.omega,
            self.phase,
            radians,
        )

    def spectrum(self, points: Tensor) -> Tensor:
        """S(x) ``(n, channels)`` at ``points (n, dim)``."""
        return gather(points, self.grid, self.table)

    def spectrum_and_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """S(x) ``(n, channels)`` and, in closed form, dS/dx ``(n, channels, dim)`` per unit length
        of the unit box, from one gather of the table's rows."""
        return spectrum_with_slope(points, self.grid, self.table)


def _initial(
    config: LevelConfig, dim: int, count: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The random table ``(count, channels)`` of a level, and the frequencies ``(waves, dim)`` and
    phases ``(waves,)`` of its waves, None without waves."""
    waves = config.waves
    if is_outline():
        table = torch.empty(count, config.channels)
        return (
            (table, torch.empty(waves.count, dim), torch.empty(waves.count))
            if waves
            else (table, None, None)
        )
    plain = torch.randn(count, config.plain, generator=generator) * 0.1
    if waves is None:
        return plain, None, None
    table = torch.cat([plain, waves.initial(count, generator)], dim=1)
    omega, phase = draw_frequencies(waves.count, dim, waves.band, config.resolution, generator)
    return table, omega, phase


def stored_nodes(config: LevelConfig, dim: int, near: Near | None) -> np.ndarray:
    """Mask of the nodes that a level stores: bool ``(edge^dim,)``. A dense level, or any level
    without ``near``, stores all nodes.

    ``near`` is a mesh or points ``(n, dim)`` in the unit box, or the `Vicinity` of either.
    """
    if not config.sparse or near is None:
        return np.ones(config.edge**dim, bool)
    vicinity = Vicinity.of(near)
    if config.order == 1:
        return vicinity.corners(config.resolution)
    return vicinity.nodes(config.resolution, config.order, config.least_weight)


def count_nodes(config: LevelConfig, dim: int, bitmap: np.ndarray) -> int:
    """The number of nodes in a ``bitmap`` that `Level.nodes` holds, without unpacking it.

    Raises ValueError if ``bitmap`` is not uint8 ``(bytes,)``, its length does not fit the level's
    resolution, or the level has more than `MOST_NODES` nodes, stored or not.
    """
    count = config.edge**dim
    if bitmap.dtype != np.uint8 or bitmap.ndim != 1:
        form = f"{bitmap.dtype} of shape {bitmap.shape}"
        raise ValueError(f"node bitmap is {form}, not uint8 of shape (bytes,)")
    if len(bitmap) != (count + 7) // 8:
        needed = f"a level of {config.resolution}^{dim} cells needs {(count + 7) // 8}"
        raise ValueError(f"node bitmap holds {len(bitmap)} bytes, but {needed}")
    if count > MOST_NODES:
        raise ValueError(f"the level has {count:,} nodes and may have {MOST_NODES:,}")
    parts = (bitmap[start : start + PART] for start in range(0, len(bitmap), PART))
    padding = np.unpackbits(bitmap[-1:])[(count - 1) % 8 + 1 :]
    return sum(int(np.count_nonzero(np.unpackbits(part))) for part in parts) - int(padding.sum())


def _index_rows(nodes: Tensor, count: int) -> Tensor:
    """The row of each of ``count`` nodes, or -1, from their bitmap, in operations of torch, which
    also take stacked fields."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=nodes.device)
    stored = (nodes[:, None] >> shifts & 1).reshape(-1)[:count]
    return torch.where(stored == 1, stored.cumsum(dim=0, dtype=torch.int32) - 1, -1)
