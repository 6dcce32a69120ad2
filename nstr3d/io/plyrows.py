"""Rows of an element of a PLY file, also with lists, whose rows differ in length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.numbers import number, number_rows

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2",
    "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
# A column of a table: one value for each row, or the values and the counts of a list.
Columns = dict[str, tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Element:
    """An element of a PLY header: its name, its number of rows, and the name and type words of each
    property."""

    name: str
    count: int
    properties: list[tuple[str, list[str]]]

    @property
    def has_lists(self) -> bool:
        return any(words[0] == "list" for _, words in self.properties)

    @property
    def has_known_types(self) -> bool:
        """Whether all types are those of PLY, and the counts of lists are integers."""
        for _, words in self.properties:
            is_list = words[:1] == ["list"]
            kinds = [TYPES.get(name, "") for name in words[is_list:]]
            if "" in kinds or len(kinds) != 1 + is_list or "f" in "".join(kinds[:-1]):
                return False
        return True

    @property
    def singles(self) -> list[str]:
        """The names of the properties that are no lists."""
        return [label for label, words in self.properties if words[0] != "list"]


class TextRows:
    """The tables of a text PLY with a line for each row, read one after another, without lists.

    All values are float64; words for missing values are NaN.
    """

    def __init__(self, body: bytes, path: Path) -> None:
        text = body.decode("ascii", "replace")
        self.lines = [line for line in text.splitlines() if line.strip()]
        self.path, self.place = path, 0

    def skip(self, element: Element) -> None:
        """Passes the next element by."""
        self.place += element.count if element.properties else 0

    def columns(self, element: Element) -> Columns:
        """The columns of the next element that are no lists. Raises `ContentError` for a line of
        another number of values than the header says."""
        start = self.place
        self.skip(element)
        lines = self.lines[start : self.place]
        if element.properties:
            check_count(len(lines), element, self.path)
        if element.has_lists:
            rows = [_listed_row(line, element, self.path) for line in lines]
            values = np.array(rows, np.float64).reshape(len(lines), len(element.singles))
        else:
            values = number_rows(lines, len(element.properties), self.path)
        return {label: (column, None) for label, column in zip(element.singles, values.T)}


def _listed_row(line: str, element: Element, path: Path) -> list[float]:
    """The values in ``line`` of the properties that are no lists."""
    words, place, values = line.split(), 0, []
    numbers = [number(word) for word in words]
    for _, kind in element.properties:
        value = numbers[place] if place < len(words) else None
        if value is None or (kind[0] == "list" and not (value >= 0 and value.is_integer())):
            place = len(words) + 1
            break
        if kind[0] == "list":
            place += int(value)
        else:
            values.append(value)
        place += 1
    if place != len(words) or None in numbers:
        raise ContentError(
            f"{path}: the line {line.strip()[:40]!r} does not hold the {element.name} that the "
            "header describes; export it again"
        )
    return values


class BinaryRows:
    """The tables of a binary PLY, read one after another, with the types of the header."""

    def __init__(self, body: bytes, order: str, path: Path) -> None:
        self.body, self.order, self.path, self.place = body, order, path, 0

    @property
    def left(self) -> int:
        """The bytes after the elements that have been read."""
        return len(self.body) - self.place

    def skip(self, element: Element) -> None:
        """Passes the next element by."""
        self.columns(element)

    def columns(self, element: Element) -> Columns:
        """The columns of the next element. Raises `ContentError` if it is cut short."""
        layout = [
            (label, [np.dtype(self.order + TYPES[name]) for name in words[words[0] == "list" :]])
            for label, words in element.properties
        ]
        if not layout:
            return {}
        lists = [label for label, types in layout if len(types) == 2]
        widths = self._first_row(layout) if lists and element.count else [1] * len(layout)
        if sum(widths) > len(self.body):
            return self._walk(element, layout)
        fields: list[Any] = []
        for width, (label, types) in zip(widths, layout):
            fields += [(f" {label}", types[0])]
            fields += [(f"list {label}", types[1], (width,))] if len(types) == 2 else []
        record = np.dtype(fields)
        held = (len(self.body) - self.place) // max(record.itemsize, 1)
        table = np.frombuffer(self.body, record, min(held, element.count), self.place)
        sizes = {label: width for width, (label, _) in zip(widths, layout)}
        is_even = all((table[f" {label}"] == sizes[label]).all() for label in lists)
        if lists and (not is_even or len(table) < element.count):  # later rows may be shorter
            return self._walk(element, layout)
        check_count(len(table), element, self.path)
        self.place += table.nbytes
        return {
            label: (table[f"list {label}"].ravel(), np.full(len(table), sizes[label]))
            if len(types) == 2
            else (table[f" {label}"], None)
            for label, types in layout
        }

    def _first_row(self, layout: list[tuple[str, list[np.dtype]]]) -> list[int]:
        """The lengths of the lists in the next row; 1 for numbers."""
        place, widths = self.place, []
        for _, types in layout:
            widths.append(1)
            if len(types) == 2:
                widths[-1] = self._count_at(place, types[0])
                place += types[0].itemsize
            place += widths[-1] * types[-1].itemsize
        return widths

    def _count_at(self, place: int, kind: np.dtype) -> int:
        head = self.body[place : place + kind.itemsize]
        return max(int(np.frombuffer(head, kind)[0]), 0) if len(head) == kind.itemsize else 0

    def _walk(self, element: Element, layout: list[tuple[str, list[np.dtype]]]) -> Columns:
        """The columns of rows whose lists differ in length."""
        place, end = self.place, len(self.body)
        least = sum(types[0].itemsize for _, types in layout)
        rows = min(element.count, (end - place) // least + 1)  # the last one may be cut
        starts = np.zeros((len(layout), rows), np.int64)
        counts = np.ones((len(layout), rows), np.int64)
        byte_order = "little" if self.order == "<" else "big"
        steps = [
            (types[0].itemsize if len(types) == 2 else 0, types[0].kind == "i", types[-1].itemsize)
            for _, types in layout
        ]
        for row in range(rows):
            for k, (head, is_signed, size) in enumerate(steps):
                width = 1
                if head:
                    word = self.body[place : place + head]
                    width = int.from_bytes(word, byte_order, signed=is_signed)
                    place += head
                starts[k, row], counts[k, row] = place, width
                place += width * size
            if place > end or counts[:, row].min() < 0:
                check_count(row, element, self.path)
        self.place = place
        data = np.frombuffer(self.body, np.uint8)
        return {
            label: gathered(data, starts[k], counts[k] if len(types) == 2 else None, types[-1])
            for k, (label, types) in enumerate(layout)
        }


def gathered(
    data: np.ndarray, starts: np.ndarray, counts: np.ndarray | None, kind: np.dtype | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The values that begin at ``starts``, ``counts`` at each place, and the counts. ``data`` holds
    values, or bytes of values of type ``kind``."""
    size = kind.itemsize if kind else 1
    lengths = (np.ones(len(starts), np.int64) if counts is None else counts) * size
    first = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) - np.repeat(first - starts, lengths)
    values = data[places]
    return (values.view(kind) if kind else values), counts


def check_count(held: int, element: Element, path: Path) -> None:
    """Raises `ContentError` if an element has fewer rows than its header promises."""
    if held < element.count:
        raise ContentError(
            f"{path} promises {element.count} {plural(element.name)} but holds {held}; it is "
            "damaged or cut short"
        )


def plural(name: str) -> str:
    """What the rows of the element ``name`` are called in messages."""
    return "points" if name == "vertex" else f"{name}s"
