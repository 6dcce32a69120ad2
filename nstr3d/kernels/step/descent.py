"""Training steps on the Huber loss, compiled: the loss with its gradient, then the update. Only on
the CPU (numba).

Values, gradients and moments stay in the kernels' order from step to step, in flat arrays that are
alike: the tables as `Layout` has them, then the decoder's weights. So a step lays nothing out, and
autograd is not asked. Twin: `torch.optim.AdamW` along the gradient of
`torch.nn.functional.huber_loss`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
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
from nstr3d.kernels.threads import team_of
from nstr3d.types import Samples

FOREVER = 1 << 62  # tickets
PATIENCE = 1 << 13  # looks, some 0.3 ms of them, until a thread goes
LULL = 1e-5  # seconds


class Loss(NamedTuple):
    """The mean Huber loss of the values over ``delta``, plus ``gradient_weight`` times the squared
    error of the gradients, per sample."""

    delta: float
    gradient_weight: float


class Descent:
    """Steps of ``optimizer`` down a `Loss`, where it `applies`.

    The optimiser's state is looked after as its own step would, and parameters that somebody
    changes between steps are read anew.
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
        self._share(0)
        self._compile()

    @staticmethod
    def applies(parts: Sequence[Part], weights: Weights, optimizer: AdamW) -> bool:
        """Whether there is such a step: everything in float32 on the CPU, tables and decoder
        learned, the waves' carriers not."""
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
        """The loss of a batch of points ``(n, 3)``, values ``(n, c)`` and, with one value, perhaps
        gradients before the step that it makes; ValueError for other shapes."""
        batch = batch.map(lambda each: each.detach().to(torch.float32).contiguous())
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
            self._share(len(points))
        self.steps += 1
        known = {
            id(group): rates_of(group, step)
            for group, step in zip(self.groups, self.steps.tolist())
        }
        self.rates[...] = [known[id(group)] for group in self.groups]
        self.batch[:3] = len(points), points.data_ptr(), targets.data_ptr()
        self.batch[3] = 0 if gradients is None else gradients.data_ptr()
        self._work()
        self.back[...] = self.learned[0].detach().numpy()
        loss = (
            float(self.losses.sum()) / targets.numel() if len(points) else np.nan
        )  # as torch's mean of nothing
        return torch.tensor(loss, dtype=torch.float32)

    def _work(self) -> None:
        """One step on ``batch``, with the help of threads that are kept from step to step while it
        does not take long to the next.

        Raises what a helper raised, at the latest one `LULL` after the caller has no ticket left.
        """
        from nstr3d.kernels.step.descentcpu import work
        from nstr3d.kernels.step.tickets import DONE

        workers = len(self.sums.mine)
        until = int(self.counts[DONE]) + 2 * workers
        try:
            if workers > 1:
                self._call_helpers(workers - 1)
            work(until, workers, PATIENCE, *self.given)
            while self.counts[DONE] < until:  # by a helper that has begun, and is kept from it
                self._dismiss_helpers()
                time.sleep(LULL)
                work(until, 0, PATIENCE, *self.given)
            self._dismiss_helpers()
        finally:
            if self.counts[DONE] < until:
                self._abandon()

    def _call_helpers(self, count: int) -> None:
        """Asks the team for as many helpers as are missing from ``count``."""
        from nstr3d.kernels.step.descentcpu import work

        team = team_of(count)
        self._dismiss_helpers()
        for _ in range(count - len(self.helpers)):
            self.helpers.append(team.submit(work, FOREVER, 0, PATIENCE, *self.given))

    def _dismiss_helpers(self) -> None:
        """Forgets the helpers that have gone. Raises what one of them raised."""
        gone = [each for each in self.helpers if each.done()]
        if gone:
            self.helpers = [each for each in self.helpers if each not in gone]
            for each in gone:
                each.result()

    def _abandon(self) -> None:
        """Ends a step that cannot be finished: waits until no helper writes to the parameters, and
        lets the next step start with counts and values of its own."""
        wait([each for each in self.helpers if not each.cancel()])
        self.seen = []

    def _compile(self) -> None:
        """Compiles or loads the kernels: a training's first step, on its clock, does not."""
        from nstr3d.kernels.step.descentcpu import work

        work(0, 0, 0, *self.given)

    def _share(self, count: int) -> None:
        """Makes ready for batches of ``count`` points; threads that help with others are left to
        go."""
        from nstr3d.kernels.step.descentcpu import Given
        from nstr3d.kernels.step.tickets import no_tickets

        self.sums, self.counts = self._sums(count), no_tickets()
        self.helpers: list[Future] = []
        workers, sizes = len(self.sums.mine), np.array(self.sums.sizes, np.int64)
        self.losses = np.zeros(workers)
        reach = np.tile(np.array([0, sizes.sum()]), (workers, len(self.segments), 1))
        field = (
            Given(
                np.float32(self.loss.delta),
                np.float32(self.loss.gradient_weight),
                self.layers,
                sizes,
                self.segments,
                self.rates,
            ),
            self.levels,
            self.decoder,
        )
        self.given = (
            self.counts,
            self.batch,
            *field,
            self.losses,
            reach,
            self.sums.all,
            self.values,
            self.means,
            self.squares,
        )

    def _sums(self, count: int) -> Sums:
        return Sums(self.layout, self.weights.w1.shape, len(self.weights.b2), False, count)

    def _read(self) -> None:
        """Lays out the values that the parameters have now, and notes where those are."""
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
        hidden, inputs = self.weights.w1.shape
        self.back = decoder.back.reshape(len(bias), -1)[:hidden, :inputs]
        self.seen = _stamp(self.learned)

    def _segments(self) -> np.ndarray:
        """Of each parameter, for `update_rows`: where its first row is in the flat arrays, how many
        there are, how far apart, of how many values; how far apart rows and values are in the
        parameter; and its address."""
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
            rows.append(
                [line[TABLE] + stride, len(table), stride, channels, channels, 1]
            )  # after the row that stays zero
        return np.array(
            [[*row, each.data_ptr()] for row, each in zip(rows, self.learned)], np.int64
        )

    def _layers(self) -> np.ndarray:
        """For each level and layer of nodes across the first axis, between which places of the flat
        arrays their rows are."""
        edges = self.layout.meta[:, RESOLUTION] + self.layout.meta[:, ORDER]
        layers, places = (
            np.zeros((len(edges), edges.max(), 2), np.int64),
            self.layout.places.numpy(),
        )
        layers[:, :, 0] = self.layout.table_size
        for line, edge, reached in zip(self.layout.meta, edges, layers):
            of_nodes = places[line[ROW] :][: edge**3].reshape(edge, -1)
            stored = of_nodes > line[TABLE]  # that place is the row that stays zero
            first = np.where(stored, of_nodes, self.layout.table_size).min(axis=1)
            last = of_nodes.max(axis=1) + line[STRIDE]
            some = stored.any(axis=1)
            reached[:edge][some] = np.stack([first, last], axis=1)[some]
        return layers

    def _adopt(self, optimizer: AdamW) -> Tensor:
        """Makes the optimiser's state views of the moments here, which take over what it was; the
        number of updates of each."""
        steps = torch.zeros(len(self.learned))
        for index, (parameter, segment) in enumerate(zip(self.learned, self.segments.tolist())):
            start, _, stride, *_ = segment
            strides = (1, stride) if index == 0 else (stride, 1)[-parameter.dim() :]
            before, state = optimizer.state[parameter], {"step": steps[index]}
            for name, moments in (("exp_avg", self.means), ("exp_avg_sq", self.squares)):
                state[name] = torch.from_numpy(moments).as_strided(parameter.shape, strides, start)
            for name, view in state.items() if before else ():
                view.copy_(before[name])
            optimizer.state[parameter] = state
        return steps


def _learned(parts: Sequence[Part], weights: Weights) -> list[Tensor]:
    """The decoder's weights, then the tables."""
    return [*weights[:4], *(part.table for part in parts)]


def _stamp(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """What changes when somebody else writes to the ``tensors``, or moves them."""
    return [(tensor.data_ptr(), tensor._version) for tensor in tensors]
