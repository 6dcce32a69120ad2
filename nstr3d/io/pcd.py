"""PCD files of the Point Cloud Library as columns: ASCII, binary, and compressed by LZF."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.numbers import number_rows
from nstr3d.io.room import check_room


@dataclass(frozen=True)
class Header:
    """The fields of the records of a PCD file and the number of records that it promises."""

    names: tuple[str, ...]
    repeats: tuple[int, ...]
    types: tuple[str, ...]
    count: int

    @property
    def record(self) -> np.dtype:
        """The type of a record, whose fields are named by their indices because padding repeats
        names."""
        return np.dtype(
            [
                (str(index), "<" + kind, (repeat,))
                for index, (kind, repeat) in enumerate(zip(self.types, self.repeats))
            ]
        )


def read_pcd(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """The columns ``(n,)`` of a PCD file and their names, without fields of more than one number.

    Raises `ContentError` for a file without a PCD header, an unknown kind of data, or fewer points
    than the header promises.
    """
    data = path.read_bytes()
    match = re.search(rb"^DATA[ \t]+(\w+)[^\r\n]*(?:\r\n|\n|\r)", data, re.MULTILINE)
    if match is None:
        raise ContentError(f"{path} has no PCD header; rename it to its true format")
    head = _read_header(data[: match.start()].decode("ascii", "replace"))
    body, kind = data[match.end() :], match[1].decode().lower()
    readers = {"ascii": _ascii, "binary": _binary, "binary_compressed": _compressed}
    if kind not in readers:
        raise ContentError(f"{path} holds data of the unknown kind {kind}; save it as binary")
    fields = readers[kind](body, head, path)
    held = len(fields[0])
    if held < head.count:
        raise ContentError(f"{path} promises {head.count} points but holds {held}; it is cut short")
    single = [index for index, repeat in enumerate(head.repeats) if repeat == 1]
    return [fields[index] for index in single], [head.names[index] for index in single]


def _read_header(text: str) -> Header:
    lines = [words for line in text.splitlines() if (words := line.split())]
    entries = {words[0].upper(): words[1:] for words in lines}
    names = entries.get("FIELDS") or entries["COLUMNS"]
    ones = ["1"] * len(names)
    kinds = zip(entries.get("TYPE", ["F"] * len(names)), entries.get("SIZE", ["4"] * len(names)))
    types = tuple({"F": "f", "I": "i", "U": "u"}[kind.upper()] + size for kind, size in kinds)
    repeats = tuple(int(number) for number in entries.get("COUNT", ones))
    if "POINTS" in entries:
        count = int(entries["POINTS"][0])
    else:
        count = int(entries["WIDTH"][0]) * int(entries.get("HEIGHT", ["1"])[0])
    if not len(names) == len(repeats) == len(types):
        raise ValueError("FIELDS, SIZE, TYPE and COUNT differ in length")
    return Header(tuple(names), repeats, types, count)


def _ascii(body: bytes, head: Header, path: Path) -> Sequence[np.ndarray]:
    rows = [line for line in body.decode("ascii", "replace").splitlines() if line.strip()]
    width = sum(head.repeats)
    table = number_rows(rows, width, path)
    place = np.cumsum([0, *head.repeats])
    return [table[:, start] if repeat else table for start, repeat in zip(place, head.repeats)]


def _binary(body: bytes, head: Header, path: Path) -> Sequence[np.ndarray]:
    record = head.record
    rows = np.frombuffer(body, record, min(head.count, len(body) // record.itemsize))
    return [rows[label][:, 0] if repeat else rows for label, repeat in _labelled(head)]


def _compressed(body: bytes, head: Header, path: Path) -> Sequence[np.ndarray]:
    """The fields of a compressed body: two sizes, then all numbers of a field after another."""
    damaged = ContentError(f"{path} is a damaged compressed PCD; export it again")
    if len(body) < 8:
        raise damaged
    packed, size = struct.unpack("<II", body[:8])
    if len(body) - 8 < packed:
        raise ContentError(
            f"{path} promises {packed} compressed bytes but holds {len(body) - 8}; it is cut short"
        )
    if size != head.count * head.record.itemsize:
        raise damaged
    check_room(path, f"{head.count:,} points", 3 * size)
    try:
        plain = expand_lzf(body[8 : 8 + packed], size)
    except ValueError as error:
        raise damaged from error
    fields, place = [], 0
    for kind, repeat in zip(head.types, head.repeats):
        values = np.frombuffer(plain, "<" + kind, head.count * repeat, place)
        fields.append(values.reshape(head.count, -1)[:, 0] if repeat else values)
        place += values.nbytes
    return fields


def _labelled(head: Header) -> list[tuple[str, int]]:
    return [(str(index), repeat) for index, repeat in enumerate(head.repeats)]


def expand_lzf(packed: bytes, size: int) -> bytes:
    """The ``size`` bytes that LZF has compressed to ``packed``. Raises ValueError if ``packed`` is
    damaged.

    A control byte below 32 precedes that many bytes plus one, to be copied. Other control bytes
    hold a length (3 bits, 7 means that another byte adds to the length) and a distance (13 bits)
    from the end of the output, from where that many bytes plus two are repeated.
    """
    plain, place = bytearray(), 0
    try:
        while place < len(packed) and len(plain) <= size:
            control = packed[place]
            place += 1
            if control < 32:
                plain += packed[place : place + control + 1]
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[place]
                place += 1
            start = len(plain) - ((control & 31) << 8 | packed[place]) - 1
            place, length = place + 1, length + 2
            if start < 0:
                raise ValueError("a distance reaches before the first byte")
            piece = plain[start : start + length]
            while len(piece) < length:  # a distance shorter than the length repeats its bytes
                piece += piece[: length - len(piece)]
            plain += piece
    except IndexError as error:
        raise ValueError("the last code is cut short") from error
    if len(plain) != size:
        more = "more than " if place < len(packed) else ""
        raise ValueError(f"{more}{len(plain)} bytes came out, not {size}")
    return bytes(plain)
