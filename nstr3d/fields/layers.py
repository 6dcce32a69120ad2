"""Small building blocks that fields share."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from nstr3d.kernels.field.layout import Weights


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Nothing: a layer's own start would draw from the global generator."""


def linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer with U(-1, 1) / sqrt(fan_in) weights and biases, drawn from ``generator``."""
    layer = _Linear(fan_in, fan_out)
    bound = 1 / math.sqrt(max(fan_in, 1))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


class Decoder(nn.Module):
    """g: features ``(n, fan_in)`` -> values ``(n, fan_out)`` through one hidden layer; Softplus
    keeps the gradient continuous."""

    def __init__(
        self,
        fan_in: int,
        hidden: int,
        fan_out: int,
        sharpness: float,
        generator: torch.Generator | None,
    ):
        super().__init__()
        self.hidden = linear(fan_in, hidden, generator)
        self.out = linear(hidden, fan_out, generator)
        self.sharpness = sharpness

    def forward(self, features: Tensor) -> Tensor:
        return self.out(nn.functional.softplus(self.hidden(features), beta=self.sharpness))

    def weights(self) -> Weights:
        """This decoder as the fused kernels take it."""
        return Weights(
            self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias, self.sharpness
        )


class Mlp(nn.Module):
    """``depth`` ReLU layers of ``width`` and a linear one: ``(n, fan_in)`` -> ``(n, fan_out)``."""

    def __init__(
        self, fan_in: int, width: int, depth: int, fan_out: int, generator: torch.Generator | None
    ):
        super().__init__()
        widths = [fan_in, *[width] * depth, fan_out]
        self.layers = nn.ModuleList(linear(a, b, generator) for a, b in pairwise(widths))

    def forward(self, values: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            values = torch.relu(layer(values))
        return last(values)
