"""The safetensors file of a model: its size is checked before anything is read, and a checksum.

The checksum is the SHA-256 of the text of the metadata and of all tensors in the order of their
names. Files of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nstr3d.io.atomic import atomic_path
from nstr3d.model.header import CHECKSUM, FORMAT, LARGEST_HEADER, TEXT, check_regular

LARGEST_TEXT = 1 << 18  # bytes of the text; in the header, it may take twice as many
PART = 1 << 17  # elements that are checked at a time


@dataclass(frozen=True)
class Contents:
    """A file's ``metadata`` and ``tensors``. Tensors that were read are views of the file, which
    the system reads when they are used."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]


def write_container(path: str | os.PathLike[str], contents: Contents) -> None:
    """Writes a file, with a checksum among the metadata, atomically.

    Raises ValueError for metadata that are too long to be read again and for a tensor that is not
    finite, and OSError if the file cannot be written.
    """
    from safetensors.torch import save

    length = len(contents.metadata[TEXT].encode())
    if length > LARGEST_TEXT:
        raise ValueError(
            f"{path} was not written: its header takes {length:,} bytes and may take "
            f"{LARGEST_TEXT:,}; shorten the provenance."
        )
    try:
        check_finite(contents.tensors)
    except ValueError as error:
        raise ValueError(f"{path} was not written: {error}.") from None
    # The library's own writer leaves a temporary file of its own if the process is killed.
    data = save(dict(contents.tensors), {**contents.metadata, CHECKSUM: checksum(contents)})
    length = int.from_bytes(data[:8], "little")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data[:8])
        file.write(_sorted_metadata(data[8 : 8 + length]))
        file.write(memoryview(data)[8 + length :])


def _sorted_metadata(header: bytes) -> bytes:
    """The header of a safetensors file with the metadata in the order of their names.

    The library writes them in random order, and equal fits are to give equal files.
    """
    entries = json.loads(header)
    entries["__metadata__"] = dict(sorted(entries["__metadata__"].items()))
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return text.ljust(len(header)) if len(text) <= len(header) else header


def read_container(path: Path) -> Contents:
    """The contents of the file at ``path``, not yet checked by `check_contents`.

    Raises FileNotFoundError, IsADirectoryError, and ValueError naming the path if it is no
    safetensors file or its header is too long.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if LARGEST_HEADER < length <= path.stat().st_size - 8:
        raise ValueError(
            f"{path} is not a usable nstr3d model: its header takes {length:,} bytes and may take "
            f"{LARGEST_HEADER:,}."
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # the file cannot be iterated over: it has no __iter__
            tensors = {name: file.get_tensor(name) for name in names}
            return Contents(file.metadata() or {}, tensors)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a model: it is truncated or not a safetensors file "
            f"({' '.join(str(error).split())[:200]})."
        ) from error


def check_contents(contents: Contents) -> None:
    """Raises ValueError for an unknown entry of the metadata, a checksum that does not match, or a
    tensor that is not finite; the message is a clause without a full stop."""
    if unknown := sorted(contents.metadata.keys() - {FORMAT, TEXT, CHECKSUM}):
        raise ValueError(f"its metadata have the unknown entry {unknown[0][:60]!r}")
    written = contents.metadata.get(CHECKSUM)
    if written is not None and written != checksum(contents):
        raise ValueError("its checksum sha256 does not match: it was changed or is damaged")
    check_finite(contents.tensors)


def checksum(contents: Contents) -> str:
    """The SHA-256 of the metadata's format and text and of the tensors, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in (FORMAT, TEXT):
        digest.update(f"{name} {contents.metadata.get(name, '')}\n".encode())
    for name, tensor in sorted(contents.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in _parts(tensor):
            digest.update(part.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the first tensor that holds a NaN or an infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            for part in _parts(tensor):
                if not torch.isfinite(part).all():
                    raise ValueError(f"its tensor {name} holds numbers that are not finite")


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The elements of ``tensor`` in order, in parts that bound the memory of a check."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel() < 2:  # the stride may be 0, which cannot be viewed as bytes
        return iter([flat.new_empty(flat.numel()).copy_(flat)] * flat.numel())
    return iter(flat.split(PART))
