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
        self._padded: tuple[Tensor, int, Tensor] | None = None  # of these nodes and their version

    def forward(self, points: Tensor) -> Tensor:
        trained = torch.is_grad_enabled() and self.nodes.requires_grad
        if trained or not fused_applies(points, self.nodes):
            return interpolate(pad(self.nodes), points)[:, None]
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
        arrays = at, self._grid().numpy(), value, slope
        split_work(lambda part, low, high: cubic.interpolate(low, high, *arrays), len(at))
        return torch.from_numpy(value)[:, None], torch.from_numpy(slope)

    def _grid(self) -> Tensor:
        """The padded grid, which is made anew when the nodes have changed."""
        nodes, known = self.nodes, self._padded
        version = 0 if nodes.is_inference() else nodes._version
        if known is None or known[0] is not nodes or known[1] != version:
            known = self._padded = nodes, version, pad(nodes.detach()).contiguous()
        return known[2]


def pad(nodes: Tensor) -> Tensor:
    """The grid ``nodes (n, n, n)`` with a node more on each side, on the line through the two last
    ones."""
    for axis in range(3):
        first, second = nodes.narrow(axis, 0, 1), nodes.narrow(axis, 1, 1)
        count = nodes.shape[axis]
        last, before = nodes.narrow(axis, count - 1, 1), nodes.narrow(axis, count - 2, 1)
        nodes = torch.cat([2 * first - second, nodes, 2 * last - before], dim=axis)
    return nodes


def interpolate(grid: Tensor, points: Tensor) -> Tensor:
    """Values ``(n,)`` at ``points (n, 3)`` of the unit box on the padded ``grid``, in plain
    torch, which is differentiable."""
    cells = grid.shape[0] - 3
    scaled = (points + 1) * (cells / 2)
    first = scaled.detach().floor().nan_to_num().clamp(0, cells - 1)
    t = scaled - first
    square, cube = t * t, t * t * t
    weights = 0.5 * torch.stack(
        [2 * square - t - cube, 2 - 5 * square + 3 * cube, t + 4 * square - 3 * cube, cube - square]
    )  # (4, n, 3)
    x, y, z = first.long().unbind(dim=1)
    total = torch.zeros_like(t[:, 0])
    for a in range(4):
        for b in range(4):
            for c in range(4):
                weight = weights[a, :, 0] * weights[b, :, 1] * weights[c, :, 2]
                total = total + weight * grid[x + a, y + b, z + c]
    return total


def made_of(nodes: np.ndarray) -> Pyramid:
    """The field of the ``nodes (n, n, n)`` float32 over the unit box, which is not to be trained.

    Raises ValueError for another number of cells than a config allows.
    """
    field = Pyramid(PyramidConfig(len(nodes) - 1), 3, 1, torch.from_numpy(nodes))
    field.nodes.requires_grad_(False)
    return field
