"""`Field`: a trainable function of points on the unit box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Field(nn.Module, ABC):
    """Maps ``points (n, in_dim)`` in [-1, 1]^in_dim to ``values (n, out_dim)``.

    A new field is one file: a subclass with `forward` and `rates`, and beside it a frozen config dataclass, which the field
    keeps as ``config``, with ``build(in_dim, out_dim, near, generator)`` to make the field and
    ``restore(in_dim, out_dim, tensors)`` to make one that the saved ``tensors`` fit.
    """

    config: Any
    in_dim: int
    out_dim: int

    @abstractmethod
    def forward(self, points: Tensor) -> Tensor:
        """Values ``(n, out_dim)``."""

    @abstractmethod
    def rates(self) -> list[dict]:
        """Optimiser groups ``{"params": [...], "lr": peak learning rate}`` that cover every parameter, with a
        ``"weight_decay"`` (of AdamW, 0 without) where one pays."""

    @property
    def parameter_count(self) -> int:
        """Everything that is learned."""
        return sum(p.numel() for p in self.parameters())
