"""Materials of OBJ files: MTL text."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from nstr3d.io.paint import CLAMP, REPEAT

# The options of a map and the most values that follow them.
OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3, "-texres": 1,
    "-clamp": 1, "-bm": 1, "-imfchan": 1, "-type": 1, "-cc": 1,
}  # fmt: skip
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Material:
    """A material: its display RGB ``colour``, None if the file gives none, and the file ``picture``
    of its colours, which takes the place of the colour, with the ``scale`` and ``offset`` of its
    texture coordinates."""

    name: str
    colour: tuple[float, ...] | None = None
    picture: Path | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    wrap: int = REPEAT


def read_materials(path: Path, notes: list[str]) -> dict[str, Material]:
    """The materials of an MTL file by name. Notes say which colours could not be read."""
    result: dict[str, Material] = {}
    current: Material | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = list(takewhile(lambda word: not word.startswith("#"), line.split()))
        if not words:
            continue
        key = words[0].lower()
        if key == "newmtl":
            current = Material(" ".join(words[1:]))
        elif current is not None and key == "kd":
            current = replace(current, colour=_colour(words[1:], current.name, notes))
        elif current is not None and key == "map_kd":
            current = _with_map(current, words[1:], path.parent)
        if current is not None:
            result[current.name] = current
    return result


def _colour(words: list[str], name: str, notes: list[str]) -> tuple[float, ...] | None:
    try:
        values = np.array([float(word) for word in words[:3]])
    except ValueError:
        values = np.zeros(0)
    if len(values) == 1:  # green and blue are equal to red
        values = np.repeat(values, 3)
    if len(values) != 3 or not np.isfinite(values).all():
        notes.append(f"the colour of its material {name} could not be read")
        return None
    if values.min() < 0 or values.max() > 1:
        notes.append(f"the colour of its material {name} is beyond [0, 1] and was clipped")
    return tuple(values.clip(0, 1).tolist())


def _with_map(material: Material, words: list[str], folder: Path) -> Material:
    """``material`` with the picture that the ``words`` of a map name."""
    rest, given = list(words), {}
    while rest and rest[0].lower() in OPTIONS:
        option = rest.pop(0).lower()
        values: list[str] = []
        while rest[1:] and len(values) < OPTIONS[option]:  # the last word is the file
            if option in ("-o", "-s", "-t") and not NUMBER.fullmatch(rest[0]):
                break
            values.append(rest.pop(0))
        given[option] = values
    name = " ".join(rest).strip('"').replace("\\", "/")
    pair = {
        option: tuple(float(v) for v in (given.get(option, []) + default)[:2])
        for option, default in (("-s", ["1", "1"]), ("-o", ["0", "0"]))
    }
    if len(given.get("-s", [])) == 1:
        pair["-s"] = (pair["-s"][0], 1.0)
    wrap = CLAMP if given.get("-clamp", [""])[0].lower() == "on" else REPEAT
    return replace(
        material,
        picture=folder / name if name else None,
        scale=pair["-s"],  # type: ignore[arg-type]
        offset=pair["-o"],  # type: ignore[arg-type]
        wrap=wrap,
    )
