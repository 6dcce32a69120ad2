"""SIREN: a multilayer perceptron with sine activations (Sitzmann et al., "Implicit Neural
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
    """The options of a SIREN. The defaults are three hidden layers of 256 units, frequency factors
    of 30 (section 3.2 of the paper) and a learning rate of 1e-4 (the paper's supplement). Raises
    ValueError if ``width`` or ``depth`` is less than 1."""

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
        """A field with random weights drawn from ``generator`` (by default one with seed 0).
        ``near`` is ignored."""
        return Siren(self, in_dim, out_dim, generator or torch.Generator().manual_seed(0))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Siren:
        """A field into which the saved ``tensors`` can be loaded."""
        return self.build(in_dim, out_dim)

    def parameters(self, in_dim: int, out_dim: int) -> int:
        """Number of parameters of the field: ``(d + 1) w + (depth - 1) (w + 1) w + (w + 1) c`` for
        d inputs, c outputs and width w."""
        w = self.width
        return (in_dim + 1) * w + (self.depth - 1) * (w + 1) * w + (w + 1) * out_dim


def sized_siren(params: int, near: Near, out_dim: int = 1) -> SirenConfig:
    """The widest SIREN of at most ``params`` parameters for points with the dimension of ``near``.
    Raises ValueError if even width 1 needs more parameters."""
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
                # Section 3.2: these bounds spread the first layer's frequencies and keep the
                # distribution of activations the same in all later layers.
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
