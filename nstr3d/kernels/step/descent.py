"""Compiled training steps of the Huber loss on the CPU (numba): the loss with its gradient, then
the update.

Values, gradients and moments stay in the kernels' order from step to step, in flat arrays with the
same arrangement: the tables as in `Layout`, then the decoder's weights. So a step rearranges
nothing and does not use autograd. Twin: `torch.optim.AdamW` with the gradient of
`torch.nn.functional.huber_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nstr3d.kernels.field.fused import Sums, packed_decoder, packed_levels, zeros
from nstr3d.kernels.field.interpolate import fused_applies
from nstr3d.kernels.field.layout import (
    CHANNELS,
    ORDER,
    RESOLUTION,
    ROW,
    STRIDE,
    TABLE,
    Layout,
    Part,
    Weights,
)
from nstr3d.kernels.step.adam import AdamW, rates_of
from nstr3d.kernels.threads import parts as shares_of
from nstr3d.kernels.threads import split_work
from nstr3d.types import Samples


class Loss(NamedTuple):
    """The mean Huber loss of the values, divided by ``delta``, plus ``gradient_weight`` times the
    squared error of the gradients per sample."""

    delta: float
    gradient_weight: float


class Descent:
    """Steps of ``optimizer`` on a `Loss`; usable only if `applies` returns True.

    The optimiser's state stays as its own steps would leave it. Parameters that are changed between
    two steps are read again.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        weights: Weights,
        layout: Layout,
        loss: Loss,
        optimizer: AdamW,
    ) -> None:
        self.parts, self.weights, self.layout, self.loss = parts, weights, layout, loss
        self.learned = _learned(parts, weights)
        self.groups = [
            next(g for g in optimizer.param_groups if any(p is each for p in g["params"]))
            for each in self.learned
        ]
        self.sums = self._sums(0)
        self.values, self.means, self.squares = (zeros(sum(self.sums.sizes)) for _ in range(3))
        self.batch, self.rates = np.zeros(4, np.int64), np.zeros((len(self.learned), 7), np.float32)
        self.layers = self._layers()
        self._read()
        self.steps = self._adopt(optimizer)
        self._prepare(0)
        self._compile()

    @staticmethod
    def applies(parts: Sequence[Part], weights: Weights, optimizer: AdamW) -> bool:
        """Whether a compiled step is possible: everything is float32 on the CPU, the tables and the
        decoder are learned, and the waves' frequencies and phases are not."""
        learned, points = _learned(parts, weights), torch.empty(0, 3)
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        carriers = [
            carrier for part in parts for carrier in (part.omega, part.phase) if carrier is not None
        ]
        return (
            all(fused_applies(points, part.table) for part in parts)
            and all(
                each.requires_grad and each.is_contiguous() and id(each) in known
                for each in learned
            )
            and all(each.dtype == torch.float32 and each.is_cpu for each in learned)
            and not any(carrier.requires_grad for carrier in carriers)
        )

    def __call__(self, batch: Samples) -> Tensor:
        """Takes a step on a batch and returns its loss before the step, a float32 scalar.

        The batch has points ``(n, 3)``, values ``(n, c)`` and, if c is 1, optionally gradients
        ``(n, 3)``. Raises ValueError for other shapes. The loss of an empty batch is NaN.
        """
        batch = batch.map(_plain)
        points, targets, gradients = batch.points, batch.values, batch.gradients
        shapes, outputs = [tuple(each.shape) for each in (points, targets)], len(self.weights.b2)
        if shapes != [(len(points), 3), (len(points), outputs)]:
            raise ValueError(
                f"A step takes points (n, 3) and targets (n, {outputs}), not {shapes[0]} and "
                f"{shapes[1]}."
            )
        if self.loss.gradient_weight == 0:
            gradients = None
        if gradients is not None and (gradients.shape != points.shape or outputs != 1):
            raise ValueError(
                f"A step takes gradients (n, 3) of one value, not {tuple(gradients.shape)} of "
                f"{outputs}."
            )
        written = self.seen != _stamp(self.learned)
        if written:
            self._read()
        if written or len(self.sums.mine) != shares_of(len(points)):
            self._prepare(len(points))
        self.steps += 1
        self.rates[...] = [*map(rates_of, self.groups, self.steps.tolist())]
        addresses = [each.data_ptr() for each in (points, targets)]
        addresses.append(0 if gradients is None else gradients.data_ptr())
        self.batch[...] = [len(points), *addresses]
        self._work()
        # NaN is also torch's mean of an empty tensor
        loss = sum(self.losses.tolist()) / targets.numel() if len(points) else np.nan
        return torch.from_numpy(np.array(loss, np.float32))

    def _work(self) -> None:
        """Does one step on ``batch``: threads evaluate parts of the batch, then update parts of the
        parameters. After an exception, the next step reads the parameters again."""
        try:
            for kernel in (self._evaluate, self._update):
                split_work(kernel, len(self.sums.mine), least=1)
        except BaseException:
            self.seen = []
            raise

    def _evaluate(self, _: int, low: int, high: int) -> None:
        """Evaluates the parts ``[low, high)`` of the batch."""
        from nstr3d.kernels.step.descentcpu import evaluate

        evaluate(low, high, self.batch, *self.field, self.losses, self.reach, self.sums.all)

    def _update(self, _: int, low: int, high: int) -> None:
        """Updates the parts ``[low, high)`` of the parameters."""
        from nstr3d.kernels.step.descentcpu import update

        plan, decoder = self.field[0], self.field[2]
        update(low, high, plan, decoder, self.reach, self.sums.all, self.state)

    def _compile(self) -> None:
        """Compiles or loads the kernels, so that the time of a training's first step does not
        include it."""
        self._evaluate(0, 0, 0)
        self._update(0, 0, 0)

    def _prepare(self, count: int) -> None:
        """Prepares for batches of ``count`` points."""
        from nstr3d.kernels.step.adamcpu import State
        from nstr3d.kernels.step.descentcpu import Plan

        self.sums = self._sums(count)
        workers, sizes = len(self.sums.mine), np.array(self.sums.sizes, np.int64)
        self.losses = np.zeros(workers)
        self.reach = np.tile(np.array([0, sizes.sum()]), (workers, len(self.segments), 1))
        plan = Plan(
            np.float32(self.loss.delta),
            np.float32(self.loss.gradient_weight),
            self.layers,
            sizes,
            self.segments,
            self.rates,
        )
        self.field = plan, self.levels, self.decoder
        self.state = State(self.values, self.means, self.squares)

    def _sums(self, count: int) -> Sums:
        """Room for the gradients of batches of ``count`` points."""
        return Sums(self.layout, self.weights.w1.shape, len(self.weights.b2), False, count)

    def _read(self) -> None:
        """Copies the parameters' current values to the flat arrays, and notes the parameters'
        addresses and versions."""
        self.segments = self._segments()
        waves = [(part.omega, part.phase) for part in self.parts]
        levels, decoder = (
            packed_levels(self.layout, self.learned[4:], waves),
            packed_decoder(self.weights, self.layout),
        )
        table, first, bias, last, _, offset = np.split(self.values, np.cumsum(self.sums.sizes)[:-1])
        mine = table, first[: len(decoder.first)], bias, last, offset
        for place, content in zip(
            mine, (levels.table, decoder.first, decoder.bias, decoder.last, decoder.offset)
        ):
            place[:] = content
        self.levels = levels._replace(table=mine[0])
        self.decoder = decoder._replace(first=mine[1], bias=mine[2], last=mine[3], offset=mine[4])
        self.seen = _stamp(self.learned)

    def _segments(self) -> np.ndarray:
        """For each parameter, a row ``(7,)`` for `update_rows`: in the flat arrays, the index of
        the first row, the number of rows, their distance, and their number of values; in the
        parameter, the distances of rows and of values, and the address."""
        _, first, bias, last, _, offset = (np.cumsum(self.sums.sizes) - self.sums.sizes).tolist()
        (hidden, inputs), outputs, width = (
            self.weights.w1.shape,
            len(self.weights.b2),
            self.sums.width,
        )
        rows = [
            [first, inputs, width, hidden, 1, inputs],  # transposed
            [bias, 1, width, hidden, hidden, 1],
            [last, outputs, width, hidden, hidden, 1],
            [offset, 1, outputs, outputs, outputs, 1],
        ]
        for line, table in zip(self.layout.meta.tolist(), self.learned[4:]):
            stride, channels = line[STRIDE], line[CHANNELS]
            # + stride: after the row that stays zero
            rows.append([line[TABLE] + stride, len(table), stride, channels, channels, 1])
        return np.array(
            [[*row, each.data_ptr()] for row, each in zip(rows, self.learned)], np.int64
        )

    def _layers(self) -> np.ndarray:
        """For each level and each layer of nodes across the first axis, the range of the flat
        arrays that contains the nodes' rows: ``(levels, edges, 2)``."""
        edges = self.layout.meta[:, RESOLUTION] + self.layout.meta[:, ORDER]
        layers, places = (
            np.zeros((len(edges), edges.max(), 2), np.int64),
            self.layout.places.numpy(),
        )
        layers[:, :, 0] = self.layout.table_size
        for line, edge, reached in zip(self.layout.meta, edges, layers):
            of_nodes = places[line[ROW] :][: edge**3].reshape(edge, -1)
            stored = of_nodes > line[TABLE]  # the level's first row stays zero
            first = np.where(stored, of_nodes, self.layout.table_size).min(axis=1)
            last = of_nodes.max(axis=1) + line[STRIDE]
            some = stored.any(axis=1)
            reached[:edge][some] = np.stack([first, last], axis=1)[some]
        return layers

    def _adopt(self, optimizer: AdamW) -> np.ndarray:
        """Makes the optimiser's state views of the moments of this object, after copying its
        previous contents to them. Returns the number of updates of each parameter."""
        counts = np.zeros(len(self.learned), np.float32)
        steps = torch.from_numpy(counts)
        for index, (parameter, segment) in enumerate(zip(self.learned, self.segments.tolist())):
            start, _, stride, *_ = segment
            strides = (1, stride) if index == 0 else (stride, 1)[-parameter.dim() :]
            before, state = optimizer.state[parameter], {"step": steps[index]}
            for name, moments in (("exp_avg", self.means), ("exp_avg_sq", self.squares)):
                state[name] = torch.from_numpy(moments).as_strided(parameter.shape, strides, start)
            for name, view in state.items() if before else ():
                view.copy_(before[name])
            optimizer.state[parameter] = state
        return counts


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as contiguous float32 without a graph."""
    return tensor.detach().to(torch.float32).contiguous()


def _learned(parts: Sequence[Part], weights: Weights) -> list[Tensor]:
    """The decoder's weights, then the tables."""
    return [*weights[:4], *(part.table for part in parts)]


def _stamp(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """A value that changes when other code writes to the ``tensors`` or moves them."""
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]
