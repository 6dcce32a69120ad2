"""Point clouds from files: PLY, XYZ and other text, PCD, NPY, NPZ, and LAS if laspy is installed.

Every reader raises an error of one sentence that names the file.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import check_readable
from nstr3d.io.cloudtext import read_cloud_text
from nstr3d.io.columns import Columns, Reading, by_names, by_values, shades
from nstr3d.io.errors import ContentError
from nstr3d.io.pcd import read_pcd
from nstr3d.io.ply import read_ply
from nstr3d.io.room import check_room, read_array
from nstr3d.types import PointCloud


def load_cloud(path: str | os.PathLike[str]) -> PointCloud:
    """The points of a file and, if the file has them, the normals: `read_cloud` without how the
    columns were read."""
    return read_cloud(path)[0]


def read_cloud(path: str | os.PathLike[str]) -> tuple[PointCloud, Reading]:
    """The points of a file, the normals and colours if it has them, and how the columns were read.

    Points and normals are float64 and as stored: coordinates may be non-finite and normals of any
    length. The formats are PLY (ASCII or binary; faces are ignored), PCD (ASCII, binary or
    compressed), text (XYZ, TXT, CSV, PTS, ASC), NPY, NPZ with an array ``points`` and optionally
    ``normals`` and ``colors``, LAS and LAZ. The names of columns say which are positions, normals
    and colours. Without names the values do: see `by_values`. Raises ``FileNotFoundError``,
    ``IsADirectoryError``,
    ``ModuleNotFoundError`` if LAS needs laspy, and ``ValueError`` for an empty file or, as
    `ContentError`, any other fault of the file.
    """
    path = Path(path)
    check_readable(path)
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise ContentError(
            f"{path}: unknown extension '{path.suffix}' for points; {', '.join(_READERS)} work"
        )
    try:
        columns = _READERS[kind](path)
    except (ContentError, ModuleNotFoundError):
        raise
    except (ValueError, OSError) as error:
        raise ContentError(
            f"{path} could not be read as {kind[1:].upper()}: {error}; export it again"
        ) from error
    except Exception as error:  # decoders raise any exception for a damaged header
        raise ContentError(
            f"{path} could not be read as {kind[1:].upper()}: it is damaged; export it again"
        ) from error
    if len(columns.points) == 0:
        raise ContentError(f"{path} holds no points")
    return PointCloud(columns.points, columns.normals, columns.colours), columns.reading


def _from_npy(path: Path) -> Columns:
    with open(path, "rb") as file:
        values = read_array(file, path.stat().st_size, path)
    if values.dtype.names:
        return by_names([values[name] for name in values.dtype.names], values.dtype.names, path)
    return by_values(values, path)


def _from_npz(path: Path) -> Columns:
    with zipfile.ZipFile(path) as archive:
        arrays = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "points" not in arrays:
            raise ContentError(
                f"{path} has no array named points; rename one: {', '.join(arrays) or '(none)'}"
            )

        def read(name: str) -> np.ndarray:
            with archive.open(arrays[name]) as file:
                return read_array(file, arrays[name].file_size, path)

        columns = by_values(read("points"), path)
        points = columns.points
        stored = {name: read(name) for name in ("normals", "colors") if name in arrays}
    for name, values in stored.items():
        if values.shape != points.shape:
            raise ContentError(
                f"{path} has {len(points)} points but {len(values)} {name}, of shape {values.shape}"
            )
    if "colors" in stored:
        columns = replace(columns, colours=shades(list(stored["colors"].T)))
    if "normals" not in stored:
        return columns
    normals = by_values(stored["normals"], path).points
    reading = Reading("by name: position points, normal normals")
    return replace(columns, normals=normals, reading=reading)


def _from_ply(path: Path) -> Columns:
    (points,) = read_ply(path, "vertex")
    names = points.dtype.names or ()
    return by_names([points[name] for name in names], names, path)


def _from_pcd(path: Path) -> Columns:
    columns, names = read_pcd(path)
    return by_names(columns, names, path)


def _from_las(path: Path) -> Columns:
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading LAS needs laspy: pip install nstr3d[las]") from error
    with laspy.open(path) as file:
        head = file.header
        promised, held = head.point_count, head.point_count
        if not head.are_points_compressed:
            octets = path.stat().st_size - head.offset_to_point_data
            held = max(octets, 0) // head.point_format.size
        if held >= promised:
            size = promised * (head.point_format.size + 6 * 8)  # the file's numbers and ours, twice
            check_room(path, f"{promised:,} points", size)
            read = file.read()
            points, held = np.asarray(read.xyz, np.float64), len(read)
            colours = _las_colours(read)
    if held < promised:
        raise ContentError(f"{path} promises {promised} points but holds {held}; it is cut short")
    return Columns(points, None, Reading("LAS: position X Y Z, no normal"), colours)


def _las_colours(read: Any) -> np.ndarray | None:
    """Display RGB ``(n, 3)`` of the records of a LAS file; None without them or if all are 0."""
    if not {"red", "green", "blue"} <= set(read.point_format.dimension_names):
        return None
    columns = [np.asarray(read[name]) for name in ("red", "green", "blue")]
    return shades(columns) if any(column.any() for column in columns) else None


_READERS: dict[str, Callable[[Path], Columns]] = {
    ".ply": _from_ply,
    ".pcd": _from_pcd,
    ".npy": _from_npy,
    ".npz": _from_npz,
    **dict.fromkeys((".xyz", ".txt", ".csv", ".pts", ".asc"), read_cloud_text),
    **dict.fromkeys((".las", ".laz"), _from_las),
}
CLOUD_SUFFIXES = frozenset(_READERS)
