"""Colours of the meshes in files: those of vertices and faces, materials, and textures.

trimesh reads them. The surface to which they belong is read by `nstr3d.io.mesh`, which may repair
what this module leaves alone, so a colour belongs to a place and not to a face of that surface.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import check_readable
from nstr3d.io.image import load_image
from nstr3d.io.interop import as_mesh
from nstr3d.io.light import to_display, to_linear
from nstr3d.types import Mesh

BLANK = 0.8  # display value of the grey of parts without colours
HEAD = 1 << 16  # bytes of a text in which its first colours are looked for
NUMBERS = re.compile(rb"^v(?:[ \t]+\S+){6}", re.MULTILINE)  # x, y, z, red, green, blue


@dataclass(frozen=True)
class PaintedPart:
    """The triangles of ``mesh`` with display RGB ``shades (f, 3, 3)`` in [0, 1] at their corners,
    and, with ``picture (h, w, 3)`` uint8, the texture coordinates ``uv (f, 3, 2)`` of the corners.

    The picture repeats outside [0, 1], and its last row is at v = 0. Where there is a picture, the
    colour is the product of both in linear light.
    """

    mesh: Mesh
    shades: np.ndarray
    uv: np.ndarray | None = None
    picture: np.ndarray | None = None

    def at(self, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Display RGB ``(n, 3)`` at the points with the barycentric ``weights (n, 3)`` in the
        ``faces (n,)``."""
        shade = np.einsum("nc,ncd->nd", weights, self.shades[faces])
        if self.uv is None or self.picture is None:
            return shade
        texel = bilinear(self.picture, np.einsum("nc,ncd->nd", weights, self.uv[faces]))
        return (
            texel if (self.shades == 1).all() else to_display(to_linear(shade) * to_linear(texel))
        )


@dataclass(frozen=True)
class Paint:
    """The coloured ``parts`` of a file, and ``source``, a few words on where the colours were."""

    parts: tuple[PaintedPart, ...]
    source: str


def read_paint(
    path: str | os.PathLike[str], picture: Path | None = None
) -> tuple[Paint | None, list[str]]:
    """The colours of a mesh file, None if it has none, and sentences about what is missing.

    The colours are those of vertices and faces, of materials, and of the textures of base colour.
    ``picture`` replaces the textures. Colours of one grey count as none. Faults of the colours give
    notes and no errors, since the surface is whole without them. Raises the errors of `load_image`
    for ``picture``, and ValueError if the file has no texture coordinates to which it belongs.
    """
    path = Path(path)
    check_readable(path)
    image = None if picture is None else _picture(load_image(picture))
    if image is None and not _may_have_colours(path):
        return None, []
    notes: list[str] = []
    try:
        painted = _parts(path, image, notes)
    except Exception as error:  # damaged files may raise anything in any decoder
        notes.append(f"its colours could not be read ({type(error).__name__})")
        painted = []
    if image is not None and all(source != "texture" for _, source in painted):
        raise ValueError(f"{path} has no texture coordinates, which {picture} would need.")
    bare = [part for part, source in painted if not source]
    if bare and len(bare) < len(painted):
        faces = sum(len(part.mesh.faces) for part in bare)
        notes.append(
            f"{len(bare)} of its {len(painted)} parts, with {faces} faces, have no colour and are "
            "grey"
        )
    return _whole(painted), [f"{path}: {note}." for note in dict.fromkeys(notes)]


def paint_of(source: Any) -> Paint | None:
    """The colours of a mesh or scene of trimesh, or a mesh of Open3D; None if it has none, or is
    of another kind."""
    if hasattr(source, "graph"):
        painted = [_painted(mesh, visual, None, False, []) for mesh, visual in _placed(source)]
    elif hasattr(source, "visual"):
        painted = [_painted(as_mesh(source), source.visual, None, False, [])]
    elif len(colours := getattr(source, "vertex_colors", ())):
        mesh = as_mesh(source)
        painted = [(PaintedPart(mesh, _values(colours, False, [])[mesh.faces]), "vertices")]
    else:
        return None
    return _whole(painted)


