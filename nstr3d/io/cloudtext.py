"""Points in text: XYZ, CSV, PTS and others, with or without a count, a header and comments."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nstr3d.io.columns import Columns, by_names, by_values, find_roles, names_an_axis
from nstr3d.io.errors import ContentError
from nstr3d.io.numbers import number, number_rows
from nstr3d.io.separators import separate

# Only after a blank or a separator, because C libraries write NaN as 1.#QNAN.
COMMENT = re.compile(r"(?:(?<=[\s,;])|^)(?:#|//).*", re.MULTILINE)
SEPARATORS = re.compile(r"[,;\s]+")
UNITS = re.compile(r"\s*(?:\[[^\d\]]*\]|\([^\d)]*\))")
# First words of other formats, which have rows of three numbers too.
OTHERS = {
    "ply": "PLY", "off": "OFF", "coff": "OFF", "noff": "OFF", "solid": "STL", "ncols": "ESRI grid",
    "dsaa": "Surfer grid", "version": "landmarks", ".pcd": "PCD",
}  # fmt: skip
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass
class Head:
    """What precedes the first row: the number of points, a title or names of columns, comments."""

    lines: int = 0
    count: int | None = None
    title: str | None = None
    comments: list[str] = field(default_factory=list)


def read_cloud_text(path: Path) -> Columns:
    """The points of a text file, the normals if there are any, and how the columns were read.

    Comments begin with # or //, also after values. Before the rows there may be a line with the
    number of points and one with the names of the columns; the names may be a comment too. A file
    of several scans has a number of points before each. Raises `ContentError` for text that can be
    read in two ways or that is not rows of numbers.
    """
    lines = _decode(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    head = _read_head(lines, path)
    body = "\n".join(lines[head.lines :])
    if "#" in body or "//" in body:
        body = COMMENT.sub("", body)
    rows = [line for line in body.split("\n") if line and not line.isspace()]
    if not rows:
        raise ContentError(f"{path} holds no points")
    separation = separate(rows, path)
    rows, split = separation.rows, _splitter(separation.delimiter, '"' in body)
    width = len(split(rows[0]))
    names = _names_of(head, separation.delimiter, width, path)
    rows, promised = _joined_scans(rows, split, width, head.count, path)
    roles = None if names is None else find_roles(names, path)
    needed = None if roles is None else roles.needed
    values = number_rows(rows, width, path, split, needed, separation.delimiter)
    if promised is not None and len(values) < promised:
        raise ContentError(
            f"{path} promises {promised} points but holds {len(values)}; it is cut short"
        )
    if names is None:
        separation.check_decimals(values, path)
        columns = by_values(values, path)
    else:
        columns = by_names(values.T, names, path)
    reading = columns.reading
    if promised is not None and len(values) > promised:
        reading = reading.warned(
            f"{path} promises {promised} points but holds {len(values)}; all are used."
        )
    return replace(columns, reading=reading.warned(*separation.warnings))


def _decode(data: bytes) -> str:
    kind = next((kind for mark, kind in BOMS.items() if data.startswith(mark)), "utf-8")
    return data.decode(kind, "replace")


def _read_head(lines: Sequence[str], path: Path) -> Head:
    head = Head()
    for place, line in enumerate(lines):
        text = COMMENT.sub("", line).strip()
        if not text:
            if line.strip():
                head.comments.append(line.strip().lstrip("#/ \t"))
            continue
        words = SEPARATORS.split(text.strip(",; \t").replace('"', ""))
        if head.count is None and text.isdigit():
            head.count = int(text)
        elif head.title is None and not _is_row(words):
            head.title = text
            _refuse_others([*head.comments, text], path)
        else:
            head.lines = place
            return head
    raise ContentError(f"{path} holds no points")


def _is_row(words: Sequence[str]) -> bool:
    """Whether all words are numbers or missing values: a depth camera's first pixels may be NaN."""
    return any(words) and all(number(word) is not None for word in words)


def _refuse_others(texts: Sequence[str], path: Path) -> None:
    for text in texts:
        word = SEPARATORS.split(text.lower().strip() + " ")[0].rstrip(":")
        if word in OTHERS:
            raise ContentError(
                f"{path} has the content of another format, {OTHERS[word]}; rename it to its true "
                "format, or export rows of x y z"
            )


def _splitter(delimiter: str | None, quoted: bool) -> Callable[[str], list[str]]:
    """A function that splits a line into words. Quotes around words are removed if ``quoted``."""
    if delimiter is None:
        return (lambda line: line.replace('"', "").split()) if quoted else str.split
    if quoted:
        return lambda line: [
            word.strip()
            for word in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        ]
    return lambda line: [word.strip() for word in line.split(delimiter)]


def _names_of(head: Head, delimiter: str | None, width: int, path: Path) -> list[str] | None:
    """The names of the ``width`` columns in the title or a comment; None if there are none.

    Raises `ContentError` for a title that names a position and another number of columns, or some
    axes but not three.
    """
    texts = [*([head.title] if head.title else []), *reversed(head.comments)]
    for text in texts:
        for names in _splits(UNITS.sub("", text), delimiter):
            if len(names) == width and find_roles(names, path):
                return names
    if head.title is None:
        return None
    for names in _splits(UNITS.sub("", head.title), delimiter):
        if find_roles(names, path):
            raise ContentError(
                f"{path}: the header names {len(names)} columns ({', '.join(names)}) but the rows "
                f"have {width}; name all columns, or remove the header"
            )
        if len(names) == width and names_an_axis(names):
            raise ContentError(f"{path} has the columns {', '.join(names)}; points need x, y and z")
    return None


def _splits(text: str, delimiter: str | None) -> list[list[str]]:
    text = text.replace('"', "")
    words = [word for word in SEPARATORS.split(text) if word]
    exact = [word.strip() for word in text.split(delimiter)] if delimiter else words
    return [exact, words]


def _joined_scans(
    rows: list[str],
    split: Callable[[str], list[str]],
    width: int,
    count: int | None,
    path: Path,
) -> tuple[list[str], int | None]:
    """The rows without the numbers of points that precede each scan but the first, and the number
    of points of all scans. ``count`` is the number of the first."""
    if count is None or width == 1 or len(rows) <= count or len(split(rows[count])) != 1:
        return rows, count
    joined, promised, place = rows[:count], count, count
    while place < len(rows):
        words = split(rows[place])
        if len(words) != 1 or not words[0].isdigit():
            raise ContentError(
                f"{path}: row {place + 1} is {rows[place].strip()[:40]!r} where a scan begins, but "
                "a scan begins with its number of points; export it again"
            )
        size = int(words[0])
        joined += rows[place + 1 : place + 1 + size]
        promised, place = promised + size, place + 1 + size
    return joined, promised
