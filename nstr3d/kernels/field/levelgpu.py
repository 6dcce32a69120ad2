"""A level's features, and the gradients of its table and waves, on a GPU (Triton).

`kernels.field.levelcpu` and `kernels.field.featurecpu` are the twins on the CPU. Each program
handles a block of points. Gradients are summed by atomic additions, whose order varies.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

jit: Any = triton.jit  # compile-time sizes are passed as plain numbers


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
    """The row of a node of the points' cells, -1 for a node that is not stored, and the node's
    weight."""
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
def encode(
    points, rows, table, omega, phase, out, size, resolution, channels, plain, waves, radians,
    first, line,
    KIND: tl.constexpr, ORDER: tl.constexpr, PLAIN: tl.constexpr, WAVES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A level's features at a block of points, into columns from ``first`` of rows of ``line``."""
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
def encode_backward(
    points, rows, table, omega, phase, grad, g_table, g_omega, g_phase,
    size, resolution, channels, plain, waves, radians, first, line,
    KIND: tl.constexpr, ORDER: tl.constexpr, PLAIN: tl.constexpr, WAVES: tl.constexpr,
    LEARNED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of a level's table and, if learned, of its waves, from the gradient in its
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
