"""Packs the positions of the stored entries of a sparse table: the gaps between them in the code of
Golomb (1966) and Rice (1979).

The code of each row is chosen by the number of entries that the row stores. Apart from this count,
a row never takes more bits than its bitmap would.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

UNPACKED = 1 << 16  # entries that are unpacked at a time
PART = 1 << 22  # entries of the table that are processed at a time


def packed_size(kept: np.ndarray) -> int:
    """Number of bytes that `pack` returns for the bool array ``kept (rows, columns)``."""
    counts, shift, gaps = _gaps(kept)
    return (
        counts.nbytes
        + -(-int(shift.sum()) // 8)
        + -(-(int((gaps >> shift).sum()) + len(gaps)) // 8)
    )


def pack(kept: np.ndarray, part: int = PART) -> np.ndarray:
    """Packs the bool array ``kept (rows, columns)`` into bytes ``(n,)`` uint8.

    The bytes hold the number of entries of each row, then the low bits of the gaps, then the high
    bits of the gaps in unary code. ``part`` entries of the table are processed at a time, which
    bounds the memory and does not change the result.
    """
    counts, shift, gaps = _gaps(kept, part)
    low = [(gaps[shift > bit] >> bit & 1).astype(bool) for bit in range(int(shift.max(initial=0)))]
    ends = np.cumsum((gaps >> shift) + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, bool)
    unary[ends - 1] = True
    parts = (
        counts.view(np.uint8),
        np.packbits(np.concatenate([*low, np.zeros(0, bool)])),
        np.packbits(unary),
    )
    return np.concatenate(parts)


def unpack(packed: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The flat indices ``(stored,)`` int64, ascending, of the entries that `pack` packed.

    Raises ValueError if ``packed`` is not uint8 ``(n,)``, its length or its counts do not fit
    ``rows`` and ``columns``, or an entry lies beyond its row.
    """
    return np.concatenate([np.zeros(0, np.int64), *unpacked_parts(packed, rows, columns)])


def count_packed(packed: np.ndarray, rows: int, columns: int) -> int:
    """The number of entries that `pack` packed. Raises the errors of `unpack`, and takes memory for
    a part of the entries only."""
    return sum(len(part) for part in unpacked_parts(packed, rows, columns))


def unpacked_parts(
    packed: np.ndarray, rows: int, columns: int, part: int = UNPACKED
) -> Iterator[np.ndarray]:
    """The indices of `unpack`, with its errors, in parts of about ``part`` entries, whole rows."""
    dtype = _counter(columns)
    head = rows * np.dtype(dtype).itemsize
    if packed.dtype != np.uint8 or packed.ndim != 1:
        form = f"{packed.dtype} of shape {packed.shape}"
        raise ValueError(f"positions are {form}, not uint8 of shape (bytes,)")
    if len(packed) < head:
        raise ValueError(
            f"positions hold {len(packed)} bytes, but {rows} rows need at least {head}"
        )
    counts = packed[:head].view(dtype)
    total = int(counts.sum(dtype=np.int64))
    if counts.max(initial=0) > columns or total > 8 * (len(packed) - head):
        raise ValueError("positions are damaged: they hold fewer entries than their counts say")
    shifts = _shifts(counts, columns).astype(np.uint8)
    planes = [int(counts[shifts > bit].sum(dtype=np.int64)) for bit in range(shifts.max(initial=0))]
    starts = [int(start) for start in np.cumsum([0, *planes])]
    tail = head + -(-starts.pop() // 8)
    if len(packed) < tail:
        raise ValueError("positions are damaged: their entries do not match their counts")
    ones, last = _ones(packed[tail:]), -1
    waiting = np.zeros(0, np.int64)
    limits = np.searchsorted(np.cumsum(counts, dtype=np.int64), np.arange(part, total, part))
    for some in np.split(np.arange(rows), np.unique(limits + 1)):
        here = counts[some].astype(np.int64)
        needed = int(here.sum())
        while len(waiting) < needed:
            found = next(ones, None)
            if found is None:
                raise ValueError("positions are damaged: their entries do not match their counts")
            waiting = np.concatenate([waiting, found])
        ends, waiting = waiting[:needed], waiting[needed:]
        shift = np.repeat(shifts[some], here)
        gaps = (np.diff(ends, prepend=last) - 1) << shift
        last = int(ends[-1]) if needed else last
        for bit in range(len(planes)):
            chosen = shift > bit
            end = starts[bit] + int(np.count_nonzero(chosen))
            gaps[chosen] |= _bits(packed[head:tail], starts[bit], end).astype(np.int64) << bit
            starts[bit] = end
        yield _placed(gaps, some, here, columns)
    if len(waiting) or any(len(found) for found in ones):
        raise ValueError("positions are damaged: their entries do not match their counts")


def _placed(gaps: np.ndarray, rows: np.ndarray, counts: np.ndarray, columns: int) -> np.ndarray:
    """The flat indices of entries of ``rows``, ``counts`` of each, after ``gaps``."""
    steps = np.cumsum(gaps + 1)
    # the sum of the steps of all earlier rows
    before = np.concatenate([[0], steps])[np.cumsum(counts) - counts]
    column = steps - np.repeat(before, counts) - 1
    if column.max(initial=0) >= columns and len(column):
        raise ValueError("positions are damaged: an entry lies beyond the end of its row")
    return np.repeat(rows * columns, counts) + column


def _bits(packed: np.ndarray, start: int, end: int) -> np.ndarray:
    """The bits ``start`` to ``end`` of bytes."""
    return np.unpackbits(packed[start // 8 : -(-end // 8)])[start % 8 :][: end - start]


def _ones(packed: np.ndarray) -> Iterator[np.ndarray]:
    """The places of the bits of ``packed`` that are one, in parts."""
    size = UNPACKED // 8
    for start in range(0, len(packed), size):
        yield np.flatnonzero(np.unpackbits(packed[start : start + size])) + 8 * start


def _gaps(kept: np.ndarray, part: int = PART) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The number of entries of each row, and for each entry the number of low bits of its gap and
    the gap, which is the number of entries left out directly before it in its row."""
    rows, columns = kept.shape
    counts = np.count_nonzero(kept, axis=1)
    gaps, end = np.empty(int(counts.sum()), np.int32 if columns < 1 << 31 else np.int64), 0
    for chunk in np.array_split(
        np.arange(rows), max(1, min(rows, kept.size // part))
    ):  # in parts, because an index takes 8 bytes
        index, here = np.flatnonzero(kept[chunk[0] : chunk[-1] + 1]), counts[chunk]
        own, end = gaps[end : end + len(index)], end + len(index)
        own[:] = np.diff(index, prepend=-1) - 1
        first = (np.cumsum(here) - here)[here > 0]
        own[first] = index[first] % columns
    return (
        counts.astype(_counter(columns)),
        np.repeat(_shifts(counts, columns).astype(np.uint8), counts),
        gaps,
    )


def _shifts(counts: np.ndarray, columns: int) -> np.ndarray:
    """The number of low bits of each row's gaps, which is the best for geometrically distributed
    gaps with the row's mean."""
    mean = (columns - counts.astype(np.float64)) / np.maximum(counts, 1)
    return np.floor(np.log2(np.maximum(1.0, mean * np.log(2) + 0.5))).astype(np.int64)


def _counter(columns: int) -> type[np.unsignedinteger]:
    return np.uint8 if columns < 1 << 8 else np.uint16 if columns < 1 << 16 else np.uint32
