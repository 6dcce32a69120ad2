"""Compressed files of shapes: a pyramid of distances near the surface, without training.

The distance is sampled on a coarse grid and on refinements of it. Each grid predicts the next, and
only nodes near the predicted surface are corrected, so that their places cost nothing. The
corrections are coded with adaptive probabilities (`nstr3d.kernels.pyramid`). A file holds a header
(`nstr3d.model.shapeheader`), the code, and a checksum. Decoding is exact integer arithmetic.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import astuple
from pathlib import Path

import numpy as np

from nstr3d.fields.closed.codedpyramid import CodedConfig, CodedPyramid, coded
from nstr3d.kernels.available import need_numba
from nstr3d.model.header import read_marked
from nstr3d.model.shapeheader import CHECK, LENGTH, MAGIC, STEEP, ShapeHeader, is_intact, unpack
from nstr3d.training.fit import Fit
from nstr3d.types import Box

CODE = "Compressed shapes (.nstq)"  # the feature that needs numba
FIXED = LENGTH + CHECK  # bytes of a file besides the code


def pack_shape(fit: Fit) -> bytes:
    """The file of a compressed shape. Raises ValueError for another fit, and for colours."""
    field = fit.field
    if not isinstance(field, CodedPyramid) or fit.colour_field is not None:
        raise ValueError("only a compressed shape without colours is stored in so few bytes")
    config = field.config
    lower, upper = fit.frame.to_unit(np.array([fit.bounds.lower, fit.bounds.upper])).clip(-1, 1)
    bounds = Box(tuple(lower.tolist()), tuple(upper.tolist()))
    steep = min(max(fit.lipschitz, STEEP[0]), STEEP[1])
    header = ShapeHeader(config.plan, config.step, fit.frame, bounds, steep, fit.up)
    data = header.pack() + field.code.tobytes()
    return data + struct.pack("<I", zlib.crc32(data))


def decompress_shape(data: bytes, name: str = "the data") -> Fit:
    """The fit in ``data`` from `pack_shape`. Raises ValueError naming ``name`` for damaged or
    other data, and ModuleNotFoundError if numba is missing."""
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{name} is not a compressed shape of nstr3d.")
    if not is_intact(data):
        raise ValueError(f"{name} is damaged: it is truncated or was changed.")
    need_numba(CODE)
    try:
        return shape_of(unpack(data), np.frombuffer(data[LENGTH:-CHECK], np.uint8).copy())
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}.") from error


def shape_of(header: ShapeHeader, code: np.ndarray, nodes: np.ndarray | None = None) -> Fit:
    """The fit of a ``header`` and a ``code (m,)`` uint8; ``nodes (n, n, n)`` float32 are those of
    the code if they are known. Raises ValueError, with a clause, for a code that does not hold the
    grid of the header."""
    config = CodedConfig(*astuple(header.plan), step=header.step)
    about = {"up": header.up}
    return Fit(
        coded(config, code, nodes),
        header.frame,
        header.world_bounds,
        header.lipschitz,
        provenance=about,
    )


def load_shape(path: str | os.PathLike[str]) -> Fit:
    """The fit in a compressed shape. Raises FileNotFoundError, IsADirectoryError and the errors of
    `decompress_shape`."""
    return decompress_shape(read_marked(Path(path), MAGIC), str(path))
