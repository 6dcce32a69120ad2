"""FINER: a SIREN whose sines have a frequency that grows with the magnitude of their argument (Liu
et al., "FINER: Flexible Spectral-Bias Tuning in Implicit Neural Representation by Variable-periodic
Activation Functions", CVPR 2024)."""

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
from nstr3d.kernels.field.interpolate import differentiated


@dataclass(frozen=True)
class FinerConfig:
    """The options of a FINER: ``depth`` hidden layers of ``width`` units, frequency factor
    ``omega`` (30, as in a SIREN), biases of the first layer uniform in [-``bias``, ``bias``], and
    learning ``rate``. Raises ValueError if ``width`` or ``depth`` is less than 1."""

    width: int = 256
    depth: int = 3
    omega: float = 30.0
    bias: float = 5.0
    rate: float = 2e-3

    def __post_init__(self):
        if self.width < 1 or self.depth < 1:
            raise ValueError(
                f"A FINER needs a width and a depth of at least 1, not {self.width} and "
                f"{self.depth}."
            )

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Finer:
        """A field with random weights drawn from ``generator`` (by default one with seed 0).
        ``near`` is ignored."""
        return Finer(self, in_dim, out_dim, generator or torch.Generator().manual_seed(0))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Finer:
        """A field into which the saved ``tensors`` can be loaded."""
        return self.build(in_dim, out_dim)

    def parameters(self, in_dim: int, out_dim: int) -> int:
        """Number of parameters of the field, equal to a SIREN's: ``(d + 1) w + (depth - 1) (w + 1)
        w + (w + 1) c`` for d inputs, c outputs and width w."""
        w = self.width
        return (in_dim + 1) * w + (self.depth - 1) * (w + 1) * w + (w + 1) * out_dim


def sized_finer(params: int, near: Near, out_dim: int = 1) -> FinerConfig:
    """The widest FINER of at most ``params`` parameters for points with the dimension of ``near``.
    Raises ValueError if even width 1 needs more parameters."""
    dim = Vicinity.of(near).dim
    return FinerConfig(largest(lambda w: FinerConfig(w).parameters(dim, out_dim), params, 1))


class Finer(Field):
    """Layers ``z = W x + b -> sin(omega (|z| + 1) z)`` and a linear last layer; see `FinerConfig`.

    When only the parameters are differentiated, |z| counts as constant, as in the authors' code,
    because this trains better. When the points are differentiated too, all gradients are exact.
    """

    def __init__(self, config: FinerConfig, in_dim: int, out_dim: int, generator: torch.Generator):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        widths = [in_dim, *[config.width] * config.depth, out_dim]
        self.layers = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(widths))
        with torch.no_grad():
            for index, (layer, fan_in) in enumerate(zip(self.layers, widths)):
                bound = 1 / fan_in if index == 0 else math.sqrt(6 / fan_in) / config.omega
                weight: Tensor = layer.weight  # type: ignore[assignment]
                weight.uniform_(-bound, bound, generator=generator)
            first: nn.Linear = self.layers[0]  # type: ignore[assignment]
            # a unit's bias sets its frequency, so the biases are spread widely (section 3.3)
            first.bias.uniform_(-config.bias, config.bias, generator=generator)

    def forward(self, points: Tensor) -> Tensor:
        *hidden, last = self.layers
        values, exact = points, differentiated(points)
        for layer in hidden:
            before = layer(values)
            speed = 1 + (before.abs() if exact else before.detach().abs())
            values = torch.sin(self.config.omega * speed * before)
        return last(values)

    def rates(self) -> list[dict]:
        return [{"params": list(self.parameters()), "lr": self.config.rate}]
