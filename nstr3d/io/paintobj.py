"""Colours of OBJ files: of vertices, materials and textures."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nstr3d.io.mtl import Material, read_materials
from nstr3d.io.obj import read_obj
from nstr3d.io.paint import (
    BLANK,
    PaintedPart,
    checked_uv,
    display_values,
    painted_part,
    texels,
)
from nstr3d.io.polygons import Polygons
from nstr3d.io.textlines import clean_text

LINE = re.compile(rb"^(vt|v|fo|f|usemtl|mtllib)[ \t]+([^\n]*)$", re.MULTILINE)
NUMBERS = re.compile(rb"^v(?:[ \t]+[^\s]+){6}", re.MULTILINE)
HEAD = 1 << 16  # bytes in which the first vertices are
CONTINUED = re.compile(rb"\\ *\n")


def may_have_colours(path: Path) -> bool:
    """Whether an OBJ file names materials, or one of its first vertices has six numbers."""
    text = path.read_bytes()
    return b"usemtl" in text or NUMBERS.search(text[:HEAD]) is not None


def has_coordinates(path: Path) -> bool:
    """Whether a file is OBJ and has texture coordinates."""
    return path.suffix.lower() == ".obj" and b"\nvt " in path.read_bytes()


def paint_obj(path: Path, image: np.ndarray | None, notes: list[str]) -> list[PaintedPart]:
    """The parts of an OBJ file, one for each material; ``image`` takes the place of the textures.

    A picture takes the place of all other colours, and colours of vertices that of the materials'
    colours. Raises the errors of `read_obj`.
    """
    whole = read_obj(path)
    text = plain_text(path)
    libraries: list[str] = []
    shades: list[list[float]] = []
    coordinates: list[list[float]] = []
    wedges: list[int] = []  # the texture coordinates of the corners, -1 for none
    owners: list[str] = []  # the material of each face
    material = ""
    for match in LINE.finditer(text):
        key, words = match[1], match[2].split()
        if key == b"v":
            shades.append([float(word) for word in words[3:6]] if len(words) > 5 else [np.nan] * 3)
        elif key == b"vt":
            coordinates.append([float(word) for word in (*words[:2], b"0")[:2]])
        elif key == b"usemtl":
            material = os.fsdecode(match[2].strip())
        elif key == b"mtllib":
            libraries.append(os.fsdecode(match[2].strip()))
        else:
            owners.append(material)
            for word in words:
                pieces = word.split(b"/")
                at = int(pieces[1]) if len(pieces) > 1 and pieces[1] else 0
                wedges.append(at - 1 if at > 0 else at + len(coordinates) if at else -1)
    materials = _materials(path, libraries, notes)
    unknown = sorted(set(owners) - materials.keys() - {""})
    if unknown and materials:
        notes.append(f"its materials {', '.join(unknown[:5])} are not in the files that it names")
    if (len(owners), len(wedges)) != (len(whole.counts), len(whole.corners)):
        raise ValueError("its faces could not be matched with their materials")
    uv = np.full((len(wedges), 2), np.nan)
    at = np.array(wedges, np.int64)
    named = (at >= 0) & (at < len(coordinates))
    if named.any():
        uv[named] = np.array(coordinates)[at[named]]
    own = _vertex_shades(shades, notes)
    return _parts(whole, owners, materials, own, uv, named, image, notes)


def _vertex_shades(shades: Sequence[Sequence[float]], notes: list[str]) -> np.ndarray | None:
    """Display RGB ``(v, 3)`` of the vertices; None if none has a colour."""
    values = np.array(shades, np.float64).reshape(-1, 3)
    given = np.isfinite(values.sum(axis=1))
    if not given.any():
        return None
    told: list[str] = []
    result = display_values(np.where(given[:, None], values, 0.0), None, told)
    if result is not None and not given.all():
        told.append(f"{int((~given).sum())} of its vertices have no colour and are grey")
        result = np.where(given[:, None], result, BLANK)
    notes += told
    return result


def _materials(path: Path, libraries: Sequence[str], notes: list[str]) -> dict[str, Material]:
    """The materials of all files that the lines ``libraries`` name."""
    result: dict[str, Material] = {}
    for line in dict.fromkeys(libraries):
        for place in library_places(path, line):
            if place.is_file():
                result = read_materials(place, notes) | result
            else:
                notes.append(f"its materials are in {place.name}, which is not there")
    return result


def plain_text(path: Path) -> bytes:
    """The lines of an OBJ file, whole and without comments. Raises the errors of `clean_text`."""
    return CONTINUED.sub(b" ", clean_text(path, "OBJ", b"#"))


def library_places(path: Path, line: str) -> list[Path]:
    """The places of the files that a ``line`` mtllib names: one whose name may have blanks, if it
    is there, or several."""
    names = [line] if (path.parent / line).is_file() else line.split()
    return [path.parent / name.strip('"').replace("\\", "/") for name in names]


def _parts(
    whole: Polygons,
    owners: Sequence[str],
    materials: dict[str, Material],
    own: np.ndarray | None,
    uv: np.ndarray,
    named: np.ndarray,
    image: np.ndarray | None,
    notes: list[str],
) -> list[PaintedPart]:
    """A part for each material, and for each whether its corners have texture coordinates."""
    pictures: dict[Path, np.ndarray | None] = {}
    faces = np.repeat(np.arange(len(whole.counts)), whole.counts)
    starts = np.cumsum(whole.counts) - whole.counts
    mapped = np.logical_and.reduceat(named, starts) if len(starts) else np.zeros(0, bool)
    labels, which = np.unique(np.array(owners, object).astype(str), return_inverse=True)
    parts = []
    for index, label in enumerate(labels.tolist()):
        material = materials.get(label, Material(label))
        if material.picture is not None and material.picture not in pictures and image is None:
            pictures[material.picture] = _picture(material, notes)
        for has_uv in (True, False):
            chosen = (which == index) & (mapped == has_uv)
            if not chosen.any():
                continue
            rows = chosen[faces]
            piece = replace(whole, corners=whole.corners[rows], counts=whole.counts[chosen])
            shown = image if image is not None else pictures.get(material.picture or Path())
            if shown is not None and not has_uv:
                notes.append(
                    f"{int(chosen.sum())} of its faces have no texture coordinates for their "
                    "texture"
                )
            picture = shown if has_uv else None
            parts.append(_part(piece, material, own, uv[rows], picture, notes))
    return parts


def _part(
    piece: Polygons,
    material: Material,
    own: np.ndarray | None,
    uv: np.ndarray,
    picture: np.ndarray | None,
    notes: list[str],
) -> PaintedPart:
    if picture is not None:
        placed = checked_uv(uv * material.scale + material.offset, notes)
        wrap = material.wrap, material.wrap
        return painted_part(piece, "texture", None, placed, picture, wrap)
    if own is not None:
        return painted_part(piece, "vertices", own[piece.corners])
    colour = np.array(material.colour or (BLANK,) * 3)
    shades = np.tile(colour, (len(piece.corners), 1))
    return painted_part(piece, "materials" if material.colour else "", shades)


def _picture(material: Material, notes: list[str]) -> np.ndarray | None:
    """The picture of a material; None, with a note, if it cannot be read."""
    place = material.picture
    assert place is not None
    if not place.is_file():
        fault = "is not there"
    else:
        try:
            return texels(place)
        except ValueError as error:
            fault = str(error).removeprefix(str(place)).strip(" :")
    notes.append(
        f"its texture {place.name} {fault}, so that the parts of {material.name} have the colour "
        "of their material"
    )
    return None
