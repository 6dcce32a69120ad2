"""Polygons from text and binary PLY, with lists of any length and more than one list in a row."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.numbers import whole_numbers
from nstr3d.io.ply import read_header
from nstr3d.io.plyrows import BinaryRows, Columns, Element, check_count, gathered
from nstr3d.io.polygons import Polygons, strip_triangles
from nstr3d.io.textlines import WordError, parse_rows

INDICES = ("vertex_indices", "vertex_index")
PADDING = 16  # bytes after the last element that need no words


def read_ply_mesh(path: Path) -> Polygons:
    """The vertices and polygons of a PLY file.

    Elements may be in any order, and other elements and properties are ignored. Triangle strips
    become triangles. Raises `ContentError` for a file that is not PLY, is cut short, holds text
    that is not numbers, has no x, y and z, or has faces without vertex indices.
    """
    tables, left = _read(path)[:2]
    content = polygons_of(tables, path)
    if left <= PADDING:
        return content
    note = f"{left} bytes after the end of its elements were left out"
    return replace(content, notes=(*content.notes, note))


def read_tables(path: Path) -> tuple[dict[str, Columns], list[Element], list[str]]:
    """The columns of each element of a PLY file, its elements, and the comments of its header.
    Raises the errors of `read_ply_mesh`."""
    tables, _, elements, comments = _read(path)
    return tables, elements, comments


def _read(path: Path) -> tuple[dict[str, Columns], int, list[Element], list[str]]:
    """What `read_tables` returns, and the bytes after the last element."""
    with open(path, "rb") as file:
        order, elements = read_header(file, path)
        start = file.tell()
        body = file.read()
        file.seek(0)
        header = file.read(start).decode("utf-8", "replace")
    source = _Text(body, path) if order is None else BinaryRows(body, order, path)
    tables = {element.name: source.columns(element) for element in elements}
    if source.left and order is None:
        raise ContentError(
            f"{path} holds {source.left} numbers more than its header promises; export it again"
        )
    comments = re.findall(r"^comment[ \t]+([^\r\n]*)", header, re.MULTILINE)
    return tables, source.left if order is not None else 0, elements, comments


def polygons_of(tables: dict[str, Columns], path: Path) -> Polygons:
    """The vertices and polygons in the tables of a PLY file. Raises the errors of
    `read_ply_mesh`."""
    if "vertex" not in tables:
        raise ContentError(f"{path} has no points")
    points = tables["vertex"]
    if not {"x", "y", "z"} <= points.keys() or any(points[n][1] is not None for n in "xyz"):
        raise ContentError(f"{path} has the columns {', '.join(points)}; points need x, y and z")
    vertices = np.stack([points[n][0] for n in "xyz"], axis=1).astype(np.float64)
    return Polygons(vertices, *_polygons(tables, path))


def _polygons(tables: dict[str, Columns], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The corners and counts of the faces and of the triangles of the strips."""
    corners, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for name in ("face", "tristrips"):
        values, lengths = _indices(tables.get(name, {}), name, path)
        if name == "tristrips":
            values = _strips(values, lengths)
            lengths = np.full(len(values) // 3, 3)
        corners.append(values)
        counts.append(lengths)
    return np.concatenate(corners), np.concatenate(counts)


def _indices(table: Columns, name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values and lengths of the list of vertex indices of a table."""
    lists = {label: column for label, column in table.items() if column[1] is not None}
    label = next((label for label in INDICES if label in lists), None)
    if label is None:
        if table and len(next(iter(table.values()))[0]):
            raise ContentError(
                f"{path} has the element {name} without the list vertex_indices; its properties "
                f"are {', '.join(table)}; export it again"
            )
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    values, lengths = lists[label]
    assert lengths is not None
    return whole_numbers(values, "a vertex index", path), lengths


def _strips(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The corners of the triangles of all strips. The index -1 ends a strip within a list."""
    pieces = []
    for row in np.split(values, np.cumsum(lengths)[:-1]):
        for piece in np.split(row, np.flatnonzero(row == -1)):
            pieces.append(strip_triangles(piece[piece != -1]).ravel())
    return np.concatenate([np.zeros(0, np.int64), *pieces])


class _Text:
    """The tables of a text PLY, read one after another. All values are float64."""

    def __init__(self, body: bytes, path: Path) -> None:
        self.path, self.place = path, 0
        try:
            self.values, _ = parse_rows(body + b"\n")
        except WordError as error:
            raise ContentError(
                f"{path} could not be read as PLY: it is damaged, for {error.word!r} is not a "
                "number; export it again"
            ) from error

    @property
    def left(self) -> int:
        """The numbers after the elements that have been read."""
        return len(self.values) - self.place

    def columns(self, element: Element) -> Columns:
        """The columns of the next element."""
        is_list = [words[0] == "list" for _, words in element.properties]
        width = len(is_list)
        if not any(is_list):
            held = (len(self.values) - self.place) // width if width else element.count
            check_count(held, element, self.path)
            size = element.count * width
            table = self.values[self.place : self.place + size].reshape(element.count, width)
            self.place += size
            return {label: (table[:, k], None) for k, (label, _) in enumerate(element.properties)}
        starts, counts = self._walk(element, is_list)
        return {
            label: gathered(self.values, starts[k], counts[k] if is_list[k] else None)
            for k, (label, _) in enumerate(element.properties)
        }

    def _walk(self, element: Element, is_list: list[bool]) -> tuple[np.ndarray, np.ndarray]:
        """The places of the values of each property and row, and the counts of the lists, both
        ``(properties, rows)``."""
        values, place = self.values, self.place
        rows = min(element.count, self.left // len(is_list) + 1)  # the last one may be cut
        starts = np.zeros((len(is_list), rows), np.int64)
        counts = np.ones((len(is_list), rows), np.int64)
        first = self._uniform(is_list, rows) if rows else None
        if first is not None:
            widths, size = first
            places = place + np.arange(rows) * size
            for k, width in enumerate(widths):
                starts[k] = places + is_list[k]
                counts[k] = width
                places = starts[k] + width
            self.place += rows * size
            return starts, counts
        is_whole = (np.abs(values) < 2.0**53) & (values == np.floor(values))
        sizes = np.where(is_whole, values, -1).astype(np.int64).tolist()
        for row in range(rows):
            for k, is_counted in enumerate(is_list):
                if place >= len(sizes) or (is_counted and sizes[place] < 0):
                    check_count(row, element, self.path)
                width = sizes[place] if is_counted else 1
                place += is_counted
                starts[k, row], counts[k, row] = place, width
                place += width
            if place > len(sizes):
                check_count(row, element, self.path)
        self.place = place
        return starts, counts

    def _uniform(self, is_list: list[bool], rows: int) -> tuple[list[int], int] | None:
        """The widths of the properties and the size of a row if all rows are as the first one."""
        place, widths, heads = self.place, [], []
        for is_counted in is_list:
            if place >= len(self.values):
                return None
            head = float(self.values[place])
            if is_counted and not (0 <= head < 256 and head.is_integer()):
                return None
            heads += [place - self.place] if is_counted else []
            widths.append(int(self.values[place]) if is_counted else 1)
            place += widths[-1] + is_counted
        size = place - self.place
        table = self.values[self.place : self.place + rows * size]
        if len(table) < rows * size:
            return None
        table = table.reshape(rows, size)
        same = all((table[:, head] == table[0, head]).all() for head in heads)
        return (widths, size) if rows and same else None
