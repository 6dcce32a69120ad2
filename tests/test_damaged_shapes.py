"""Damaged files of compressed shapes are refused with one sentence or are the same shape. Codes
that somebody forged with a right checksum end, within a bounded grid."""

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from nstr3d.kernels.pyramidwalk import MOST_CELLS, Plan
from nstr3d.model.pyramidcodec import decompress_shape, pack_shape
from nstr3d.model.pyramidsearch import Maker, Target
from nstr3d.model.shapeheader import CHECK, LENGTH, MAGIC
from nstr3d.types import Box, Frame

DAMAGED, FORGED = 1000, 1000


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Files of a ball and of a cube, on other grids."""
    box = Box((-0.7,) * 3, (0.7,) * 3)
    ball = Target(lambda at: np.linalg.norm(at, axis=1) - 0.7, np.eye(3) * 0.7, box, FRAME)
    cube = Target(lambda at: np.abs(at).max(axis=1) - 0.7, np.eye(3) * 0.7, box, FRAME)
    plans = Plan(4, 3, 1, 16, 5), Plan(5, 2, 0, 32, 16)
    makers = Maker(ball), Maker(cube)
    return [
        pack_shape(maker.fit(maker.coded(plan, 1e-3, 10**5))) for maker, plan in zip(makers, plans)
    ]


FRAME = Frame((1.0, -2.0, 0.5), 3.0)


def flipped(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: rng.integers(0, len(data))]


def lengthened(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data + rng.integers(0, 256, rng.integers(1, 40), np.uint8).tobytes()


def blanked(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    at, count = rng.integers(0, len(data)), rng.integers(1, 60)
    return data[:at] + bytes([rng.choice((0, 255))]) * count + data[at + count :]


def spliced(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: rng.integers(0, len(data))] + other[rng.integers(0, len(other)) :]


def lying(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Another grid, step, frame or box in the header than that of the code."""
    changed, at = bytearray(data), rng.integers(len(MAGIC), LENGTH)
    changed[at] = rng.integers(0, 256) if rng.random() < 0.5 else (changed[at] + 1) % 256
    return bytes(changed)


KINDS = flipped, cut, lengthened, blanked, spliced, lying


def damaged(files: list[bytes], count: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Files and what became of them, the same at every call."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data, other = files[number % 2], files[1 - number % 2]
        yield data, KINDS[number % len(KINDS)](rng, data, other)


def test_a_thousand_damaged_files_are_refused_with_one_sentence(files):
    same = 0
    for data, changed in damaged(files, DAMAGED, 0):
        if changed == data:
            same += 1
            continue
        with pytest.raises(ValueError, match=r"^x\.nstq is [^\n]*\.$"):
            decompress_shape(changed, "x.nstq")
    assert same < DAMAGED / 20


def test_forged_files_are_refused_or_are_a_finite_grid_of_their_header(files):
    sentences = []
    for _, changed in damaged(files, FORGED, 1):
        body = changed[:-CHECK]
        forged = body + struct.pack("<I", zlib.crc32(body))
        try:
            fit = decompress_shape(forged, "x.nstq")
        except ValueError as error:
            sentences.append(str(error))
            continue
        assert fit.field.config.plan.cells <= MOST_CELLS
        assert len(fit.field.nodes) == fit.field.config.plan.cells + 1
        assert bool(fit.field.nodes.isfinite().all())
        assert pack_shape(fit)[LENGTH:-CHECK] == forged[LENGTH:-CHECK]
    assert len(sentences) > FORGED / 2
    assert all(re.match(r"x\.nstq is [^\n]*\.$", sentence) for sentence in sentences)
