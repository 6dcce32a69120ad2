"""The headers of model files, which are read without the weights and without torch."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nstr3d.model.schema import CompressedHeader, Header

LARGEST_HEADER = 1 << 20  # bytes; a model's header has some thousand
FORMAT, TEXT, CHECKSUM = "format", "nstr3d", "sha256"  # the names of the metadata
TRAINING = "training/"  # prefix of the optimiser's tensors in a resumable checkpoint
COLOUR = "colours/"  # prefix of the tensors of the field of colours
TREE = "nstr3d-tree-1"  # the format of a combination of models and shapes
MAGIC = b"NSTQ1"  # the first bytes of a compressed model
# What JSON data of another form than ours raise where they are read.
MALFORMED = AttributeError, LookupError, TypeError, ValueError, RecursionError
CENTRES = 3  # number of stored decoding offsets: for the magnitudes 1, 2, and 3 or more
MOST_HEAD = 1 << 20  # bytes; the header of a compressed model has at most 4 (255 + 255^2)


@dataclass(frozen=True)
class ModelHeader:
    """The ``header`` of a model, the ``format`` of its file, and the numbers of tensors and of
    their elements; ``resumable`` if it also holds the state of training."""

    header: Header
    format: str
    tensors: int
    elements: int
    resumable: bool


def check_regular(path: Path) -> None:
    """Raises FileNotFoundError, IsADirectoryError, or ValueError for a path that is no file of
    bytes, such as a pipe."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the model file inside it.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; fit a model first.")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file, so there is no model in it.")


def begins_with(path: Path, magic: bytes) -> bool:
    """Whether there is a file at ``path`` whose first bytes are ``magic``."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic


def read_marked(path: Path, magic: bytes) -> bytes:
    """The bytes of the file at ``path`` if it begins with ``magic``, else its first bytes: another
    file, however long, is not read. Raises FileNotFoundError, IsADirectoryError, and ValueError for
    a path that is no file of bytes."""
    check_regular(path)
    with open(path, "rb") as file:
        first = file.read(len(magic))
        return first + file.read() if first == magic else first


def read_header(path: Path) -> ModelHeader:
    """The header of the model.safetensors at ``path``. The weights are not read or checked.

    Raises FileNotFoundError, IsADirectoryError, and ValueError naming the path if it holds no
    header of an nstr3d model.
    """
    from nstr3d.model.schema import check_header, unique

    metadata, entries = _read_entries(path)
    try:
        header = check_header(json.loads(metadata[TEXT], object_pairs_hook=unique))
        field = [each for name, each in entries.items() if not name.startswith(TRAINING)]
        elements = sum(math.prod(each["shape"]) for each in field)
    except MALFORMED as error:
        raise _unusable(path, error) from error
    resumable = len(field) < len(entries)
    return ModelHeader(header, metadata[FORMAT], len(field), elements, resumable)


def read_tree(path: Path) -> dict[str, Any] | None:
    """The combination in the model.safetensors at ``path`` as JSON data, not checked further; None
    if it is a single model. Raises the errors of `read_header`."""
    from nstr3d.model.schema import unique

    metadata, _ = _read_entries(path)
    if metadata[FORMAT] != TREE:
        return None
    try:
        return dict(json.loads(metadata[TEXT], object_pairs_hook=unique))
    except MALFORMED as error:
        raise _unusable(path, error) from error


def is_whole(path: Path) -> bool:
    """Whether the model.safetensors at ``path`` is there and as long as its header says."""
    try:
        _read_entries(path)
    except (OSError, ValueError):
        return False
    return True


def _read_entries(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The metadata and the tensors' entries of a safetensors file of nstr3d."""
    from nstr3d.model.schema import unique

    check_regular(path)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(LARGEST_HEADER, path.stat().st_size - 8):
                raise ValueError("it is truncated or not a safetensors file")
            entries = json.loads(file.read(length), object_pairs_hook=unique)
        metadata = entries.pop("__metadata__", {}) if isinstance(entries, dict) else None
        if not isinstance(metadata, dict):
            raise ValueError("its header is no table of tensors")
        ends = [each["data_offsets"][1] for each in entries.values()]
        size, promised = path.stat().st_size, 8 + length + max(ends, default=0)
        if size != promised:
            raise ValueError(f"it holds {size:,} bytes where its header promises {promised:,}")
        if not str(metadata.get(FORMAT)).startswith("nstr3d-"):
            raise ValueError("it is a safetensors file, but not of nstr3d")
    except MALFORMED as error:
        raise _unusable(path, error) from error
    return metadata, entries


def _unusable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return ValueError(f"{path} is not a usable nstr3d model: {reason}.")


def load_compressed_header(path: Path) -> CompressedHeader:
    """The header of the compressed model at ``path``. The amplitudes are not read or checked.

    Raises FileNotFoundError, IsADirectoryError, and ValueError naming the path if it holds no such
    header.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(MOST_HEAD)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(
            f"{path} is not a compressed nstr3d field: it does not begin with {MAGIC.decode()}."
        )
    try:
        return read_compressed_header(Reader(data[len(MAGIC) :]))
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{path} is damaged: {reason}.") from None


def read_compressed_header(reader: Reader) -> CompressedHeader:
    """The header at the front of a compressed model, behind its magic. Raises ValueError with a
    clause about the first fault."""
    from nstr3d.model.schema import check_compressed

    dim, channels, smooth = reader.read_numbers("<BBB")
    if not 1 <= dim <= 2:  # decides how many numbers follow
        raise ValueError(f"the samples have {dim} axes, not 1 or 2")
    shape, hops = reader.read_numbers(f"<{dim}I"), reader.read_numbers(f"<{dim}H")
    step, *shrink = reader.read_numbers(f"<f{CENTRES}B")
    return check_compressed(
        {
            "channels": channels,
            "smooth": smooth,
            "shape": shape,
            "hops": hops,
            "step": step,
            "shrink": tuple(shrink),
            "offset": reader.read_numbers(f"<{channels}f"),
            "colours": reader.read_numbers(f"<{channels * channels}f"),
        }
    )


class Reader:
    """Reads numbers from the front of ``data``. Raises ValueError at its end."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def read_numbers(self, form: str) -> tuple[Any, ...]:
        """The next numbers in the `struct` format ``form``."""
        end = self.place + struct.calcsize(form)
        if end > len(self.data):
            raise ValueError("it ends within its header")
        values = struct.unpack_from(form, self.data, self.place)
        self.place = end
        return values

    def read_remainder(self) -> bytes:
        """All bytes that are left."""
        return self.data[self.place :]
