"""Both sides of a roofline: the cost of a sample of a field, and the peak rates of a machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from nstr3d.fields.layers import Decoder
from nstr3d.fields.nstr import Nstr
from nstr3d.kernels.field.layout import COMPLEX, PLAIN

SINE = 20  # operations of a sine and cosine, computed by polynomials
SOFTPLUS = 25  # operations of a softplus


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of one sample, and bytes of tables and arrays that it touches."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Ceilings:
    """Peak rates of one thread of the machine.

    ``product`` is in operations per second of a matrix product, ``sine`` in sines per second,
    ``gather`` in rows of 32 bytes per second gathered from a table in the level 2 cache, and
    ``copy`` in bytes per second read and written by a copy in memory.
    """

    product: float
    sine: float
    gather: float
    copy: float


def costs(field: Nstr, batch: int) -> dict[str, Cost]:
    """The cost of one sample in each part of a training step with ``batch`` samples.

    The counts are estimates from the field's structure. Raises ValueError for a field without a
    decoder.
    """
    if not isinstance(field.decoder, Decoder):
        raise ValueError("Costs need a field with a decoder; build the field with hidden > 0.")
    parts, weights = [level.part() for level in field.spectra], field.decoder.weights()
    channels, levels = sum(part.table.shape[1] for part in parts), len(parts)
    waves, features = (
        sum(part.waves for part in parts),
        sum(part.plain + part.waves for part in parts),
    )
    local = sum(
        part.waves * (0 if part.kind == PLAIN else 3 if part.kind == COMPLEX else 2)
        for part in parts
    )
    hidden, outputs = weights.w1.shape[0], weights.w2.shape[0]
    products = 2 * hidden * (features + outputs)
    kept = 4 * (features + local + hidden)  # bytes kept for the backward pass
    rows = 8 * (4 * channels + 4 * levels)  # the values and the indices of eight corners
    return {
        "encode": Cost(16 * channels + 30 * levels + waves * (8 + SINE), 12 + rows),
        "decode": Cost(products + SOFTPLUS * hidden, 4 * outputs),
        "backward": Cost(
            2 * products + SOFTPLUS * hidden + 16 * channels + 30 * levels, kept + 2 * rows
        ),
        "Adam": Cost(15 * field.parameter_count / batch, 28 * field.parameter_count / batch),
    }


def ceilings() -> Ceilings:
    """Measures the peak rates on one thread of this machine, in about two seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, long = torch.rand(1024, 1024), torch.rand(1 << 25)
        angles, out = torch.rand(1 << 14) * 6, torch.empty(1 << 14)
        table, index = torch.rand(1 << 14, 8), torch.randint(0, 1 << 14, (1 << 16,))
        target = torch.empty_like(long)
        return Ceilings(
            2 * 1024**3 / best(lambda: a @ a),
            len(angles) / best(lambda: torch.sin(angles, out=out)),
            len(index) / best(lambda: torch.index_select(table, 0, index)),
            8 * len(long) / best(lambda: target.copy_(long)),
        )
    finally:
        torch.set_num_threads(before)


@lru_cache
def machine_speed(threads: int) -> dict[str, float]:
    """What `Row` says about the machine with torch's present number of ``threads``: ``gemm``, 1e9
    operations per second of a matrix product, and ``gather``, 1e6 rows of 32 bytes per second from
    a table in the level 2 cache. Measured once in a process, in about 0.2 seconds."""
    a, table = torch.rand(1024, 1024), torch.rand(1 << 14, 8)
    index = torch.randint(0, 1 << 14, (1 << 16,), generator=torch.Generator().manual_seed(0))
    return {
        "gemm": 2e-9 * 1024**3 / best(lambda: a @ a, 0.1),
        "gather": 1e-6 * len(index) / best(lambda: torch.index_select(table, 0, index), 0.1),
    }


def best(call: Callable[[], Tensor | None], seconds: float = 0.4) -> float:
    """The shortest time of ``call`` in seconds, over at least three calls.

    Calls are repeated until ``seconds`` seconds have passed.
    """
    least, started, count = float("inf"), time.perf_counter(), 0
    while count < 3 or time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        call()
        least, count = min(least, time.perf_counter() - begun), count + 1
    return least
