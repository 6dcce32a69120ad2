"""Rows of an element of a PLY file, also with lists, whose rows differ in length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.numbers import number, number_rows

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2",
    "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip


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
    def lines(self) -> int:
        """Lines that a row takes in text: 1, or 0 without properties."""
        return int(bool(self.properties))

    @property
    def singles(self) -> list[str]:
        """The names of the properties that are no lists."""
        return [label for label, words in self.properties if words[0] != "list"]

    def kinds(self, order: str | None) -> list[tuple[str, str, str | None]]:
        """The name of each property, its type, and the type of its count if it is a list.

        Text has the byte ``order`` None and float64 numbers. Raises ValueError for an unknown type.
        """
        result = []
        for label, words in self.properties:
            listed = words[0] == "list"
            types = [TYPES.get(word) for word in (words[1:3] if listed else words[:1])]
            if None in types or len(types) != 1 + listed or (listed and "f" in str(types[0])):
                raise ValueError(f"the {self.name} has properties of an unknown type")
            kind = f"{order}{types[-1]}" if order else "f8"
            result.append((label, kind, f"{order or '<'}{types[0]}" if listed else None))
        return result

    def record(self, order: str | None) -> np.dtype:
        """The type of a row of the properties that are no lists. Raises ValueError for an unknown
        type or a repeated name."""
        return np.dtype([(label, kind) for label, kind, count in self.kinds(order) if not count])


def text_rows(lines: Sequence[str], element: Element, path: Path) -> np.ndarray:
    """The table of the properties of ``element`` in ``lines``, one row each, without lists.

    Raises `ContentError` for a line of another number of values than the header says.
    """
    record = element.record(None)
    if element.has_lists:
        values = np.array([_listed_row(line, element, path) for line in lines], np.float64)
    else:
        values = number_rows(lines, len(element.properties), path)
    table = np.empty(len(lines), record)
    for column, label in enumerate(element.singles):
        table[label] = values[:, column] if len(lines) else 0
    return table


def _listed_row(line: str, element: Element, path: Path) -> list[float]:
    """The values in ``line`` of the properties that are no lists."""
    words, place, values = line.split(), 0, []
    numbers = [number(word) for word in words]
    for _, kind in element.properties:
        value = numbers[place] if place < len(words) else None
        if value is None or (kind[0] == "list" and not (value >= 0 and value == int(value))):
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


def binary_rows(body: bytes, place: int, element: Element, order: str) -> tuple[np.ndarray, int]:
    """The table of at most ``element.count`` rows from byte ``place``, without lists, and the place
    after them."""
    record = element.record(order)
    if not element.has_lists:
        rows = _whole_rows(body, place, element.count, record)
        return rows, place + element.count * record.itemsize
    constant = _constant_rows(body, place, element, order)
    if constant is not None:
        return constant
    starts, place = _walk(body, place, element, order)
    octets, table = np.frombuffer(body, np.uint8), np.empty(len(starts), record)
    for column, label in enumerate(element.singles):
        kind = record[label]
        at = starts[:, column, None] + np.arange(kind.itemsize)
        table[label] = octets[at].view(kind)[:, 0]
    return table, place


def _whole_rows(body: bytes, place: int, count: int, record: np.dtype) -> np.ndarray:
    held = min((len(body) - place) // record.itemsize, count)
    return np.frombuffer(body, record, held, place) if held > 0 else np.empty(0, record)


def _constant_rows(
    body: bytes, place: int, element: Element, order: str
) -> tuple[np.ndarray, int] | None:
    """`binary_rows` if all lists are as long as those of the first row; None if not."""
    fields, at, counts = [], place, []
    for label, kind, count_kind in element.kinds(order):
        if count_kind is None:
            fields.append((label, kind))
            at += np.dtype(kind).itemsize
            continue
        length = _count(body, at, count_kind)
        if length is None or length > len(body):
            return None
        counts.append((f"{label} count", length))
        fields += [(f"{label} count", count_kind), (f"{label} list", kind, (length,))]
        at += np.dtype(count_kind).itemsize + length * np.dtype(kind).itemsize
    rows = _whole_rows(body, place, element.count, np.dtype(fields))
    if len(rows) < element.count or any((rows[label] != length).any() for label, length in counts):
        return None
    table = np.empty(len(rows), element.record(order))
    for label in element.singles:
        table[label] = rows[label]
    return table, at + (element.count - 1) * np.dtype(fields).itemsize


def _walk(body: bytes, place: int, element: Element, order: str) -> tuple[np.ndarray, int]:
    """The places of the properties of each row that are no lists, row by row, and the place after
    the last row. Rows that ``body`` does not hold whole are left out."""
    steps = [(np.dtype(kind).itemsize, count_kind) for _, kind, count_kind in element.kinds(order)]
    rows: list[list[int]] = []
    for _ in range(element.count):
        at, row = place, []
        for size, count_kind in steps:
            if count_kind is None:
                row.append(at)
                at += size
                continue
            length = _count(body, at, count_kind)
            if length is None:
                at = len(body) + 1
                break
            at += np.dtype(count_kind).itemsize + length * size
        if at > len(body):
            break
        rows.append(row)
        place = at
    return np.array(rows, np.int64).reshape(len(rows), len(element.singles)), place


def _count(body: bytes, place: int, kind: str) -> int | None:
    """The length of the list at ``place``; None if ``body`` does not hold a valid one."""
    piece = body[place : place + int(kind[-1])]
    if len(piece) < int(kind[-1]):
        return None
    byte_order = "big" if kind[0] == ">" else "little"
    length = int.from_bytes(piece, byte_order, signed=kind[1] == "i")
    return length if length >= 0 else None
