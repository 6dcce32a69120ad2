"""SIREN: a multilayer perceptron with sines for activations (Sitzmann et al., "Implicit Neural
Representations with Periodic Activation Functions", NeurIPS 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field, largest
from nstr3d.fields.layers import linear
from nstr3d.fields.vicinity import Near, Vicinity


@dataclass(frozen=True)
class SirenConfig:
    """Defaults: three hidden layers of 256 and frequency factors of 30 (section 3.2), rate 1e-4
    (supplement)."""

    width: int = 256
    depth: int = 3
    first_omega: float = 30.0
    hidden_omega: float = 30.0
    rate: float = 1e-4

    def __post_init__(self):
        if self.width < 1 or self.depth < 1:
            raise ValueError(
                f"A SIREN needs a width and a depth of at least 1, not {self.width} and "
                f"{self.depth}."
            )

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Siren:
        """A field with random weights, drawn from ``generator`` (by default one with seed 0);
        ``near`` plays no part."""
        return Siren(self, in_dim, out_dim, generator or torch.Generator().manual_seed(0))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Siren:
        """A field of the same shape for saved ``tensors``."""
        return self.build(in_dim, out_dim)

    def parameters(self, in_dim: int, out_dim: int) -> int:
        """How many parameters the field has: ``(d + 1) w + (depth - 1) (w + 1) w + (w + 1) c``."""
        w = self.width
        return (in_dim + 1) * w + (self.depth - 1) * (w + 1) * w + (w + 1) * out_dim


def sized_siren(params: int, near: Near, out_dim: int = 1) -> SirenConfig:
    """The widest SIREN of at most ``params`` parameters for points like ``near``. Raises ValueError
    where there is none."""
    dim = Vicinity.of(near).dim
    width = largest(lambda w: SirenConfig(w).parameters(dim, out_dim), params, 1)
    return SirenConfig(width)


class Siren(Field):
    """Sine layers ``x -> sin(omega (W x + b))`` and a linear last layer; see `SirenConfig`."""

    def __init__(self, config: SirenConfig, in_dim: int, out_dim: int, generator: torch.Generator):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        widths = [in_dim, *[config.width] * config.depth, out_dim]
        self.layers = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(widths))
        with torch.no_grad():
            for index, (layer, fan_in) in enumerate(zip(self.layers, widths)):
                # Section 3.2: the first layer spans its frequencies, later ones keep the
                # distribution of activations.
                bound = 1 / fan_in if index == 0 else math.sqrt(6 / fan_in) / config.hidden_omega
                weight: Tensor = layer.weight  # type: ignore[assignment]
                weight.uniform_(-bound, bound, generator=generator)

    def forward(self, points: Tensor) -> Tensor:
        first, *hidden, last = self.layers
        values = torch.sin(self.config.first_omega * first(points))
        for layer in hidden:
            values = torch.sin(self.config.hidden_omega * layer(values))
        return last(values)

    def rates(self) -> list[dict]:
        return [{"params": list(self.parameters()), "lr": self.config.rate}]
