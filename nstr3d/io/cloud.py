"""Point clouds from files: PLY, XYZ and other text, PCD, NPY, NPZ, and LAS where laspy is
installed.

Every reader answers bad input with one sentence that names the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import check_readable
from nstr3d.types import PointCloud

PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
PCD_NORMALS = ("normal_x", "normal_y", "normal_z")


def load_cloud(path: str | os.PathLike[str]) -> PointCloud:
    """The points of a file and, where it has them, their normals, as stored: not checked for size,
    length or being finite.

    PLY (ASCII or binary; faces are ignored), PCD (ASCII or binary), text of 3 or 6 columns (XYZ,
    TXT, CSV, PTS, ASC: position, or position and normal), NPY of the same columns, NPZ with an
    array ``points`` and, optionally, ``normals``, LAS and LAZ. Raises ``FileNotFoundError``,
    ``IsADirectoryError``, ``ModuleNotFoundError`` (laspy) or ``ValueError``.
    """
    path = Path(path)
    check_readable(path)
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise ValueError(
            f"{path}: unknown extension '{path.suffix}' for points; {', '.join(_READERS)} work"
        )
    try:
        points, normals = _READERS[kind](path)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if str(error).startswith((str(path), "reading LAS")):
            raise
        raise ValueError(
            f"{path} could not be read as {kind[1:].upper()}: {error}; export it again"
        ) from error
    except Exception as error:  # damaged headers lead decoders anywhere
        raise ValueError(
            f"{path} could not be read as {kind[1:].upper()}: it is damaged; export it again"
        ) from error
    if len(points) == 0:
        raise ValueError(f"{path} holds no points")
    return PointCloud(points, normals)


Columns = tuple[np.ndarray, np.ndarray | None]


def _split(values: np.ndarray, path: Path) -> Columns:
    """Positions and, in columns 4 to 6, normals."""
    if values.ndim != 2 or values.shape[1] not in (3, 6):
        shape = (
            f"{values.shape[1]} columns"
            if values.ndim == 2
            else f"an array of shape {values.shape}"
        )
        raise ValueError(
            f"{path} has {shape}; points need 3 columns (x y z), or 6 with normals (x y z nx ny nz)"
        )
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds {values.dtype}, not numbers; points need x y z")
    values = values.astype(np.float64)
    return values[:, :3], values[:, 3:] if values.shape[1] == 6 else None


def _from_text(path: Path) -> Columns:
    with open(path, encoding="utf-8", errors="replace") as file:
        plain = (re.sub(r"(#|//).*", "", line).replace(",", " ").replace(";", " ") for line in file)
        lines = [line for line in plain if line.strip()]
    if lines and path.suffix.lower() == ".pts" and len(lines[0].split()) == 1:
        lines = lines[1:]  # the count
    if lines and not re.match(r"\s*[-+.\dnNiI]", lines[0]):
        lines = lines[1:]  # the columns' names
    if not lines:
        raise ValueError(f"{path} holds no points")
    width = len(lines[0].split())
    try:
        return _split(np.loadtxt(lines, np.float64, ndmin=2), path)
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        for number, line in enumerate(lines, 1):
            words = line.split()
            if len(words) != width:
                raise ValueError(
                    f"{path}: row {number} has {len(words)} columns, the first has {width}"
                ) from error
            if not all(_is_number(word) for word in words):
                raise ValueError(
                    f"{path}: row {number} holds something that is not a number: "
                    f"{line.strip()[:40]!r}"
                ) from error
        raise


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
            raise ValueError(
                f"{path} has no array named points but {', '.join(arrays) or 'nothing'}; name it so"
            )
        points, extra = _split(arrays["points"], path)
        if "normals" not in arrays:
            return points, extra
        normals, _ = _split(arrays["normals"], path)
    if normals.shape != points.shape:
        raise ValueError(f"{path} has {len(points)} points but {len(normals)} normals")
    return points, normals


def _from_ply(path: Path) -> Columns:
    data = path.read_bytes()
    head, found, _ = data.partition(b"end_header")
    if not data.startswith(b"ply") or not found:
        raise ValueError(f"{path} has no PLY header; rename it to its true format")
    start = data.index(b"\n", len(head)) + 1
    order, elements = "", []
    for words in (line.split() for line in head.decode("ascii", "replace").splitlines()):
        if words[:1] == ["format"]:
            order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[words[1]]
            text = words[1] == "ascii"
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append((words[-1], words[1:-1]))
    before = 0  # bytes or, in text, lines
    for name, count, properties in elements:
        if any(kind[0] == "list" for _, kind in properties):
            if name == "vertex":
                raise ValueError(f"{path} stores lists with its points; export them without")
            raise ValueError(
                f"{path} stores {name}s before its points; export it with the points first"
            )
        record = np.dtype([(label, order + PLY_TYPES[kind[0]]) for label, kind in properties])
        if name == "vertex":
            if text:
                lines = data[start:].split(b"\n")
                rows = [line.decode("ascii", "replace") for line in lines[before : before + count]]
                table = np.loadtxt(rows, np.float64, ndmin=2)
                columns = {label: table[:, index] for index, label in enumerate(record.names or ())}
                held = len(table)
            else:
                held = (len(data) - start - before) // record.itemsize
                columns = np.frombuffer(data, record, min(count, held), start + before)
            if held < count:
                raise ValueError(
                    f"{path} promises {count} points but holds {held}; it is cut short"
                )
            return _named(columns, record.names or (), ("nx", "ny", "nz"), path)
        before += count * (1 if text else record.itemsize)
    raise ValueError(f"{path} has no points")


def _named(columns: Any, names: tuple[str, ...], normal: tuple[str, ...], path: Path) -> Columns:
    """The positions among named columns and, if all of ``normal`` are there, the normals."""
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path} has the columns {', '.join(names)}; points need x, y and z")
    points, normals = (np.stack([columns[n] for n in group], axis=1).astype(np.float64) if set(group) <= set(names) else None
                       for group in (("x", "y", "z"), normal))  # fmt: skip
    assert points is not None
    return points, normals


def _from_pcd(path: Path) -> Columns:
    data = path.read_bytes()
    match = re.search(rb"^DATA\s+(\w+)[^\n]*\n", data, re.MULTILINE)
    if match is None:
        raise ValueError(f"{path} has no PCD header; rename it to its true format")
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
        raise ValueError(f"{path} is a compressed PCD; save it as binary or ascii")
    if held < count:
        raise ValueError(f"{path} promises {count} points but holds {held}; it is cut short")
    return _named(columns, tuple(names), PCD_NORMALS, path)


def _from_las(path: Path) -> Columns:
    try:
        import laspy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading LAS needs laspy: pip install nstr3d[las]") from error
    return np.asarray(laspy.read(path).xyz, np.float64), None


_READERS: dict[str, Callable[[Path], Columns]] = {
    ".ply": _from_ply,
    ".pcd": _from_pcd,
    ".npy": _from_npy,
    ".npz": _from_npz,
    **dict.fromkeys((".xyz", ".txt", ".csv", ".pts", ".asc"), _from_text),
    **dict.fromkeys((".las", ".laz"), _from_las),
}
