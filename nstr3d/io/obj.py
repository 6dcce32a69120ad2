"""Polygons from OBJ text."""

from __future__ import annotations

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

# The counts of Open3D and MeshLab in the comments before the first statement.
PROMISE = re.compile(rb"(?i)# *(?:number of )?(?:faces|triangles) *: *(\d+)")
STATEMENT = re.compile(rb"(?:[vf]|fo) ")


def read_obj(path: Path) -> Polygons:
    """The vertices and polygons of an OBJ file.

    Only the statements ``v``, ``f`` and ``fo`` (an old name of ``f``) count. Numbers after x, y and
    z, such as colours, are ignored, and so are texture coordinates, normals, groups, materials,
    lines and points. Raises `ContentError` for text that is not numbers, a vertex of fewer than 3
    numbers, a face with an index of no vertex, and a file that is cut in its last line.
    """
    text = _statements(path)
    buffer = np.frombuffer(text + b"\n", np.uint8).copy()  # the last byte is no line's: a guard
    starts = line_starts(buffer[:-1])
    has_argument = buffer[starts + 1] <= BLANK  # a blank, or the end of a line without numbers
    is_vertex, is_face = (has_argument & (buffer[starts] == ord(letter)) for letter in "vf")
    buffer[starts[is_vertex | is_face]] = ord(" ")
    lines = np.flatnonzero(is_vertex), np.flatnonzero(is_face)
    vertices = _vertices(select_lines(buffer[:-1], starts, is_vertex), lines[0], path)
    corners, counts = _indices(select_lines(buffer[:-1], starts, is_face), lines[1], path)
    before = np.repeat(np.cumsum(is_vertex)[is_face], counts)  # vertices above the face's line
    resolved = np.where(corners < 0, corners + before, corners - 1)
    _check_indices(corners, resolved, counts, lines[1], len(vertices), path)
    ended, promised = _edges(path)
    ended = ended or not is_face[-1]
    if not ended:
        _check_last(text[starts[-1] :], path)
    notes = _cut_notes(ended, promised, resolved, counts, len(vertices), path)
    return Polygons(vertices, resolved, counts, (*_left_out(text), *notes))


def _edges(path: Path) -> tuple[bool, int]:
    """Whether the last line of a file has an end, and the count of faces that the comments before
    its first statement promise, 0 if they promise none."""
    with open(path, "rb") as file:
        head = file.read(1 << 12)
        file.seek(-min(2, path.stat().st_size), 2)  # a line end of UTF-16 has two bytes
        tail = file.read()
    comments = re.match(rb"(?:\s*(?:#[^\r\n]*)?[\r\n])*", head.removeprefix(b"\xef\xbb\xbf"))
    promises = PROMISE.findall(comments.group()) if comments else []
    return b"\n" in tail or b"\r" in tail, sum(map(int, promises))


def _check_last(line: bytes, path: Path) -> None:
    """Raises `ContentError` for a face in a last line without end, where the line says that it is
    cut: it has fewer than 3 corners, or corners of two forms."""
    words = line.split()[1:]
    forms = {re.sub(rb"\d+", b"0", word.replace(b"-", b"")) for word in words}
    if len(words) < 3 or len(forms) > 1:
        raise ContentError(
            f"{path} ends within a face, {line.strip().decode()[-40:]!r}, so it is cut short; "
            "export it again"
        )


def _cut_notes(
    ended: bool,
    promised: int,
    corners: np.ndarray,
    counts: np.ndarray,
    held: int,
    path: Path,
) -> list[str]:
    """Notes on signs that a file is cut short between two faces or two digits. Raises
    `ContentError` if two of the signs agree."""
    faces = max(int((counts >= 3).sum()), int((counts - 2).clip(0).sum()))
    if faces < promised:
        numbers = f"promises {promised} faces in its comments but holds {faces}"
        if not ended:
            raise ContentError(
                f"{path} {numbers}, and its last face has no line end; export it again"
            )
        return [f"it {numbers}; it may be cut short"]
    unused = held - len(np.unique(corners)) if not ended and len(corners) else 0
    text = f"its last face has no line end, and {unused} of {held} vertices belong to no face"
    return [f"{text}; it may be cut short"] if unused else []


def _statements(path: Path) -> bytes:
    """The text with each vertex and face on one line."""
    text = clean_text(path, "OBJ", b"#")
    if b"\\" in text:
        text = _joined(text, path) + b"\n"
    if text.startswith(b"fo ") or b"\nfo " in text:
        text = re.sub(rb"^fo ", b"f  ", text, flags=re.MULTILINE)
    return text


