"""A field on one dense grid with cubic interpolation, the form in which a compressed shape is
decoded (`nstr3d.model.pyramidcodec`).

The interpolant is that of Catmull and Rom (A class of local interpolating splines, 1974) along each
axis: it passes through the nodes, and its gradient is continuous. Half-way between nodes it has the
weights by which the codec predicts a finer grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.vicinity import Near
from nstr3d.kernels.field.interpolate import fused_applies
from nstr3d.kernels.threads import split_work

MOST_CELLS = 512  # per axis; the grid takes half a gigabyte


@dataclass(frozen=True)
class PyramidConfig:
    """The options of a grid of ``cells`` cells per axis, from 4 to 512, over the unit box.

    ``rate`` is the learning rate of the nodes if they are trained further. Raises ValueError for
    another number of cells.
    """

    cells: int
    rate: float = 1e-3

    def __post_init__(self):
        if not 4 <= self.cells <= MOST_CELLS:
            raise ValueError(f"A grid has 4 to {MOST_CELLS} cells per axis, not {self.cells}.")

    def build(
        self,
        in_dim: int,
        out_dim: int,
        near: Near | None = None,
        generator: torch.Generator | None = None,
    ) -> Pyramid:
        """A field of zeros. Raises ValueError unless it maps three dimensions to one value."""
        return Pyramid(self, in_dim, out_dim, torch.zeros((self.cells + 1,) * 3))

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Pyramid:
        """A field into which the saved ``tensors`` can be loaded. It is not to be trained."""
        field = self.build(in_dim, out_dim)
        field.nodes.requires_grad_(False)
        return field


class Pyramid(Field):
    """A function on a grid; see `PyramidConfig`. ``nodes (c + 1, c + 1, c + 1)`` float32 are its
    values at the nodes and its parameters. It is defined in the unit box."""

    def __init__(self, config: PyramidConfig, in_dim: int, out_dim: int, nodes: Tensor):
        super().__init__()
        if (in_dim, out_dim) != (3, 1):
            raise ValueError(
                f"A grid maps three dimensions to one value, not {in_dim} to {out_dim}."
            )
        self.config, self.in_dim, self.out_dim = config, in_dim, out_dim
        self.nodes = nn.Parameter(nodes)

    def forward(self, points: Tensor) -> Tensor:
        trained = torch.is_grad_enabled() and self.nodes.requires_grad
        if trained or not fused_applies(points, self.nodes):
            return interpolate(self.nodes, points)[:, None]
        return self._measured(points, slopes=False)[0]

    def value_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        if fused_applies(points.detach(), self.nodes):
            return self._measured(points, slopes=True)
        return super().value_and_gradient(points)

    def rates(self) -> list[dict]:
        return [{"params": [self.nodes], "lr": self.config.rate}]

    def _measured(self, points: Tensor, slopes: bool) -> tuple[Tensor, Tensor]:
        """Values ``(n, 1)`` and gradients ``(n, 3)`` by the compiled kernel, without derivatives;
        no gradients unless ``slopes``."""
        from nstr3d.kernels.field import cubic

        at = points.detach().contiguous().numpy()
        value = np.empty(len(at), np.float32)
        slope = np.empty((len(at) if slopes else 0, 3), np.float32)
        arrays = at, self.nodes.detach().contiguous().numpy(), value, slope
        split_work(lambda part, low, high: cubic.interpolate(low, high, *arrays), len(at))
        return torch.from_numpy(value)[:, None], torch.from_numpy(slope)


def interpolate(grid: Tensor, points: Tensor) -> Tensor:
    """Values ``(n,)`` at ``points (n, 3)`` of the unit box on the ``grid (m, m, m)``, in plain
    torch, which is differentiable.

    A node more on each side of the grid counts as lying on the line through the two last ones.
    """
    cells = grid.shape[0] - 1
    scaled = (points + 1) * (cells / 2)
    cell = scaled.detach().floor().nan_to_num().clamp(0, cells - 1)
    t = scaled - cell
    square, cube = t * t, t * t * t
    a, b = (2 * square - t - cube) / 2, (2 - 5 * square + 3 * cube) / 2
    c, d = (t + 4 * square - 3 * cube) / 2, (cube - square) / 2
    # At the first and the last cell, the weight of the node outside goes to two nodes of the grid.
    zero, low, high = torch.zeros_like(a), cell == 0, cell == cells - 1
    weights = torch.stack(
        [
            torch.where(low, b + 2 * a, torch.where(high, zero, a)),
            torch.where(low, c - a, torch.where(high, a, b)),
            torch.where(low, d, torch.where(high, b - d, c)),
            torch.where(low, zero, torch.where(high, c + 2 * d, d)),
        ]
    )  # (4, n, 3)
    x, y, z = (cell - 1).clamp(0, cells - 3).long().unbind(dim=1)
    total = torch.zeros_like(t[:, 0])
    for i in range(4):
        for j in range(4):
            for k in range(4):
                weight = weights[i, :, 0] * weights[j, :, 1] * weights[k, :, 2]
                total = total + weight * grid[x + i, y + j, z + k]
    return total


def made_of(nodes: np.ndarray) -> Pyramid:
    """The field of the ``nodes (n, n, n)`` float32 over the unit box, which is not to be trained.

    Raises ValueError for another number of cells than a config allows.
    """
    field = Pyramid(PyramidConfig(len(nodes) - 1), 3, 1, torch.from_numpy(nodes))
    field.nodes.requires_grad_(False)
    return field
