"""`Field`: a trainable function of points on the unit box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.kernels.step.adam import AdamW
from nstr3d.types import Samples


class Field(nn.Module, ABC):
    """Maps ``points (n, in_dim)`` in [-1, 1]^in_dim to ``values (n, out_dim)``.

    A new field is one file: a subclass with `forward` and `rates`, and beside it a frozen config
    dataclass, which the field keeps as ``config``, with ``build(in_dim, out_dim, near, generator)``
    to make the field and ``restore(in_dim, out_dim, tensors)`` to make one that the saved
    ``tensors`` fit. Files name the config by a tag: its class attribute ``tag``, or for a field of
    nstr3d a row of the table in `nstr3d.model.tags`.
    """

    config: Any
    in_dim: int
    out_dim: int

    @abstractmethod
    def forward(self, points: Tensor) -> Tensor:
        """Values ``(n, out_dim)``."""

    @abstractmethod
    def rates(self) -> list[dict]:
        """Optimiser groups ``{"params": [...], "lr": peak learning rate}`` that cover every
        parameter, with a ``"weight_decay"`` (of AdamW, 0 without) where one pays."""

    def prepare(self, samples: Samples, generator: np.random.Generator) -> None:
        """Called with the training samples before the first step: a field may start from what they
        say. Nothing by default."""

    def compiled_steps(
        self, delta: float, gradient_weight: float, optimizer: AdamW
    ) -> Callable[[Samples], Tensor] | None:
        """Training steps down the mean Huber loss of a batch's values, quadratic below ``delta``
        and divided by it, plus ``gradient_weight`` times the squared error of its gradients: they
        update the parameters as ``optimizer`` would and return the loss, detached.

        None, the default, where a field has nothing better than autograd.
        """
        return None

    def value_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(n, 1)`` of a field of one output and their gradient in the points ``(n,
        in_dim)``, both detached."""
        with torch.enable_grad():
            at = points.detach().requires_grad_(True)
            value = self(at)
            return value.detach(), torch.autograd.grad(value.sum(), at)[0]

    @property
    def parameter_count(self) -> int:
        """Everything that is learned."""
        return sum(p.numel() for p in self.parameters())


def largest(cost: Callable[[int], int], budget: int, least: int) -> int:
    """The largest size from ``least`` on whose ``cost``, which must not fall with size, is within
    ``budget``.

    Raises ValueError when even ``least`` costs more.
    """
    if cost(least) > budget:
        raise ValueError(
            f"A budget of {budget} parameters is too small for this field; it takes at least "
            f"{cost(least)}."
        )
    step = 1
    while cost(least + step) <= budget and step < 1 << 40:
        step *= 2
    low, high = least + step // 2 if step > 1 else least, least + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low
