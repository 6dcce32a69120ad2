"""Properties of files that need no preparation: what `check` and `info` share."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io import NoFacesError, load_picture, load_sound, read_mesh
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.types import Box, Mesh

EASTING, NORTHING = (1e5, 1e6), (0.0, 1e7)  # metres of UTM coordinates


def head(path: Path) -> dict[str, Any]:
    """The path, the format by the extension, and the size of a file in bytes."""
    return {
        "path": os.fspath(path),
        "format": path.suffix.lstrip(".").upper(),
        "bytes": path.stat().st_size,
    }


def command(word: str, path: Path) -> str:
    """The command line ``nstr3d WORD path``, which a shell takes as it is written."""
    text = os.fspath(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return f"nstr3d {word} {shlex.quote(text)}"
    letters = (
        each
        if each.isprintable() and each not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(each))
        for each in text
    )
    return f"nstr3d {word} $'{''.join(letters)}'"  # of bash, zsh and ksh


def about_picture(path: Path) -> dict[str, Any]:
    """The properties of a picture."""
    picture = load_picture(path)
    return {
        "kind": "image",
        "shape": list(picture.values.shape),
        "bits": picture.bits,
        "suspicious": [f"{note[:1].upper()}{note[1:]}." for note in picture.notes],
        "command": command("fit", path),
    }


def about_sound(path: Path) -> dict[str, Any]:
    """The properties of a sound."""
    sound = load_sound(path)
    loudest = float(np.abs(sound.values).max())
    quiet = "All samples are 0, so there is nothing to hear."
    loud = f"Samples reach {loudest:.3g}, beyond the full scale of 1."
    return {
        "kind": "sound",
        "shape": list(sound.values.shape),
        "rate": sound.rate,
        "subtype": sound.subtype,
        "suspicious": [quiet] if not loudest else [loud] if loudest > 1 else [],
        "command": command("fit", path),
    }


def box_of(points: np.ndarray) -> Box:
    """The bounding box of ``points (n, d)``."""
    return Box(tuple(points.min(axis=0).tolist()), tuple(points.max(axis=0).tolist()))


def guess_units(bounds: Box) -> str:
    """A guess at the units, which most formats do not store."""
    longest, (x, y) = float(bounds.extent.max()), bounds.centre[:2]
    if EASTING[0] <= x <= EASTING[1] and NORTHING[0] < y <= NORTHING[1] and y > EASTING[0]:
        return "perhaps metres of a map projection such as UTM"
    if longest <= 3:
        return f"unknown; {longest:.4g} may be metres or a normalised size"
    if longest <= 3000:
        return f"unknown; {longest:.4g} may be millimetres of a part or metres of a building"
    return f"unknown; {longest:.4g} may be millimetres or metres of a site"


def read_faces(path: Path) -> tuple[Mesh, list[str]] | None:
    """The mesh of a file and the notes on it; None if a file that may hold points has no faces.
    Raises the errors of `read_mesh`."""
    try:
        return read_mesh(path)
    except NoFacesError:
        if path.suffix.lower() not in CLOUD_SUFFIXES:
            raise
        return None


def place_in(bounds: Box) -> dict[str, Any]:
    """The bounds and the extent, and in 3D the units that the extent suggests, by name."""
    place = {"bounds": dataclasses.asdict(bounds), "extent": bounds.extent.tolist()}
    return place | ({"units": guess_units(bounds)} if len(bounds.lower) == 3 else {})
