"""Painted surfaces: triangles with colours at their corners, and pictures that they show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nstr3d.io.image import load_image
from nstr3d.io.light import to_display, to_linear
from nstr3d.io.polygons import Polygons, triangulate
from nstr3d.types import Mesh

BLANK = 0.8  # display value of the grey of parts without colours
REPEAT, CLAMP, MIRROR = 0, 1, 2  # what a picture does outside [0, 1]
FARTHEST = 2.0**31  # texture coordinates beyond it have no fraction that means anything


@dataclass(frozen=True)
class PaintedPart:
    """The triangles of ``mesh`` with display RGB ``shades (f, 3, 3)`` in [0, 1] at their corners,
    and, with ``picture (h, w, 3)`` uint8, the texture coordinates ``uv (f, 3, 2)`` of the corners.

    The last row of the picture is at v = 0, and ``wrap`` says what it does outside [0, 1] along u
    and v. Where there is a picture, the colour is the product of both in linear light. ``source``
    says where the colours were: "vertices", "faces", "materials" or "texture", "" for nowhere.
    """

    mesh: Mesh
    shades: np.ndarray
    source: str
    uv: np.ndarray | None = None
    picture: np.ndarray | None = None
    wrap: tuple[int, int] = (REPEAT, REPEAT)

    def at(self, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Display RGB ``(n, 3)`` at the points with the barycentric ``weights (n, 3)`` in the
        ``faces (n,)``."""
        shade = np.einsum("nc,ncd->nd", weights, self.shades[faces]).clip(0, 1)
        if self.uv is None or self.picture is None:
            return shade
        uv = np.einsum("nc,ncd->nd", weights, self.uv[faces])
        texel = bilinear(self.picture, uv, self.wrap)
        if (self.shades == 1).all():
            return texel
        return to_display(to_linear(shade) * to_linear(texel)).clip(0, 1)

    @staticmethod
    def blank(mesh: Mesh) -> PaintedPart:
        """A part without colours, which is grey."""
        return PaintedPart(mesh, np.full((len(mesh.faces), 3, 3), BLANK), "")


@dataclass(frozen=True)
class Paint:
    """The coloured ``parts`` of a file, and ``source``, a few words on where the colours were."""

    parts: tuple[PaintedPart, ...]
    source: str

    @staticmethod
    def of(parts: Sequence[PaintedPart]) -> Paint | None:
        """The paint of ``parts``; None if none has colours, or all have one grey."""
        parts = [part for part in parts if len(part.mesh.faces)]
        sources = sorted({part.source for part in parts} - {""})
        if not sources or _is_grey(parts):
            return None
        return Paint(tuple(parts), " and ".join(sources))


def _is_grey(parts: Sequence[PaintedPart]) -> bool:
    """Whether the parts have no picture and one grey."""
    shades = [part.shades.reshape(-1, 3) for part in parts if part.picture is None]
    if len(shades) < len(parts):
        return False
    return bool(np.ptp(np.concatenate(shades)) < 1 / 255)


def bilinear(
    picture: np.ndarray, uv: np.ndarray, wrap: tuple[int, int] = (REPEAT, REPEAT)
) -> np.ndarray:
    """The values ``(n, c)`` in [0, 1] of ``picture (h, w, c)`` uint8 at texture coordinates ``uv
    (n, 2)``, between the centres of its pixels."""
    height, width = picture.shape[:2]
    at = np.stack([(1 - uv[:, 1]) * height, uv[:, 0] * width], axis=1) - 0.5
    low = np.floor(at)
    part, low = (at - low)[:, :, None], low.astype(np.int64)
    rows, columns = (
        [_wrapped(low[:, axis] + step, size, kind) for step in (0, 1)]
        for axis, size, kind in ((0, height, wrap[1]), (1, width, wrap[0]))
    )
    top, bottom = (
        picture[row, columns[0]] * (1 - part[:, 1]) + picture[row, columns[1]] * part[:, 1]
        for row in rows
    )
    return (top * (1 - part[:, 0]) + bottom * part[:, 0]).clip(0, 255) / 255


def _wrapped(index: np.ndarray, size: int, kind: int) -> np.ndarray:
    if kind == CLAMP:
        return index.clip(0, size - 1)
    if kind == MIRROR:
        folded = index % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    return index % size


def texels(path: Path) -> np.ndarray:
    """The picture ``(h, w, 3)`` uint8 of a file, without its alpha. Raises the errors of
    `load_image`."""
    values = load_image(path)
    colours = values[:, :, :3] if values.shape[2] >= 3 else np.repeat(values[:, :, :1], 3, axis=2)
    return np.round(colours * 255).astype(np.uint8)


def texels_in(data: bytes) -> np.ndarray:
    """The picture that the bytes ``data`` of a file hold, as `texels`."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "texture"
        place.write_bytes(data)
        return texels(place)


def painted_part(
    polygons: Polygons,
    source: str,
    shades: np.ndarray | None = None,
    uv: np.ndarray | None = None,
    picture: np.ndarray | None = None,
    wrap: tuple[int, int] = (REPEAT, REPEAT),
) -> PaintedPart:
    """The part of ``polygons`` with display RGB ``shades (c, 3)`` and texture coordinates ``uv (c,
    2)`` at their corners, which become those of the triangles."""
    corners = polygons.corners
    own = np.arange(len(corners))
    faces = triangulate(polygons.vertices[corners], own, polygons.counts)
    mesh = Mesh(polygons.vertices, corners[faces])
    values = np.ones((len(corners), 3)) if shades is None else shades
    placed = None if uv is None or picture is None else uv[faces]
    return PaintedPart(mesh, values[faces], source, placed, picture, wrap)


def checked_uv(uv: np.ndarray, notes: list[str]) -> np.ndarray:
    """Texture coordinates that can be looked up; others become 0 with a note."""
    known = np.abs(uv).max(axis=1, initial=0) < FARTHEST
    if not known.all():
        notes.append(
            f"{int((~known).sum())} corners have texture coordinates that are not finite or beyond "
            "2^31; the first pixel stands in"
        )
    return np.where(known.reshape(-1, 1), uv, 0.0)


def display_values(values: np.ndarray, full: float | None, notes: list[str]) -> np.ndarray | None:
    """Display RGB ``(n, 3)`` in [0, 1] of ``values (n, 3)`` whose full scale is ``full``; without
    it they are in [0, 1], or whole numbers up to 255 or 65535. Rows that are not finite are grey,
    with a note. None, with a note, for other numbers."""
    values = np.asarray(values, np.float64)
    (known,) = np.nonzero(np.isfinite(values.sum(axis=1)))
    if lost := len(values) - len(known):
        notes.append(f"{lost} of its colours are not finite and are grey")
    most, least = (float(end(values[known], initial=0)) for end in (np.max, np.min))
    if full is None:
        whole = not (values[known] % 1).any()
        full = 1.0 if most <= 1 else 255.0 if most <= 255 and whole else 65535.0 if whole else 0.0
    if not 0 <= least <= most <= full:
        notes.append(
            f"its colours go from {least:g} to {most:g} and are left out: they are neither in "
            "[0, 1] nor whole numbers up to 255 or 65535"
        )
        return None
    result = np.full(values.shape, BLANK)
    result[known] = values[known] / full
    return result
