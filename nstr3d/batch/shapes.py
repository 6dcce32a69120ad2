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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstr3d.batch.store import filesystem, is_local, local_path, remote_stamp
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.io.folder import local_stamp
from nstr3d.io.kinds import UNREAD_SHAPES
from nstr3d.io.mesh import mesh_suffixes

CLOUDS = CLOUD_SUFFIXES - {".ply"}
MESHES = {".obj", ".ply", ".stl", ".off", ".glb", ".gltf"}
LISTS = {".txt", ".csv", ".lst"}
PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}  # a shape inside such a file is not read
# Text files beside shapes mostly describe the shapes, so a cloud in a text file must be listed.
SCANNED = (CLOUDS - LISTS) | MESHES
LONGEST = 200  # bytes of a part of an id; file systems allow 255


@dataclass(frozen=True)
class ShapeFile:
    """One shape: its ``id``, its ``place`` (a local path or a URL) and its ``stamp``.

    The stamp changes when the file does; it is empty if there is no file.
    """

    id: str
    place: str
    stamp: str


def find_shapes(
    source: str, apart_from: str = "", unread: list[str] | None = None
) -> list[ShapeFile]:
    """The shapes of ``source``, ordered by id.

    ``source`` is a folder, searched recursively, a list, or a URL of either. A list is a .txt or
    .lst file with one path per line, or a .csv file with a column ``path`` and, to name the shapes,
    a column ``id``. Paths in a list are relative to it. Folders and files whose names start with a
    dot and the folder ``apart_from`` are skipped. Each folder is entered once, even if links lead
    to it. Files of the folder that hold a shape in a format that is not read are appended to
    ``unread``, as paths below the folder. Raises FileNotFoundError if ``source`` does not exist,
    and ValueError if it is neither a folder nor a valid list, holds no shapes, or gives two shapes
    one id.
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
            raise ValueError(
                f"{source}: {other.place} and {shape.place} have the same id {shape.id}; give "
                "them different ids."
            )
    if not by_id:
        others = f" {describe_unread(unread)}" if unread else ""
        raise ValueError(
            f"{source} holds no shapes: none of its files ends in {', '.join(sorted(SCANNED))}. "
            f"Name clouds in text files ({', '.join(sorted(LISTS & CLOUDS))}) in a list.{others}"
        )
    return [by_id[name] for name in sorted(by_id)]


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
            ShapeFile(printable(name), str(path / name), _stamp(path / name))
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
                yield ShapeFile(printable(name), _absolute(name, url), remote_stamp(info))
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
    for number, (name, path) in enumerate(_parse_list(data, source), 1):
        place = path if not is_local(path) or os.path.isabs(path) else _absolute(path, folder)
        chosen = _check_id(name, source, number) if name else _make_id(place, folder)
        if is_local(place):
            place = os.path.normpath(local_path(place))
            yield ShapeFile(chosen, place, _stamp(Path(place)))
        else:
            fs, at = filesystem(place)
            try:
                stamp = remote_stamp(fs.info(at))
            except FileNotFoundError:
                stamp = ""
            yield ShapeFile(chosen, place, stamp)


def _parse_list(data: bytes, source: str) -> Iterable[tuple[str, str]]:
    """Pairs of id (empty if the list gives none) and path, from the bytes of a list."""
    text = data.decode("utf-8-sig", errors="surrogateescape")
    if not source.lower().endswith(".csv"):
        lines = (line.strip() for line in text.splitlines())
        return [("", line) for line in lines if line and not line.startswith("#")]
    rows = csv.DictReader(io.StringIO(text))
    if "path" not in (rows.fieldnames or ()):
        raise ValueError(
            f"{source} has no column named path; add it, and a column id to name the shapes."
        )
    return [(row.get("id") or "", row["path"]) for row in rows if row["path"]]


def _absolute(path: str, folder: str) -> str:
    return f"{folder.rstrip('/')}/{path}"


def _make_id(place: str, folder: str) -> str:
    """The id of a shape: its path below ``folder``, or its whole path if it is elsewhere."""
    if is_local(place):
        place = os.path.normpath(local_path(place))
    below = place.removeprefix(local_path(folder).rstrip("/") + "/")
    return printable(below.partition("://")[2] or below)


def _check_id(name: str, source: str, number: int) -> str:
    parts = name.split("/")
    if (
        any(not part or part.startswith(".") for part in parts)
        or printable(name) != name
        or "\\" in name
    ):
        raise ValueError(
            f"{source}, row {number}: the id {name!r} cannot name a folder; use printable parts of "
            f"1 to {LONGEST} bytes, without backslashes and without a dot at the start."
        )
    return name


def printable(name: str) -> str:
    """``name`` as a path that every file system and encoding accepts.

    Bytes that are not UTF-8 and control characters become escape sequences. A part longer than
    `LONGEST` bytes is cut and ends in a hash. A part that starts with a dot gets an underscore in
    front, so that it is not hidden. Empty parts are dropped.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "/".join(
        _shortened("_" + part if part.startswith(".") else part) for part in text.split("/") if part
    )


def _shortened(part: str) -> str:
    data = part.encode()
    if len(data) <= LONGEST:
        return part
    return (
        data[: LONGEST - 17].decode(errors="ignore") + "~" + hashlib.sha256(data).hexdigest()[:16]
    )


def _stamp(path: Path) -> str:
    try:
        return local_stamp(path)
    except OSError:  # a broken link: the fit of the shape will report it
        return ""
