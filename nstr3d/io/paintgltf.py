"""Colours of glTF scenes: of vertices, base colours and their textures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from nstr3d.io.gltffile import DRACO, GltfFile
from nstr3d.io.gltfscene import Part, read_parts
from nstr3d.io.light import to_display, to_linear
from nstr3d.io.paint import (
    BLANK,
    CLAMP,
    MIRROR,
    REPEAT,
    PaintedPart,
    checked_uv,
    display_values,
    painted_part,
    texels,
    texels_in,
)
from nstr3d.io.polygons import Polygons

WRAPS = {33071: CLAMP, 33648: MIRROR, 10497: REPEAT}  # codes of OpenGL
TRANSFORM = "KHR_texture_transform"
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
# Extensions that name another picture for a texture.
SOURCES = "EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds", "KHR_texture_basisu"


def paint_gltf(path: Path, image: np.ndarray | None, notes: list[str]) -> list[PaintedPart]:
    """The parts of a glTF or GLB file; ``image`` takes the place of the textures. The numbers of
    vertices and materials are linear light. Raises the errors of `read_gltf`."""
    file = GltfFile(path)
    if not _may_have_colours(file):
        return []
    pictures: dict[int, np.ndarray | None] = {}
    parts = [part for part in read_parts(file)[0] if len(part.faces)]
    return [_painted(file, part, image, pictures, notes) for part in parts]


def _may_have_colours(file: GltfFile) -> bool:
    """Whether a primitive has a material or colours of vertices."""
    return any(
        "material" in primitive or "COLOR_0" in primitive["attributes"]
        for mesh in file.tree.get("meshes", [])
        for primitive in mesh["primitives"]
    )


def _painted(
    file: GltfFile,
    part: Part,
    image: np.ndarray | None,
    pictures: dict[int, np.ndarray | None],
    notes: list[str],
) -> PaintedPart:
    faces = part.faces
    whole = Polygons(part.vertices, faces.ravel(), np.full(len(faces), 3))
    if DRACO in part.primitive.get("extensions", {}):
        notes.append("colours and textures inside Draco are not read")
        return painted_part(whole, "", np.full((faces.size, 3), BLANK))
    named = "material" in part.primitive
    material = file.item("materials", part.primitive["material"]) if named else {}
    glossy = material.get("extensions", {}).get(GLOSSY)
    about = glossy if glossy is not None else material.get("pbrMetallicRoughness", {})
    names = ("diffuseFactor", "diffuseTexture") if glossy is not None else (
        "baseColorFactor", "baseColorTexture"
    )  # fmt: skip
    factor = np.array(about.get(names[0], [1.0] * 4), np.float64)[:3]
    texture = about.get(names[1])
    shades = np.tile(to_display(factor.clip(0, 1)), (faces.size, 1))
    source = "materials" if named and names[0] in about else ""
    own = _vertex_shades(file, part, notes)
    if own is not None:
        mine = own[faces.ravel()]
        shades = to_display(to_linear(mine) * to_linear(shades))
        source = "vertices"
    picture, wrap, uv = image, (REPEAT, REPEAT), None
    if texture is not None or image is not None:
        texture = texture if texture is not None else {"index": -1}
        if image is None:
            picture, wrap = _texture(file, texture["index"], pictures, notes)
        uv = _coordinates(file, part, texture)
        if picture is not None and uv is None:
            notes.append("a part with a texture has no texture coordinates")
    if picture is None or uv is None:
        shades = shades if source else np.full((faces.size, 3), BLANK)
        return painted_part(whole, source, shades)
    shades = np.ones_like(shades) if image is not None else shades
    return painted_part(whole, "texture", shades, checked_uv(uv, notes), picture, wrap)


def _vertex_shades(file: GltfFile, part: Part, notes: list[str]) -> np.ndarray | None:
    """Display RGB ``(v, 3)`` of the vertices of a primitive; None without colours."""
    at = part.primitive["attributes"].get("COLOR_0")
    if at is None:
        return None
    values = file.accessor(at)[:, :3]
    if len(values) != len(part.vertices):
        notes.append("a part has another number of colours than of vertices; they are left out")
        return None
    linear = display_values(values, None if values.dtype.kind == "i" else 1.0, notes)
    return None if linear is None else to_display(linear)


def _coordinates(file: GltfFile, part: Part, texture: dict[str, Any]) -> np.ndarray | None:
    """The texture coordinates ``(c, 2)`` of the corners, with v upward; None without."""
    change = texture.get("extensions", {}).get(TRANSFORM, {})
    number = change.get("texCoord", texture.get("texCoord", 0))
    at = part.primitive["attributes"].get(f"TEXCOORD_{number}")
    if at is None:
        return None
    kind = file.item("accessors", at)["componentType"]
    uv = file.accessor(at).astype(np.float64)[:, :2]
    if kind in (5121, 5123) and not file.item("accessors", at).get("normalized"):
        uv /= 255 if kind == 5121 else 65535  # glTF allows whole numbers as shares only
    if len(uv) != len(part.vertices):
        return None
    turn, (sx, sy) = float(change.get("rotation", 0.0)), change.get("scale", (1.0, 1.0))
    u, v = uv[:, 0] * sx, uv[:, 1] * sy
    shift = change.get("offset", (0.0, 0.0))
    across = np.cos(turn) * u - np.sin(turn) * v + shift[0]
    down = np.sin(turn) * u + np.cos(turn) * v + shift[1]
    return np.stack([across, 1 - down], axis=1)[part.faces.ravel()]


def _texture(
    file: GltfFile, index: int, pictures: dict[int, np.ndarray | None], notes: list[str]
) -> tuple[np.ndarray | None, tuple[int, int]]:
    """The picture of a texture, None if it cannot be read, and what it does outside [0, 1]."""
    texture = file.item("textures", index)
    source = texture.get("source")
    for name in SOURCES:
        source = texture.get("extensions", {}).get(name, {}).get("source", source)
    sampler = file.item("samplers", texture["sampler"]) if "sampler" in texture else {}
    u, v = (WRAPS.get(sampler.get(name, 10497), REPEAT) for name in ("wrapS", "wrapT"))
    if source is None:
        notes.append("a texture names no picture")
        return None, (u, v)
    if source not in pictures:
        pictures[source] = _picture(file, source, notes)
    return pictures[source], (u, v)


def _picture(file: GltfFile, index: int, notes: list[str]) -> np.ndarray | None:
    entry = file.item("images", index)
    uri = entry.get("uri", "")
    name = entry.get("name") or (uri if not uri.startswith("data:") else "") or f"image {index}"
    try:
        if "bufferView" in entry:
            return texels_in(file.view(entry["bufferView"]).tobytes())
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            whole = base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
            return texels_in(whole)
        place = file.path.parent / unquote(uri).replace("\\", "/")
        if place.is_file():
            return texels(place)
        fault = "is not there"
    except ValueError:
        fault = "could not be read"
    notes.append(f"its texture {name} {fault}, so that its parts have the colour of their material")
    return None
