"""Vector and line fields that are sampled on a grid and interpolated between its nodes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nstr3d.kernels.field.interpolate import fused_applies
from nstr3d.spectrum.flow import VectorField
from nstr3d.types import Box


class GridField:
    """A vector or line field sampled at the nodes of a grid over ``bounds``.

    A query between the nodes is a multilinear interpolation, which takes microseconds.
    ``nodes (*cells + 1, d)`` are the vectors at the nodes. If the field is not ``signed``, the
    vectors at a cell's corners are turned towards the vector at the nearest corner before they are
    averaged. Raises ValueError if the shape of ``nodes`` does not fit.
    """

    def __init__(self, nodes: Tensor, bounds: Box, signed: bool = True):
        dim = nodes.shape[-1]
        if nodes.ndim != dim + 1 or min(nodes.shape[:-1]) < 2 or len(bounds.lower) != dim:
            raise ValueError(
                f"A grid in {dim} dimensions has nodes (*cells + 1, {dim}), not "
                f"{tuple(nodes.shape)}."
            )
        self.signed, self.dim = signed, dim
        self.table = nodes.reshape(-1, dim)
        self.lower = nodes.new_tensor(bounds.lower)
        self.cells = torch.tensor([n - 1 for n in nodes.shape[:-1]], device=nodes.device)
        self.inverse = self.cells / nodes.new_tensor(bounds.extent)
        strides = [math.prod(nodes.shape[axis + 1 : -1]) for axis in range(dim)]
        self.strides = torch.tensor(strides, device=nodes.device)
        self.bits = torch.tensor(list(np.ndindex(*(2,) * dim)), device=nodes.device)
        self.steps = (self.bits * self.strides).sum(dim=1)

    @staticmethod
    def sampled(
        field: VectorField, bounds: Box, cells: int, signed: bool = True, chunk: int = 1 << 16
    ) -> GridField:
        """Sample ``field`` at the nodes of a grid over ``bounds``.

        There are ``cells`` cells along the longest side, and the cells are as nearly cubes as will
        fit. ``chunk`` points are evaluated at a time.
        """
        counts = (
            np.maximum(np.round(bounds.extent / bounds.extent.max() * cells), 1).astype(int) + 1
        )
        axes = [
            torch.linspace(low, high, int(n))
            for low, high, n in zip(bounds.lower, bounds.upper, counts)
        ]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        with torch.no_grad():
            vectors = torch.cat(
                [field(part) for part in points.reshape(-1, len(axes)).split(chunk)]
            )
        return GridField(vectors.reshape(points.shape), bounds, signed)

    def __call__(self, points: Tensor) -> Tensor:
        """Vectors ``(n, d)`` at ``points (n, d)`` within the bounds."""
        if fused_applies(points, self.table):
            from nstr3d.kernels.field.gather import grid_vectors

            return grid_vectors(
                points, self.lower, self.inverse, self.cells, self.signed, self.table
            )
        scaled = (points - self.lower) * self.inverse
        cell = torch.minimum(scaled.floor().long().clamp_min(0), self.cells - 1)
        offset = (scaled - cell).to(self.table)[:, None, :]
        weight = torch.where(self.bits.bool(), offset, 1 - offset).prod(dim=2)
        corners = self.table[(cell * self.strides).sum(dim=1)[:, None] + self.steps]
        if not self.signed:
            nearest = corners[torch.arange(len(points), device=points.device), weight.argmax(dim=1)]
            weight = torch.where((corners * nearest[:, None, :]).sum(dim=2) < 0, -weight, weight)
        return (weight[:, :, None] * corners).sum(dim=1)
