"""Compressed files of closed-form fields, with quantised and entropy-coded amplitudes.

A file holds the magic ``NSTQ1``, a header (shape, hops, colours, quantisation step), the code, and
a checksum. The step is the finest step whose file fits the given size. A dead zone rounds some
amplitudes towards zero, because that saves more bits than it costs accuracy. The decoder maps each
quantised magnitude to the mean of the amplitudes that were rounded to it.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nstr3d.fields.closed.cosinefit import HOPS, fitting, principal_axes
from nstr3d.fields.closed.cosines import CosineConfig, Cosines, analyse_all
from nstr3d.fields.closed.positions import pack
from nstr3d.io.atomic import atomic_path
from nstr3d.kernels.available import need_numba
from nstr3d.model.header import CENTRES, MAGIC, Reader, read_compressed_header, read_marked
from nstr3d.system import one_line

CODE = "Compressed models (.nstq)"  # the feature that needs numba
ROUNDING = 0.36  # fraction of a step added before rounding down; 0.5 rounds to the nearest
LARGEST = 1 << 28  # most amplitudes of a file: reading as many takes 3 GB
STEPS = 20  # largest number of iterations of the search for the quantisation step


@dataclass(frozen=True)
class _Quantised:
    """The quantised amplitudes ``levels`` of ``config`` in units of ``step``, strongest channel
    first. ``shrink`` (the stored decoding offsets), ``colours`` and ``offset`` restore values."""

    config: CosineConfig
    levels: np.ndarray
    step: float
    offset: np.ndarray
    colours: np.ndarray
    shrink: tuple[int, ...]


def compress(values: np.ndarray, size: int, hops: Sequence[int] | None = None) -> bytes:
    """The closed-form field of ``values (*shape, c)`` float32 as a file of at most ``size`` bytes.

    Of ``hops`` (by default `HOPS` for the number of axes), the hop with the least squared error is
    used. Raises ValueError for a size that is too small, for too many samples and for values that
    are not finite, and ModuleNotFoundError if numba is missing.
    """
    need_numba(CODE)
    if not np.isfinite(values).all():
        raise ValueError(
            "The samples hold values that are not finite; replace them, or mask them out."
        )
    *shape, _ = values.shape
    offset, colours = principal_axes(values.reshape(-1, values.shape[-1]))
    colours = np.ascontiguousarray(colours[:, ::-1])  # the strongest channel predicts the others
    best, error = None, np.inf
    for hop in dict.fromkeys(
        tuple(fitting(n, hop) for n in shape) for hop in hops or HOPS[len(shape)]
    ):
        config = CosineConfig(tuple(shape), hop, smooth=len(shape) == 1)
        _check_size(config, values.shape[-1])
        table = analyse_all(np.asarray(values, np.float32), config, offset, colours)
        data, squared_error = _finest(table, config, offset, colours, size)
        if data is not None and squared_error < error:
            best, error = data, squared_error
    if best is None:
        raise ValueError(f"{size} bytes are too few for these samples; allow more.")
    return best


def decompress(data: bytes, name: str = "the data") -> Cosines:
    """The field in ``data`` from `compress`. Raises ValueError naming ``name`` for damaged or other
    data, and ModuleNotFoundError if numba is missing.

    Before memory is taken, the numbers of the header are checked, and that the code can hold as
    many amplitudes as they ask for.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(
            f"{name} is not a compressed nstr3d field: it does not begin with {MAGIC.decode()}."
        )
    if len(data) < len(MAGIC) + 6 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError(f"{name} is damaged: it is truncated or was changed.")
    need_numba(CODE)
    from nstr3d.kernels.coding import decode

    reader = Reader(data[len(MAGIC) : -4])
    try:
        header = read_compressed_header(reader)
        config = CosineConfig(header.shape, header.hops, bool(header.smooth))
        _check_size(config, header.channels)
        code = reader.read_remainder()
        levels = decode(code, _planes(config, header.channels))
    except ValueError as error:
        reason = one_line(error).rstrip(".")
        raise ValueError(f"{name} is damaged: {reason}.") from error
    offset, colours = (np.array(each, np.float32) for each in (header.offset, header.colours))
    colours = colours.reshape(header.channels, header.channels)
    field = _field(_Quantised(config, levels, header.step, offset, colours, header.shrink))
    if not torch.isfinite(field.amplitudes).all():
        raise ValueError(f"{name} is damaged: its amplitudes are not finite.")
    return field


def _check_size(config: CosineConfig, channels: int) -> None:
    size = math.prod(config.table(channels))
    if size > LARGEST:
        raise ValueError(
            f"{channels} x {config.shape} samples need {size:,} amplitudes, and a compressed file "
            f"holds at most {LARGEST:,}"
        )


