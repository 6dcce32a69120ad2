"""Seeded mutations of a file: the same number gives the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mutations import contents, mutate_header, mutate_tensors

NUMBERS = (b"-1", b"0", b"1e999", b"nan", b"4294967296", b"99999999999999999999", b"1.5", b"", b"x")
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e-?\d+)?")


def mutated(data: bytes, number: int) -> bytes:
    """The mutation ``number`` of ``data``: one to four changes of random kinds."""
    generator = np.random.default_rng(number)
    for _ in range(int(generator.integers(1, 5))):
        change = CHANGES[int(generator.integers(len(CHANGES)))]
        data = change(data, generator)
    return data


def hostile_models(path: Path) -> Callable[[int], bytes]:
    """A function that gives, for a number, the model at ``path`` with one hostile entry or tensor.
    It has no checksum, as those of earlier versions, so that only other checks can refuse it."""
    tensors, metadata = contents(path)
    header = json.loads(metadata["nstr3d"])

    def mutate(number: int) -> bytes:
        generator = np.random.default_rng(number)
        change = mutate_header if number % 2 else mutate_tensors
        return change(tensors, header, generator, format=metadata["format"])

    return mutate


def _flip(data: bytes, generator: np.random.Generator) -> bytes:
    """Another byte at one place."""
    if not data:
        return data
    at = int(generator.integers(len(data)))
    return data[:at] + bytes([int(generator.integers(256))]) + data[at + 1 :]


def _cut(data: bytes, generator: np.random.Generator) -> bytes:
    """Without the bytes from one place to the end."""
    return data[: int(generator.integers(len(data) + 1))]


def _drop(data: bytes, generator: np.random.Generator) -> bytes:
    """Without up to 16 bytes."""
    at = int(generator.integers(len(data) + 1))
    return data[:at] + data[at + int(generator.integers(1, 17)) :]


def _repeat(data: bytes, generator: np.random.Generator) -> bytes:
    """A piece of up to 256 bytes twice."""
    at, size = int(generator.integers(len(data) + 1)), int(generator.integers(1, 257))
    return data[: at + size] + data[at : at + size] + data[at + size :]


def _renumber(data: bytes, generator: np.random.Generator) -> bytes:
    """Another number in text."""
    found = list(NUMBER.finditer(data[:4096]))
    if not found:
        return _flip(data, generator)
    place = found[int(generator.integers(len(found)))]
    value = NUMBERS[int(generator.integers(len(NUMBERS)))]
    return data[: place.start()] + value + data[place.end() :]


def _enlarge(data: bytes, generator: np.random.Generator) -> bytes:
    """The largest value in four bytes near the start, where headers have sizes."""
    at = int(generator.integers(min(len(data), 256) + 1))
    return data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :]


CHANGES = (_flip, _flip, _cut, _drop, _repeat, _renumber, _renumber, _enlarge)
