"""The start of training in closed form: a sum of plain grids fitted to the samples by least
squares, no learning rate.

Conjugate gradients on the normal equations, scaled by each node's sum of weights; the grids are
those of the field's dense levels. The decoder then passes the sum on exactly, with two units:
softplus(z) - softplus(-z) = z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from nstr3d.fields.conjugate import conjugate_gradients
from nstr3d.fields.layers import Decoder
from nstr3d.fields.level import Level
from nstr3d.kernels.field.interpolate import gather
from nstr3d.types import Samples

GAIN = 10.0  # of the sum's channels over the values: about as large as other channels become
QUIET = 0.1  # of the other hidden units' random weights


@dataclass(frozen=True)
class LinearStartConfig:
    """``iterations`` of conjugate gradients on the first ``samples``, with a ``ridge`` in units of
    the nodes' mean weight."""

    iterations: int = 10
    samples: int = 60_000
    ridge: float = 3e-3

    def __post_init__(self):
        if min(self.iterations, self.samples) < 1 or self.ridge < 0:
            raise ValueError(
                "A linear start takes an iteration, a sample and a ridge of 0 or more, unlike "
                f"{self}."
            )


def start_linear(
    levels: Sequence[Level], decoder: Decoder, samples: Samples, config: LinearStartConfig
) -> None:
    """Sets the first plain channel of every dense level that has one to the least-squares sum, and
    the decoder to pass it on, in place.

    Sparse levels stay as they are: a start on them gains no more, and costs a long training its
    last few per cent. Nothing is done for a decoder of fewer than four units or where no dense
    level has a plain channel.
    """
    chosen = [level for level in levels if level.config.plain and not level.config.sparse]
    if not chosen or decoder.hidden.out_features < 4:
        return
    device = chosen[0].table.device
    points, values = (
        samples.points[: config.samples].to(device),
        samples.values[: config.samples, :1].to(device),
    )
    solution = least_squares_sum(chosen, points, values, config)
    with torch.no_grad():
        columns, start = [], 0
        for level in levels:
            if level in chosen:
                columns.append(start)
            start += level.config.features
        for level, table in zip(chosen, solution):
            level.table[:, 0] = GAIN * table[:, 0]
        hidden, out = decoder.hidden, decoder.out
        hidden.weight[:2] = 0
        hidden.bias[:2] = 0
        hidden.weight[0, columns], hidden.weight[1, columns] = 1.0, -1.0
        out.weight *= QUIET
        out.weight[:, 0], out.weight[:, 1] = 1 / GAIN, -1 / GAIN
        out.bias.zero_()


def least_squares_sum(
    levels: Sequence[Level], points: Tensor, values: Tensor, config: LinearStartConfig
) -> list[Tensor]:
    """The tables ``(nodes, 1)`` of one channel per level whose sum fits ``values (n, 1)`` at
    ``points (n, dim)`` best.

    The first level starts from the samples nearest to its nodes: no iteration moves a node whose
    weights are small in the box, and zero there would be a large error in the box's corners.
    """
    sizes = [len(level.table) for level in levels]
    guess = torch.cat(
        [nearest_values(levels[0], points, values), torch.zeros(sum(sizes[1:]), 1).to(values)]
    )

    def pulled(vector: Tensor | None, weights: Tensor | None) -> Tensor:
        """J^T weights, or J^T J vector where no weights are given."""
        given = torch.zeros(sum(sizes), 1, device=points.device) if vector is None else vector
        tables = [table.clone().requires_grad_(True) for table in given.split(sizes)]
        with torch.enable_grad():
            parts = (gather(points, level.grid, table) for level, table in zip(levels, tables))
            value = torch.stack(list(parts)).sum(dim=0)
            # Of a sum: told what to multiply the gradient with, torch would import its symbolic
            # shapes, which takes a while.
            total = (value * (value.detach() if weights is None else weights)).sum()
        return torch.cat(torch.autograd.grad(total, tables))

    mass = pulled(None, torch.ones_like(values))
    shift = config.ridge * mass.mean()
    solutions = conjugate_gradients(
        lambda vector: pulled(vector, None) + shift * vector,
        pulled(None, values) - pulled(guess, None),
        scale=1 / (mass + shift),
        product=lambda one, two: (one * two).sum(),
    )
    solution, _ = next(islice(solutions, config.iterations - 1, None))
    return list((guess + solution).split(sizes))


def nearest_values(level: Level, points: Tensor, values: Tensor) -> Tensor:
    """The values ``(nodes, 1)`` of the samples nearest to a level's nodes."""
    from scipy.spatial import KDTree

    nearest = KDTree(points.cpu().numpy()).query(level.places().cpu().numpy())[1]
    return values[torch.as_tensor(nearest, device=values.device)]
