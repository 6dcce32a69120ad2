"""Work that threads share without Python in between: tickets which whoever is free takes (numba).

Every ticket stands for a part of the work. Some are open, threads take them in turn and count those
that are done; so nobody waits for a thread that is late to begin, and what a part gives does not
depend on who did it.
"""

from __future__ import annotations

import platform

import numpy as np
from llvmlite import ir
from numba import njit, types

from nstr3d.kernels.simd import intrinsic

# int64 that threads may write to side by side: two lines of a cache, which are fetched in pairs
LINE = 16
# how many tickets there are, are taken, are done, since the start
OPEN, NEXT, DONE = 0, LINE, 2 * LINE
X86 = platform.machine().lower() in ("x86_64", "amd64")


def no_tickets() -> np.ndarray:
    """The counts before the first ticket."""
    return np.zeros(3 * LINE, np.int64)


def _place(context, builder, kind, array, value, index):
    data = context.make_array(kind)(context, builder, value=value).data
    return builder.gep(data, [context.cast(builder, index, types.int64, types.intp)])


@intrinsic
def look(typing, counts, index):
    """A count as it is now, and what was written before it became so."""

    def build(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], counts, args[0], args[1])
        return builder.load_atomic(at, "seq_cst", 8)

    return types.int64(counts, types.int64), build


@intrinsic
def raised(typing, counts, index, by):
    """The count after it grew."""

    def build(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], counts, args[0], args[1])
        return builder.add(builder.atomic_rmw("add", at, args[2], "seq_cst"), args[2])

    return types.int64(counts, types.int64, types.int64), build


@intrinsic
def _swapped(typing, counts, index, old, new):
    """Whether the count was ``old`` and is now ``new``."""

    def build(context, builder, signature, args):
        at = _place(context, builder, signature.args[0], counts, args[0], args[1])
        return builder.extract_value(builder.cmpxchg(at, args[2], args[3], "seq_cst", "seq_cst"), 1)

    return types.boolean(counts, types.int64, types.int64, types.int64), build


@intrinsic
def pause(typing):
    """Lets the processor's other threads go first for a moment."""

    def build(context, builder, signature, args):
        if X86:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=function), [])
        return context.get_dummy_value()

    return types.void(), build


@njit(cache=True, inline="always")
def take(counts):
    """The number of an open ticket that is now the caller's, -1 where there was none."""
    ticket = look(counts, NEXT)
    if ticket < look(counts, OPEN) and _swapped(counts, NEXT, ticket, ticket + 1):
        return ticket
    return np.int64(-1)
