"""A perceptron on random Fourier features (Tancik et al., "Fourier Features Let Networks Learn High
Frequency Functions in Low Dimensional Domains", NeurIPS 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.fields.base import Field, largest
from nstr3d.fields.layers import Mlp, is_outline
from nstr3d.fields.vicinity import Near


@dataclass(frozen=True)
class FourierConfig:
    """The options of a Fourier feature field. The defaults are 256 frequencies and hidden layers of
    256 units (section 6 of the paper).

    ``deviation`` is the standard deviation of the Gaussian from which the frequencies are drawn, in
    cycles per unit length of [0, 1]; the paper tunes it per task. The frequencies are fixed: they
    are saved, but do not count as parameters. Raises ValueError if ``width``, ``depth``,
    ``frequencies`` or ``deviation`` is not positive.
    """

    width: int = 256
    depth: int = 4
    frequencies: int = 256
    deviation: float = 5.0
    rate: float = 1e-3

    def __post_init__(self):
        if min(self.width, self.depth, self.frequencies) < 1 or not self.deviation > 0:
            raise ValueError(
                f"Width, depth, frequencies and deviation must be positive, unlike in {self}."
            )

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Fourier:
        """A field with random weights drawn from ``generator`` (by default one with seed 0).
        ``near`` is ignored."""
        return Fourier(self, in_dim, out_dim, generator or torch.Generator().manual_seed(0))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Fourier:
        """A field into which the saved ``tensors`` can be loaded."""
        return self.build(in_dim, out_dim)

    def parameters(self, out_dim: int) -> int:
        """Number of parameters of the field: ``(2 m + 1) w + (depth - 1) (w + 1) w + (w + 1) c``
        for m frequencies, c outputs and width w."""
        w = self.width
        return (2 * self.frequencies + 1) * w + (self.depth - 1) * (w + 1) * w + (w + 1) * out_dim


def sized_fourier(params: int, near: Near, out_dim: int = 1) -> FourierConfig:
    """The widest Fourier feature field of at most ``params`` parameters. The number of frequencies
    equals the width, as in the paper. ``near`` is ignored. Raises ValueError if even width 1 needs
    more parameters."""
    width = largest(lambda w: FourierConfig(w, frequencies=w).parameters(out_dim), params, 1)
    return FourierConfig(width, frequencies=width)


class Fourier(Field):
    """``x -> mlp(cos 2 pi B v, sin 2 pi B v)`` with ``v = (x + 1) / 2``, a fixed random matrix B
    and ReLU layers; see `FourierConfig`."""

    matrix: Tensor

    def __init__(
        self, config: FourierConfig, in_dim: int, out_dim: int, generator: torch.Generator
    ):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        matrix = torch.empty(config.frequencies, in_dim)
        if not is_outline():
            matrix = matrix.normal_(generator=generator) * config.deviation
        self.register_buffer("matrix", matrix)
        self.mlp = Mlp(2 * config.frequencies, config.width, config.depth, out_dim, generator)

    def forward(self, points: Tensor) -> Tensor:
        angle = math.pi * (points + 1) @ self.matrix.T
        return self.mlp(torch.cat([torch.cos(angle), torch.sin(angle)], dim=1))

    def rates(self) -> list[dict]:
        return [{"params": list(self.parameters()), "lr": self.config.rate}]
