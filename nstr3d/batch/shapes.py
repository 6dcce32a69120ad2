"""Finds the shapes of a data set in a folder, a list or a URL, and gives each an id.

A shape's id is its path below the folder, suffix included. Such ids are unique, readable, and do
not depend on the other shapes. Results are stored under the id, so they mirror the folders of the
input.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstr3d.batch.ids import fault_of_id, id_of_path, id_of_refused, inner_file, printable
from nstr3d.batch.store import filesystem, is_local, local_path, remote_stamp
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.io.folder import local_stamp
from nstr3d.io.kinds import UNREAD_SHAPES
from nstr3d.io.mesh import mesh_suffixes
from nstr3d.system import one_line

CLOUDS = CLOUD_SUFFIXES - {".ply"}
MESHES = {".obj", ".ply", ".stl", ".off", ".glb", ".gltf"}
LISTS = {".txt", ".csv", ".lst"}
PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}  # a shape inside such a file is not read
# Text files beside shapes mostly describe the shapes, so a cloud in a text file must be listed.
SCANNED = (CLOUDS - LISTS) | MESHES
LARGEST = 1 << 28  # bytes of a list


@dataclass(frozen=True)
class ShapeFile:
    """One shape: its ``id``, its ``place`` (a local path or a URL) and its ``stamp``.

    The stamp changes when the file does; it is empty if there is no file. A shape with a ``fault``
    cannot be fitted; the fault becomes the error of its row.
    """

    id: str
    place: str
    stamp: str
    fault: str = ""


def find_shapes(
    source: str, apart_from: str = "", unread: list[str] | None = None
) -> list[ShapeFile]:
    """The shapes of ``source``, ordered by id.

    ``source`` is a folder, searched recursively, a list, or a URL of either. A list is a .txt or
    .lst file with one path per line, or a .csv file with a column ``path`` and, to name the shapes,
    a column ``id``. Paths in a list are relative to it. Folders and files whose names start with a
    dot and the folder ``apart_from`` are skipped. Each folder is entered once, even if links lead
    to it. Files of the folder that hold a shape in a format that is not read are appended to
    ``unread``, as paths below the folder. A row of a list that makes no sense, or whose id is
    reserved, too long or taken, is a shape with a fault. Raises FileNotFoundError if ``source``
    does not exist, and ValueError if it is neither a folder nor a valid list or holds no shapes.
    """
    unread = [] if unread is None else unread
    shapes = (
        _list_url(source, apart_from, unread)
        if not is_local(source)
        else _list_local(Path(local_path(source)), apart_from, unread)
    )
    by_id: dict[str, ShapeFile] = {}
    for shape in shapes:
        other = by_id.setdefault(shape.id, shape)
        if other.place != shape.place:
            _add(by_id, shape, f"{source}: {other.place} has the same id {shape.id}")
    for shape in list(by_id.values()):
        if outer := inner_file(shape.id, by_id.keys()):
            del by_id[shape.id]
            _add(by_id, shape, f"{source}: {shape.id} is a file of the shape with the id {outer}")
    if not by_id:
        others = f" {describe_unread(unread)}" if unread else ""
        raise ValueError(
            f"{source} holds no shapes: none of its files ends in {', '.join(sorted(SCANNED))}. "
            f"Name clouds in text files ({', '.join(sorted(LISTS & CLOUDS))}) in a list.{others}"
        )
    return [by_id[name] for name in sorted(by_id)]


def _add(by_id: dict[str, ShapeFile], shape: ShapeFile, fault: str) -> None:
    """Adds ``shape`` under another id, with a fault of its own id."""
    other = id_of_refused(shape.id, shape.place)
    by_id[other] = ShapeFile(
        other, shape.place, shape.stamp, f"{fault}; give this shape another id."
    )


def describe_unread(unread: Sequence[str]) -> str:
    """A sentence on files of shapes in formats that are not read: counts by ending, and a name."""
    endings = Counter(_ending(name) for name in unread)
    counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common())
    return (
        f"{len(unread):,} file(s) of shapes are in formats that are not read here and were left "
        f"out ({counts}), such as {unread[0]}; convert them to OBJ, PLY, STL or GLB."
    )


def in_shard(shape_id: str, index: int, count: int) -> bool:
    """Whether a shape belongs to part ``index`` of ``count``, counted from 1.

    Only the id decides, so a shape stays in its part when other shapes are added or removed.
    """
    return (
        int.from_bytes(hashlib.sha256(shape_id.encode()).digest()[:8], "big") % count == index - 1
    )


def _is_shape(name: str, unread: list[str]) -> bool:
    """Whether the file ``name`` in a folder is a shape to fit.

    The name of a shape in a format that is not read is appended to ``unread``.
    """
    ending = _ending(name)
    if ending in SCANNED or (ending in UNREAD_SHAPES and ending in mesh_suffixes()):
        return True
    if ending in UNREAD_SHAPES or os.path.splitext(ending)[1] in PACKED:
        unread.append(printable(name))
    return False


def _ending(name: str) -> str:
    """The ending of a file's name in lower case; of a packed shape both endings, as .ply.gz."""
    stem, last = os.path.splitext(name.lower())
    before = os.path.splitext(stem)[1]
    return before + last if last in PACKED and before in SCANNED | UNREAD_SHAPES else last


