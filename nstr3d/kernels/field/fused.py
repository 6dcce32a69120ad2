"""A field's levels, waves and decoder as one operation, which takes most of the time of a training
step and of a query.

`evaluate` is the form in plain torch. The fused form (numba) gives the same values and the same
gradients in tables, waves and decoder. It serves 3D points in float32 that need no gradient, on the
CPU. On a GPU, `kernels.field.gpu` does the same within `triton_kernels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nstr3d.kernels.field.interpolate import (
    differentiated,
    fused_applies,
    interpolate,
    plain_wanted,
)
from nstr3d.kernels.field.layout import (
    CARRIER,
    CHANNELS,
    COMPLEX,
    KIND,
    LANES,
    PHASE,
    PLAIN,
    ROW_MULTIPLE,
    STRIDE,
    TABLE,
    TILE,
    WAVES,
    Layout,
    Part,
    Weights,
    up,
)

# Whether GPUs use `kernels.field.gpu` and captured steps. Per thread, like `plain_torch`.
_TRITON: ContextVar[bool] = ContextVar("_TRITON", default=False)
# The weights asked for within `unchanged`, and the kernels' arrays of them; None outside.
_PACKED: ContextVar[dict[tuple, tuple] | None] = ContextVar("_PACKED", default=None)


@contextmanager
def unchanged() -> Iterator[None]:
    """A context, or a decorator, in which no compiled step changes weights: those of a field are
    copied into the kernels' arrays once, not at every call. Changes by torch are seen, except those
    of inference tensors, which torch does not count."""
    kept = _PACKED.get()
    before = _PACKED.set({} if kept is None else kept)
    try:
        yield
    finally:
        _PACKED.reset(before)


def evaluate(points: Tensor, parts: Sequence[Part], weights: Weights | None) -> Tensor:
    """Values ``(n, c)`` at ``points (n, 3)`` in plain torch, differentiable to any order. Without
    ``weights``, the features."""
    features = features_of(points, parts)
    if weights is None:
        return features
    hidden = nn.functional.softplus(
        nn.functional.linear(features, weights.w1, weights.b1), beta=weights.sharpness
    )
    return nn.functional.linear(hidden, weights.w2, weights.b2)


def features_of(points: Tensor, parts: Sequence[Part]) -> Tensor:
    """The decoder's inputs ``(n, inputs)`` in plain torch."""
    return torch.cat([_features(points, part) for part in parts], dim=1)


def _features(points: Tensor, part: Part) -> Tensor:
    spectrum = interpolate(points, part.grid, part.table)
    if part.omega is None or part.phase is None:
        return spectrum
    plain, local = spectrum[:, : part.plain], spectrum[:, part.plain :]
    phase, first, second = (
        torch.addmm(part.phase, points, part.omega.T),
        local[:, : part.waves],
        local[:, part.waves :],
    )
    if part.kind == COMPLEX:
        waves = first * torch.sin(phase) + second * torch.cos(phase)
    else:
        waves = first * torch.sin(phase + part.radians * second if part.kind == PHASE else phase)
    return torch.cat([plain, waves], dim=1)


def fused(points: Tensor, parts: Sequence[Part], weights: Weights | None, layout: Layout) -> Tensor:
    """`evaluate` in one pass. The caller checks `applies`."""
    if points.is_cuda:
        from nstr3d.kernels.field.gpu import fused_on_gpu

        return fused_on_gpu(points, parts, weights)
    return _Fused.apply(
        points, layout, len(parts), weights and weights.sharpness, *_learned(parts, weights)
    )


def _learned(parts: Sequence[Part], weights: Weights | None) -> list[Tensor]:
    """Weights, tables, then frequencies and phases."""
    tensors = [*(weights[:4] if weights else ()), *(part.table for part in parts)]
    return tensors + [
        tensor for part in parts for tensor in (part.omega, part.phase) if tensor is not None
    ]


def fused_with_slope(
    points: Tensor, parts: Sequence[Part], weights: Weights, layout: Layout
) -> tuple[Tensor, Tensor]:
    """Values ``(n, 1)`` of a field of one output and their gradient in the points ``(n, 3)``, both
    detached. The caller checks `applies`; CPU only."""
    from nstr3d.kernels.field import fusedcpu as cpu
    from nstr3d.kernels.threads import split_work

    waves = [(part.omega, part.phase) for part in parts]
    levels, decoder = packed(layout, [part.table for part in parts], waves, weights)
    value, slope = torch.empty(len(points), 1), torch.empty(len(points), 3)
    arguments = (
        points.detach().contiguous().numpy(),
        levels,
        decoder,
        value.numpy(),
        slope.numpy(),
    )
    split_work(
        lambda part, low, high: cpu.forward_with_slope(low, high, *arguments),
        len(points),
        cpu.BLOCK,
    )
    return value, slope


