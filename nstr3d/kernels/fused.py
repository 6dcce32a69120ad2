"""A field's levels, waves and decoder as one operation: what a training step and a query spend their time on.

`Part` describes one level of a field, `evaluate` its twin in plain torch. The fused form (numba) gives the same values, and the
same gradients in tables, waves and decoder, where nobody differentiates in the points: in 3D, in float32, on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nstr3d.kernels.interpolate import fused_applies, interpolate

PLAIN, AMPLITUDE, COMPLEX, PHASE = range(4)  # kinds of waves
LANES = 8  # of a vector of spectrum channels: a row of a packed table has a multiple of so many
WIDE = 16  # the same for a packed weight
RESOLUTION, ROW, TABLE, STRIDE, PLAINS, KIND, WAVES, FEATURE, CARRIER, LOCAL = range(10)  # columns of a layout's meta


@dataclass(frozen=True)
class Part:
    """One level: node grid ``rows`` of ``resolution`` cells, ``table (m, c)`` with ``plain`` channels first, then those of
    ``kind`` waves: amplitudes; real, then imaginary parts; or amplitudes, then phases in units of ``radians``.

    The waves' carriers are ``omega (k, 3) . x + phase (k,)``. See `kernels.interpolate` and `fields.waves`.
    """

    rows: Tensor
    resolution: int
    table: Tensor
    plain: int
    kind: int = PLAIN
    omega: Tensor | None = None
    phase: Tensor | None = None
    radians: float = 1.0

    @property
    def waves(self) -> int:
        """How many waves there are."""
        return 0 if self.phase is None else len(self.phase)


class Weights(NamedTuple):
    """A decoder of one hidden layer: ``w2 softplus(w1 f + b1) + b2``, softplus of the given sharpness."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    sharpness: float


def evaluate(points: Tensor, parts: Sequence[Part], weights: Weights | None) -> Tensor:
    """Values ``(n, c)`` at ``points (n, 3)`` in plain torch, differentiable to any order; the features without ``weights``."""
    features = torch.cat([_features(points, part) for part in parts], dim=1)
    if weights is None:
        return features
    hidden = nn.functional.softplus(nn.functional.linear(features, weights.w1, weights.b1), beta=weights.sharpness)
    return nn.functional.linear(hidden, weights.w2, weights.b2)


def _features(points: Tensor, part: Part) -> Tensor:
    spectrum = interpolate(points, part.rows, part.resolution, part.table)
    if part.omega is None or part.phase is None:
        return spectrum
    plain, local = spectrum[:, : part.plain], spectrum[:, part.plain :]
    phase, first, second = torch.addmm(part.phase, points, part.omega.T), local[:, : part.waves], local[:, part.waves :]
    if part.kind == COMPLEX:
        waves = first * torch.sin(phase) + second * torch.cos(phase)
    else:
        waves = first * torch.sin(phase + part.radians * second if part.kind == PHASE else phase)
    return torch.cat([plain, waves], dim=1)


class Layout:
    """Where in the kernels' flat arrays everything of some parts is; made once for a field."""

    def __init__(self, parts: Sequence[Part]) -> None:
        import numpy as np

        lines, row, table, feature, carrier, local = [], 0, 0, 0, 0, 0
        for part in parts:
            stride, width = _up(part.table.shape[1], LANES), _up(part.waves, LANES)
            lines.append([part.resolution, row, table, stride, part.plain, part.kind, part.waves, feature, carrier, local])
            row, table = row + len(part.rows), table + (len(part.table) + 1) * stride
            feature += part.plain + part.waves
            carrier, local = carrier + 4 * width, local + width * (3 if part.kind == COMPLEX else 2)
        self.rows = torch.cat([part.rows for part in parts]).int().contiguous()
        self.key = self.key_of(parts)
        self.meta = np.array(lines, np.int64)
        self.radians = np.array([part.radians for part in parts], np.float32)
        self.table_size, self.carrier_size, self.inputs = table + 2 * LANES, carrier, feature
        # A row of features has room for what whole vectors write past its end.
        self.line, self.local_line = max(_up(feature, WIDE), _up(feature + LANES - 1, LANES)), local

    @staticmethod
    def key_of(parts: Sequence[Part]) -> tuple[tuple[int, int], ...]:
        """What changes when a layout no longer fits."""
        return tuple((part.rows.data_ptr(), len(part.table)) for part in parts)


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def fused(points: Tensor, parts: Sequence[Part], weights: Weights | None, layout: Layout) -> Tensor:
    """`evaluate` in one pass; only where `applies`."""
    tensors = [part.table for part in parts]
    tensors += [tensor for part in parts for tensor in (part.omega, part.phase) if tensor is not None]
    return _Fused.apply(points, layout, len(parts), weights and weights.sharpness, *(weights[:4] if weights else ()), *tensors)