def save_compressed(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes the ``data`` of `compress`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_compressed(path: str | os.PathLike[str]) -> Cosines:
    """The field in a compressed file. Raises FileNotFoundError, IsADirectoryError and the errors of
    `decompress`."""
    return decompress(read_marked(Path(path), MAGIC), str(path))


def _finest(
    table: np.ndarray, config: CosineConfig, offset: np.ndarray, colours: np.ndarray, size: int
) -> tuple[bytes | None, float]:
    """The file of the finest quantisation step that fits ``size`` bytes, and its squared error, or
    None and infinity if no step fits."""
    largest = float(np.abs(table).max())
    if largest == 0:
        data = _write(_quantise(table, config, 1.0, offset, colours), size)
        return data, 0.0 if data else np.inf
    # The number of bytes is about inversely proportional to the step, which gives the next guess.
    # Bisection replaces a guess outside the bracket.
    low, high, guess = np.log(largest * 1e-6), np.log(largest * 4), np.log(largest / 64)
    best, best_quantised = None, None
    for _ in range(STEPS):
        quantised = _quantise(table, config, float(np.float32(np.exp(guess))), offset, colours)
        data = _write(quantised, 2 * size)
        if data is not None and len(data) <= size:
            high, best, best_quantised = guess, data, quantised
        else:
            low = guess
        if high - low < 1e-3 or (data is not None and 0.998 * size < len(data) <= size):
            break
        near = guess + np.log(len(data) / (0.999 * size)) if data is not None else high
        guess = near if low + 1e-4 < near < high - 1e-4 else (low + high) / 2
    if best_quantised is None:
        return None, np.inf
    values = _values(best_quantised, best_quantised.levels.ravel())
    return best, float(np.square(values - table.ravel(), dtype=np.float64).sum())


def _quantise(
    table: np.ndarray, config: CosineConfig, step: float, offset: np.ndarray, colours: np.ndarray
) -> _Quantised:
    scaled = np.abs(table) / np.float32(step)
    magnitude = np.floor(scaled + np.float32(ROUNDING)).astype(np.int32)
    shrink = []
    for level in range(1, CENTRES + 1):
        chosen = magnitude == level if level < CENTRES else magnitude >= level
        mean = float((scaled[chosen] - magnitude[chosen]).mean()) if chosen.any() else 0.0
        shrink.append(int(np.clip(round((mean + 0.5) * 255), 0, 255)))
    levels = np.where(table < 0, -magnitude, magnitude).reshape(_planes(config, len(offset)))
    return _Quantised(config, levels, step, offset, colours, tuple(shrink))


def _values(quantised: _Quantised, levels: np.ndarray) -> np.ndarray:
    """The amplitudes float32 of the quantised ``levels (n,)``."""
    centres = np.array([0.0, *(byte / 255 - 0.5 for byte in quantised.shrink)], np.float32)
    magnitude = np.abs(levels)
    shifted = magnitude + centres[np.minimum(magnitude, CENTRES)]
    with np.errstate(over="ignore"):  # a reader refuses amplitudes that are not finite
        return (np.sign(levels) * shifted * np.float32(quantised.step)).astype(np.float32)


def _field(quantised: _Quantised) -> Cosines:
    config, channels = quantised.config, len(quantised.offset)
    levels = quantised.levels.ravel()
    kept = levels != 0
    packed = pack(kept.reshape(config.packing(channels)))
    field = Cosines(config, len(config.shape), channels, packed, _values(quantised, levels[kept]))
    field.colours.copy_(torch.from_numpy(quantised.colours.T.copy()))
    field.offset.copy_(torch.from_numpy(quantised.offset))
    return field


def _write(quantised: _Quantised, size: int) -> bytes | None:
    """The file, or None if it would exceed ``size`` bytes."""
    from nstr3d.kernels.coding import encode

    config, channels = quantised.config, len(quantised.offset)
    dim = len(config.shape)
    head = (
        MAGIC
        + struct.pack("<BBB", dim, channels, config.smooth)
        + struct.pack(f"<{dim}I{dim}H", *config.shape, *config.hops)
    )
    head += struct.pack(f"<f{CENTRES}B", quantised.step, *quantised.shrink)
    head += quantised.offset.astype("<f4").tobytes() + quantised.colours.astype("<f4").tobytes()
    code = encode(quantised.levels, max(0, size - len(head) - 4))
    if code is None:
        return None
    return head + code + struct.pack("<I", zlib.crc32(head + code))


def _planes(config: CosineConfig, channels: int) -> tuple[int, int, int, int, int]:
    """The number of channels, frequencies along two axes, and blocks along two axes. For a sound,
    the first of the two axes has length 1."""
    hops, blocks = ((1,) * (2 - len(along)) + along for along in (config.hops, config.blocks))
    return channels, hops[0], hops[1], blocks[0], blocks[1]