def applies(points: Tensor, parts: Sequence[Part]) -> bool:
    """Whether the fused form can evaluate ``parts`` at ``points``."""
    if points.is_cuda:
        single = points.dtype == torch.float32 and all(
            part.table.dtype == torch.float32 for part in parts
        )
        return triton_wanted() and single and points.shape[1] == 3 and not differentiated(points)
    return all(fused_applies(points, part.table) for part in parts)


@contextmanager
def triton_kernels() -> Iterator[None]:
    """A context in which the calling thread evaluates fields on a GPU by `kernels.field.gpu`, and
    trains them by steps captured as a graph. Off elsewhere, because a GPU's kernels are used only
    where they have been found right (`nstr3d.training.choice`)."""
    before = _TRITON.set(True)
    try:
        yield
    finally:
        _TRITON.reset(before)


def triton_wanted() -> bool:
    """Whether `triton_kernels` is active, and `plain_torch` is not."""
    return _TRITON.get() and not plain_wanted()


def packed(
    layout: Layout,
    tables: Sequence[Tensor],
    waves: Sequence[tuple[Tensor | None, Tensor | None]],
    weights: Weights | None,
) -> tuple:
    """`packed_levels` and `packed_decoder`, kept within `unchanged`."""
    kept = _PACKED.get()
    if kept is None:
        return packed_levels(layout, tables, waves), packed_decoder(weights, layout)
    pairs = [each for pair in waves for each in pair if each is not None]
    tensors = [each.detach() for each in (*tables, *pairs, *(weights[:4] if weights else ()))]
    versions = (0 if each.is_inference() else each._version for each in tensors)
    key = layout, weights and weights.sharpness, *map(Tensor.data_ptr, tensors), *versions
    if key not in kept:  # what is kept holds the tensors, so that their addresses stay theirs
        arrays = packed_levels(layout, tables, waves), packed_decoder(weights, layout)
        kept[key] = arrays, tensors
    return kept[key][0]


def packed_levels(
    layout: Layout, tables: Sequence[Tensor], waves: Sequence[tuple[Tensor | None, Tensor | None]]
):
    """The kernels' arrays of the levels: tables and carriers copied to the places of the
    ``layout``."""
    from nstr3d.kernels.field import fusedcpu as cpu

    table, carrier = torch.empty(layout.table_size).numpy(), zeros(layout.carrier_size)
    table[-2 * LANES - ROW_MULTIPLE :] = 0  # the padding after the last row
    for table_in, (omega, phase), line in zip(tables, waves, layout.meta):
        cpu.pack(
            table_in.detach().reshape(-1).numpy(), table, line[TABLE], line[STRIDE], line[CHANNELS]
        )
        if omega is not None and phase is not None:
            at = carrier[line[CARRIER] :][: 4 * up(len(phase), LANES)].reshape(4, -1)
            at[:3, : len(phase)], at[3, : len(phase)] = (
                omega.detach().numpy().T,
                phase.detach().numpy(),
            )
    sizes = layout.inputs, layout.line, layout.local_line
    return cpu.Levels(layout.meta, layout.radians, layout.places.numpy(), table, carrier, *sizes)


def packed_decoder(weights: Weights | None, layout: Layout):
    """The kernels' arrays of the decoder: weights padded with zeros to whole vectors."""
    from nstr3d.kernels.field.decodercpu import Decoder

    if weights is None:
        return Decoder._make([*(np.zeros(0, np.float32) for _ in range(5)), np.float32(1)])
    w1, b1, w2, b2 = (each.detach().numpy() for each in weights[:4])
    hidden, inputs = w1.shape
    width, columns = up(hidden, ROW_MULTIPLE), up(inputs, ROW_MULTIPLE)
    first, back = zeros(inputs, width), zeros(width, columns)
    bias, last = zeros(width), zeros(len(w2), width)
    first[:, :hidden], back[:hidden, :inputs], bias[:hidden], last[:, :hidden] = w1.T, w1, b1, w2
    return Decoder._make(
        [first.ravel(), back.ravel(), bias, last.ravel(), b2, np.float32(weights.sharpness)]
    )


def zeros(*shape: int) -> np.ndarray:
    return torch.zeros(shape).numpy()  # torch aligns memory to vectors; numpy does not


