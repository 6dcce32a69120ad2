"""Numbers in text, also missing ones as other programs write them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError

# NaN and infinity of C libraries, and words for a missing value.
MISSING = re.compile(
    r"|[-+]?nan(\(\w*\))?|[-+]?\d\.#(qnan|snan|ind|inf)\w*|n/?a|null|none|-", re.IGNORECASE
)


def number(word: str) -> float | None:
    """The number that ``word`` says, NaN for a missing value, None for any other text."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return float("nan") if MISSING.fullmatch(word.strip()) else None


def whole_numbers(values: np.ndarray, what: str, path: Path) -> np.ndarray:
    """``values`` as int64. Raises `ContentError` that names ``what`` for a value that is no whole
    number or beyond 2**53."""
    if values.dtype.kind == "f":
        is_whole = (np.abs(values) < 2.0**53) & (values == np.floor(values))
        if not is_whole.all():
            raise ContentError(f"{path} has {what} that is no whole number; export it again")
    return values.astype(np.int64)


def number_rows(
    lines: Sequence[str],
    width: int,
    path: Path,
    split: Callable[[str], list[str]] = str.split,
    needed: Sequence[int] | None = None,
    delimiter: str | None = None,
) -> np.ndarray:
    """The numbers ``(rows, width)`` of ``lines``, which are not blank.

    ``split`` gives the words of a line, which ``delimiter`` separates. Columns that are not
    ``needed`` may hold words and are then NaN. Raises `ContentError` for a row of another width and
    for a word that is not a number.
    """
    if not lines:
        return np.empty((0, width))
    try:  # NumPy reads regular text many times faster than Python
        values = np.loadtxt(lines, np.float64, comments=None, delimiter=delimiter, ndmin=2)
        if values.shape[1] == width:
            return values
    except ValueError:
        pass
    values = np.full((len(lines), width), np.nan)
    columns = range(width) if needed is None else needed
    for row, line in enumerate(lines):
        words = split(line)
        if len(words) != width:
            raise ContentError(
                f"{path}: row {row + 1} has {len(words)} columns instead of {width}; export it "
                "again, or remove the row"
            )
        for column in columns:
            value = number(words[column])
            if value is None:
                raise ContentError(
                    f"{path}: row {row + 1} holds something that is not a number: "
                    f"{line.strip()[:40]!r}"
                )
            values[row, column] = value
    return values
