"""Triangles that Draco has compressed, as glTF stores them (bitstream 2.2). The numbers of the
header are compared with the file and the free memory before the decoder takes any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.room import check_room

HEAD = 11  # bytes: the word DRACO, the version, the kinds of data and of code, the flags
MESH = 1  # the kind of data
SEQUENTIAL, EDGEBREAKER = 0, 1  # kinds of code
METADATA = 0x8000  # the flag that metadata follow the header
LARGEST_RATIO = 1000  # faces or vertices in a byte; a flat grid has 16
NEEDED = 200  # bytes of memory for a face or a vertex while it is decoded


def decode_draco(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The vertices ``(v, 3)`` float64 and the indices ``(3 f,)`` int64 in ``data``, which are from
    the file ``path``.

    Raises ModuleNotFoundError if DracoPy is not installed, `ContentError` if the header promises
    more than the data can hold or than fits into the free memory, and ValueError for damaged data.
    """
    import DracoPy

    faces, vertices = _counts(data)
    if max(faces, vertices) > LARGEST_RATIO * len(data):
        raise ContentError(
            f"{path} promises {faces:,} faces and {vertices:,} vertices by Draco in {len(data):,} "
            "bytes; it is damaged, so export it again"
        )
    check_room(path, f"{faces:,} faces by Draco", NEEDED * (faces + vertices))
    try:
        mesh: Any = DracoPy.decode(data)
        points = np.asarray(mesh.points, np.float64).reshape(-1, 3)
        return points, np.asarray(mesh.faces, np.int64).ravel()
    except Exception as error:  # the decoder raises its own errors for damaged data
        raise ValueError("the data are damaged") from error


def _counts(data: bytes) -> tuple[int, int]:
    """The numbers of faces and vertices in the header. Raises ValueError for another header."""
    if len(data) < HEAD or data[:5] != b"DRACO" or data[7] != MESH:
        raise ValueError("the data do not begin with the header of a mesh")
    version, method = (data[5], data[6]), data[8]
    if version != (2, 2) or int.from_bytes(data[9:11], "little") & METADATA:
        raise ValueError("the data are of a version that glTF does not have")
    if method not in (SEQUENTIAL, EDGEBREAKER):
        raise ValueError("the data are in an unknown code")
    first, place = _number(data, HEAD + (method == EDGEBREAKER))  # after the kind of traversal
    second, _ = _number(data, place)
    return (first, second) if method == SEQUENTIAL else (second, first)


def _number(data: bytes, place: int) -> tuple[int, int]:
    """The number at ``place``, in groups of 7 bits, and the place after it."""
    value = 0
    for shift in range(0, 35, 7):
        if place >= len(data):
            break
        value |= (data[place] & 127) << shift
        place += 1
        if not data[place - 1] & 128:
            return value, place
    raise ValueError("the header is cut short")
