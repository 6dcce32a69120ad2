"""The neural spectral transport field: f(x) = g( S(x), waves ), on sparse multi-level node grids.

Form: arXiv 2511.18384 (withdrawn; its details are not public). The phase field, the sparse levels
and every default are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.layers import Decoder, linear
from nstr3d.fields.level import Level, LevelConfig, stored_nodes, unpack_nodes
from nstr3d.fields.start.linear import LinearStartConfig, start_linear
from nstr3d.fields.start.placement import PlacementConfig, place_waves
from nstr3d.fields.vicinity import Near
from nstr3d.fields.waves import PhaseWaves
from nstr3d.kernels.field.fused import applies, fused, fused_with_slope
from nstr3d.kernels.field.layout import Layout, Part
from nstr3d.kernels.step.adam import AdamW
from nstr3d.kernels.step.descent import Descent, Loss
from nstr3d.types import Samples

PLACEMENT = PlacementConfig()
START = LinearStartConfig()


@dataclass(frozen=True)
class TransportConfig:
    """F: how the spectrum moves, dS/dx ~ F(x, S), with S and slopes counted per cell of each level.

    ``hidden = 0`` is F = 0, plain smoothness: the control. ``position = False`` makes it F(S).
    """

    hidden: int = 64
    position: bool = True


@dataclass(frozen=True)
class NstrConfig:
    """Defaults: the phase field for 3D surfaces, on levels whose gradients are continuous.
    ``hidden = 0`` makes the decoder the identity, the paper's literal sum.

    ``table_decay`` draws nodes that few samples see to zero (decoupled, Loshchilov and Hutter,
    2019): without it the field can cross zero at such a node, off the surface. ``placement`` is how
    phase waves find their frequencies in the training samples; without it they keep the random ones
    that they are built with. ``start`` is the closed form that training starts from, for fields of
    one value; without it tables and decoder start random.
    """

    levels: tuple[LevelConfig, ...] = (
        LevelConfig(8, plain=8, sparse=False, order=2),
        LevelConfig(16, plain=2, sparse=False, order=2),
        LevelConfig(16, plain=6, order=2),
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
        """A field with random weights, drawn from ``generator`` (by default one with seed 0), whose
        sparse levels cover ``near``, a mesh or points in the unit box."""
        generator = generator or torch.Generator().manual_seed(0)
        field = Nstr(
            self,
            in_dim,
            out_dim,
            [stored_nodes(level, in_dim, near) for level in self.levels],
            generator,
        )
        field.fresh = True
        return field

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Nstr:
        """The field that ``tensors`` (its saved state) came from. Raises ValueError naming what is
        missing or misshapen."""
        stored = []
        for index, level in enumerate(self.levels):
            key = f"levels.{index}.nodes"
            if key not in tensors:
                raise ValueError(f"tensor {key} is missing")
            stored.append(unpack_nodes(level, in_dim, tensors[key].numpy()))
        return Nstr(self, in_dim, out_dim, stored, torch.Generator())


class Nstr(Field):
    """An NSTR field; see `NstrConfig`. ``transport`` holds F where the config asks for it;
    ``fresh`` says that the weights are random, so that training may choose others to start from."""

    fresh = False

    def __init__(
        self,
        config: NstrConfig,
        in_dim: int,
        out_dim: int,
        stored: list[np.ndarray],
        generator: torch.Generator | None,
    ):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.levels = nn.ModuleList(
            Level(level, in_dim, nodes, generator) for level, nodes in zip(config.levels, stored)
        )
        features = sum(level.features for level in config.levels)
        if config.hidden:
            self.decoder = Decoder(features, config.hidden, out_dim, config.sharpness, generator)
        elif out_dim != 1:
            raise ValueError(
                f"The identity decoder sums to one value; {out_dim} outputs need hidden > 0."
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
        """The levels, coarse to fine as configured."""
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
        """Starts a fresh field in closed form, and places the phase waves unless they have moved
        already."""
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

    def _layout_of(self, parts: list[Part]) -> Layout:
        if self._layout is None or self._layout.key != Layout.key_of(parts):
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
        """S ``(n, channels)`` of all levels and its slope per cell, h dS/dx ``(n, channels,
        in_dim)``, h being the cell size."""
        values, slopes = [], []
        for level in self.spectra:
            value, slope = level.spectrum_and_slope(points)
            values.append(value)
            slopes.append(slope * (2 / level.config.resolution))
        return torch.cat(values, dim=1), torch.cat(slopes, dim=1)

    def transport_residual(self, points: Tensor) -> Tensor:
        """|h dS/dx - F(x, S)|^2 relative to |h dS/dx|^2: 0 where F explains the spectrum's motion,
        1 where F = 0 would do."""
        if self.transport is None:
            raise ValueError(
                "This field was built without a transport network; set NstrConfig.transport."
            )
        spectrum, slope = self.spectrum(points)
        error = slope - self.transport(points, spectrum)
        return error.square().sum() / slope.square().sum().clamp_min(1e-20)

    def transport_loss(self, points: Tensor) -> Tensor:
        """Mean over points of |h dS/dx - F(x, S)|^2, summed over channels and axes."""
        if self.transport is None:
            raise ValueError(
                "This field was built without a transport network; set NstrConfig.transport."
            )
        spectrum, slope = self.spectrum(points)
        return (slope - self.transport(points, spectrum)).square().sum(dim=(1, 2)).mean()

    def local_frequency(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Local frequency omega_k + grad phi_k ``(n, waves, in_dim)`` and amplitude ``(n, waves)``
        of the phase-field waves.

        Radians per unit length of the unit box. Raises ValueError for a field without phase waves.
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
                "This field has no phase waves, so no local frequency to read; use levels with "
                "PhaseWaves."
            )
        return torch.cat(frequencies, dim=1), torch.cat(amplitudes, dim=1)


class Sum(nn.Module):
    """g = identity on the waves' sum: features ``(n, k)`` -> ``(n, 1)``."""

    def forward(self, features: Tensor) -> Tensor:
        return features.sum(dim=1, keepdim=True)


class Transport(nn.Module):
    """F: (x, S) or S alone -> slopes ``(n, channels, dim)``; zero without parameters when
    ``hidden`` is 0."""

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