def _list_local(path: Path, apart_from: str, unread: list[str]) -> Iterator[ShapeFile]:
    path = path.absolute()  # the worker has another working directory
    if path.is_dir():
        return (
            ShapeFile(id_of_path(name), str(path / name), _stamp(path / name))
            for name in _walk_folder(path, apart_from, unread)
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; name a folder of shapes, a list of them or a URL."
        )
    if path.suffix.lower() not in LISTS:
        raise ValueError(
            f"{path} is neither a folder nor a list (.txt or .csv); fit one shape with nstr3d fit."
        )
    return _read_list(path.read_bytes(), str(path), str(path.parent))


def _walk_folder(top: Path, apart_from: str, unread: list[str]) -> Iterator[str]:
    """The paths of the shapes below ``top``, relative to it.

    Linked folders are visited after real ones, so that a shape is found under its real path.
    """
    apart = apart_from and is_local(apart_from)
    seen = {os.path.realpath(local_path(apart_from))} if apart else set()
    waiting = [top]
    while waiting:
        folder = waiting.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        entries = sorted(
            (entry for entry in os.scandir(folder) if not entry.name.startswith(".")),
            key=lambda e: e.name,
        )
        below = [
            entry for entry in entries if os.path.isdir(entry.path)
        ]  # DirEntry.is_dir raises for a link to itself
        waiting = (
            [Path(e.path) for e in below if not e.is_symlink()]
            + waiting
            + [Path(e.path) for e in below if e.is_symlink()]
        )
        for entry in entries:
            name = os.path.relpath(entry.path, top).replace(os.sep, "/")
            if not os.path.isdir(entry.path) and _is_shape(name, unread):
                yield name


def _list_url(url: str, apart_from: str, unread: list[str]) -> Iterator[ShapeFile]:
    fs, root = filesystem(url)
    if fs.isdir(root):
        skipped = _below(fs, apart_from)
        for path, info in fs.find(root, detail=True).items():
            name = path[len(root) :].strip("/")
            hidden = any(part.startswith(".") for part in name.split("/"))
            if skipped is not None and path.startswith(skipped):
                continue
            if not hidden and _is_shape(name, unread):
                yield ShapeFile(id_of_path(name), _absolute(name, url), remote_stamp(info))
        return
    if os.path.splitext(root)[1].lower() not in LISTS:
        raise ValueError(f"{url} is neither a folder with files in it nor a list (.txt or .csv).")
    yield from _read_list(fs.cat_file(root), url, url.rpartition("/")[0])


def _below(fs: Any, apart_from: str) -> str | None:
    """The start of all paths of the file system ``fs`` below the folder ``apart_from``, None if
    that is elsewhere."""
    if not apart_from or is_local(apart_from):
        return None
    other, folder = filesystem(apart_from)
    return f"{folder}/" if other == fs else None


def _read_list(data: bytes, source: str, folder: str) -> Iterator[ShapeFile]:
    if len(data) > LARGEST:
        raise ValueError(f"{source} is a list of {len(data):,} bytes; split it.")
    for number, (name, path, fault) in enumerate(_parse_list(data, source), 1):
        try:
            if fault or (fault := fault_of_id(name) if name else ""):
                raise ValueError(fault)
            shape = _listed(name, path, folder)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            reason = f"{source}, row {number}: {one_line(error).rstrip('.')}."
            yield ShapeFile(id_of_refused(name, path), printable(path), "", reason)
        else:
            yield shape


def _listed(name: str, path: str, folder: str) -> ShapeFile:
    place = path if not is_local(path) or os.path.isabs(path) else _absolute(path, folder)
    chosen = name or _make_id(place, folder)
    if is_local(place):
        place = os.path.normpath(local_path(place))
        return ShapeFile(chosen, place, _stamp(Path(place)))
    fs, at = filesystem(place)
    try:
        return ShapeFile(chosen, place, remote_stamp(fs.info(at)))
    except FileNotFoundError:
        return ShapeFile(chosen, place, "")


def _parse_list(data: bytes, source: str) -> Iterator[tuple[str, str, str]]:
    """The id (empty if the list gives none), the path and the fault (empty if there is none) of
    each row of a list."""
    text = data.decode("utf-8-sig", errors="surrogateescape")
    if not source.lower().endswith(".csv"):
        lines = (line.strip() for line in text.splitlines())
        yield from (("", line, "") for line in lines if line and not line.startswith("#"))
        return
    rows = csv.DictReader(io.StringIO(text))
    try:
        names = rows.fieldnames or ()
    except csv.Error as error:
        raise ValueError(f"{source} has no readable first row ({error}).") from error
    if "path" not in names:
        raise ValueError(
            f"{source} has no column named path; add it, and a column id to name the shapes."
        )
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield "", f"line {rows.line_num}", str(error)
            continue
        if row is None:
            return
        if row["path"]:
            yield row.get("id") or "", row["path"], ""


def _absolute(path: str, folder: str) -> str:
    return f"{folder.rstrip('/')}/{path}"


def _make_id(place: str, folder: str) -> str:
    """The id of a shape: its path below ``folder``, or its whole path if it is elsewhere."""
    if is_local(place):
        place = os.path.normpath(local_path(place))
    below = place.removeprefix(local_path(folder).rstrip("/") + "/")
    return id_of_path(below.partition("://")[2] or below)


def _stamp(path: Path) -> str:
    try:
        return local_stamp(path)
    except (OSError, ValueError):  # a broken link or a NUL: the fit of the shape will report it
        return ""
