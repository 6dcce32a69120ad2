"""What the header of a file promises, compared with the free memory before any of it is taken."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.system import check_memory


def check_room(path: str | os.PathLike[str], promised: str, size: float) -> None:
    """Raises `ContentError` if a file that promises ``promised`` needs ``size`` bytes, more than
    are free."""
    try:
        check_memory(size, f"{path} promises {promised}, which", "use a smaller file")
    except ValueError as error:
        raise ContentError(str(error)) from None


def read_array(file: IO[bytes], held: int, path: Path) -> np.ndarray:
    """The array of a NumPy file of ``held`` bytes at whose start ``file`` is.

    Raises `ContentError` for one that promises more than the file holds or than fits into the free
    memory, and ValueError for another fault.
    """
    version = np.lib.format.read_magic(file)
    # The header of version 3 is that of version 2, with other letters in names.
    read_header = "read_array_header_1_0" if version == (1, 0) else "read_array_header_2_0"
    shape, _, kind = getattr(np.lib.format, read_header)(file)
    count, rest = math.prod(shape), held - file.tell()
    if min(shape, default=1) < 0:
        raise ContentError(f"{path} promises an array of shape {shape}; it is damaged")
    if not kind.hasobject and count * kind.itemsize > rest:
        raise ContentError(
            f"{path} promises an array of {' x '.join(map(str, shape)) or 'one'} values in "
            f"{count * kind.itemsize} bytes but holds {rest}; it is cut short or damaged"
        )
    numbers = count * max(len(kind.names or ()), 1)
    check_room(path, f"{numbers:,} numbers", count * kind.itemsize + 16 * numbers)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def check_archive(path: Path) -> None:
    """Raises `ContentError` if the content of a ZIP file would not fit into the free memory. Other
    files pass."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        check_room(path, f"{size:,} bytes in its archive", 8 * size)
