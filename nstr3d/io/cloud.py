"""Point clouds from files: PLY, XYZ and other text, PCD, NPY, NPZ, and LAS if laspy is installed.

Every reader raises an error of one sentence that names the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import check_readable
from nstr3d.io.errors import ContentError
from nstr3d.io.ply import read_ply
from nstr3d.types import PointCloud

PCD_NORMALS = ("normal_x", "normal_y", "normal_z")


def load_cloud(path: str | os.PathLike[str]) -> PointCloud:
    """The points of a file and, if the file has them, the normals, both float64.

    Points and normals are as stored: coordinates may be non-finite and normals of any length. The
    formats are PLY (ASCII or binary; faces are ignored), PCD (ASCII or binary), text of 3 or 6
    columns (XYZ, TXT, CSV, PTS, ASC: position, or position and normal), NPY of the same columns,
    NPZ with an array ``points`` and optionally ``normals``, LAS and LAZ. Raises
    ``FileNotFoundError``, ``IsADirectoryError``, ``ModuleNotFoundError`` if LAS needs laspy, and
    ``ValueError`` for an empty file or, as `ContentError`, any other fault of the file.
    """
    path = Path(path)
    check_readable(path)
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise ContentError(
            f"{path}: unknown extension '{path.suffix}' for points; {', '.join(_READERS)} work"
        )
    try:
        points, normals = _READERS[kind](path)
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
    return PointCloud(points, normals)


Columns = tuple[np.ndarray, np.ndarray | None]


def _split(values: np.ndarray, path: Path) -> Columns:
    """Positions from columns 1 to 3 and, if there are 6 columns, normals from columns 4 to 6."""
    if values.ndim != 2 or values.shape[1] not in (3, 6):
        shape = (
            f"{values.shape[1]} columns"
            if values.ndim == 2
            else f"an array of shape {values.shape}"
        )
        raise ContentError(
            f"{path} has {shape}; points need 3 columns (x y z), or 6 with normals (x y z nx ny nz)"
        )
    if values.dtype.kind not in "fiu":
        raise ContentError(f"{path} holds {values.dtype}, not numbers; points need x y z")
    values = values.astype(np.float64)
    return values[:, :3], values[:, 3:] if values.shape[1] == 6 else None


def _from_text(path: Path) -> Columns:
    with open(path, encoding="utf-8", errors="replace") as file:
        plain = (re.sub(r"(#|//).*", "", line).replace(",", " ").replace(";", " ") for line in file)
        lines = [line for line in plain if line.strip()]
    if lines and path.suffix.lower() == ".pts" and len(lines[0].split()) == 1:
        lines = lines[1:]  # skips the point count
    if lines and not re.match(r"\s*[-+.\dnNiI]", lines[0]):
        lines = lines[1:]  # skips the column names
    if not lines:
        raise ContentError(f"{path} holds no points")
    width = len(lines[0].split())
    try:
        values = np.loadtxt(lines, np.float64, ndmin=2)
    except ValueError as error:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if len(words) != width:
                raise ContentError(
                    f"{path}: row {number} has {len(words)} columns, the first has {width}"
                ) from error
            if not all(_is_number(word) for word in words):
                raise ContentError(
                    f"{path}: row {number} holds something that is not a number: "
                    f"{line.strip()[:40]!r}"
                ) from error
        raise
    return _split(values, path)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _from_npy(path: Path) -> Columns:
    return _split(np.load(path, allow_pickle=False), path)


def _from_npz(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as arrays:
        if "points" not in arrays:
            raise ContentError(
                f"{path} has no array named points; rename one: {', '.join(arrays) or '(none)'}"
            )
        points, extra = _split(arrays["points"], path)
        if "normals" not in arrays:
            return points, extra
        normals, _ = _split(arrays["normals"], path)
    if normals.shape != points.shape:
        raise ContentError(f"{path} has {len(points)} points but {len(normals)} normals")
    return points, normals


def _from_ply(path: Path) -> Columns:
    (points,) = read_ply(path, "vertex")
    return _named(points, points.dtype.names or (), ("nx", "ny", "nz"), path)


def _named(columns: Any, names: tuple[str, ...], normal: tuple[str, ...], path: Path) -> Columns:
    """Positions from the columns x, y and z and, if all columns of ``normal`` exist, normals."""
    if not {"x", "y", "z"} <= set(names):
        raise ContentError(f"{path} has the columns {', '.join(names)}; points need x, y and z")
    points, normals = (
        np.stack([columns[n] for n in group], axis=1).astype(np.float64)
        if set(group) <= set(names)
        else None
        for group in (("x", "y", "z"), normal)
    )
    assert points is not None
    return points, normals


def _from_pcd(path: Path) -> Columns:
    data = path.read_bytes()
    match = re.search(rb"^DATA\s+(\w+)[^\n]*\n", data, re.MULTILINE)
    if match is None:
        raise ContentError(f"{path} has no PCD header; rename it to its true format")
    header = {
        words[0]: words[1:]
        for line in data[: match.start()].decode("ascii", "replace").splitlines()
        if (words := line.split())
    }
    names, count = header["FIELDS"], int(header["POINTS"][0])
    repeats = [int(n) for n in header.get("COUNT", ["1"] * len(names))]
    kind = match[1].decode()
    if kind == "ascii":
        table = np.loadtxt(
            data[match.end() :].decode("ascii", "replace").splitlines(), np.float64, ndmin=2
        )
        place = np.cumsum([0, *repeats])
        columns = {
            name: table[:, place[index]] for index, name in enumerate(names) if repeats[index] == 1
        }
        held = len(table)
    elif kind == "binary":
        types = [
            {"F": "f", "I": "i", "U": "u"}[t] + size
            for t, size in zip(header["TYPE"], header["SIZE"])
        ]
        labels = [
            name if name != "_" else f"_{index}" for index, name in enumerate(names)
        ]  # padding may repeat its name
        record = np.dtype(
            [
                (label, "<" + t, (n,)) if n > 1 else (label, "<" + t)
                for label, t, n in zip(labels, types, repeats)
            ]
        )
        held = (len(data) - match.end()) // record.itemsize
        columns = np.frombuffer(data, record, min(count, held), match.end())
    else:
        raise ContentError(f"{path} is a compressed PCD; save it as binary or ascii")
    if held < count:
        raise ContentError(f"{path} promises {count} points but holds {held}; it is cut short")
    return _named(columns, tuple(names), PCD_NORMALS, path)


def _from_las(path: Path) -> Columns:
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading LAS needs laspy: pip install nstr3d[las]") from error
    _check_las_length(path)
    return np.asarray(laspy.read(path).xyz, np.float64), None


def _check_las_length(path: Path) -> None:
    """Raises ContentError for an uncompressed LAS file with fewer points than its header promises.
    laspy would return the points that are there."""
    import laspy

    with laspy.open(path) as reader:
        header = reader.header
        if header.are_points_compressed:
            return  # the decoder fails where the data ends
        promised, size = header.point_count, header.point_format.size
        held = (path.stat().st_size - header.offset_to_point_data) // size
    if held < promised:
        raise ContentError(f"{path} promises {promised} points but holds {held}; it is cut short")


_READERS: dict[str, Callable[[Path], Columns]] = {
    ".ply": _from_ply,
    ".pcd": _from_pcd,
    ".npy": _from_npy,
    ".npz": _from_npz,
    **dict.fromkeys((".xyz", ".txt", ".csv", ".pts", ".asc"), _from_text),
    **dict.fromkeys((".las", ".laz"), _from_las),
}
