"""Instant-NGP: a multiresolution hash encoding followed by a small perceptron (Müller et al.,
"Instant Neural Graphics Primitives with a Multiresolution Hash Encoding", ACM Transactions on
Graphics 41(4), 2022)."""

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
    """The options of an Instant-NGP field. The defaults are 16 levels of 2 features from 16 to 2048
    cells per axis (table 1 of the paper), two hidden ReLU layers of 64 units, and learning rates of
    1e-2.

    ``table`` is the largest number of entries of a level, T; a level with fewer nodes stores each
    node separately (section 3). Raises ValueError if a size is less than 1 or ``finest`` is less
    than ``coarsest``.
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
                f"The finest level of {self.finest} cells per axis is coarser than the coarsest "
                f"level of {self.coarsest}; make finest at least as large as coarsest."
            )

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Cells per axis of each level l: ``floor(coarsest b^l)``, with the factor b for which the
        last level has ``finest`` cells (equations 2 and 3)."""
        growth = (math.log(self.finest) - math.log(self.coarsest)) / max(self.levels - 1, 1)
        return tuple(
            math.floor(self.coarsest * math.exp(growth * level) + 1e-9)
            for level in range(self.levels)
        )

    def grid(self, in_dim: int) -> HashGrid:
        """The layout of the levels' entries in their common table."""
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
        """A field with random weights drawn from ``generator`` (by default one with seed 0).
        ``near`` is ignored."""
        return Ngp(self, in_dim, out_dim, generator or torch.Generator().manual_seed(0))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Ngp:
        """A field into which the saved ``tensors`` can be loaded."""
        return self.build(in_dim, out_dim)

    def parameters(self, in_dim: int, out_dim: int) -> int:
        """Number of parameters of the field: ``F sum_l min(T, (N_l + 1)^d)`` for F features and
        N_l cells per axis, plus the perceptron's."""
        w, inputs = self.width, self.levels * self.features
        mlp = (inputs + 1) * w + (self.depth - 1) * (w + 1) * w + (w + 1) * out_dim
        return sum(self.grid(in_dim).sizes) * self.features + mlp


def sized_ngp(
    params: int, near: Near, out_dim: int = 1, template: NgpConfig | None = None
) -> NgpConfig:
    """``template`` (by default `NgpConfig` with its defaults) with the largest ``table`` for which
    the field has at most ``params`` parameters on points with the dimension of ``near``. Raises
    ValueError if even a table of 1 entry needs more parameters."""
    dim, template = Vicinity.of(near).dim, template or NgpConfig()
    table = largest(lambda t: replace(template, table=t).parameters(dim, out_dim), params, 1)
    return replace(template, table=table)


class Ngp(Field):
    """A perceptron on the concatenated features of all levels, each interpolated multilinearly; see
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
