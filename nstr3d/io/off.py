"""Polygons from OFF text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.numbers import whole_numbers
from nstr3d.io.polygons import Polygons
from nstr3d.io.textlines import (
    WordError,
    clean_text,
    first_columns,
    line_starts,
    parse_rows,
    select_lines,
)

# Letters before OFF name columns after x, y and z; 4 and n change the meaning of the columns.
# NOFF has normals and nOFF has n dimensions.
BINARY = re.compile(rb"(?i)\s*\w*OFF\s+BINARY")
KEYWORD = re.compile(rb"\s*((?:ST)?C?N?)(4?n?)OFF(?![a-z])", re.IGNORECASE)
# The counts of vertices, faces and edges, on one line or on three.
COUNTS = re.compile(rb"(\d+) +(\d+)( +\d+)? *\n|(\d+) *\n(\d+) *\n\d+ *\n")


def read_off(path: Path) -> Polygons:
    """The vertices and polygons of an OFF file, with or without the keyword on its first line.

    Numbers after x, y and z and after the indices of a face, such as colours, are ignored. Raises
    `ContentError` for another count of lines than the file promises, for text that is not numbers,
    and for OFF in 4 or n dimensions and binary OFF.
    """
    return read_off_colours(path)[0]


def read_off_colours(path: Path) -> tuple[Polygons, np.ndarray | None, np.ndarray | None]:
    """The polygons of `read_off`, and the colours ``(v, 3)`` of the vertices, if the keyword
    promises them, and ``(f, 3)`` of the faces, if there are three or four numbers behind each: as
    they are written, None if there are none. Raises the errors of `read_off`."""
    with open(path, "rb") as file:
        if BINARY.match(file.read(64)):
            raise ContentError(f"{path} is binary OFF; export it as OFF text or PLY")
    text = clean_text(path, "OFF", b"#")
    keyword = KEYWORD.match(text)
    if keyword:
        if keyword[2] or keyword[0].endswith(b"nOFF"):
            raise ContentError(f"{path} is OFF in 4 or n dimensions; export it in 3 dimensions")
        text = text[keyword.end() :]
    text = re.sub(rb"\n+", b"\n", text.lstrip())
    counts = COUNTS.match(text)
    if not counts:
        raise ContentError(
            f"{path} could not be read as OFF: it does not begin with its counts of vertices and "
            "faces; it is damaged, or of another format"
        )
    points, faces = (int(counts[k] or counts[k + 3]) for k in (1, 2))
    letters = keyword[1].upper() if keyword else b""
    before = 3 + 3 * (b"N" in letters) if b"C" in letters else 0
    return _body(text[counts.end() :], points, faces, path, before)


def _body(
    text: bytes, points: int, faces: int, path: Path, before: int
) -> tuple[Polygons, np.ndarray | None, np.ndarray | None]:
    """The polygons and colours of the lines after the counts of ``points`` and ``faces``. The
    colour of a vertex is ``before`` numbers from the start of its line, 0 for no colour."""
    buffer = np.frombuffer(text, np.uint8)
    starts = line_starts(buffer) if text else np.zeros(0, np.int64)
    rows = np.arange(len(starts))
    if len(rows) != points + faces:
        if free := _free_form(text, points, faces, path):
            return free, None, None
        fault = "it is cut short" if len(rows) < points + faces else "its counts are wrong"
        raise ContentError(
            f"{path} promises {points} vertices and {faces} faces but holds {len(rows)} lines of "
            f"them; {fault}"
        )
    try:
        values, widths = parse_rows(select_lines(buffer, starts, rows < points))
        indices, sizes = parse_rows(select_lines(buffer, starts, rows >= points))
    except WordError as error:
        raise ContentError(f"{path}: {error.word!r} is not a number; export it again") from error
    if (widths < 3).any():
        row = int(np.argmax(widths < 3))
        raise ContentError(
            f"{path}: vertex {row} has {widths[row]} numbers, but needs x, y and z; the file is "
            "damaged or cut short"
        )
    counts = first_columns(indices, sizes, 1)[:, 0]
    counts = whole_numbers(counts, "a face with a count of vertices", path)
    short = (sizes <= counts) | (counts < 0)
    if short.any():
        row = int(np.argmax(short))
        raise ContentError(
            f"{path}: face {row} promises {counts[row]} vertices but names {sizes[row] - 1}; the "
            "file is damaged or cut short"
        )
    # A line is its count, the indices, and perhaps a colour.
    places = np.arange(len(indices)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_index = (places > 0) & (places <= np.repeat(counts, sizes))
    corners = whole_numbers(indices[is_index], "a vertex index", path)
    content = Polygons(first_columns(values, widths, 3), corners, counts)
    vertex = None
    if before and points and (widths >= before + 3).all():
        vertex = first_columns(values, widths, before + 3)[:, before:]
    extra, face = sizes - counts - 1, None
    if faces and np.isin(extra, (3, 4)).all():
        first = np.cumsum(sizes) - sizes + counts + 1
        face = indices[first[:, None] + np.arange(3)]
    return content, vertex, face


def _free_form(text: bytes, points: int, faces: int, path: Path) -> Polygons | None:
    """The polygons of a text whose lines end anywhere, without normals and colours; None if its
    numbers are not exactly those of ``points`` vertices and ``faces`` faces."""
    try:
        values, _ = parse_rows(text)
    except WordError:
        return None
    place, rows = 3 * points, values.tolist()
    is_corner = np.zeros(len(rows), bool)
    counts: list[int] = []
    while place < len(rows) and len(counts) < faces:
        size = rows[place]
        if not (size.is_integer() and 0 <= size < len(rows) - place):
            return None
        counts.append(int(size))
        is_corner[place + 1 : place + 1 + counts[-1]] = True
        place += 1 + counts[-1]
    if place != len(rows) or len(counts) != faces:
        return None
    corners = whole_numbers(values[is_corner], "a vertex index", path)
    return Polygons(values[: 3 * points].reshape(-1, 3), corners, np.array(counts, np.int64))
