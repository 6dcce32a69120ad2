"""The fused kernels on a GPU (Triton): twins of `kernels.field.fused.evaluate`, level by level into
the features, then the decoder.

Matrix products are in tf32 (or what ``precision`` says) and sum in float32. Gradients of tables are
summed by atomic additions, whose order varies: runs repeat only to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from nstr3d.kernels.field.layout import Part, Weights

BLOCK = 128  # points of a program
jit: Any = triton.jit  # sizes that are known when a kernel is compiled are passed as plain numbers


@jit
def _corner(points, n, live, axis: tl.constexpr, resolution):
    x = tl.load(points + n * 3 + axis, mask=live, other=0.0)
    scaled = (x + 1.0) * (resolution * 0.5)
    cell = tl.minimum(tl.maximum(tl.floor(scaled), 0.0), resolution - 1.0)
    return cell.to(tl.int32), scaled - cell


@jit
def _weight(u, place: tl.constexpr, ORDER: tl.constexpr):
    """The weight of a cell's node along an axis; see `kernels.field.interpolate.tap_weights`."""
    if ORDER == 1:
        weight = u if place else 1.0 - u
    elif place == 1:
        weight = 0.5 + u * (1.0 - u)
    elif place == 2:
        weight = 0.5 * u * u
    else:
        weight = 0.5 * (1.0 - u) * (1.0 - u)
    return weight


@jit
def _tap(i, j, k, u, v, w, rows, live, resolution, tap: tl.constexpr, ORDER: tl.constexpr):
    """The row of a node of the points' cells, -1 where it is not stored, and the node's weight."""
    a: tl.constexpr = tap // ((ORDER + 1) * (ORDER + 1))
    b: tl.constexpr = tap // (ORDER + 1) % (ORDER + 1)
    c: tl.constexpr = tap % (ORDER + 1)
    node = ((i + a) * (resolution + ORDER) + j + b) * (resolution + ORDER) + k + c
    weight = _weight(u, a, ORDER) * _weight(v, b, ORDER) * _weight(w, c, ORDER)
    return tl.load(rows + node, mask=live, other=-1), weight