def fused_with_slope(points: Tensor, parts: Sequence[Part], weights: Weights, layout: Layout) -> tuple[Tensor, Tensor]:
    """Values ``(n, 1)`` and their gradient in the points ``(n, 3)``, detached, for one output; only where `applies`."""
    from nstr3d.kernels import fusedcpu as cpu
    from nstr3d.kernels.threads import share

    levels = _levels(layout, [part.table for part in parts], [(part.omega, part.phase) for part in parts])
    value, slope = torch.empty(len(points), 1), torch.empty(len(points), 3)
    given = points.detach().contiguous().numpy(), levels, _decoder(weights, layout), value.numpy(), slope.numpy()
    share(lambda part, low, high: cpu.forward_with_slope(low, high, *given), len(points), cpu.BLOCK)
    return value, slope


def applies(points: Tensor, parts: Sequence[Part]) -> bool:
    """Whether the fused form may answer."""
    return all(fused_applies(points, part.table) for part in parts)


def _levels(layout: Layout, tables: Sequence[Tensor], waves: Sequence[tuple[Tensor | None, Tensor | None]]):
    """The kernels' view of the levels: tables and carriers copied to where the layout has them."""
    from nstr3d.kernels import fusedcpu as cpu

    carrier = torch.zeros(layout.carrier_size)
    for (omega, phase), line in zip(waves, layout.meta):
        if omega is not None and phase is not None:
            at = carrier[line[CARRIER] :][: 4 * _up(len(phase), LANES)].view(4, -1)
            at[:3, : len(phase)], at[3, : len(phase)] = omega.detach().T, phase.detach()
    numbers = layout.inputs, layout.line, layout.local_line
    table = torch.empty(layout.table_size).numpy()
    levels = cpu.Levels(layout.meta, layout.radians, layout.rows.numpy(), table, carrier.numpy(), *numbers)
    for index, table in enumerate(tables):
        cpu.pack(table.detach().contiguous().numpy(), index, levels)
    levels.table[-2 * LANES :] = 0
    return levels


def _decoder(weights: Weights | None, layout: Layout):
    """The kernels' view of the decoder: weights padded with zeros to whole vectors."""
    import numpy as np

    from nstr3d.kernels import fusedcpu as cpu

    if weights is None:
        return cpu.Decoder(*(np.zeros(0, np.float32) for _ in range(5)), np.float32(1))
    hidden, inputs = weights.w1.shape
    width, columns = _up(hidden, WIDE), _up(inputs, WIDE)
    first, back = torch.zeros(inputs, width), torch.zeros(width, columns)
    bias, last = torch.zeros(width), torch.zeros(len(weights.w2), width)
    first[:, :hidden], back[:hidden, :inputs] = weights.w1.detach().T, weights.w1.detach()
    bias[:hidden], last[:, :hidden] = weights.b1.detach(), weights.w2.detach()
    flat = [tensor.view(-1).numpy() for tensor in (first, back, bias, last, weights.b2.detach())]
    return cpu.Decoder(*flat, np.float32(weights.sharpness))


