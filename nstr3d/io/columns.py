"""Which columns of a table of points are positions and normals, by their names or by their values.

Names decide where a file has names. Without names, three columns are normals only if their lengths
are about 1, because colours, intensities and normals look alike in a file otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nstr3d.io.errors import ContentError

MOST_COLUMNS = 16  # a table of more columns without names is an image or a grid of heights
UNIT, UNIT_SHARE = 0.05, 0.99  # deviation from length 1, and the share of rows within the deviation
HEIGHTS = ("z", "elevation", "elev", "height", "altitude", "alt", "h", "hoehe", "höhe", "up", "u")
PLACES = (("x", "y"), ("easting", "northing"), ("east", "north"), ("e", "n"))
PLACES += (("rechtswert", "hochwert"),)
LATITUDES, LONGITUDES = {"lat", "latitude"}, {"lon", "long", "lng", "longitude"}
COLOURS = {"r", "g", "b", "a", "red", "green", "blue", "alpha", "rgb", "rgba"}
SHADES = [("red", "green", "blue"), ("r", "g", "b"), ("diffusered", "diffusegreen", "diffuseblue")]
PACKED = "rgb", "rgba"  # names of columns of 32 bits that hold three colours


def _triples(prefixes: Sequence[str], suffixes: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """The names of three components: prefixed or suffixed by x, y, z, or prefixed by 0, 1, 2."""
    named = [tuple(prefix + axis for axis in "xyz") for prefix in prefixes]
    named += [tuple(axis + suffix for axis in "xyz") for suffix in suffixes]
    return named + [tuple(prefix + axis for axis in "012") for prefix in prefixes if prefix]


POSITIONS = [
    *_triples(
        ["", "p", "pos", "position", "positions", "point", "points", "coord", "coords"],
        ["coord", "coords", "coordinate", "pos"],
    ),
    *((*place, height) for place in PLACES for height in HEIGHTS),
]
NORMALS = _triples(["n", "normal", "normals", "norm", "vn"], ["normal", "n"])
AXES = {name for group in POSITIONS for name in group}


@dataclass(frozen=True)
class Reading:
    """How a file was read: ``columns`` says what each column is and why, ``warnings`` are sentences
    about content that the user should know of."""

    columns: str
    warnings: tuple[str, ...] = ()

    def warned(self, *sentences: str) -> Reading:
        """The same reading with more warnings."""
        return replace(self, warnings=(*self.warnings, *sentences))


@dataclass(frozen=True)
class Roles:
    """The indices of the columns of the position and, if there are any, of the normal."""

    position: tuple[int, ...]
    normal: tuple[int, ...] | None

    @property
    def needed(self) -> tuple[int, ...]:
        return self.position + (self.normal or ())


@dataclass(frozen=True)
class Columns:
    """The ``points (n, 3)`` of a table, float64, its ``normals (n, 3)`` and its ``colours (n, 3)``,
    display RGB in [0, 1], if it has them, and how it was read."""

    points: np.ndarray
    normals: np.ndarray | None
    reading: Reading
    colours: np.ndarray | None = None


def find_roles(names: Sequence[str], path: Path) -> Roles | None:
    """The roles of columns with the ``names``; None if the names have no position.

    Raises `ContentError` if a name that is needed occurs twice, and for latitudes and longitudes,
    which are angles.
    """
    plain = [_plain(name) for name in names]
    position = _find_group(plain, POSITIONS, path)
    if position is None:
        if LATITUDES & set(plain) and LONGITUDES & set(plain):
            raise ContentError(
                f"{path} has the columns {', '.join(names)}; latitudes and longitudes are angles, "
                "so project the points to metres first"
            )
        return None
    return Roles(position, _find_group(plain, NORMALS, path))


def names_an_axis(names: Sequence[str]) -> bool:
    """Whether one of ``names`` is a name of a coordinate of points."""
    return any(_plain(name) in AXES for name in names)


def by_names(columns: Sequence[np.ndarray], names: Sequence[str], path: Path) -> Columns:
    """The points, normals and colours among ``columns`` of shape ``(n,)`` with ``names``.

    Raises `ContentError` if the names have no position.
    """
    roles = find_roles(names, path)
    if roles is None:
        raise ContentError(f"{path} has the columns {', '.join(names)}; points need x, y and z")
    said = f"by name: position {_listed(names, roles.position)}"
    said += f", normal {_listed(names, roles.normal)}" if roles.normal else ", no normal"
    colours, group = _named_colours(columns, names, path)
    said += f", colours {_listed(names, group)}" if colours is not None else ""
    used = roles.needed + (group if colours is not None else ())
    others = [name for index, name in enumerate(names) if index not in used]
    said += f"; not used: {', '.join(others)}" if others else ""
    points, normals = (
        None
        if group is None
        else np.stack([columns[index] for index in group], axis=1).astype(np.float64)
        for group in (roles.position, roles.normal)
    )
    assert points is not None
    return Columns(points, normals, Reading(said), colours)


def _named_colours(
    columns: Sequence[np.ndarray], names: Sequence[str], path: Path
) -> tuple[np.ndarray | None, tuple[int, ...]]:
    """Display RGB ``(n, 3)`` of the columns with the names of colours, and their indices; None
    without them."""
    plain = [_plain(name) for name in names]
    group = next((group for group in SHADES if all(plain.count(name) == 1 for name in group)), None)
    if group is not None:
        indices = tuple(plain.index(name) for name in group)
        return shades([columns[index] for index in indices]), indices
    packed = next((index for index, name in enumerate(plain) if name in PACKED), None)
    if packed is None or np.asarray(columns[packed]).dtype.itemsize != 4:
        return None, ()
    bits = np.ascontiguousarray(columns[packed]).view(np.uint32)
    return np.stack([bits >> shift & 255 for shift in (16, 8, 0)], axis=1) / 255, (packed,)


def shades(columns: Sequence[np.ndarray]) -> np.ndarray | None:
    """Display RGB ``(n, 3)`` in [0, 1] of the columns of red, green and blue, which are in [0, 1],
    or whole numbers up to 255 or 65535. None for other numbers."""
    values = np.stack(columns, axis=1)
    eight = values.dtype == np.uint8
    values = values.astype(np.float64)
    known = np.isfinite(values.sum(axis=1))
    if not known.any() or not _is_colour(values[known]):
        return None
    most = float(values[known].max())
    full = 255.0 if eight or 1 < most <= 255 else 65535.0 if most > 255 else 1.0
    return np.where(known[:, None], values / full, np.nan)


def by_values(values: np.ndarray, path: Path) -> Columns:
    """The points, normals and colours of the array ``values (n, c)`` without names.

    Columns 1 to 3 are the position, or 2 to 4 if there are more than 3 and column 1 counts the
    rows. Of the other columns the first 3 in succession with lengths of about 1 are the normal.
    Six columns of which the last three are zero have normals of length zero. The first 3 others in
    succession that are whole numbers up to 255 are colours. Raises `ContentError`
    for other shapes and for values that are not numbers.
    """
    _check_table(values, path)
    values = values.astype(np.float64, copy=False)  # a scan may be large
    first = 1 if values.shape[1] > 3 and _counts_rows(values[:, 0]) else 0
    at = first + 3
    said = f"no names: columns {_span(first)} are the position"
    points, rest = values[:, first:at], values[:, at:]
    starts = range(rest.shape[1] - 2)
    normal = next((at + start for start in starts if _is_unit(rest[:, start : start + 3])), None)
    why = "because their lengths are about 1"
    if normal is None and rest.shape[1] == 3 and not rest.any():
        normal, why = at, "all of length zero"
    said += f", {_span(normal)} the normal, {why}" if normal is not None else ", none is a normal"
    spare = [
        index
        for index in range(values.shape[1])
        if index >= at and (normal is None or not normal <= index < normal + 3)
    ]
    painted = _colour_column(values, spare)
    if painted is not None:
        said += f", {_span(painted)} the colours"
        spare = [index for index in spare if not painted <= index < painted + 3]
    said += "; column 1 counts the rows" if first else ""
    said += f"; not used: {_describe_spare(values, spare)}" if spare else ""
    reading = Reading(said)
    if normal is None and rest.shape[1] >= 3 and not _is_colour(rest[:, :3]):
        reading = reading.warned(
            f"Columns {_span(at)} of {path} are not used: {_lengths(rest[:, :3])}, so they are "
            "not unit normals, and they are not colours; a line with the columns' names says what "
            "they are."
        )
    normals = None if normal is None else values[:, normal : normal + 3]
    colours = None if painted is None else shades(list(values[:, painted : painted + 3].T))
    return Columns(points, normals, reading, colours)


def _colour_column(values: np.ndarray, spare: list[int]) -> int | None:
    """The first of the first three successive columns among ``spare`` that are whole numbers up to
    255; None if there are none."""
    for place, index in enumerate(spare):
        own = values[:, index : index + 3]
        successive = spare[place : place + 3] == [index, index + 1, index + 2]
        if successive and _is_colour(own) and 1 < own[np.isfinite(own)].max() <= 255:
            return index
    return None


def _check_table(values: np.ndarray, path: Path) -> None:
    if values.ndim != 2 or values.shape[1] < 3:
        shape = (
            f"{values.shape[1]} columns"
            if values.ndim == 2
            else f"an array of shape {values.shape}"
        )
        raise ContentError(f"{path} has {shape}; points need at least 3 columns (x y z)")
    if values.dtype.kind not in "fiu":
        raise ContentError(f"{path} holds {values.dtype}, not numbers; points need x y z")
    rows, width = values.shape
    if width > MOST_COLUMNS:
        raise ContentError(
            f"{path} has {rows} rows of {width} columns without names, as an image or a grid of "
            "heights has; points need rows of x y z, or a line with the columns' names"
        )


def _plain(name: str) -> str:
    """The name in lower case, without quotes, units and separators: ``"X [m]"`` gives x."""
    name = re.sub(r"[\[(][^\d\])]*[\])]", "", name.strip().lower())
    name = re.sub(r"_(m|mm|cm|km|ft)$", "", name)
    return re.sub(r"[\W_]", "", name)


def _find_group(
    plain: list[str], groups: Sequence[tuple[str, ...]], path: Path
) -> tuple[int, ...] | None:
    for group in groups:
        if set(group) <= set(plain):
            for name in group:
                if plain.count(name) > 1:
                    raise ContentError(
                        f"{path} has {plain.count(name)} columns that are named {name}; rename "
                        "all but one"
                    )
            return tuple(plain.index(name) for name in group)
    return None


def _counts_rows(column: np.ndarray) -> bool:
    """Whether ``column`` holds successive integers from 0 or 1, as an index of the rows does."""
    if len(column) < 3 or column[0] not in (0, 1):
        return False
    return bool(np.array_equal(column, column[0] + np.arange(len(column))))


def _is_unit(values: np.ndarray) -> bool:
    """Whether nearly all rows of ``values (n, 3)`` that are finite and not zero have a length of
    about 1."""
    length = np.linalg.norm(values, axis=1)
    length = length[np.isfinite(length) & (length > 0)]
    return len(length) > 0 and float(np.mean(np.abs(length - 1) < UNIT)) >= UNIT_SHARE


def _is_colour(values: np.ndarray) -> bool:
    """Whether ``values`` are in [0, 1], or whole numbers from 0 to 255 or 65535."""
    values = values[np.isfinite(values)]
    if len(values) == 0 or values.min() < 0:
        return False
    return bool(values.max() <= 1 or (values.max() <= 65535 and not (values % 1).any()))


def _describe_spare(values: np.ndarray, spare: list[int]) -> str:
    """The columns ``spare`` in words. Three columns in succession with the values of colours are
    named as such."""
    parts, place = [], 0
    while place < len(spare):
        index = spare[place]
        three = spare[place : place + 3] == [index, index + 1, index + 2]
        if three and _is_colour(values[:, index : index + 3]):
            parts.append(f"{_span(index)} (colours or counts)")
            place += 3
        else:
            parts.append(str(index + 1))
            place += 1
    return ", ".join(parts)


def _lengths(values: np.ndarray) -> str:
    length = np.linalg.norm(values, axis=1)
    length = length[np.isfinite(length)]
    if len(length) == 0:
        return "none is finite"
    return f"their lengths are {length.min():.3g} to {length.max():.3g}"


def _span(first: int) -> str:
    return f"{first + 1} to {first + 3}"


def _listed(names: Sequence[str], group: tuple[int, ...]) -> str:
    return " ".join(names[index] for index in group)
