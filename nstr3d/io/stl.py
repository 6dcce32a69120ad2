"""Triangles from binary and text STL."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.polygons import Polygons
from nstr3d.io.textlines import (
    BLANK,
    WordError,
    clean_text,
    first_columns,
    line_starts,
    parse_rows,
    select_lines,
)

HEADER = 84  # bytes before the first facet; the last 4 are the count of facets
FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
UNSET = (0, 0xFFFFFFFF)  # counts of writers that do not know how many facets will follow


def read_stl(path: Path) -> Polygons:
    """The triangles of an STL file, without shared vertices.

    Normals, attributes and names are ignored. A binary file may have bytes after its facets and may
    leave its count unset. A text may lack its last line if its facets are complete. Raises
    `ContentError` for a file that is cut short, in both forms, and for a binary file whose length
    contradicts its count.
    """
    if _is_text(path):
        return _read_text(path)
    data = path.read_bytes()
    facets, notes = [], []
    while len(data) >= HEADER:  # some programs write one whole STL after another
        held, note = _facet_count(data, path)
        notes += [note] if note else []
        facets.append(np.frombuffer(data, FACET, held, HEADER)["corners"])
        data = data[HEADER + held * FACET.itemsize :]
        if not _is_whole(data):
            break
    if not facets:
        raise ContentError(
            f"{path} could not be read as STL: it is damaged, or of another format; export it again"
        )
    vertices = np.concatenate(facets).reshape(-1, 3).astype(np.float64)
    count = len(vertices) // 3
    return Polygons(vertices, np.arange(len(vertices)), np.full(count, 3), tuple(notes))


def _is_text(path: Path) -> bool:
    """Whether the file is text: its length is not that of a binary STL, and its start has the words
    of a text STL and no byte 0."""
    with open(path, "rb") as file:
        head = file.read(1 << 12)
    promised = int.from_bytes(head[80:HEADER], "little")
    if len(head) >= HEADER and path.stat().st_size == HEADER + promised * FACET.itemsize:
        return False
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    return wide or (b"\0" not in head and re.search(rb"(?i)\bsolid|\bfacet", head) is not None)


def _is_whole(data: bytes) -> bool:
    """Whether ``data`` has the length of a binary STL of at least one facet, by its own count."""
    promised = int.from_bytes(data[80:HEADER], "little")
    return promised > 0 and len(data) == HEADER + promised * FACET.itemsize


def _facet_count(data: bytes, path: Path) -> tuple[int, str]:
    """The count of facets of a binary STL, and a note if the count is not that of the header."""
    promised = int.from_bytes(data[80:HEADER], "little")
    held, extra = divmod(len(data) - HEADER, FACET.itemsize)
    if promised in UNSET and extra == 0:
        unset = f"its header counts {promised} facets, and all {held} were read"
        return held, unset if held else ""
    if held < promised:
        raise ContentError(
            f"{path} could not be read as STL: it promises {promised} facets but holds {held}; it "
            "is cut short, damaged, or of another format"
        )
    rest = data[HEADER + promised * FACET.itemsize :]
    if len(rest) >= FACET.itemsize and any(rest) and not _is_whole(rest):
        raise ContentError(
            f"{path}: its header promises {promised} facets, but {len(rest)} bytes follow them, "
            f"room for {held - promised} more; export it again"
        )
    return promised, ""


def _read_text(path: Path) -> Polygons:
    text = clean_text(path, "STL").lower()
    if b"\nend " in text:
        text = re.sub(rb"^end +(?=(?:loop|facet|solid)\b)", b"end", text, flags=re.MULTILINE)
    if b"\nfacet" not in text:
        return _facets(_one_keyword_a_line(text), path)
    try:
        return _facets(text, path)
    except ContentError:  # lines may end anywhere
        with contextlib.suppress(ContentError):
            return _facets(_one_keyword_a_line(text), path)
        raise


def _one_keyword_a_line(text: bytes) -> bytes:
    """The text with a line end before each keyword, and before no other word. The names of solids
    are left out where they end their line."""
    solid = rb"^((?:end)?solid)\b(?![^\n]*\bfacet )[^\n]*"
    words = b" ".join(re.sub(solid, rb"\1", text, flags=re.MULTILINE).split())
    keyword = rb" (?=(?:facet|outer|vertex|endloop|endfacet|endsolid|solid)\b)"
    return re.sub(keyword, b"\n", words) + b"\n"


def _facets(text: bytes, path: Path) -> Polygons:
    """The polygons of a text whose keywords begin lines."""
    buffer = np.frombuffer(text + b"\0" * 9, np.uint8)
    starts = line_starts(buffer[:-9])
    words = b"vertex ", b"facet", b"endloop", b"endfacet", b"endsolid"
    is_vertex, is_facet, is_end, is_done, is_close = (
        _begins(buffer, starts, word) for word in words
    )
    lines = np.flatnonzero(is_vertex)
    body = buffer[:-9].copy()
    body[starts[is_vertex][:, None] + np.arange(len(b"vertex"))] = ord(" ")
    try:
        values, widths = parse_rows(select_lines(body, starts, is_vertex))
    except WordError as error:
        raise ContentError(
            f"{path}: the vertex on line {lines[error.line] + 1} holds {error.word!r}, which is "
            "not a number; export it again"
        ) from error
    bounds = np.searchsorted(lines, np.flatnonzero(is_end))
    counts = np.diff(bounds, prepend=0)
    last = np.flatnonzero(is_facet)[-1:]
    is_closed = len(last) == 0 or is_close[last[0] :].any()
    whole = is_facet.sum() == len(counts) and counts.sum() == len(lines) and (widths == 3).all()
    is_done &= buffer[starts + len(b"endfacet")] <= BLANK
    if not whole or (counts < 3).any() or not (is_closed or is_done.sum() == len(counts)):
        raise ContentError(
            f"{path} could not be read as STL: it begins {is_facet.sum()} facets, but "
            f"{(counts >= 3).sum()} are complete and {is_close.sum()} lines say endsolid; it is "
            "damaged or cut short"
        )
    note = f"it does not end in endsolid; its {len(counts)} facets, all complete, were read"
    notes = () if is_closed else (note,)
    return Polygons(first_columns(values, widths, 3), np.arange(len(lines)), counts, notes)


def _begins(buffer: np.ndarray, starts: np.ndarray, word: bytes) -> np.ndarray:
    """Whether each line begins with ``word``. ``buffer`` has room for ``word`` after its lines."""
    result = np.ones(len(starts), bool)
    for offset, letter in enumerate(word):
        result &= buffer[starts + offset] == letter
    return result
