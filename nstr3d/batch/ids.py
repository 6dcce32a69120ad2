"""Ids of shapes: which ids a list may give, and the ids that paths get.

The files of a shape are stored in the folder of its id, so an id must not name a file of the data
set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container

from nstr3d.batch.catalogue import CATALOGUE, REPORT
from nstr3d.batch.options import LOG
from nstr3d.batch.overview import OVERVIEW
from nstr3d.jobs.results import COMPRESSED, MESH, MODEL, PICTURE

LONGEST = 200  # bytes of a part of an id; file systems allow 255
LONGEST_ID = 1000  # bytes of an id; paths may have 4096, and the folder of the data set comes first
FILES = {REPORT, MODEL, COMPRESSED, MESH, PICTURE, LOG}  # the files of a shape, in its folder
# No part of an id may have these names. Ids may end in mesh.ply and render.png, the names of many
# shapes, unless such an id lies in the folder of another shape.
RESERVED = {CATALOGUE, OVERVIEW, REPORT, MODEL, COMPRESSED, LOG}
RESERVED |= {f"{CATALOGUE}-{suffix}" for suffix in ("journal", "wal", "shm")}


def fault_of_id(name: str) -> str:
    """Why ``name`` cannot be an id, as a clause, or an empty string if it can."""
    parts = name.split("/")
    size = len(name.encode("utf-8", "surrogatepass"))
    shown = repr(name if len(name) <= LONGEST else name[:LONGEST] + "...")
    if size > LONGEST_ID:
        return f"the id {shown} takes {size:,} bytes and may take {LONGEST_ID:,}"
    if reserved := [part for part in parts if part.casefold() in RESERVED]:
        return f"the id {shown} is reserved: {reserved[0]} names a file of the data set"
    dotted = any(not part or part.startswith(".") for part in parts)
    if dotted or printable(name) != name or "\\" in name:
        return (
            f"the id {shown} cannot name a folder; use printable parts of 1 to {LONGEST} bytes, "
            "without backslashes and without a dot at the start"
        )
    return ""


def stays_inside(name: object) -> bool:
    """Whether ``name`` is a relative path into a folder, as every id is."""
    return isinstance(name, str) and not any(
        not part or part.startswith(".") for part in name.split("/")
    )


def id_of_path(path: str) -> str:
    """The id of a shape with this relative path: `printable`, with an underscore in front of a
    reserved part. An id that is too long is cut and ends in a hash."""
    parts = [
        f"_{part}" if part.casefold() in RESERVED else part for part in printable(path).split("/")
    ]
    name = "/".join(parts)
    if len(name.encode()) <= LONGEST_ID:
        return name
    while len("/".join(parts).encode()) > LONGEST_ID - 18:
        parts.pop()
    return "/".join([*parts, _hash(name)])


def id_of_refused(name: str, path: str) -> str:
    """The id under which the row of a list is reported that has no valid id of its own."""
    return f"refused{_hash(f'{name} {path}')}"


def inner_file(name: str, ids: Container[str]) -> str:
    """The id among ``ids`` whose shape has a file at the path ``name`` or above it, else empty."""
    parts = name.split("/")
    for end in range(1, len(parts)):
        outer = "/".join(parts[:end])
        if parts[end].casefold() in FILES and outer in ids:
            return outer
    return ""


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
    return data[: LONGEST - 17].decode(errors="ignore") + _hash(part)


def _hash(text: str) -> str:
    """A tilde and 16 hexadecimal digits that depend on ``text``."""
    return "~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