class _Fused(torch.autograd.Function):
    """The kernels as an autograd node: gradients in tables, waves and weights, first order only."""

    @staticmethod
    def forward(
        ctx, points: Tensor, layout: Layout, count: int, sharpness: float | None, *tensors: Tensor
    ) -> Tensor:
        from nstr3d.kernels.field import fusedcpu as cpu
        from nstr3d.kernels.threads import split_work

        n, weights = len(points), None
        if sharpness is not None:
            weights, tensors = Weights._make([*tensors[:4], sharpness]), tensors[4:]
        waves = _pairs(layout, tensors[count:])
        levels, decoder = packed(layout, tensors[:count], waves, weights)
        kept = n + TILE if any(ctx.needs_input_grad) or weights is None else 0
        features, local = torch.empty(kept * layout.line), torch.empty(kept * layout.local_line)
        hidden = torch.empty(kept * len(decoder.bias))
        out = torch.empty(n, len(weights.b2) if weights else 0)
        at = points.detach().contiguous().numpy()
        ctx.layout, ctx.arguments = (
            layout,
            (at, levels, decoder, cpu.Kept(features.numpy(), local.numpy(), hidden.numpy())),
        )
        arguments: tuple = *ctx.arguments, out.numpy()
        split_work(lambda part, low, high: cpu.forward(low, high, *arguments), n, cpu.BLOCK)
        ctx.shapes = [tensor.shape for tensor in tensors[:count]]
        ctx.hidden = None if weights is None else weights.w1.shape
        return out if weights else features.view(-1, layout.line)[:n, : layout.inputs].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        from nstr3d.kernels.field import fusedcpu as cpu
        from nstr3d.kernels.threads import split_work

        arguments: tuple = *ctx.arguments, grad.contiguous().numpy()
        carriers = ctx.needs_input_grad[4 + len(ctx.shapes) + (4 if ctx.hidden else 0) :]
        sums = Sums(ctx.layout, ctx.hidden, grad.shape[1], any(carriers), len(grad))
        split_work(
            lambda part, low, high: cpu.backward(low, high, *arguments, sums=sums.mine[part]),
            len(grad),
            cpu.BLOCK,
        )
        return None, None, None, None, *sums.gradients(ctx.shapes)


class Sums:
    """The gradients that threads accumulate: a row of ``mine`` per thread, in one allocation."""

    def __init__(
        self, layout: Layout, hidden: torch.Size | None, outputs: int, learned: bool, count: int
    ) -> None:
        from nstr3d.kernels.field import fusedcpu as cpu
        from nstr3d.kernels.threads import parts

        self.layout, self.hidden, self.outputs, self.learned = layout, hidden, outputs, learned
        self.width = up(hidden[0], ROW_MULTIPLE) if hidden else 0
        first = up(layout.inputs, TILE) * self.width
        last, carrier = outputs * self.width, layout.carrier_size if learned else 0
        self.sizes = layout.table_size, first, self.width, last, carrier, outputs
        ends = np.cumsum(self.sizes).tolist()
        self.all = torch.empty(parts(count), up(ends[-1], ROW_MULTIPLE)).numpy()
        self.mine = [
            cpu.Sums._make(each[end - size : end] for size, end in zip(self.sizes, ends))
            for each in self.all
        ]

    def gradients(self, shapes: Sequence[torch.Size]) -> list[Tensor | None]:
        """The gradients in the weights, in tables of these ``shapes`` and, if learned, in the
        waves."""
        from nstr3d.kernels.field import fusedcpu as cpu

        start, size, width, outputs = self.sizes[0], sum(self.sizes), self.width, self.outputs
        # Rows of features are padded with what was in memory. Nothing reads the gradients there,
        # but their sum may overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            small = torch.from_numpy(self.all[:, start:size].sum(axis=0))
        first, bias, last, carrier, offset = small.split(list(self.sizes[1:]))
        found: list[Tensor | None] = []
        if self.hidden:
            hidden, inputs = self.hidden
            w1, w2 = (
                first.view(-1, width)[:inputs, :hidden].T,
                last.view(outputs, width)[:, :hidden],
            )
            found += [w1, bias[:hidden], w2, offset]
        for shape, line in zip(shapes, self.layout.meta):
            table = torch.empty(shape)
            cpu.unpack(self.all, table.view(-1).numpy(), line[TABLE], line[STRIDE], line[CHANNELS])
            found.append(table)
        for line in self.layout.meta:
            if line[KIND] != PLAIN and self.learned:
                waves, place = int(line[WAVES]), int(line[CARRIER])
                turned = carrier[place:][: 4 * up(waves, LANES)].view(4, -1)[:, :waves]
                found += [turned[:3].T, turned[3]]
            elif line[KIND] != PLAIN:
                found += [None, None]
        return found


def _pairs(layout: Layout, tensors: Sequence[Tensor]) -> list[tuple[Tensor | None, Tensor | None]]:
    """Frequencies and phases of each level, from the ``tensors`` of the levels that have waves."""
    left = iter(tensors)
    return [
        (next(left), next(left)) if line[KIND] != PLAIN else (None, None) for line in layout.meta
    ]