def _joined(text: bytes, path: Path) -> bytes:
    """``text`` with vertices and faces that a reverse solidus continues on the next line joined.
    Names that end in a reverse solidus, such as folders of Windows, continue nothing."""
    pieces, place = [], 0
    for end in re.finditer(rb"\\ *\n", text):
        start = text.rfind(b"\n", 0, end.start()) + 1
        if not (start and start == place) and not STATEMENT.match(text, start):
            continue
        if text[end.start() - 1] == ord("/"):
            line = text.count(b"\n", 0, start) + 1
            raise ContentError(
                f"{path}: line {line} ends within a corner of a face; export it again with each "
                "face on one line"
            )
        pieces += [text[place : end.start()], b" "]
        place = end.end()
    return b"".join([*pieces, text[place:]])


def _left_out(text: bytes) -> tuple[str, ...]:
    """Notes about statements that add surfaces and are not read."""
    surfaces = len(re.findall(rb"^(?:surf|bzp|bsp|cdp) ", text, re.MULTILINE))
    calls = len(re.findall(rb"^call ", text, re.MULTILINE))
    notes = [f"{surfaces} free-form surfaces (surf) were left out"] if surfaces else []
    return (*notes, f"{calls} other files (call) were left out") if calls else tuple(notes)


def _vertices(text: bytes, lines: np.ndarray, path: Path) -> np.ndarray:
    try:
        values, counts = parse_rows(text)
    except WordError as error:
        raise ContentError(
            f"{path}: the vertex on line {lines[error.line] + 1} holds {error.word!r}, which is "
            "not a number; export it again"
        ) from error
    if (counts < 3).any():
        row = int(np.argmax(counts < 3))
        raise ContentError(
            f"{path}: the vertex on line {lines[row] + 1} has {counts[row]} numbers, but needs x, "
            "y and z; the file is damaged or cut short"
        )
    return first_columns(values, counts, 3)


def _indices(text: bytes, lines: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The vertex indices of all faces as written, and the counts of the faces' corners."""
    if b"/" not in text:
        try:
            return parse_rows(text, np.int64)
        except WordError as error:
            raise _wrong_face(error, lines, path) from error
    parts, words = _parts(text)
    if parts:  # to replace slashes is several times as fast as the regular expression below
        try:
            values, counts = parse_rows(text.replace(b"/", b" "), np.int64)
            if len(values) == parts * words:  # no word such as 1/ lacks a number
                return values[::parts], counts // parts
        except WordError:
            pass  # the regular expression keeps the line's first wrong word as it is written
    if b" /" in text:
        line = lines[text.count(b"\n", 0, text.index(b" /"))] + 1
        raise ContentError(
            f"{path}: the face on line {line} has a corner without the number of its vertex; "
            "export it again"
        )
    try:
        return parse_rows(re.sub(rb"/[^ \n]*", b"", text), np.int64)
    except WordError as error:
        raise _wrong_face(error, lines, path) from error


def _wrong_face(error: WordError, lines: np.ndarray, path: Path) -> ContentError:
    return ContentError(
        f"{path}: the face on line {lines[error.line] + 1} holds {error.word!r}, which is not the "
        "number of a vertex; export it again"
    )


def _parts(text: bytes) -> tuple[int, int]:
    """The count of numbers of every word such as 1/2/3 or 1//3, or 0 if words differ in kind, and
    the count of words."""
    buffer = np.frombuffer(text, np.uint8)
    places = np.flatnonzero((buffer[1:] > BLANK) & (buffer[:-1] <= BLANK)) + 1
    is_slash = buffer == ord("/")
    slashes = np.add.reduceat(is_slash, places, dtype=np.uint8)
    is_slash[1:] &= is_slash[:-1]
    is_slash[0] = False
    doubles = np.add.reduceat(is_slash, places, dtype=np.uint8)
    if (slashes != slashes[0]).any() or (doubles != doubles[0]).any():
        return 0, len(places)
    return int(slashes[0]) + 1 - int(doubles[0]), len(places)


def _check_indices(
    written: np.ndarray,
    resolved: np.ndarray,
    counts: np.ndarray,
    lines: np.ndarray,
    held: int,
    path: Path,
) -> None:
    """Raises `ContentError` for the first face with an index that names none of the ``held``
    vertices. ``written`` and ``resolved`` are the indices in the file and those from 0."""
    bad = (written == 0) | (resolved < 0) | (resolved >= held)
    if not bad.any():
        return
    corner = int(np.argmax(bad))
    line = lines[np.searchsorted(np.cumsum(counts), corner, side="right")] + 1
    if written[corner] == 0:
        raise ContentError(
            f"{path}: the face on line {line} names vertex 0, but OBJ counts from 1; export it "
            "again"
        )
    is_beyond = abs(float(written[corner])) >= 2.0**62  # the parser ends at 2^63
    name = "a number beyond 2^62" if is_beyond else f"vertex {written[corner]}"
    raise ContentError(
        f"{path}: the face on line {line} names {name}, but the file has {held} vertices; it is "
        "damaged or cut short"
    )
