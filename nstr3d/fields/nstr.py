"""The neural spectral transport field (NSTR): f(x) = g(S(x), waves) on sparse multi-level node
grids.

The form f = g(S, waves) is from arXiv 2511.18384 (withdrawn; its details are not public). The phase
field, the sparse levels and all defaults are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.layers import Decoder, linear
from nstr3d.fields.level import Level, LevelConfig, count_nodes, stored_nodes
from nstr3d.fields.start.linear import LinearStartConfig, start_linear
from nstr3d.fields.start.placement import PlacementConfig, place_waves
from nstr3d.fields.vicinity import Near
from nstr3d.fields.waves import PhaseWaves
from nstr3d.kernels.field.enclosure import enclose
from nstr3d.kernels.field.fused import applies, fused, fused_with_slope
from nstr3d.kernels.field.layout import Layout, Part
from nstr3d.kernels.step.adam import AdamW
from nstr3d.kernels.step.descent import Descent, Loss
from nstr3d.types import Samples

PLACEMENT = PlacementConfig()
START = LinearStartConfig()
LEVEL = "nodes", "table"  # the tensors of a level that decide its size


@dataclass(frozen=True)
class TransportConfig:
    """The transport F that models the spectrum's slope: h dS/dx ~ F(x, S), with the cell size h of
    each level.

    ``hidden`` is the number of hidden units. ``hidden = 0`` means F = 0, so that the transport loss
    is a plain smoothness penalty: the control. ``position = False`` makes F a function of S alone.
    """

    hidden: int = 64
    position: bool = True


@dataclass(frozen=True)
class NstrConfig:
    """The options of an NSTR field. The defaults give a field with phase waves for 3D surfaces, on
    quadratic levels, whose gradients are continuous.

    ``hidden`` and ``sharpness`` are those of the `Decoder`; with ``hidden = 0`` the decoder is the
    sum of the features, as in the paper. ``table_rate`` and ``decoder_rate`` are peak learning
    rates. ``table_decay`` is the decoupled weight decay of the tables (Loshchilov and Hutter,
    2019), which draws nodes that few samples reach to zero; without it the field can cross zero at
    such a node, off the surface. ``placement`` sets how the phase waves get their frequencies from
    the training samples; if None, they keep their random frequencies. ``start`` sets the
    least-squares initialisation of fields with one output; if None, tables and decoder start from
    random values. Raises ValueError if there are no ``levels``.
    """

    levels: tuple[LevelConfig, ...] = (
        LevelConfig(8, plain=8, sparse=False, order=2),
        LevelConfig(16, plain=6, order=2),
        LevelConfig(24, plain=1, sparse=False, order=2),
        LevelConfig(32, plain=6, waves=PhaseWaves(8), order=2),
    )
    hidden: int = 64
    sharpness: float = 50.0
    transport: TransportConfig | None = None
    placement: PlacementConfig | None = PLACEMENT
    start: LinearStartConfig | None = START
    table_rate: float = 2e-2
    table_decay: float = 0.03
    decoder_rate: float = 7e-3

    def __post_init__(self):
        if not self.levels:
            raise ValueError("An NSTR field needs at least one level.")

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Nstr:
        """A field with random weights drawn from ``generator`` (by default one with seed 0).

        Its sparse levels cover ``near``, a mesh or points ``(n, in_dim)`` in the unit box; without
        ``near`` they store all nodes. Raises ValueError if ``hidden`` is 0 and ``out_dim`` is not
        1.
        """
        generator = generator or torch.Generator().manual_seed(0)
        field = Nstr(
            self,
            in_dim,
            out_dim,
            [np.packbits(stored_nodes(level, in_dim, near)) for level in self.levels],
            generator,
        )
        field.fresh = True
        return field

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Nstr:
        """A field with the stored nodes of ``tensors`` (a saved state), whose other tensors can
        then be loaded into it. Raises ValueError naming the tensor if a node bitmap or a table
        is missing or has the wrong size."""
        bitmaps = []
        for index, level in enumerate(self.levels):
            bitmap, table = (_named(tensors, f"levels.{index}.{name}") for name in LEVEL)
            bitmaps.append(bitmap.numpy())
            shape = count_nodes(level, in_dim, bitmaps[-1]), level.channels
            if tuple(table.shape) != shape:
                raise ValueError(
                    f"tensor levels.{index}.table is {tuple(table.shape)} where its config and its "
                    f"nodes need {shape}"
                )
        return Nstr(self, in_dim, out_dim, bitmaps, torch.Generator())


def _named(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"tensor {name} is missing")
    return tensors[name]


class Nstr(Field):
    """An NSTR field; see `NstrConfig`.

    ``transport`` is F, or None if the config has none. ``fresh`` is true while the weights are the
    random ones of `NstrConfig.build`, so that `prepare` may replace them.
    """

    fresh = False

    def __init__(
        self,
        config: NstrConfig,
        in_dim: int,
        out_dim: int,
        nodes: Iterable[np.ndarray],
        generator: torch.Generator | None,
    ):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.levels = nn.ModuleList(
            Level(level, in_dim, bitmap, generator) for level, bitmap in zip(config.levels, nodes)
        )
        features = sum(level.features for level in config.levels)
        if config.hidden:
            self.decoder = Decoder(features, config.hidden, out_dim, config.sharpness, generator)
        elif out_dim != 1:
            raise ValueError(
                f"A decoder without hidden units has one output; {out_dim} outputs need hidden > 0."
            )
        else:
            self.decoder = Sum()
        channels = sum(level.channels for level in config.levels)
        self.transport = (
            Transport(config.transport, in_dim, channels, generator) if config.transport else None
        )
        self._layout: Layout | None = None

    @property
    def spectra(self) -> list[Level]:
        """The levels in the order of the config."""
        return list(self.levels)  # type: ignore[arg-type]

    def forward(self, points: Tensor) -> Tensor:
        parts = [level.part() for level in self.spectra]
        if not applies(points, parts):
            return self.decoder(torch.cat([level(points) for level in self.spectra], dim=1))
        if isinstance(self.decoder, Decoder):
            return fused(points, parts, self.decoder.weights(), self._layout_of(parts))
        return self.decoder(fused(points, parts, None, self._layout_of(parts)))

    def compiled_steps(
        self, delta: float, gradient_weight: float, optimizer: AdamW
    ) -> Callable[[Samples], Tensor] | None:
        parts = [level.part() for level in self.spectra]
        if not isinstance(self.decoder, Decoder) or not Descent.applies(
            parts, self.decoder.weights(), optimizer
        ):
            return None
        loss = Loss(delta, gradient_weight)
        return Descent(parts, self.decoder.weights(), self._layout_of(parts), loss, optimizer)

    def prepare(self, samples: Samples, generator: np.random.Generator) -> None:
        """Initialises a fresh field of one output by least squares, and places the phase waves of
        every level whose phases are all still zero, as the config says."""
        if (
            self.fresh
            and self.config.start is not None
            and self.out_dim == 1
            and isinstance(self.decoder, Decoder)
        ):
            start_linear(self.spectra, self.decoder, samples, self.config.start)
        self.fresh = False
        for level in self.spectra:
            waves = level.config.waves
            if self.config.placement is None or not isinstance(waves, PhaseWaves):
                continue
            if not level.table[:, level.config.plain + waves.count :].any():
                place_waves(level, samples, self.config.placement, generator)

    def value_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        parts = [level.part() for level in self.spectra]
        if (
            points.is_cuda
            or self.out_dim != 1
            or not isinstance(self.decoder, Decoder)
            or not applies(points.detach(), parts)
        ):
            return super().value_and_gradient(points)
        return fused_with_slope(points, parts, self.decoder.weights(), self._layout_of(parts))

    def enclose(self, ticks: np.ndarray) -> np.ndarray:
        if self.in_dim != 3 or self.out_dim != 1 or not isinstance(self.decoder, Decoder):
            return super().enclose(ticks)
        parts = [level.part() for level in self.spectra]
        return enclose(ticks, parts, self.decoder.weights(), self._layout_of(parts))

    def _layout_of(self, parts: list[Part]) -> Layout:
        if self._layout is None or not self._layout.fits(parts):
            self._layout = Layout(parts)
        return self._layout

    def rates(self) -> list[dict]:
        tables = [
            parameter for name, parameter in self.named_parameters() if name.endswith(".table")
        ]
        others = [
            parameter for name, parameter in self.named_parameters() if not name.endswith(".table")
        ]
        groups = [
            {
                "params": tables,
                "lr": self.config.table_rate,
                "weight_decay": self.config.table_decay,
            },
            {"params": others, "lr": self.config.decoder_rate},
        ]
        return [group for group in groups if group["params"]]

    def spectrum(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The spectrum S ``(n, channels)`` of all levels and its slope per cell, h dS/dx
        ``(n, channels, in_dim)``, with the cell size h of each level."""
        values, slopes = [], []
        for level in self.spectra:
            value, slope = level.spectrum_and_slope(points)
            values.append(value)
            slopes.append(slope * (2 / level.config.resolution))
        return torch.cat(values, dim=1), torch.cat(slopes, dim=1)

    def transport_residual(self, points: Tensor) -> Tensor:
        """The sum of |h dS/dx - F(x, S)|^2 over ``points (n, in_dim)``, divided by the sum of
        |h dS/dx|^2.

        It is 0 if F equals the spectrum's slope, and 1 if F is no better than F = 0. Raises
        ValueError for a field without a transport network.
        """
        if self.transport is None:
            raise ValueError(
                "This field was built without a transport network; set NstrConfig.transport."
            )
        spectrum, slope = self.spectrum(points)
        error = slope - self.transport(points, spectrum)
        return error.square().sum() / slope.square().sum().clamp_min(1e-20)

    def transport_loss(self, points: Tensor) -> Tensor:
        """The mean over ``points (n, in_dim)`` of |h dS/dx - F(x, S)|^2, summed over channels and
        axes. Raises ValueError for a field without a transport network."""
        if self.transport is None:
            raise ValueError(
                "This field was built without a transport network; set NstrConfig.transport."
            )
        spectrum, slope = self.spectrum(points)
        return (slope - self.transport(points, spectrum)).square().sum(dim=(1, 2)).mean()

    def local_frequency(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Local frequency omega_k + grad phi_k ``(n, waves, in_dim)``, in radians per unit length
        of the unit box, and amplitude ``(n, waves)`` of all phase waves.

        Raises ValueError for a field without phase waves.
        """
        frequencies, amplitudes = [], []
        for level in self.spectra:
            waves = level.config.waves
            if not isinstance(waves, PhaseWaves):
                continue
            value, slope = level.spectrum_and_slope(points)
            start = level.config.plain
            amplitudes.append(value[:, start : start + waves.count])
            frequencies.append(level.omega + waves.radians * slope[:, start + waves.count :])
        if not frequencies:
            raise ValueError(
                "This field has no phase waves and therefore no local frequency; use levels with "
                "PhaseWaves."
            )
        return torch.cat(frequencies, dim=1), torch.cat(amplitudes, dim=1)


class Sum(nn.Module):
    """The decoder g that sums all features: ``(n, k)`` -> ``(n, 1)``."""

    def forward(self, features: Tensor) -> Tensor:
        return features.sum(dim=1, keepdim=True)


class Transport(nn.Module):
    """The transport network F: (x, S) or S alone -> slopes per cell ``(n, channels, dim)``, through
    one hidden layer with tanh. With ``hidden = 0`` it has no parameters and returns zero."""

    def __init__(
        self, config: TransportConfig, dim: int, channels: int, generator: torch.Generator | None
    ):
        super().__init__()
        self.config, self.dim, self.channels = config, dim, channels
        if config.hidden:
            self.first = linear(
                channels + (dim if config.position else 0), config.hidden, generator
            )
            self.last = linear(config.hidden, channels * dim, generator)

    def forward(self, points: Tensor, spectrum: Tensor) -> Tensor:
        if not self.config.hidden:
            return spectrum.new_zeros(len(points), self.channels, self.dim)
        inputs = torch.cat([points, spectrum], dim=1) if self.config.position else spectrum
        return self.last(torch.tanh(self.first(inputs))).view(-1, self.channels, self.dim)
