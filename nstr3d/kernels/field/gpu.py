"""The fused kernels on a GPU: `kernels.field.fused.evaluate` as two autograd functions over Triton
kernels.

Each level's kernel writes its columns of the features; the decoder's kernel reads them. Matrix
products are in float32 (or in the ``precision`` asked for) and sum in float32. Gradients of tables
are summed by atomic additions, whose order varies: runs repeat only to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
from torch import Tensor

from nstr3d.kernels.field.decodergpu import decode, decode_backward
from nstr3d.kernels.field.layout import Part, Weights
from nstr3d.kernels.field.levelgpu import encode, encode_backward

BLOCK = 128  # points of a program


def fused_on_gpu(
    points: Tensor, parts: Sequence[Part], weights: Weights | None, precision: str = "ieee"
) -> Tensor:
    """`kernels.field.fused.evaluate`: gradients in tables, waves and weights, first order only.
    ``precision`` of the matrix products is "ieee" (float32), "tf32" or "bf16". tf32 loses a
    thousandth of the largest value, which is more than the error of a fitted surface."""
    features = _Encode.apply(
        points.contiguous(), tuple(parts), *(tensor for part in parts for tensor in _learned(part))
    )
    return (
        features
        if weights is None
        else _Decode.apply(features, weights.sharpness, precision, *weights[:4])
    )


def _learned(part: Part) -> list[Tensor]:
    return (
        [part.table]
        if part.omega is None or part.phase is None
        else [part.table, part.omega, part.phase]
    )


def _blocks(count: int) -> tuple[int]:
    return (triton.cdiv(count, BLOCK),)


def _power(count: int, least: int = 1) -> int:
    return max(least, triton.next_power_of_2(count)) if count else 0


def _sizes(part: Part) -> tuple[int | float, ...]:
    """Resolution, channels, plain channels, waves, and radians of a unit of phase."""
    return part.grid.resolution, part.table.shape[1], part.plain, part.waves, part.radians


def _shape(part: Part) -> dict[str, int]:
    """The compile-time constants of a level's kernels."""
    return {
        "KIND": part.kind,
        "ORDER": part.grid.order,
        "PLAIN": _power(part.plain),
        "WAVES": _power(part.waves),
        "BLOCK": BLOCK,
    }


def _levels(
    parts: Sequence[Part], tensors: Sequence[Tensor]
) -> Iterator[tuple[Part, Tensor, Tensor, Tensor, int]]:
    """Each part, its tensors, and where its features start."""
    remaining, first = iter(tensors), 0
    for part in parts:
        table = next(remaining).contiguous()
        omega, phase = (
            (next(remaining).contiguous(), next(remaining).contiguous())
            if part.kind
            else (table, table)
        )
        yield part, table, omega, phase, first
        first += part.plain + part.waves


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, parts: tuple[Part, ...], *tensors: Tensor) -> Tensor:
        line = sum(part.plain + part.waves for part in parts)
        out = points.new_empty(len(points), line)
        for part, table, omega, phase, first in _levels(parts, tensors) if len(points) else ():
            encode[_blocks(len(points))](
                points, part.grid.rows, table, omega, phase, out, len(points),
                *_sizes(part), first, line, **_shape(part),
            )  # fmt: skip
        ctx.parts = parts
        ctx.save_for_backward(points, *tensors)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        points, *tensors = ctx.saved_tensors
        grads, grad = (
            [torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors],
            grad.contiguous(),
        )
        mine, at = iter(grads), 2
        for part, table, omega, phase, first in _levels(ctx.parts, tensors) if len(points) else ():
            learned = bool(part.kind) and any(ctx.needs_input_grad[at + 1 : at + 3])
            at += 3 if part.kind else 1
            sums = [next(mine) for _ in range(3 if part.kind else 1)]
            sums += [sums[0]] * (3 - len(sums))
            encode_backward[_blocks(len(points))](
                points, part.grid.rows, table, omega, phase, grad, *sums, len(points),
                *_sizes(part), first, grad.shape[1], LEARNED=learned, **_shape(part),
            )  # fmt: skip
        return None, None, *grads


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, sharpness: float, precision: str, *weights: Tensor
    ) -> Tensor:
        weights = tuple(each.contiguous() for each in weights)
        (hidden, inputs), outputs = weights[0].shape, len(weights[3])
        ctx.sizes = len(features), inputs, hidden, outputs, sharpness
        ctx.shape = {
            "K": _power(inputs, 16),
            "H": _power(hidden, 16),
            "BLOCK": BLOCK,
            "PRECISION": precision,
        }
        out = features.new_empty(len(features), outputs)
        if len(features):
            decode[_blocks(len(features))](features, *weights, out, *ctx.sizes, **ctx.shape)
        ctx.save_for_backward(features, *weights)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        features, *weights = ctx.saved_tensors
        back, sums = torch.empty_like(features), [torch.zeros_like(each) for each in weights]
        if len(features):
            arrays = features, *weights[:3], grad.contiguous(), back, *sums
            decode_backward[_blocks(len(features))](*arrays, *ctx.sizes, **ctx.shape)
        return back, None, None, *sums
