"""What separates the numbers of a text, and whether commas are decimal points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError

# Each begins with what is rare, because searches for a digit first take ten times as long.
INNER = re.compile(r",(?<=\d,)[-+]?\.?\d")  # a comma between digits
SPACED = re.compile(r",[ \t]+[-+.\d]|[ \t](?<=\d[ \t]),")  # a comma beside a blank
BLANKS = re.compile(r"[ \t](?<=[\d.][ \t])[ \t]*[-+]?\.?\d")  # a blank that separates numbers
POINTS = re.compile(r"\.(?:\d|(?<=\d\.))")
LOOSE = re.compile(r"(?<!\d),|,(?!\d)")  # a comma without a digit on both sides
TWICE = re.compile(r"\d,\d+,")  # a word with two commas
# A program writes no whole number with a leading zero, but a fraction, as in 1,05.
FRACTION = re.compile(r"(?:^|,)[ \t]*[-+]?0\d", re.MULTILINE)
TRAILING = re.compile(r"[ \t]*[;,][ \t]*$")


@dataclass(frozen=True)
class Separation:
    """Rows of numbers with decimal points, separated by ``delimiter`` or, if it is None, by blanks.

    ``whole`` says that commas separate whole numbers only, which may be halves of decimal numbers.
    """

    rows: list[str]
    delimiter: str | None
    warnings: tuple[str, ...] = ()
    whole: bool = False

    def check_decimals(self, values: np.ndarray, path: Path) -> None:
        """Raises `ContentError` if commas may mark decimals in rows with the numbers ``values``.

        A sign of decimals is a leading zero. Another one are three columns, every second one,
        that are not negative and have the same number of digits in all rows.
        """
        if not self.whole:
            return
        if FRACTION.search("\n".join(self.rows)):
            raise _ambiguous(path, "commas separate columns and seem to mark decimals too")
        after = values[:, 1:6:2]
        if after.shape[1] < 3 or len(values) < 2 or not (after >= 0).all():
            return
        if len(np.unique(np.floor(np.log10(np.maximum(after, 1))))) == 1:
            raise _ambiguous(path, "commas may separate columns or mark decimals")


def separate(rows: Sequence[str], path: Path) -> Separation:
    """Finds what separates the numbers of ``rows`` and replaces decimal commas by points.

    Commas mark decimals if blanks or semicolons separate the numbers, no number has a point, and
    no number has two commas. Raises `ContentError` for text that can be read in two ways.
    """
    rows = _without_trailing(rows)
    body = "\n".join(rows)
    if ";" in body:
        if "," not in body:
            return Separation(rows, ";")
        if POINTS.search(body):
            raise _ambiguous(path, "semicolons, commas and points all occur")
        return _decimal(body, ";", path)
    if "," not in body:
        return Separation(rows, None)
    if not ((" " in body or "\t" in body) and BLANKS.search(body)):
        whole = not POINTS.search(body)
        if whole and SPACED.search(body) and INNER.search(body):
            raise _ambiguous(path, "commas occur with and without blanks")
        return Separation(rows, ",", whole=whole)
    if not INNER.search(body):
        return Separation(rows, ",")
    if POINTS.search(body) or SPACED.search(body):
        raise _ambiguous(path, "commas and blanks both separate numbers")
    return _decimal(body, None, path)


def _decimal(body: str, delimiter: str | None, path: Path) -> Separation:
    if LOOSE.search(body) or TWICE.search(body):
        raise _ambiguous(path, "some commas cannot mark decimals")
    warning = f"Commas in {path} were read as decimal points: 1,5 as 1.5."
    return Separation(body.replace(",", ".").split("\n"), delimiter, (warning,))


def _without_trailing(rows: Sequence[str]) -> list[str]:
    """The rows without a separator at the end, if all end with one."""
    if not TRAILING.search(rows[0]) or not all(TRAILING.search(row) for row in rows):
        return list(rows)
    return [TRAILING.sub("", row) for row in rows]


def _ambiguous(path: Path, why: str) -> ContentError:
    return ContentError(
        f"{path} can be read in more than one way: {why}; export it with decimal points and with "
        "blanks or semicolons between the numbers"
    )