def bilinear(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """The values ``(n, c)`` in [0, 1] of ``picture (h, w, c)`` uint8 at texture coordinates ``uv
    (n, 2)``, between the centres of its pixels; it repeats in both directions."""
    height, width = picture.shape[:2]
    at = np.stack([(1 - uv[:, 1]) * height, uv[:, 0] * width], axis=1) - 0.5
    low = np.floor(at)
    part, low = (at - low)[:, :, None], low.astype(np.int64)
    rows, columns = (
        [(low[:, axis] + step) % size for step in (0, 1)]
        for axis, size in ((0, height), (1, width))
    )
    top, bottom = (
        picture[row, columns[0]] * (1 - part[:, 1]) + picture[row, columns[1]] * part[:, 1]
        for row in rows
    )
    return (top * (1 - part[:, 0]) + bottom * part[:, 0]) / 255


def _may_have_colours(path: Path) -> bool:
    """Whether the beginning of a file in a format of plain text says that it has colours; true for
    other formats."""
    suffix = path.suffix.lower()
    if suffix not in (".obj", ".ply", ".off", ".stl"):
        return True
    with open(path, "rb") as file:
        head = file.read(HEAD)
        if suffix == ".ply":
            header = head.split(b"end_header")[0].lower()
            return b" red" in header or b"diffuse_red" in header or b"texturefile" in header
        if suffix == ".off":
            return b"OFF" in head[:64] and re.match(rb"\s*(?:ST|N|4)*C", head) is not None
        if suffix == ".stl":
            return False
        return b"mtllib" in head or NUMBERS.search(head) is not None


def _whole(painted: Sequence[tuple[PaintedPart, str]]) -> Paint | None:
    """The paint of all parts, which come with the places of their colours; None if no part has
    any, or all have one grey."""
    parts, sources = tuple(part for part, _ in painted), {source for _, source in painted}
    if not sources - {""} or _is_grey(parts):
        return None
    return Paint(parts, " and ".join(sorted(sources - {""})))


def _parts(path: Path, image: np.ndarray | None, notes: list[str]) -> list[tuple[PaintedPart, str]]:
    """The parts of a file, with where their colours were, "" if they have none."""
    import trimesh

    linear = path.suffix.lower() in (".glb", ".gltf")
    if path.suffix.lower() == ".obj":
        notes += _missing_files(path)
    scene = trimesh.load_scene(str(path), process=False)
    return [_painted(mesh, visual, image, linear, notes) for mesh, visual in _placed(scene)]


def _placed(scene: Any) -> Iterator[tuple[Mesh, Any]]:
    """The meshes of a scene in its coordinates, with their visuals."""
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        faces = np.asarray(getattr(geometry, "faces", np.zeros((0, 3))), np.int64)
        if len(faces):
            vertices = np.asarray(geometry.vertices, np.float64)
            placed = vertices @ transform[:3, :3].T + transform[:3, 3]
            yield Mesh(placed, faces), geometry.visual


def _painted(
    mesh: Mesh, visual: Any, image: np.ndarray | None, linear: bool, notes: list[str]
) -> tuple[PaintedPart, str]:
    """A part and where its colours were, "" if it has none. ``linear`` says that the numbers of
    vertices and materials are linear light, and ``image`` takes the place of textures."""
    faces, kind = mesh.faces, getattr(visual, "kind", None)
    if kind == "face":
        shades = _values(visual.face_colors, linear, notes)
        return PaintedPart(mesh, np.repeat(shades[:, None], 3, axis=1)), "faces"
    if kind == "vertex":
        return PaintedPart(mesh, _values(visual.vertex_colors, linear, notes)[faces]), "vertices"
    if kind != "texture":
        return PaintedPart(mesh, np.full((len(faces), 3, 3), BLANK)), ""
    source, factor, picture = _material(visual.material, linear)
    uv = _coordinates(visual.uv, mesh, notes)
    if image is not None and uv is not None:
        source, factor, picture = "texture", np.ones(3), image
    if picture is None or uv is None:
        source, picture, uv = source and "materials", None, None
    shades = np.broadcast_to(factor if source else np.full(3, BLANK), (len(faces), 3, 3))
    colours = visual.vertex_attributes.get("color")
    if colours is not None and len(colours) == len(mesh.vertices) and image is None:
        values = _values(colours, linear, notes)[faces]
        shades = to_display(to_linear(values) * to_linear(shades)) if source else values
        source = "vertices" if source in ("", "materials") else source
    return PaintedPart(mesh, shades, None if uv is None else uv[faces], picture), source


def _material(material: Any, linear: bool) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Where the colour of a material is ("" if the file has no material: trimesh makes one), its
    display RGB ``(3,)``, and its picture if it has one."""
    simple = hasattr(material, "diffuse")  # a material of OBJ
    if simple and not hasattr(material, "_name"):
        return "", np.full(3, BLANK), None
    colour = material.diffuse if simple else material.baseColorFactor
    picture = material.image if simple else material.baseColorTexture
    factor = np.ones(3) if colour is None else np.asarray(colour, np.float64)[:3] / 255
    factor = to_display(factor) if linear else factor
    if picture is None:
        return "materials", factor, None
    # In OBJ a picture takes the place of the colour; in glTF it is multiplied by it.
    return "texture", np.ones(3) if simple else factor, np.asarray(picture.convert("RGB"))


def _coordinates(uv: Any, mesh: Mesh, notes: list[str]) -> np.ndarray | None:
    """The texture coordinates ``(v, 2)`` of the vertices, None if there are none for all."""
    if uv is None or len(uv) != len(mesh.vertices):
        return None
    uv = np.asarray(uv, np.float64)[:, :2]
    known = np.isfinite(uv).all(axis=1)
    if not known.all():
        notes.append(f"{int((~known).sum())} of its texture coordinates are not finite")
    return np.where(known[:, None], uv, 0.0)


def _values(colours: Any, linear: bool, notes: list[str]) -> np.ndarray:
    """Display RGB ``(n, 3)`` of ``colours (n, 3 or 4)`` in whole numbers or in [0, 1]."""
    colours = np.asarray(colours)[:, :3]
    full = np.iinfo(colours.dtype).max if colours.dtype.kind in "ui" else 1.0
    values = colours.astype(np.float64) / full
    known = np.isfinite(values).all(axis=1)
    if not known.all():
        notes.append(f"{int((~known).sum())} of its colours are not finite and are grey")
    values = values.clip(0, 1)
    return np.where(known[:, None], to_display(values) if linear else values, BLANK)


def _picture(values: np.ndarray) -> np.ndarray:
    """RGB ``(h, w, 3)`` uint8 of a picture ``(h, w, c)`` in [0, 1]; its alpha is left out."""
    colours = values[:, :, :3] if values.shape[2] >= 3 else np.repeat(values[:, :, :1], 3, axis=2)
    return np.round(colours * 255).astype(np.uint8)


def _is_grey(parts: Sequence[PaintedPart]) -> bool:
    """Whether the parts have no picture and one grey."""
    shades = [part.shades.reshape(-1, 3) for part in parts if part.picture is None]
    if len(shades) < len(parts):
        return False
    flat = np.concatenate(shades)
    return bool(np.ptp(flat) < 1 / 255)


def _missing_files(path: Path) -> list[str]:
    """Notes on the files of materials and textures that an OBJ file names and that cannot be
    read."""
    notes, text = [], path.read_bytes()
    names = re.findall(rb"^[ \t]*mtllib[ \t]+(.+?)[ \t\r]*$", text, re.MULTILINE)
    for name in map(os.fsdecode, dict.fromkeys(names)):
        library = path.parent / name
        if not library.is_file():
            notes.append(f"its materials are in {name}, which is not there")
            continue
        words = library.read_text(encoding="utf-8", errors="replace")
        for texture in re.findall(r"(?im)^[ \t]*map_kd[ \t]+(.+?)[ \t\r]*$", words):
            if fault := _fault(library.parent / texture):
                notes.append(
                    f"its texture {texture} {fault}, so that its parts have the colour of their "
                    "material"
                )
    return notes


def _fault(texture: Path) -> str:
    """Why a picture cannot be read, as the end of a sentence; empty if it can."""
    from PIL import Image

    if not texture.is_file():
        return "is not there"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(texture).close()
    except Image.DecompressionBombError:
        return f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
    except Exception:
        return "could not be read"
    return ""