@jit
def _mix(
    points, n, live, rows, table, resolution, channels, start, count,
    ORDER: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The channels ``[start, start + count)`` interpolated at the points ``n``: (BLOCK, WIDTH)."""
    i, u = _corner(points, n, live, 0, resolution)
    j, v = _corner(points, n, live, 1, resolution)
    k, w = _corner(points, n, live, 2, resolution)
    c = tl.arange(0, WIDTH)
    total = tl.zeros((BLOCK, WIDTH), tl.float32)
    for tap in tl.static_range((ORDER + 1) * (ORDER + 1) * (ORDER + 1)):  # type: ignore[misc]
        row, weight = _tap(i, j, k, u, v, w, rows, live, resolution, tap, ORDER)
        held = (live & (row >= 0))[:, None] & (c < count)[None, :]
        total += weight[:, None] * tl.load(
            table + row[:, None] * channels + start + c[None, :], mask=held, other=0.0
        )
    return total


@jit
def _spread(
    points, n, live, rows, grad, value, resolution, channels, start, count,
    ORDER: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Adds ``value`` to the gradient of the table: the transpose of `_mix`."""
    i, u = _corner(points, n, live, 0, resolution)
    j, v = _corner(points, n, live, 1, resolution)
    k, w = _corner(points, n, live, 2, resolution)
    c = tl.arange(0, WIDTH)
    for tap in tl.static_range((ORDER + 1) * (ORDER + 1) * (ORDER + 1)):  # type: ignore[misc]
        row, weight = _tap(i, j, k, u, v, w, rows, live, resolution, tap, ORDER)
        held = (live & (row >= 0))[:, None] & (c < count)[None, :]
        tl.atomic_add(
            grad + row[:, None] * channels + start + c[None, :],
            weight[:, None] * value,
            mask=held,
            sem="relaxed",
        )


@jit
def _carried(points, n, live, omega, phase, waves, WIDTH: tl.constexpr):
    """omega . x + b: (BLOCK, WIDTH)."""
    c = tl.arange(0, WIDTH)
    total = tl.load(phase + c, mask=c < waves, other=0.0)[None, :]
    for axis in tl.static_range(3):  # type: ignore[misc]
        x = tl.load(points + n * 3 + axis, mask=live, other=0.0)
        total += x[:, None] * tl.load(omega + c * 3 + axis, mask=c < waves, other=0.0)[None, :]
    return total


@jit
def _encode(
    points, rows, table, omega, phase, out, size, resolution, channels, plain, waves, radians,
    first, line,
    KIND: tl.constexpr, ORDER: tl.constexpr, PLAIN: tl.constexpr, WAVES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A level's features of a block of points, into columns ``first`` on of rows of ``line``."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = n < size
    if PLAIN > 0:
        value = _mix(
            points, n, live, rows, table, resolution, channels, 0, plain, ORDER, PLAIN, BLOCK
        )
        c = tl.arange(0, PLAIN)
        tl.store(
            out + n[:, None] * line + first + c[None, :],
            value,
            mask=live[:, None] & (c < plain)[None, :],
        )
    if KIND > 0:
        carried = _carried(points, n, live, omega, phase, waves, WAVES)
        value = _mix(
            points, n, live, rows, table, resolution, channels, plain, waves, ORDER, WAVES, BLOCK
        )
        if KIND == 1:
            value = value * tl.sin(carried)
        else:
            other = _mix(
                points, n, live, rows, table, resolution, channels, plain + waves, waves,
                ORDER, WAVES, BLOCK,
            )  # fmt: skip
            if KIND == 2:
                value = value * tl.sin(carried) + other * tl.cos(carried)
            else:
                value = value * tl.sin(carried + radians * other)
        c = tl.arange(0, WAVES)
        tl.store(
            out + n[:, None] * line + first + plain + c[None, :],
            value,
            mask=live[:, None] & (c < waves)[None, :],
        )


@jit
def _encode_backward(
    points, rows, table, omega, phase, grad, g_table, g_omega, g_phase,
    size, resolution, channels, plain, waves, radians, first, line,
    KIND: tl.constexpr, ORDER: tl.constexpr, PLAIN: tl.constexpr, WAVES: tl.constexpr,
    LEARNED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of a level's table, and of its waves where they are learned, from those of its
    features."""
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = n < size
    if PLAIN > 0:
        c = tl.arange(0, PLAIN)
        value = tl.load(
            grad + n[:, None] * line + first + c[None, :],
            mask=live[:, None] & (c < plain)[None, :],
            other=0.0,
        )
        _spread(points, n, live, rows, g_table, value, resolution, channels, 0, plain, ORDER, PLAIN)
    if KIND > 0:
        c = tl.arange(0, WAVES)
        held = live[:, None] & (c < waves)[None, :]
        into = tl.load(grad + n[:, None] * line + first + plain + c[None, :], mask=held, other=0.0)
        carried = _carried(points, n, live, omega, phase, waves, WAVES)
        value = _mix(
            points, n, live, rows, table, resolution, channels, plain, waves, ORDER, WAVES, BLOCK
        )
        if KIND == 1:
            turn = into * value * tl.cos(carried)
        else:
            other = _mix(
                points, n, live, rows, table, resolution, channels, plain + waves, waves,
                ORDER, WAVES, BLOCK,
            )  # fmt: skip
            if KIND == 2:
                turn = into * (value * tl.cos(carried) - other * tl.sin(carried))
                second = into * tl.cos(carried)
            else:
                carried = carried + radians * other
                turn = into * value * tl.cos(carried)
                second = turn * radians
            _spread(
                points, n, live, rows, g_table, second, resolution, channels, plain + waves, waves,
                ORDER, WAVES,
            )  # fmt: skip
        value = into * tl.sin(carried)
        _spread(
            points, n, live, rows, g_table, value, resolution, channels, plain, waves, ORDER, WAVES
        )
        if LEARNED:
            tl.atomic_add(g_phase + c, tl.sum(turn, axis=0), mask=c < waves)
            for axis in tl.static_range(3):  # type: ignore[misc]
                x = tl.load(points + n * 3 + axis, mask=live, other=0.0)
                tl.atomic_add(
                    g_omega + c * 3 + axis, tl.sum(turn * x[:, None], axis=0), mask=c < waves
                )


@jit
def _hidden(
    features,
    w1,
    b1,
    n,
    live,
    inputs,
    hidden,
    sharpness,
    K: tl.constexpr,
    H: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A block's features, the first weights and, after them, ``sharpness`` times what goes into the
    softplus."""
    k, h = tl.arange(0, K), tl.arange(0, H)
    f = tl.load(
        features + n[:, None] * inputs + k[None, :],
        mask=live[:, None] & (k < inputs)[None, :],
        other=0.0,
    )
    w = tl.load(
        w1 + h[None, :] * inputs + k[:, None],
        mask=(k < inputs)[:, None] & (h < hidden)[None, :],
        other=0.0,
    )
    if PRECISION == "bf16":
        z = tl.dot(f.to(tl.bfloat16), w.to(tl.bfloat16))
    else:
        z = tl.dot(f, w, input_precision=PRECISION)
    return f, w, sharpness * (z + tl.load(b1 + h, mask=h < hidden, other=0.0)[None, :])


@jit
def _softplus(u, sharpness):
    return (tl.maximum(u, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(u)))) / sharpness


@jit
def _decode(
    features, w1, b1, w2, b2, out, size, inputs, hidden, outputs, sharpness,
    K: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live, h = n < size, tl.arange(0, H)
    _, _, u = _hidden(features, w1, b1, n, live, inputs, hidden, sharpness, K, H, PRECISION)
    active = _softplus(u, sharpness)
    for o in range(outputs):
        w = tl.load(w2 + o * hidden + h, mask=h < hidden, other=0.0)
        tl.store(
            out + n * outputs + o, tl.sum(active * w[None, :], axis=1) + tl.load(b2 + o), mask=live
        )


@jit
def _decode_backward(
    features, w1, b1, w2, grad, back, g_w1, g_b1, g_w2, g_b2,
    size, inputs, hidden, outputs, sharpness,
    K: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live, k, h = n < size, tl.arange(0, K), tl.arange(0, H)
    f, w, u = _hidden(features, w1, b1, n, live, inputs, hidden, sharpness, K, H, PRECISION)
    active, into = _softplus(u, sharpness), tl.zeros((BLOCK, H), tl.float32)
    for o in range(outputs):
        g = tl.load(grad + n * outputs + o, mask=live, other=0.0)
        into += g[:, None] * tl.load(w2 + o * hidden + h, mask=h < hidden, other=0.0)[None, :]
        tl.atomic_add(g_w2 + o * hidden + h, tl.sum(g[:, None] * active, axis=0), mask=h < hidden)
        tl.atomic_add(g_b2 + o, tl.sum(g, axis=0))
    small = tl.exp(-tl.abs(u))
    into = into * tl.where(u >= 0, 1.0, small) / (1.0 + small)
    tl.atomic_add(g_b1 + h, tl.sum(into, axis=0), mask=h < hidden)
    if PRECISION == "bf16":
        into, f, w = into.to(tl.bfloat16), f.to(tl.bfloat16), w.to(tl.bfloat16)
        first, through = tl.dot(tl.trans(f), into), tl.dot(into, tl.trans(w))
    else:
        first = tl.dot(tl.trans(f), into, input_precision=PRECISION)
        through = tl.dot(into, tl.trans(w), input_precision=PRECISION)
    both = (k < inputs)[:, None] & (h < hidden)[None, :]
    tl.atomic_add(g_w1 + h[None, :] * inputs + k[:, None], first, mask=both, sem="relaxed")
    tl.store(
        back + n[:, None] * inputs + k[None, :], through, mask=live[:, None] & (k < inputs)[None, :]
    )


def fused_on_gpu(
    points: Tensor, parts: Sequence[Part], weights: Weights | None, precision: str = "tf32"
) -> Tensor:
    """`kernels.field.fused.evaluate`: gradients in tables, waves and weights, first order only.
    ``precision`` of the matrix products is "tf32", "bf16" or "ieee" (float32)."""
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


def _levels(
    parts: Sequence[Part], tensors: Sequence[Tensor]
) -> Iterator[tuple[Part, Tensor, Tensor, Tensor, int]]:
    """Each part, its tensors, and where its features start."""
    left, first = iter(tensors), 0
    for part in parts:
        table = next(left).contiguous()
        omega, phase = (
            (next(left).contiguous(), next(left).contiguous()) if part.kind else (table, table)
        )
        yield part, table, omega, phase, first
        first += part.plain + part.waves


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, parts: tuple[Part, ...], *tensors: Tensor) -> Tensor:
        line = sum(part.plain + part.waves for part in parts)
        out = points.new_empty(len(points), line)
        for part, table, omega, phase, first in _levels(parts, tensors) if len(points) else ():
            sizes = (
                len(points),
                part.grid.resolution,
                table.shape[1],
                part.plain,
                part.waves,
                part.radians,
                first,
                line,
            )
            shape = {
                "KIND": part.kind,
                "ORDER": part.grid.order,
                "PLAIN": _power(part.plain),
                "WAVES": _power(part.waves),
                "BLOCK": BLOCK,
            }
            _encode[_blocks(len(points))](
                points, part.grid.rows, table, omega, phase, out, *sizes, **shape
            )
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
            sizes = (
                len(points),
                part.grid.resolution,
                table.shape[1],
                part.plain,
                part.waves,
                part.radians,
                first,
                grad.shape[1],
            )
            shape = {
                "KIND": part.kind,
                "ORDER": part.grid.order,
                "PLAIN": _power(part.plain),
                "WAVES": _power(part.waves),
                "LEARNED": learned,
            }
            _encode_backward[_blocks(len(points))](
                points,
                part.grid.rows,
                table,
                omega,
                phase,
                grad,
                *sums,
                *sizes,
                **shape,
                BLOCK=BLOCK,
            )
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
            _decode[_blocks(len(features))](features, *weights, out, *ctx.sizes, **ctx.shape)
        ctx.save_for_backward(features, *weights)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        features, *weights = ctx.saved_tensors
        back, sums = torch.empty_like(features), [torch.zeros_like(each) for each in weights]
        if len(features):
            given = features, *weights[:3], grad.contiguous(), back, *sums
            _decode_backward[_blocks(len(features))](*given, *ctx.sizes, **ctx.shape)
        return back, None, None, *sums
