"""Instant-NGP: a multiresolution hash encoding under a small perceptron (Müller et al., "Instant
Neural Graphics Primitives with a Multiresolution Hash Encoding", ACM Transactions on Graphics
41(4), 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field, largest
from nstr3d.fields.layers import Mlp
from nstr3d.fields.vicinity import Near, Vicinity
from nstr3d.kernels.field.hashing import HashGrid, hash_encode


@dataclass(frozen=True)
class NgpConfig:
    """Defaults: 16 levels of 2 features from 16 to 2048 cells (table 1), two ReLU layers of 64;
    rates as `NgpConfig.paper`.

    ``table`` is the largest number of entries of a level, T; a level of fewer nodes stores each of
    them (section 3).
    """

    table: int = 1 << 14
    levels: int = 16
    features: int = 2
    coarsest: int = 16
    finest: int = 2048
    width: int = 64
    depth: int = 2
    table_rate: float = 1e-2
    mlp_rate: float = 1e-2

    def __post_init__(self):
        if min(self.table, self.levels, self.features, self.coarsest, self.width, self.depth) < 1:
            raise ValueError(
                f"Every size of a hash-grid field must be at least 1, unlike in {self}."
            )
        if self.finest < self.coarsest:
            raise ValueError(
                f"The finest level, {self.finest} cells, is coarser than the coarsest, "
                f"{self.coarsest}."
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Cells per axis of each level: ``floor(coarsest b^l)`` with b such that the last is
        ``finest`` (equations 2 and 3)."""
        growth = (math.log(self.finest) - math.log(self.coarsest)) / max(self.levels - 1, 1)
        return tuple(
            math.floor(self.coarsest * math.exp(growth * level) + 1e-9)
            for level in range(self.levels)
        )

    def grid(self, in_dim: int) -> HashGrid:
        """Where each level's entries are in the one table."""
        return HashGrid(
            self.resolutions, tuple(min((n + 1) ** in_dim, self.table) for n in self.resolutions)
        )

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Ngp:
        """A field with random weights, drawn from ``generator`` (by default one with seed 0);
        ``near`` plays no part."""
        return Ngp(self, in_dim, out_dim, generator or torch.Generator().manual_seed(0))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Ngp:
        """A field of the same shape for saved ``tensors``."""
        return self.build(in_dim, out_dim)

    def parameters(self, in_dim: int, out_dim: int) -> int:
        """How many parameters the field has: ``F sum_l min(T, (N_l + 1)^d)`` entries and the
        perceptron's."""
        w, inputs = self.width, self.levels * self.features
        mlp = (inputs + 1) * w + (self.depth - 1) * (w + 1) * w + (w + 1) * out_dim
        return sum(self.grid(in_dim).sizes) * self.features + mlp


def sized_ngp(
    params: int, near: Near, out_dim: int = 1, template: NgpConfig | None = None
) -> NgpConfig:
    """``template`` with the largest tables such that there are at most ``params`` parameters for
    points like ``near``."""
    dim, template = Vicinity.of(near).dim, template or NgpConfig()
    table = largest(lambda t: replace(template, table=t).parameters(dim, out_dim), params, 1)
    return replace(template, table=table)


class Ngp(Field):
    """Features of every level, interpolated multilinearly, side by side into a perceptron; see
    `NgpConfig`."""

    def __init__(self, config: NgpConfig, in_dim: int, out_dim: int, generator: torch.Generator):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.grid = config.grid(in_dim)
        entries = torch.empty(sum(self.grid.sizes), config.features)
        self.table = nn.Parameter(entries.uniform_(-1e-4, 1e-4, generator=generator))
        self.mlp = Mlp(
            config.levels * config.features, config.width, config.depth, out_dim, generator
        )

    def forward(self, points: Tensor) -> Tensor:
        return self.mlp(hash_encode(points, self.grid, self.table))

    def rates(self) -> list[dict]:
        return [
            {"params": [self.table], "lr": self.config.table_rate},
            {
                "params": list(self.mlp.parameters()),
                "lr": self.config.mlp_rate,
                "weight_decay": 1e-6,
            },
        ]
