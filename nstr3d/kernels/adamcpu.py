"""The update of `kernels.adam` on the CPU (numba)."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, extending, njit, types  # type: ignore[attr-defined]

intrinsic: Any = extending.intrinsic  # what it decorates is called without its first argument


@intrinsic
def _floats(typing, address):
    """The float32 at an address."""

    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), build


@njit(cache=True, inline="always")
def _from(address, start, end):
    return carray(_floats(address + 4 * start), end - start)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def update(low, high, places, rates):
    """One thread's share of all elements: ``places (parameters, 5)`` holds addresses of gradients, values and both moments, and
    how many elements there are, ``rates (parameters, 7)`` what `kernels.adam` says of each."""
    first = 0
    for index in range(len(places)):
        count = places[index, 4]
        start, end = max(low - first, 0), min(high - first, count)
        first += count
        if start >= end:
            continue
        grads, values = _from(places[index, 0], start, end), _from(places[index, 1], start, end)
        means, squares = _from(places[index, 2], start, end), _from(places[index, 3], start, end)
        keep, mean_rate, square_keep, square_rate = rates[index, 0], rates[index, 1], rates[index, 2], rates[index, 3]
        length, scale, least = rates[index, 4], rates[index, 5], rates[index, 6]
        for n in range(len(values)):
            grad = grads[n]
            mean = means[n] + mean_rate * (grad - means[n])
            square = square_keep * squares[n] + square_rate * grad * grad
            means[n], squares[n] = mean, square
            values[n] = keep * values[n] - length * mean / (np.sqrt(square) * scale + least)
