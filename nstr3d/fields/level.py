"""One level of the local spectrum S(x): a dense or sparse node grid, its table, and the waves that
read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves, draw_frequencies
from nstr3d.kernels.field.interpolate import gather, interpolate_with_slope
from nstr3d.kernels.field.layout import Part
from nstr3d.types import Mesh


@dataclass(frozen=True)
class LevelConfig:
    """A level: ``resolution`` cells per axis, ``plain`` channels without a wave, and ``waves`` or
    none.

    ``sparse`` keeps only the nodes of cells that touch what the field is built near; everywhere
    else the level is zero.
    """

    resolution: int
    plain: int = 0
    waves: AmplitudeWaves | ComplexWaves | PhaseWaves | None = None
    sparse: bool = True

    def __post_init__(self):
        if self.resolution < 1:
            raise ValueError(
                f"A level needs a resolution of at least 1 cell per axis, not {self.resolution}."
            )
        if self.plain < 0 or self.channels == 0:
            raise ValueError("A level needs at least one channel: give it plain channels or waves.")

    @property
    def channels(self) -> int:
        """Spectrum channels stored per node."""
        return self.plain + (self.waves.count * self.waves.channels_per_wave if self.waves else 0)

    @property
    def features(self) -> int:
        """Features handed to the decoder."""
        return self.plain + (self.waves.count if self.waves else 0)


class Level(nn.Module):
    """S(x) of one level by multilinear interpolation of ``table (nodes, channels)``: plain channels
    first, then the waves'.

    ``nodes`` is the bitmap of stored nodes, ``((resolution + 1)^dim,)`` packed eight to a byte: all
    that a file needs to find every row again.
    """

    table: nn.Parameter
    nodes: Tensor
    rows: Tensor

    def __init__(
        self,
        config: LevelConfig,
        dim: int,
        stored: np.ndarray,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.config = config
        count = int(stored.sum())
        rows = np.where(stored, np.cumsum(stored) - 1, -1).astype(np.int32)
        self.register_buffer("rows", torch.from_numpy(rows), persistent=False)
        self.register_buffer("nodes", torch.from_numpy(np.packbits(stored)))
        parts = [torch.randn(count, config.plain, generator=generator) * 0.1]
        if config.waves:
            parts.append(config.waves.initial(count, generator))
            omega, phase = draw_frequencies(
                config.waves.count, dim, config.waves.band, config.resolution, generator
            )
            if config.waves.learned:
                self.omega, self.phase = nn.Parameter(omega), nn.Parameter(phase)
            else:
                self.register_buffer("omega", omega)
                self.register_buffer("phase", phase)
        self.table = nn.Parameter(torch.cat(parts, dim=1))

    def forward(self, points: Tensor) -> Tensor:
        """Features ``(n, plain + waves)``."""
        spectrum = self.spectrum(points)
        waves = self.config.waves
        if waves is None:
            return spectrum
        plain, local = spectrum[:, : self.config.plain], spectrum[:, self.config.plain :]
        return torch.cat(
            [plain, waves.features(local, torch.addmm(self.phase, points, self.omega.T))], dim=1
        )

    def part(self) -> Part:
        """This level as the fused kernels take it."""
        config, waves = self.config, self.config.waves
        if waves is None:
            return Part(self.rows, config.resolution, self.table, config.plain)
        radians = waves.radians if isinstance(waves, PhaseWaves) else 1.0
        return Part(
            self.rows,
            config.resolution,
            self.table,
            config.plain,
            waves.kind,
            self.omega,
            self.phase,
            radians,
        )

    def spectrum(self, points: Tensor) -> Tensor:
        """S(x) ``(n, channels)``."""
        return gather(points, self.rows, self.config.resolution, self.table)

    def spectrum_and_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """S(x) ``(n, channels)`` and dS/dx ``(n, channels, dim)`` in closed form, from one
        gather."""
        return interpolate_with_slope(points, self.rows, self.config.resolution, self.table)


def stored_nodes(config: LevelConfig, dim: int, near: Mesh | np.ndarray | None) -> np.ndarray:
    """Which nodes a level stores: bool ``((resolution + 1)^dim,)``; all of them when dense or when
    ``near`` is None.

    ``near`` is a mesh or points ``(n, dim)`` in the unit box.
    """
    edge = config.resolution + 1
    if not config.sparse or near is None:
        return np.ones(edge**dim, bool)
    points = (
        surface_lattice(near, 1.0 / config.resolution)
        if isinstance(near, Mesh)
        else np.asarray(near)
    )
    cells = np.clip(
        ((points + 1) * (config.resolution / 2)).astype(np.int64), 0, config.resolution - 1
    )
    touched = np.zeros((config.resolution,) * dim, bool)
    touched[tuple(cells.T)] = True
    nodes = np.zeros((edge,) * dim, bool)
    for corner in np.ndindex(*(2,) * dim):
        nodes[tuple(slice(c, c + config.resolution) for c in corner)] |= touched
    return nodes.ravel()


def unpack_nodes(config: LevelConfig, dim: int, bitmap: np.ndarray) -> np.ndarray:
    """The bool array that `Level.nodes` packs. Raises ValueError when the bitmap has another
    resolution's length."""
    count = (config.resolution + 1) ** dim
    if bitmap.dtype != np.uint8 or len(bitmap) != (count + 7) // 8:
        needed = f"a level of {config.resolution}^{dim} cells needs {(count + 7) // 8}"
        raise ValueError(f"node bitmap holds {len(bitmap)} bytes where {needed}")
    return np.unpackbits(bitmap, count=count).astype(bool)


def surface_lattice(mesh: Mesh, spacing: float) -> np.ndarray:
    """Points on every triangle no further apart than about ``spacing``: its corners and midpoints,
    split until it is small."""
    corners, found = mesh.corners, []
    while len(corners):
        found.append(corners.reshape(-1, 3))
        edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
        large = corners[edges.max(axis=1) > spacing]
        a, b, c = large[:, 0], large[:, 1], large[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        corners = np.concatenate([np.stack(q, axis=1) for q in quarters])
    return np.concatenate(found)
