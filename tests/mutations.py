"""Seeded mutations of valid model files, as bytes and as JSON."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 255, 1 << 16, 1 << 31, 1 << 40, 1 << 63, 10**40),
    *(-0.0, 0.5, -1.5, 1e-320, 1e300, math.nan, math.inf, -math.inf),
    *("", "x", "nstr", "\ud800", "a\nb", "9" * 300, [], [0], [[]], {}, {"tag": "nstr"}),
    *([1e308] * 3, [-1, 0, 1], [math.nan] * 3, [1 << 40] * 3, [0.0] * 40),
)


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()  # .keys() is needed: the file has no __iter__
        return {name: file.get_tensor(name).clone() for name in names}, file.metadata()


def places(data: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all entries of JSON data, except those of the provenance."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list) and key != "provenance":
            found += places(value, (*path, key))
    return found


def replaced(data: Any, path: tuple, value: Any) -> Any:
    """A copy of JSON data with another ``value`` at ``path``."""
    result = copy.deepcopy(data)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return result


def file_of(tensors: dict[str, Tensor], header: Any, **metadata: str) -> bytes:
    """A model file without a checksum, whose ``header`` may hold what JSON cannot."""
    return save(tensors, {"format": "nstr3d-2", "nstr3d": json.dumps(header)} | metadata)


def mutate_header(
    tensors: dict[str, Tensor], header: Any, generator: np.random.Generator, **metadata: str
) -> bytes:
    """A file with one hostile entry in its header, without a checksum."""
    found = places(header)
    path = found[generator.integers(len(found))]
    value = HOSTILE[generator.integers(len(HOSTILE))]
    return file_of(tensors, replaced(header, path, value), **metadata)


def mutate_tensors(
    tensors: dict[str, Tensor], header: Any, generator: np.random.Generator, **metadata: str
) -> bytes:
    """A file with one tensor that is missing, is added, has another shape or type, or is not
    finite, without a checksum."""
    names = sorted(tensors)
    name = names[generator.integers(len(names))]
    tensor = tensors[name]
    flat = tensor.reshape(-1)
    changes: list[dict[str, Tensor]] = [
        {"other": torch.zeros(2)},
        {name: torch.cat([flat, flat[:1]])},
        {name: tensor[None].contiguous()},
        {name: tensor.to(torch.float64)},
        {name: tensor.to(torch.int32)},
        {name: torch.zeros(0, dtype=tensor.dtype)},
    ]
    if tensor.is_floating_point():
        for bad in (math.nan, math.inf, -math.inf):
            wrong = tensor.clone()
            wrong.view(-1)[generator.integers(wrong.numel())] = bad
            changes.append({name: wrong})
    chosen = int(generator.integers(len(changes) + 1))
    if chosen == len(changes):
        rest = {key: value for key, value in tensors.items() if key != name}
        return file_of(rest, header, **metadata)
    return file_of(tensors | changes[chosen], header, **metadata)


def mutate_bytes(data: bytes, generator: np.random.Generator) -> bytes:
    """``data`` with one to four bytes changed, a part removed, doubled or moved, or cut short."""
    raw = bytearray(data)
    kind = generator.integers(5)
    low, high = sorted(int(at) for at in generator.integers(0, len(raw) + 1, 2))
    if kind == 0:
        return bytes(raw[:low])
    if kind == 1:
        return bytes(raw[:low] + raw[high:])
    if kind == 2:
        return bytes(raw[:high] + raw[low:])
    for _ in range(int(generator.integers(1, 5))):
        # Half of the changes are in the header, which is a small part of the file.
        limit = len(raw) if kind == 3 else min(len(raw), 8 + int.from_bytes(data[:8], "little"))
        raw[generator.integers(limit)] = generator.integers(256)
    return bytes(raw)
