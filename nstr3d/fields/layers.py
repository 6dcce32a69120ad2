"""Network layers that several fields use."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from nstr3d.kernels.field.layout import Weights


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Does nothing, because PyTorch's initialisation would draw from the global generator."""


def linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer whose weights and biases are drawn from ``generator``, uniform in
    [-1, 1] / sqrt(fan_in)."""
    layer = _Linear(fan_in, fan_out)
    bound = 1 / math.sqrt(max(fan_in, 1))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def is_outline() -> bool:
    """Whether new tensors are on the device meta, so that they have a shape and no values.

    A loaded field is first built so, because its tensors come from the file. Arithmetic on that
    device is to be avoided: it makes torch import its symbolic shapes, which takes two seconds.
    """
    return torch.empty(0).is_meta


class Decoder(nn.Module):
    """The decoder g: features ``(n, fan_in)`` -> values ``(n, fan_out)`` through one hidden layer.

    The activation is Softplus with beta = ``sharpness``, which keeps the gradient continuous.
    """

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
        """The decoder's weights in the form that the fused kernels read."""
        return Weights(
            self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias, self.sharpness
        )


class Mlp(nn.Module):
    """A perceptron ``(n, fan_in)`` -> ``(n, fan_out)`` of ``depth`` hidden ReLU layers of ``width``
    units and a linear output layer."""

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
