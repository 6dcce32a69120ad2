"""The decoder and the gradients of its weights, on a GPU (Triton).

`kernels.field.decodercpu` is the twin on the CPU. ``PRECISION`` of the matrix products is "tf32",
"bf16" or "ieee" (float32).
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

jit: Any = triton.jit  # compile-time sizes are passed as plain numbers


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
    """A block's features, the first weights, and ``sharpness`` times the input of the softplus."""
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
def decode(
    features, w1, b1, w2, b2, out, size, inputs, hidden, outputs, sharpness,
    K: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The field's values at a block of points."""
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
def decode_backward(
    features, w1, b1, w2, grad, back, g_w1, g_b1, g_w2, g_b2,
    size, inputs, hidden, outputs, sharpness,
    K: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients in the features, into ``back``, and in weights and biases, added to theirs."""
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
