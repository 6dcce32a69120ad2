"""Initialises a field by linear least squares: the sum of one channel of each dense level is fitted
to the samples.

The normal equations are solved by conjugate gradients, preconditioned by each node's sum of
weights. Two hidden units of the decoder then reproduce the sum exactly, because
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

GAIN = 10.0  # ratio of the fitted channels to the values: about the size of other channels later
QUIET = 0.1  # factor on the random output weights of the other hidden units


@dataclass(frozen=True)
class LinearStartConfig:
    """The options of `start_linear`: the number of ``iterations`` of conjugate gradients, the
    number of ``samples`` used (the first ones), and the ``ridge`` in units of the mean over the
    nodes of a node's sum of weights.

    Raises ValueError if ``iterations`` or ``samples`` is less than 1 or ``ridge`` is negative.
    """

    iterations: int = 10
    samples: int = 60_000
    ridge: float = 3e-3

    def __post_init__(self):
        if min(self.iterations, self.samples) < 1 or self.ridge < 0:
            raise ValueError(
                "A linear start takes at least 1 iteration, at least 1 sample and a ridge of 0 or "
                f"more, unlike {self}."
            )


def start_linear(
    levels: Sequence[Level], decoder: Decoder, samples: Samples, config: LinearStartConfig
) -> None:
    """Fits the first plain channels of all dense levels to the first value of ``samples``, and sets
    the decoder so that the field returns their sum, in place.

    Sparse levels are not changed: fitting them too brings no further gain, and costs a long
    training a few per cent of its final accuracy. Does nothing if the decoder has fewer than four
    hidden units or no dense level has a plain channel.
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
        for column in columns:  # a list of places would be copied to a GPU
            hidden.weight[0, column], hidden.weight[1, column] = 1.0, -1.0
        out.weight *= QUIET
        out.weight[:, 0], out.weight[:, 1] = 1 / GAIN, -1 / GAIN
        out.bias.zero_()


def least_squares_sum(
    levels: Sequence[Level], points: Tensor, values: Tensor, config: LinearStartConfig
) -> list[Tensor]:
    """One table ``(nodes, 1)`` per level such that the sum of the levels fits ``values (n, 1)`` at
    ``points (n, dim)`` by least squares.

    The first level starts from the values of the samples nearest to its nodes. Conjugate gradients
    hardly change nodes with small weights, such as those in the box's corners, and a start from
    zero would leave a large error there.
    """
    sizes = [len(level.table) for level in levels]
    guess = torch.cat(
        [nearest_values(levels[0], points, values), torch.zeros(sum(sizes[1:]), 1).to(values)]
    )

    def apply_transpose(vector: Tensor | None, weights: Tensor | None) -> Tensor:
        """J^T weights, or J^T J vector if ``weights`` is None."""
        flat = torch.zeros(sum(sizes), 1, device=points.device) if vector is None else vector
        tables = [table.clone().requires_grad_(True) for table in flat.split(sizes)]
        with torch.enable_grad():
            parts = (gather(points, level.grid, table) for level, table in zip(levels, tables))
            value = torch.stack(list(parts)).sum(dim=0)
            # The gradient of a weighted sum: with grad_outputs, torch would import its symbolic
            # shapes, which is slow.
            total = (value * (value.detach() if weights is None else weights)).sum()
        return torch.cat(torch.autograd.grad(total, tables))

    mass = apply_transpose(None, torch.ones_like(values))
    shift = config.ridge * mass.mean()
    solutions = conjugate_gradients(
        lambda vector: apply_transpose(vector, None) + shift * vector,
        apply_transpose(None, values) - apply_transpose(guess, None),
        scale=1 / (mass + shift),
        product=lambda one, two: (one * two).sum(),
    )
    solution, _ = next(islice(solutions, config.iterations - 1, None))
    return list((guess + solution).split(sizes))


def nearest_values(level: Level, points: Tensor, values: Tensor) -> Tensor:
    """For each stored node of ``level``, the value ``(nodes, 1)`` of the nearest sample among
    ``points (n, dim)`` with ``values (n, 1)``."""
    from scipy.spatial import KDTree

    nearest = KDTree(points.cpu().numpy()).query(level.places().cpu().numpy())[1]
    return values[torch.as_tensor(nearest, device=values.device)]
