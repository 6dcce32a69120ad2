"""Light that changes slowly over a picture: computed at every other pixel, interpolated between."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEP = 2  # pixels between nodes, in rows and in columns
VALUES = 2  # at a point: the share of the sky and of the key light that it sees
TURN = 0.9  # least cosine between the normals of a point and of the nodes around it
FLAT = 1.5  # pixels; greatest distance of a node from the tangent plane of the point
CHANGE = 0.15  # greatest difference between the values of the nodes around a point


class SoftLight:
    """The nodes of a picture of ``height`` x ``width`` pixels, which its first rays fill."""

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        self.height, self.rows, self.columns = height, -(-height // STEP), -(-width // STEP)
        count = self.rows * self.columns
        self.known = torch.zeros(count, dtype=torch.bool, device=device)
        self.points, self.normals = torch.zeros(2, count, 3, dtype=torch.float64, device=device)
        self.values = torch.zeros(count, VALUES, dtype=torch.float64, device=device)

    def order(self, width: int) -> Tensor:
        """The pixels of the picture, ``width`` in a row, those of nodes first: then what is
        interpolated does not depend on how many are traced at a time."""
        pixels = torch.arange(self.height * width)
        node = (pixels // width % STEP == 0) & (pixels % width % STEP == 0)
        return torch.cat([pixels[node], pixels[~node]])

    def spread(
        self,
        at: Tensor,
        points: Tensor,
        normals: Tensor,
        reach: Tensor,
        values: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """``values`` of all points, ``(n, VALUES)``, most of them interpolated.

        ``at (n, 2)`` are rows and columns, fractions between pixels, of ``points (n, 3)`` with unit
        ``normals (n, 3)``, whose pixels are ``reach (n,)`` wide. ``values(which (m,))`` computes
        those of some points. It does so where nodes are missing, belong to another part of the
        surface, or differ.
        """
        own = (at % STEP == 0).all(dim=1)
        nodes = self._index(at / STEP)
        first = torch.nonzero(own & ~self.known[nodes]).squeeze(1)
        if len(first):
            index = nodes[first]
            self.known[index], self.values[index] = True, values(first).double()
            self.points[index], self.normals[index] = points[first], normals[first]
        mixed, good = self._mix(at / STEP, points, normals, reach)
        rest = torch.nonzero(~good).squeeze(1)
        if len(rest):
            mixed[rest] = values(rest).double()
        return mixed

    def _index(self, node: Tensor) -> Tensor:
        row, column = node.long().unbind(dim=1)
        return row.clamp(0, self.rows - 1) * self.columns + column.clamp(0, self.columns - 1)

    def _mix(
        self, node: Tensor, points: Tensor, normals: Tensor, reach: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Interpolated values ``(n, VALUES)``, and the mask ``(n,)`` of those that may be used."""
        node = node.clamp_min(0)
        low, part = node.floor(), node - node.floor()
        total = self.values.new_zeros(len(node), VALUES)
        least, most = torch.full_like(total, torch.inf), torch.full_like(total, -torch.inf)
        good = torch.ones(len(node), dtype=torch.bool, device=node.device)
        for down in (0, 1):
            for right in (0, 1):
                weight = (part[:, 0] if down else 1 - part[:, 0]) * (
                    part[:, 1] if right else 1 - part[:, 1]
                )
                index = self._index(low + node.new_tensor([down, right]))
                value = self.values[index]
                away = ((self.points[index] - points) * normals).sum(dim=1).abs()
                alike = (self.normals[index] * normals).sum(dim=1) > TURN
                used = weight > 0
                good &= ~used | (self.known[index] & alike & (away < FLAT * reach))
                total += weight[:, None] * value
                least = torch.where(used[:, None], torch.minimum(least, value), least)
                most = torch.where(used[:, None], torch.maximum(most, value), most)
        return total, good & ((most - least) < CHANGE).all(dim=1)
