"""Point clouds from files: PLY, XYZ and other text, PCD, NPY, NPZ, and LAS if laspy is installed.

Every reader raises an error of one sentence that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nstr3d.io.atomic import check_readable
from nstr3d.io.cloudtext import read_cloud_text
from nstr3d.io.columns import Columns, Reading, by_names, by_values
from nstr3d.io.errors import ContentError
from nstr3d.io.pcd import read_pcd
from nstr3d.io.ply import read_ply
from nstr3d.types import PointCloud


def load_cloud(path: str | os.PathLike[str]) -> PointCloud:
    """The points of a file and, if the file has them, the normals: `read_cloud` without how the
    columns were read."""
    return read_cloud(path)[0]


def read_cloud(path: str | os.PathLike[str]) -> tuple[PointCloud, Reading]:
    """The points of a file, the normals if the file has them, and how the columns were read.

    Points and normals are float64 and as stored: coordinates may be non-finite and normals of any
    length. The formats are PLY (ASCII or binary; faces are ignored), PCD (ASCII, binary or
    compressed), text (XYZ, TXT, CSV, PTS, ASC), NPY, NPZ with an array ``points`` and optionally
    ``normals``, LAS and LAZ. The names of columns say which are positions and normals. Without
    names the values do: see `by_values`. Raises ``FileNotFoundError``, ``IsADirectoryError``,
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
        points, normals, reading = _READERS[kind](path)
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
    if len(points) == 0:
        raise ContentError(f"{path} holds no points")
    return PointCloud(points, normals), reading


def _from_npy(path: Path) -> Columns:
    values = np.load(path, allow_pickle=False)
    if values.dtype.names:
        return by_names([values[name] for name in values.dtype.names], values.dtype.names, path)
    return by_values(values, path)


def _from_npz(path: Path) -> Columns:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise ContentError(
                f"{path} has no array named points; rename one: {', '.join(arrays) or '(none)'}"
            )
        points, normals, reading = by_values(arrays["points"], path)
        if "normals" not in arrays:
            return points, normals, reading
        stored = arrays["normals"]
    if stored.shape != points.shape:
        raise ContentError(
            f"{path} has {len(points)} points but {len(stored)} normals, of shape {stored.shape}"
        )
    normals, _, _ = by_values(stored, path)
    return points, normals, Reading("by name: position points, normal normals")


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
            points = np.asarray(file.read().xyz, np.float64)
            held = len(points)
    if held < promised:
        raise ContentError(f"{path} promises {promised} points but holds {held}; it is cut short")
    return points, None, Reading("LAS: position X Y Z, no normal")


_READERS: dict[str, Callable[[Path], Columns]] = {
    ".ply": _from_ply,
    ".pcd": _from_pcd,
    ".npy": _from_npy,
    ".npz": _from_npz,
    **dict.fromkeys((".xyz", ".txt", ".csv", ".pts", ".asc"), read_cloud_text),
    **dict.fromkeys((".las", ".laz"), _from_las),
}
CLOUD_SUFFIXES = frozenset(_READERS)
