"""Tickets, by which threads share work without calling Python (numba).

A ticket is the number of a part of the work. Free threads take the open tickets in turn and count
the tickets that are done. So no thread waits for one that starts late, and the result of a part
does not depend on the thread that did it.
"""

from __future__ import annotations

import platform

import numpy as np
from llvmlite import ir
from numba import njit, types

from nstr3d.kernels.simd import intrinsic

# distance, in int64, of two counts: two cache lines, because processors fetch lines in pairs
LINE = 16
# indices of three counts since the start: the tickets opened, taken and done
OPEN, NEXT, DONE = 0, LINE, 2 * LINE
X86 = platform.machine().lower() in ("x86_64", "amd64")


def no_tickets() -> np.ndarray:
    """The counts before the first ticket: zeros ``(48,)`` int64."""
    return np.zeros(3 * LINE, np.int64)


def _place(context, builder, kind, array, value, index):
    """The address of element ``index`` of an array."""
    data = context.make_array(kind)(context, builder, value=value).data
    return builder.gep(data, [context.cast(builder, index, types.int64, types.intp)])


@intrinsic
def read_count(typing, counts, index):
    """Reads a count atomically. After the call, everything is visible that another thread wrote
    before it changed the count."""

    def build(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], counts, args[0], args[1])
        return builder.load_atomic(at, "seq_cst", 8)

    return types.int64(counts, types.int64), build


@intrinsic
def add_to_count(typing, counts, index, by):
    """Adds ``by`` to a count atomically and returns the new count."""

    def build(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], counts, args[0], args[1])
        return builder.add(builder.atomic_rmw("add", at, args[2], "seq_cst"), args[2])

    return types.int64(counts, types.int64, types.int64), build


@intrinsic
def _swap(typing, counts, index, old, new):
    """Sets a count to ``new`` atomically if it is ``old``; returns whether it was."""

    def build(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], counts, args[0], args[1])
        return builder.extract_value(builder.cmpxchg(at, args[2], args[3], "seq_cst", "seq_cst"), 1)

    return types.boolean(counts, types.int64, types.int64, types.int64), build


@intrinsic
def pause(typing):
    """Tells an x86 processor that the thread is in a spin loop. Does nothing on others."""

    def build(context, builder, signature, args):
        if X86:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=function), [])
        return context.get_dummy_value()

    return types.void(), build


@njit(cache=True, inline="always")
def take_ticket(counts):
    """Takes an open ticket and returns its number; -1 if none was open or another thread was
    faster."""
    ticket = read_count(counts, NEXT)
    if ticket < read_count(counts, OPEN) and _swap(counts, NEXT, ticket, ticket + 1):
        return ticket
    return np.int64(-1)
