"""The files that the file of a mesh names: buffers, materials and textures."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nstr3d.io.mtl import read_materials
from nstr3d.io.paintobj import library_places, plain_text

LIBRARY = re.compile(rb"^mtllib +([^\n]*)", re.MULTILINE)
TEXTURE = re.compile(rb"^comment[ \t]+TextureFile[ \t]+([^\r\n]*)", re.MULTILINE | re.IGNORECASE)
HEADER = 1 << 16  # bytes of a PLY file that are searched for its header


def companions(path: Path, colours: bool = True) -> list[Path]:
    """The places of the files that the readers of a mesh open beside the file ``path``, whether
    they are there or not, each once: buffers, and with ``colours`` materials and textures.

    The materials of an OBJ file name its textures, so that these are known only where the materials
    are there. The list is empty for a damaged file.
    """
    suffix = path.suffix.lower()
    names: list[Path] = []
    if suffix in (".gltf", ".glb"):
        names = _of_gltf(path, colours)
    elif suffix == ".obj" and colours:
        names = _of_obj(path)
    elif suffix == ".ply" and colours:
        with open(path, "rb") as file:
            header = file.read(HEADER).partition(b"end_header")[0]
        names = [path.parent / _name(match) for match in TEXTURE.findall(header)]
    return [place for place in dict.fromkeys(names) if place != path]


def _name(written: bytes) -> str:
    return os.fsdecode(written.strip()).replace("\\", "/")


def _of_obj(path: Path) -> list[Path]:
    try:
        lines = [os.fsdecode(line.strip()) for line in LIBRARY.findall(plain_text(path))]
    except ValueError:
        return []
    libraries = [place for line in dict.fromkeys(lines) for place in library_places(path, line)]
    result = list(libraries)
    for place in libraries:
        if place.is_file():
            materials = read_materials(place, []).values()
            result += [each.picture for each in materials if each.picture is not None]
    return result


def _of_gltf(path: Path, colours: bool) -> list[Path]:
    entries: list[Any] = []
    try:
        tree = json.loads(_json_of(path).decode("utf-8-sig").rstrip("\0"))
        entries += tree.get("buffers", [])
        entries += tree.get("images", []) if colours else []
        names = [entry.get("uri", "") for entry in entries]
        wanted = [name for name in names if name and not name.startswith("data:")]
        return [path.parent / unquote(name).replace("\\", "/") for name in wanted]
    except (ValueError, AttributeError, TypeError):
        return []


def _json_of(path: Path) -> bytes:
    """The text of a glTF file, which is the first chunk of a GLB file."""
    with open(path, "rb") as file:
        start = file.read(20)
        if start[:4] == b"glTF":
            return file.read(int.from_bytes(start[12:16], "little"))
        return start + file.read()