class _Fused(torch.autograd.Function):
    """The kernels as an autograd node: gradients in tables, waves and weights, first order only."""

    @staticmethod
    def forward(ctx, points: Tensor, layout: Layout, count: int, sharpness: float | None, *tensors: Tensor) -> Tensor:
        from nstr3d.kernels import fusedcpu as cpu
        from nstr3d.kernels.threads import share

        n, weights = len(points), None
        if sharpness is not None:
            weights, tensors = Weights(*tensors[:4], sharpness), tensors[4:]
        waves = _pairs(layout, tensors[count:])
        levels, decoder = _levels(layout, tensors[:count], waves), _decoder(weights, layout)
        kept = n + cpu.TILE if any(ctx.needs_input_grad) or weights is None else 0
        features, local = torch.empty(kept * layout.line), torch.empty(kept * layout.local_line)
        hidden = torch.empty(kept * len(decoder.bias))
        out = torch.empty(n, len(weights.b2) if weights else 0)
        at = points.detach().contiguous().numpy()
        ctx.layout, ctx.given = layout, (at, levels, decoder, cpu.Kept(features.numpy(), local.numpy(), hidden.numpy()))
        share(lambda part, low, high: cpu.forward(low, high, *ctx.given, out.numpy()), n, cpu.BLOCK)
        ctx.shapes, ctx.count = [tensor.shape for tensor in tensors], count
        ctx.hidden = None if weights is None else weights.w1.shape
        return out if weights else features.view(-1, layout.line)[:n, : layout.inputs].clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        from nstr3d.kernels import fusedcpu as cpu
        from nstr3d.kernels.threads import parts, share

        layout, given = ctx.layout, (*ctx.given, grad.contiguous().numpy())
        points, levels, decoder, *_ = given
        split, outputs, width = parts(len(points)), grad.shape[1], len(decoder.bias)
        learned = any(ctx.needs_input_grad[len(ctx.needs_input_grad) - len(ctx.shapes) + ctx.count :])
        g_table = torch.empty(split, layout.table_size)
        g_carrier = torch.zeros(split, layout.carrier_size if learned else 0)
        g_first = torch.zeros(split, (_up(layout.inputs, cpu.TILE)) * width)
        g_bias, g_last, g_offset = torch.zeros(split, width), torch.zeros(split, outputs * width), torch.zeros(split, outputs)
        sums = [tensor.numpy() for tensor in (g_table, g_carrier, g_first, g_bias, g_last, g_offset)]
        mine = [cpu.Sums(*(each[part] for each in sums)) for part in range(split)]
        share(lambda part, low, high: cpu.backward(low, high, *given, mine[part]), len(points), cpu.BLOCK)
        found: list[Tensor | None] = []
        if ctx.hidden is not None:
            hidden, inputs = ctx.hidden
            w1 = g_first.sum(dim=0).view(-1, width)[:inputs, :hidden].T
            found += [w1, g_bias.sum(dim=0)[:hidden], g_last.sum(dim=0).view(outputs, width)[:, :hidden], g_offset.sum(dim=0)]
        for index, shape in enumerate(ctx.shapes[: ctx.count]):
            found.append(torch.empty(shape))
            cpu.unpack(sums[0], index, levels, found[-1].numpy())
        for line in layout.meta:
            if line[KIND] != PLAIN:
                waves, start = int(line[WAVES]), int(line[CARRIER])
                if learned:
                    turned = g_carrier.sum(dim=0)[start:][: 4 * _up(waves, LANES)].view(4, -1)[:, :waves]
                    found += [turned[:3].T, turned[3]]
                else:
                    found += [None, None]
        return None, None, None, None, *found


def _pairs(layout: Layout, tensors: Sequence[Tensor]) -> list[tuple[Tensor | None, Tensor | None]]:
    """Frequencies and phases of each level, from those of the levels that have waves."""
    left = iter(tensors)
    return [(next(left), next(left)) if line[KIND] != PLAIN else (None, None) for line in layout.meta]
