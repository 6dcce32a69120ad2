"""Colours of the meshes in files and of other programs' objects.

A colour belongs to a place and not to a face of the surface that is fitted: the mesh of a file may
be repaired, which leaves its colours alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import check_readable
from nstr3d.io.interop import as_mesh
from nstr3d.io.paint import (
    BLANK,
    Paint,
    PaintedPart,
    checked_uv,
    display_values,
    painted_part,
    texels,
)
from nstr3d.io.paintgltf import paint_gltf
from nstr3d.io.paintobj import may_have_colours, paint_obj
from nstr3d.io.paintply import has_colours, paint_off, paint_ply
from nstr3d.io.polygons import Polygons
from nstr3d.types import Mesh

Reader = Callable[[Path, "np.ndarray | None", list[str]], list[PaintedPart]]
READERS: dict[str, Reader] = {
    ".obj": paint_obj,
    ".ply": paint_ply,
    ".off": paint_off,
    ".glb": paint_gltf,
    ".gltf": paint_gltf,
}


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
    suffix = path.suffix.lower()
    image = None if picture is None else texels(picture)
    notes: list[str] = []
    parts: list[PaintedPart] = []
    try:
        if image is not None or _may_have_colours(path, suffix):
            parts = READERS.get(suffix, _with_trimesh)(path, image, notes)
    except ValueError as error:
        reason = str(error).removeprefix(str(path)).strip(" :.")
        notes.append(f"its colours could not be read: {reason}")
    except Exception as error:  # damaged files may raise anything in any decoder
        notes.append(f"its colours could not be read ({type(error).__name__})")
    if image is not None and all(part.source != "texture" for part in parts):
        raise ValueError(f"{path} has no texture coordinates, which {picture} would need.")
    bare = [part for part in parts if not part.source]
    if bare and len(bare) < len(parts):
        faces = sum(len(part.mesh.faces) for part in bare)
        notes.append(
            f"{len(bare)} of its {len(parts)} parts, with {faces} faces, have no colour and are "
            "grey"
        )
    return Paint.of(parts), [f"{path}: {note}." for note in dict.fromkeys(notes)]


def _may_have_colours(path: Path, suffix: str) -> bool:
    """Whether a file may have colours, where that can be told without reading its geometry."""
    if suffix == ".stl":
        return False
    return {".obj": may_have_colours, ".ply": has_colours}.get(suffix, lambda path: True)(path)


def paint_of(source: Any) -> Paint | None:
    """The colours of a mesh or scene of trimesh, or a mesh of Open3D; None if it has none, or is
    of another kind."""
    if hasattr(source, "graph"):
        return Paint.of([_of_visual(mesh, visual, None, []) for mesh, visual in _placed(source)])
    if hasattr(source, "visual"):
        return Paint.of([_of_visual(as_mesh(source), source.visual, None, [])])
    if not len(colours := getattr(source, "vertex_colors", ())):
        return None
    mesh = as_mesh(source)
    shades = display_values(np.asarray(colours), 1.0, [])
    return None if shades is None else Paint.of([PaintedPart(mesh, shades[mesh.faces], "vertices")])


def _with_trimesh(path: Path, image: np.ndarray | None, notes: list[str]) -> list[PaintedPart]:
    """The parts of a file in another format of trimesh."""
    import trimesh

    scene = trimesh.load_scene(str(path), process=False)
    return [_of_visual(mesh, visual, image, notes) for mesh, visual in _placed(scene)]


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


def _of_visual(mesh: Mesh, visual: Any, image: np.ndarray | None, notes: list[str]) -> PaintedPart:
    """A part with the colours of a visual of trimesh."""
    faces, kind = mesh.faces, getattr(visual, "kind", None)
    if kind == "face":
        shades = _eight_bits(visual.face_colors)
        return PaintedPart(mesh, np.repeat(shades[:, None], 3, axis=1), "faces")
    if kind == "vertex":
        return PaintedPart(mesh, _eight_bits(visual.vertex_colors)[faces], "vertices")
    if kind != "texture":
        return PaintedPart.blank(mesh)
    source, factor, picture = _material(visual.material)
    uv = visual.uv
    known = uv is not None and len(uv) == len(mesh.vertices)
    if image is not None and known:
        source, factor, picture = "texture", np.ones(3), image
    whole = Polygons(mesh.vertices, faces.ravel(), np.full(len(faces), 3))
    if picture is None or not known:
        source = "materials" if source else ""
        shades = np.tile(factor if source else np.full(3, BLANK), (faces.size, 1))
        return painted_part(whole, source, shades)
    placed = checked_uv(np.asarray(uv, np.float64)[:, :2], notes)[faces.ravel()]
    return painted_part(whole, source, np.tile(factor, (faces.size, 1)), placed, picture)


def _eight_bits(colours: Any) -> np.ndarray:
    return np.asarray(colours)[:, :3].astype(np.float64) / 255


def _material(material: Any) -> tuple[str, np.ndarray, np.ndarray | None]:
    """Where the colour of a material of trimesh is ("" if it is a default), its display RGB
    ``(3,)``, and its picture if it has one."""
    simple = hasattr(material, "diffuse")
    colour = material.diffuse if simple else material.baseColorFactor
    picture = material.image if simple else material.baseColorTexture
    if picture is not None and picture.size == (2, 2) and simple and not hasattr(material, "_name"):
        return "", np.full(3, BLANK), None  # the picture that trimesh makes for want of another
    factor = np.ones(3) if colour is None else np.asarray(colour, np.float64)[:3] / 255
    if picture is None:
        return "materials", factor, None
    return "texture", np.ones(3) if simple else factor, np.asarray(picture.convert("RGB"))
