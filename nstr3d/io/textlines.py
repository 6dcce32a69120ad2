"""Lines of numbers in text files of any origin, parsed by NumPy without a loop over lines."""

from __future__ import annotations

import contextlib
import re
import warnings
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError

BLANKS = bytes.maketrans(b"\t\v\f", b"   ")
LINE_END, BLANK = 10, 32


class WordError(ValueError):
    """A line holds a word that is not a number. ``line`` counts from 0."""

    def __init__(self, line: int, word: str) -> None:
        super().__init__(f"{word!r} on line {line + 1} is not a number")
        self.line, self.word = line, word


def clean_text(path: Path, kind: str, comment: bytes = b"") -> bytes:
    """The text of a file, normalised.

    Lines end in a line feed, the last one too. Lines begin with a word, and blanks are spaces. The
    byte order mark is gone, and so is all from the sign ``comment`` to the end of its line. Only
    ASCII characters matter, so the file may have any encoding that extends ASCII, or UTF-16 with a
    byte order mark. Raises `ContentError` for a binary file; ``kind`` is the name of the format.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\0" in data:
        raise ContentError(f"{path} is binary and not {kind} text; rename it to its true format")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if comment and comment in data:
        data = re.sub(re.escape(comment) + rb"[^\n]*", b"", data)
    data = data.translate(BLANKS)
    if data.startswith(b" ") or b"\n " in data:
        data = re.sub(rb"^ +", b"", data, flags=re.MULTILINE)
    return data if data.endswith(b"\n") else data + b"\n"


def line_starts(text: np.ndarray) -> np.ndarray:
    """The places of the first bytes of the lines of ``text``, bytes that end in a line feed."""
    return np.concatenate([[0], np.flatnonzero(text == LINE_END)[:-1] + 1])


def select_lines(text: np.ndarray, starts: np.ndarray, chosen: np.ndarray) -> bytes:
    """The lines whose entry of the mask ``chosen`` is true, one after another."""
    lengths = np.diff(np.append(starts, len(text)))
    return text[np.repeat(chosen, lengths)].tobytes()


def parse_rows(text: bytes, kind: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of ``text`` and, for each line, the count of its numbers.

    Raises `WordError` for a word that is not a number of ``kind``.
    """
    if not text:
        return np.zeros(0, kind), np.zeros(0, np.int64)
    buffer = np.frombuffer(text, np.uint8)
    places = np.flatnonzero((buffer[1:] > BLANK) & (buffer[:-1] <= BLANK)) + 1
    if buffer[0] > BLANK:
        places = np.concatenate([[0], places])
    bounds = np.append(line_starts(buffer), len(buffer))
    counts = np.diff(np.searchsorted(places, bounds))
    if not len(places):
        return np.zeros(0, kind), counts
    values = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy 1 warns where NumPy 2 raises
        with contextlib.suppress(ValueError):
            values = np.fromstring(text, kind, sep=" ")
    if values is None or len(values) != len(places):
        raise _wrong_word(text, kind)
    return values, counts


def first_columns(values: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """The first ``width`` numbers of each line ``(lines, width)``, where each line has as many."""
    if (counts == counts[:1]).all():
        return values.reshape(len(counts), -1)[:, :width] if len(counts) else np.zeros((0, width))
    return values[(np.cumsum(counts) - counts)[:, None] + np.arange(width)]


def _wrong_word(text: bytes, kind: type) -> ValueError:
    """The error that names the first word that is not a number."""
    parse = int if issubclass(kind, np.integer) else float
    for index, line in enumerate(text.splitlines()):
        for word in line.split():
            try:
                if b"_" in word:
                    raise ValueError
                parse(word)
            except ValueError:
                return WordError(index, word[:40].decode("utf-8", "replace"))
    return ValueError("the text holds something that is not a number")
