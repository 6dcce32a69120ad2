"""`Field`: a trainable function of points on the unit box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.kernels.step.adam import AdamW
from nstr3d.types import Samples, UnprovenError


class Field(nn.Module, ABC):
    """A trainable map from ``points (n, in_dim)`` in [-1, 1]^in_dim to ``values (n, out_dim)``.

    A new field is one file with a subclass that defines `forward` and `rates`, and a frozen config
    dataclass, which the field keeps as ``config``. The config's ``build(in_dim, out_dim, near,
    generator)`` makes a new field. Its ``restore(in_dim, out_dim, tensors)`` makes a field into
    which the saved ``tensors`` can be loaded. A saved file names the config class by a tag, which
    is the class attribute ``tag`` or, for the fields of nstr3d, a row of the table in
    `nstr3d.model.tags`.
    """

    config: Any
    in_dim: int
    out_dim: int

    @abstractmethod
    def forward(self, points: Tensor) -> Tensor:
        """Values ``(n, out_dim)``."""

    @abstractmethod
    def rates(self) -> list[dict]:
        """The optimiser's parameter groups ``{"params": [...], "lr": peak learning rate}``, which
        together cover every parameter. A group may set ``"weight_decay"`` of AdamW (default 0)."""

    def prepare(self, samples: Samples, generator: np.random.Generator) -> None:
        """Initialises the field from the training samples. Training calls it once, before the first
        step of a run. Does nothing by default."""

    def compiled_steps(
        self, delta: float, gradient_weight: float, optimizer: AdamW
    ) -> Callable[[Samples], Tensor] | None:
        """A function that makes one training step on a batch, or None.

        The function updates the parameters as ``optimizer`` would and returns the loss before the
        step, detached. The loss is the mean Huber loss of the values, which is quadratic below
        ``delta`` and is divided by ``delta``, plus ``gradient_weight`` times the squared error of
        the gradients as a mean over the batch. The default is None: the field has no such function,
        and training uses autograd.
        """
        return None

    def value_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Values ``(n, 1)`` of a field with one output and their gradient with respect to the
        points ``(n, in_dim)``, both detached."""
        with torch.enable_grad():
            at = points.detach().requires_grad_(True)
            value = self(at)
            return value.detach(), torch.autograd.grad(value.sum(), at)[0]

    def enclose(self, ticks: np.ndarray) -> np.ndarray:
        """Proven bounds of the value, lower and upper, over the eight halves of boxes: float64
        ``(n, 8, 2)``.

        ``ticks (n, 3, 3)`` float32 are the rising coordinates in the unit box at which each box
        begins, is cut and ends along each axis; of the halves, the last axis is the fastest. Raises
        UnprovenError for a field without such bounds, which is the default.
        """
        raise UnprovenError(
            f"{type(self).__name__} has no proven bounds over boxes; the default field of a "
            "surface has."
        )

    @property
    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(p.numel() for p in self.parameters())


def largest(cost: Callable[[int], int], budget: int, least: int) -> int:
    """The largest size of at least ``least`` whose ``cost`` does not exceed ``budget``.

    ``cost`` is the parameter count as a function of the size and must not decrease with it. The
    search ends at ``least + 2^40``. Raises ValueError if ``cost(least)`` exceeds ``budget``.
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
