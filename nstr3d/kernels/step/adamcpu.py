"""The update of `kernels.step.adam` on the CPU (numba)."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]

from nstr3d.kernels.compiled import njit
from nstr3d.kernels.field.layout import LANES
from nstr3d.kernels.simd import intrinsic, load, store

CHUNK = 2048  # elements at a time: their arrays fit into the L1 cache
SPARE = LANES  # the last rows of a thread's range, which are copied value by value
State = namedtuple("State", "values means squares")  # values and Adam's moments, flat float32


@intrinsic
def floats_at(typing, address):
    """The pointer to float32 values at an int64 address."""

    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), build


@njit(cache=True, inline="always")
def _from(address, start, end):
    """Elements ``start`` to ``end`` of the float32 array at ``address``."""
    return carray(floats_at(address + 4 * start), end - start)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _adamw(rates, grads, values, means, squares):
    """AdamW's update of ``values``, with the ``rates (7,)`` of `kernels.step.adam.rates_of`.
    ``means`` and ``squares`` are the first and the second moment."""
    keep, mean_rate, square_keep, square_rate = rates[0], rates[1], rates[2], rates[3]
    length, scale, least = rates[4], rates[5], rates[6]
    for n in range(len(values)):
        grad = grads[n]
        mean = means[n] + mean_rate * (grad - means[n])
        square = square_keep * squares[n] + square_rate * grad * grad
        means[n], squares[n] = mean, square
        values[n] = keep * values[n] - length * mean / (np.sqrt(square) * scale + least)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def update(low, high, places, rates):
    """Updates elements ``low`` to ``high`` of the concatenation of all parameters.

    ``places (parameters, 5)`` int64 holds the addresses of a parameter's gradient, values and both
    moments, and its number of elements. ``rates (parameters, 7)`` holds its
    `kernels.step.adam.rates_of`.
    """
    first = 0
    for index in range(len(places)):
        count = places[index, 4]
        start, end = max(low - first, 0), min(high - first, count)
        first += count
        if start >= end:
            continue
        grads, values = _from(places[index, 0], start, end), _from(places[index, 1], start, end)
        means, squares = _from(places[index, 2], start, end), _from(places[index, 3], start, end)
        _adamw(rates[index], grads, values, means, squares)


@njit(cache=True, inline="always")
def _add_sums(start, end, reach, sums, room):
    """Elements ``start`` to ``end`` of the total of ``sums (threads, size)``. Thread t's sums are
    valid only in the range ``reach[t]`` of ``reach (threads, 2)`` and count as zero elsewhere.
    Returns a view of one thread's sums if these alone cover the range, else of ``room``."""
    for thread in range(len(sums)):
        alone = reach[thread, 0] <= start and reach[thread, 1] >= end
        for other in range(len(sums)):
            alone = alone and (
                other == thread or reach[other, 0] >= end or reach[other, 1] <= start
            )
        if alone:
            return sums[thread, start:end]
    room[: end - start] = 0
    for thread in range(len(sums)):
        first, last = max(start, reach[thread, 0]), min(end, reach[thread, 1])
        if first < last:
            more, total = sums[thread, first:last], room[first - start : last - start]
            for n in range(len(more)):
                total[n] += more[n]
    return room[: end - start]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def update_rows(part, segments, rates, reach, sums, state):
    """Thread ``part``'s share of the update of rows in flat arrays, see `kernels.step.descent`.

    A gradient is the total of ``sums (threads, size)``, added in the order of the threads. In
    segment s, the sums of thread t are valid in the range ``reach[t, s]`` of
    ``reach (threads, segments, 2)`` and count as zero elsewhere. The rows of ``segments`` are as
    `Descent._segments` makes them; ``state`` is a `State`. The new values are also copied to the
    parameters.
    """
    values, means, squares = state.values, state.means, state.squares
    threads, room = len(sums), np.empty(max(CHUNK, segments[:, 2].max()), np.float32)
    for index in range(len(segments)):
        start, rows, stride, columns, to_row, to_column, address = segments[index]
        target = _from(address, 0, rows * columns)
        end, together = rows * (part + 1) // threads, max(1, CHUNK // stride)
        for low in range(rows * part // threads, end, together):
            high = min(low + together, end)
            a, b = start + low * stride, start + high * stride
            grads = _add_sums(a, b, reach[:, index], sums, room)
            _adamw(rates[index], grads, values[a:b], means[a:b], squares[a:b])
            for row in range(low, high):
                at, to = start + row * stride, row * to_row
                # whole vectors write past a row's end; the rows that follow overwrite the excess
                if to_column == 1 and row < end - SPARE:
                    for s in range(0, columns, LANES):
                        store(target, to + s, load(values, at + s))
                else:
                    for column in range(columns):
                        target[to + column * to_column] = values[at + column]
