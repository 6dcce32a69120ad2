"""Colours of PLY and OFF files: of vertices and faces, and the textures of PLY."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nstr3d.io.columns import SHADES
from nstr3d.io.off import read_off_colours
from nstr3d.io.paint import BLANK, PaintedPart, checked_uv, display_values, painted_part, texels
from nstr3d.io.ply import read_header
from nstr3d.io.plymesh import polygons_of, read_tables
from nstr3d.io.plyrows import TYPES, Columns, Element
from nstr3d.io.polygons import Polygons

COORDINATES = ("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("s0", "t0"), ("u0", "v0")


def paint_ply(path: Path, image: np.ndarray | None, notes: list[str]) -> list[PaintedPart]:
    """The parts of a PLY file with its colours; ``image`` takes the place of its textures, and a
    texture that of all other colours. Raises the errors of `read_ply_mesh`."""
    tables, elements, comments = read_tables(path)
    whole = polygons_of(tables, path)
    kinds = {element.name: element for element in elements}
    strips = len(tables.get("tristrips", {})) > 0
    vertex = _shades(tables["vertex"], kinds["vertex"], notes)
    face = None if strips else _shades(tables.get("face", {}), kinds.get("face"), notes)
    shades, source = None, ""
    if vertex is not None:
        shades, source = vertex[whole.corners], "vertices"
    elif face is not None and len(face) == len(whole.counts):
        shades, source = np.repeat(face, whole.counts, axis=0), "faces"
    uv = _coordinates(tables, whole)
    pictures: Sequence[np.ndarray | None] = (
        _pictures(path, comments, notes) if image is None else [image]
    )
    if uv is None or all(picture is None for picture in pictures):
        if any(picture is not None for picture in pictures) and image is None:
            notes.append("it names a texture but has no texture coordinates")
        if shades is None:
            shades = np.full((len(whole.corners), 3), BLANK)
        return [painted_part(whole, source, shades)]
    return _textured(whole, tables, shades, source, checked_uv(uv, notes), pictures)


def _textured(
    whole: Polygons,
    tables: dict[str, Columns],
    shades: np.ndarray | None,
    source: str,
    uv: np.ndarray,
    pictures: Sequence[np.ndarray | None],
) -> list[PaintedPart]:
    """A part for each picture, None for one that could not be read; the column texnumber of the
    faces chooses it. Faces without a picture have the ``shades`` of the ``source``, or no
    colour."""
    number = tables.get("face", {}).get("texnumber", (None, None))[0]
    if number is None or len(pictures) == 1:
        number = np.zeros(len(whole.counts))
    parts, rest = [], np.ones(len(whole.counts), bool)
    for index, picture in enumerate(pictures):
        chosen = np.asarray(number) == index
        if picture is not None and chosen.any():
            rows, rest = np.repeat(chosen, whole.counts), rest & ~chosen
            piece = Polygons(whole.vertices, whole.corners[rows], whole.counts[chosen])
            parts.append(painted_part(piece, "texture", None, uv[rows], picture))
    if rest.any():
        rows = np.repeat(rest, whole.counts)
        piece = Polygons(whole.vertices, whole.corners[rows], whole.counts[rest])
        own = np.full((int(rows.sum()), 3), BLANK) if shades is None else shades[rows]
        parts.append(painted_part(piece, source, own))
    return parts


def _shades(table: Columns, element: Element | None, notes: list[str]) -> np.ndarray | None:
    """Display RGB ``(n, 3)`` of the rows of a table; None without colours."""
    plain = {"".join(c for c in label.lower() if c.isalnum()): label for label in table}
    group = next((group for group in SHADES if all(name in plain for name in group)), None)
    if group is None or element is None:
        some = [name for group in SHADES for name in group if name in plain and len(name) > 1]
        if some:
            notes.append(f"it has the colours {', '.join(some)} alone, which are left out")
        return None
    labels = [plain[name] for name in group]
    columns = [table[label] for label in labels]
    if any(counts is not None for _, counts in columns):
        return None
    words = dict(element.properties)[labels[0]]
    kind = np.dtype(TYPES[words[-1]])
    values = np.stack([np.asarray(values, np.float64) for values, _ in columns], axis=1)
    full = None if kind.kind == "f" else float(np.iinfo(kind).max)
    if full is not None and values.max(initial=0) <= 255:
        full = 255.0  # bytes in a wider type
    return display_values(values, full, notes)


def _coordinates(tables: dict[str, Columns], whole: Polygons) -> np.ndarray | None:
    """The texture coordinates ``(c, 2)`` of the corners; None if the file has none."""
    wedge = tables.get("face", {}).get("texcoord")
    if wedge is not None and wedge[1] is not None:
        if (wedge[1] == 2 * whole.counts).all():
            return np.asarray(wedge[0], np.float64).reshape(-1, 2)
        return None
    vertex = tables["vertex"]
    for pair in COORDINATES:
        if all(name in vertex for name in pair):
            rows = np.stack([np.asarray(vertex[name][0], np.float64) for name in pair], axis=1)
            return rows[whole.corners]
    return None


def _pictures(path: Path, comments: Sequence[str], notes: list[str]) -> list[np.ndarray | None]:
    """The pictures that the comments TextureFile name, None for each that cannot be read: the faces
    count them all."""
    pictures: list[np.ndarray | None] = []
    for comment in comments:
        key, _, name = comment.partition(" ")
        if key.lower() != "texturefile":
            continue
        place = path.parent / name.strip().replace("\\", "/")
        if not place.is_file():
            notes.append(f"its texture {name.strip()} is not there")
            pictures.append(None)
            continue
        try:
            pictures.append(texels(place))
        except ValueError:
            notes.append(f"its texture {name.strip()} could not be read")
            pictures.append(None)
    return pictures


def has_colours(path: Path) -> bool:
    """Whether the header of a PLY file has columns of colours, or names a texture."""
    with open(path, "rb") as file:
        _, elements = read_header(file, path)
        end = file.tell()
        file.seek(0)
        header = file.read(end).lower()
    labels = {label.lower() for element in elements for label, _ in element.properties}
    plain = {"".join(c for c in label if c.isalnum()) for label in labels}
    named = any(len(set(group) & plain) > 0 for group in SHADES)
    return named or b"texturefile" in header


def paint_off(path: Path, image: np.ndarray | None, notes: list[str]) -> list[PaintedPart]:
    """The part of an OFF file with the colours of its vertices or faces. Raises the errors of
    `read_off`."""
    whole, vertex, face = read_off_colours(path)
    for values, source in ((vertex, "vertices"), (face, "faces")):
        if values is None:
            continue
        shades = display_values(values, None, notes)
        if shades is not None:
            each = (
                shades[whole.corners]
                if source == "vertices"
                else np.repeat(shades, whole.counts, axis=0)
            )
            return [painted_part(whole, source, each)]
    return [painted_part(whole, "", np.full((len(whole.corners), 3), BLANK))]
