"""Which shapes a data set is made of, and what they are called: from a folder, a list or a URL.

A shape's id is its path below the folder, suffix included: unique because paths are, readable, and
the same whatever else is there. Results lie under it, so they mirror the input's folders.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nstr3d.batch.store import filesystem, is_local, local_path, local_stamp, remote_stamp

CLOUDS = {".xyz", ".pts", ".asc", ".pcd", ".npy", ".npz", ".las", ".laz", ".txt", ".csv"}
MESHES = {".obj", ".ply", ".stl", ".off", ".glb", ".gltf"}
LISTS = {".txt", ".csv", ".lst"}
SCANNED = (
    CLOUDS - LISTS
) | MESHES  # text beside shapes is mostly about them: clouds in it must be listed
LONGEST = 200  # bytes of a part of an id: file systems allow 255


@dataclass(frozen=True)
class ShapeFile:
    """One shape: its ``id``, its ``place`` (a local path or a URL), and a ``stamp`` that changes
    when the file does, empty where there is no file."""

    id: str
    place: str
    stamp: str


def find_shapes(source: str, apart_from: str = "") -> list[ShapeFile]:
    """The shapes of ``source``, ordered by id: a folder, searched recursively, a list (.txt: a path
    per line; .csv: a column ``path`` and, if you want to name them, ``id``), or a URL of either.
    Paths in a list are relative to it.

    Folders and files whose names start with a dot and the folder ``apart_from`` are left out; each
    folder is entered once, whatever links lead to it. Raises FileNotFoundError or ValueError with
    one sentence.
    """
    shapes = (
        _at_url(source) if not is_local(source) else _here(Path(local_path(source)), apart_from)
    )
    found: dict[str, ShapeFile] = {}
    for shape in shapes:
        other = found.setdefault(shape.id, shape)
        if other.place != shape.place:
            raise ValueError(
                f"{source}: {other.place} and {shape.place} have the same id {shape.id}; name "
                "them apart."
            )
    if not found:
        raise ValueError(
            f"{source} holds no shapes: none of its files ends in {', '.join(sorted(SCANNED))}."
        )
    return [found[name] for name in sorted(found)]


def in_shard(shape_id: str, index: int, count: int) -> bool:
    """Whether a shape belongs to part ``index`` of ``count``, counted from 1: decided by its id
    alone, so for good."""
    return (
        int.from_bytes(hashlib.sha256(shape_id.encode()).digest()[:8], "big") % count == index - 1
    )


def _here(path: Path, apart_from: str) -> Iterator[ShapeFile]:
    path = path.absolute()  # whoever fits it may be elsewhere
    if path.is_dir():
        return (
            ShapeFile(printable(name), str(path / name), _stamp(path / name))
            for name in _walk(path, apart_from)
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; name a folder of shapes, a list of them or a URL."
        )
    if path.suffix.lower() not in LISTS:
        raise ValueError(
            f"{path} is neither a folder nor a list (.txt or .csv); fit one shape with nstr3d fit."
        )
    return _listed(path.read_bytes(), str(path), str(path.parent))


def _walk(top: Path, apart_from: str) -> Iterator[str]:
    """Paths of shapes below ``top``, relative to it; real folders before links to them."""
    seen = {os.path.realpath(apart_from)} if apart_from and is_local(apart_from) else set()
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
        ]  # a link to itself makes is_dir raise
        waiting = (
            [Path(e.path) for e in below if not e.is_symlink()]
            + waiting
            + [Path(e.path) for e in below if e.is_symlink()]
        )
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in SCANNED and not os.path.isdir(entry.path):
                yield os.path.relpath(entry.path, top).replace(os.sep, "/")


def _at_url(url: str) -> Iterator[ShapeFile]:
    fs, root = filesystem(url)
    if fs.isdir(root):
        for path, info in fs.find(root, detail=True).items():
            name = path[len(root) :].strip("/")
            hidden = any(part.startswith(".") for part in name.split("/"))
            if not hidden and os.path.splitext(name)[1].lower() in SCANNED:
                yield ShapeFile(printable(name), _absolute(name, url), remote_stamp(info))
        return
    if os.path.splitext(root)[1].lower() not in LISTS:
        raise ValueError(f"{url} is neither a folder with files in it nor a list (.txt or .csv).")
    yield from _listed(fs.cat_file(root), url, url.rpartition("/")[0])


def _listed(data: bytes, source: str, folder: str) -> Iterator[ShapeFile]:
    for number, (name, path) in enumerate(_entries(data, source), 1):
        place = path if not is_local(path) or os.path.isabs(path) else _absolute(path, folder)
        chosen = _checked(name, source, number) if name else _id_of(place, folder)
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


def _entries(data: bytes, source: str) -> Iterable[tuple[str, str]]:
    """Ids, where given, and paths of a list."""
    text = data.decode("utf-8-sig", errors="surrogateescape")
    if not source.lower().endswith(".csv"):
        lines = (line.strip() for line in text.splitlines())
        return [("", line) for line in lines if line and not line.startswith("#")]
    rows = csv.DictReader(io.StringIO(text))
    if "path" not in (rows.fieldnames or ()):
        raise ValueError(
            f"{source} has no column named path; give it one, and a column id to name the shapes."
        )
    return [(row.get("id") or "", row["path"]) for row in rows if row["path"]]


def _absolute(path: str, folder: str) -> str:
    return f"{folder.rstrip('/')}/{path}"


def _id_of(place: str, folder: str) -> str:
    """The path below ``folder``; of what lies elsewhere, the whole path."""
    if is_local(place):
        place = os.path.normpath(local_path(place))
    below = place.removeprefix(local_path(folder).rstrip("/") + "/")
    return printable(below.partition("://")[2] or below)


def _checked(name: str, source: str, number: int) -> str:
    parts = name.split("/")
    if (
        any(not part or part.startswith(".") for part in parts)
        or printable(name) != name
        or "\\" in name
    ):
        raise ValueError(
            f"{source}, row {number}: the id {name!r} cannot name a folder; no part may be empty "
            "or start with a dot."
        )
    return name


def printable(name: str) -> str:
    """``name`` as text that every file system and encoding takes: bytes that are no UTF-8 and
    control characters are spelt out, parts that are too long end in a hash, and none is hidden by a
    dot at its start."""
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
    except OSError:  # a link to nothing: the shape's own fit will say so
        return ""
