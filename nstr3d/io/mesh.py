"""Triangle meshes from files and to files.

Every error message is one sentence that names the file.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable
from nstr3d.io.errors import NoFacesError
from nstr3d.io.meshformats import ENCODERS, encode_mesh_ply, fits_float32
from nstr3d.types import Mesh


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """The triangles of a mesh file as one `Mesh`.

    The formats are OBJ, PLY, STL, OFF, GLB, GLTF and the other mesh formats of trimesh. The
    transforms of a scene are applied and its meshes joined. Polygons are triangulated. Textures,
    colours and normals are dropped. Duplicate vertices stay; `repair` merges them. Raises
    ``FileNotFoundError``, ``IsADirectoryError``, `NoFacesError` for a point cloud, and
    ``ValueError`` if the file holds no mesh, non-finite vertices, or faces that name vertices that
    do not exist.
    """
    path = Path(path)
    vertices, faces = _read_scene(path, _mesh_format(path))
    if len(faces) == 0 and len(vertices) == 0:
        raise ValueError(
            f"{path} holds no geometry; check that the export that wrote it was not empty"
        )
    if len(faces) == 0:
        raise NoFacesError(
            f"{path} has {len(vertices)} points but no faces; fit it with apps/fit_points.py, "
            "or export it again as triangles if it was a mesh (triangle strips are not read)"
        )
    mesh = Mesh(vertices, faces)
    _check_mesh(mesh, str(path))
    return mesh


def save_mesh(path: str | os.PathLike[str], mesh: Mesh, colours: np.ndarray | None = None) -> None:
    """Writes ``mesh``, atomically. The extension gives the format: .ply, .obj, .stl, .off or .glb.

    ``colours (v, 3)`` in [0, 1] of the vertices can be written to .ply only. Coordinates are
    written in single precision unless that would move a vertex by more than 1e-6 of the extent, as
    it does far from the origin or at an extreme scale. Then PLY stores doubles, OBJ and OFF have 17
    digits, STL is ASCII with 17 digits, and GLB has a node transform. Raises ``ValueError`` for an
    unknown extension, a mesh without faces, non-finite vertices, faces out of range, and colours of
    another shape, range or format than .ply.
    """
    path = Path(path)
    encode = ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise ValueError(
            f"{path}: cannot write the extension '{path.suffix}'; use one of {', '.join(ENCODERS)}"
        )
    if len(mesh.faces) == 0:
        raise ValueError(f"{path}: the mesh to save has no faces")
    _check_mesh(mesh, f"the mesh to save to {path}")
    if colours is not None:
        if (
            encode is not encode_mesh_ply
            or colours.shape != mesh.vertices.shape
            or not (colours.min() >= 0 and colours.max() <= 1)
        ):
            raise ValueError(
                f"{path}: only .ply stores colours, and needs colours (v, 3) in [0, 1], not "
                f"{colours.shape}"
            )
        data = encode_mesh_ply(mesh, fits_float32(mesh), np.round(colours * 255).astype(np.uint8))
    else:
        data = encode(mesh, fits_float32(mesh))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _mesh_format(path: Path) -> str:
    """The file type by extension. Raises the errors of `check_readable`, and ValueError for an
    extension that trimesh does not know."""
    from trimesh.exchange.load import mesh_formats

    check_readable(path)
    file_type = path.suffix.lower().lstrip(".")
    if file_type not in mesh_formats():
        raise ValueError(
            f"{path}: unknown mesh extension '{path.suffix}'; .obj, .ply, .stl, .off, .glb and "
            ".gltf work"
        )
    return file_type


def _read_scene(path: Path, file_type: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(v, 3)`` and faces ``(f, 3)`` of all meshes in the file. A file without meshes
    gives its points and no faces."""
    import trimesh

    source = _obj_text(path) if file_type == "obj" else str(path)
    try:
        if file_type == "stl":
            _check_stl(path)
        scene = trimesh.load_scene(source, file_type=file_type, process=False, skip_materials=True)
        parts = list(_placed_parts(scene))
    # third-party parsers raise any exception, and the message does not name the fault of the file
    except Exception as error:
        # For OFF, trimesh raises ValueError for every fault, so the message has to be examined.
        wrong_index = file_type in ("obj", "off") and (
            isinstance(error, IndexError) or "index" in str(error)
        )
        cause = (
            "a face names a vertex that is not there"
            if wrong_index
            else "it is damaged, or of another format"
        )
        raise ValueError(
            f"{path} could not be read as {file_type.upper()}: {cause}; export it again"
        ) from error
    meshes = [part for part in parts if len(part[1])]
    vertices = [part[0] for part in meshes or parts]
    starts = np.cumsum([0] + [len(v) for v in vertices])
    if not meshes:
        return np.concatenate([np.zeros((0, 3)), *vertices]), np.zeros((0, 3), np.int64)
    # The check must precede the shift below, which turns a wrong index into a valid one.
    for part_vertices, part_faces in meshes:
        _check_mesh(Mesh(part_vertices, part_faces), str(path))
    return np.concatenate(vertices), np.concatenate(
        [f + start for (_, f), start in zip(meshes, starts)]
    )


def _obj_text(path: Path) -> io.StringIO:
    """The text of an OBJ file without comments. Only ASCII characters matter, so the file may have
    any encoding that extends ASCII."""
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is binary and not OBJ text; rename it to its true format")
    data = re.sub(
        rb"#[^\n]*", b"", data
    )  # trimesh would read a comment after a face as part of the face
    zero = re.search(rb"^[ \t]*f[^\n]*[ \t]0(?=[\s/]|\Z)", data, re.MULTILINE)
    if zero:  # trimesh would read index 0 as the last vertex
        line = data.count(b"\n", 0, zero.end()) + 1
        raise ValueError(
            f"{path}: the face on line {line} names vertex 0, but OBJ counts from 1; export it "
            "again"
        )
    return io.StringIO(data.decode("utf-8", errors="replace"))


def _check_stl(path: Path) -> None:
    """Raises ValueError for a binary STL whose length does not fit its count of facets. If a module
    that guesses encodings is installed, trimesh would read the file as text without facets."""
    with open(path, "rb") as file:
        head = file.read(1 << 12)
    facets = int.from_bytes(head[80:84], "little")
    if b"\0" in head and path.stat().st_size != 84 + 50 * facets:
        raise ValueError("the length of the binary STL does not fit its count of facets")


def _placed_parts(scene: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vertices in scene coordinates and faces of every placed geometry. The faces of a mirrored
    geometry are reversed, so that they stay counter-clockwise seen from outside."""
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        with np.errstate(invalid="ignore"):  # `_check_mesh` reports non-finite vertices later
            placed = (
                np.asarray(geometry.vertices, np.float64) @ transform[:3, :3].T + transform[:3, 3]
            )
        faces = np.asarray(getattr(geometry, "faces", np.zeros((0, 3))), np.int64)
        yield placed, faces[:, ::-1] if np.linalg.det(transform[:3, :3]) < 0 else faces


def _check_mesh(mesh: Mesh, what: str) -> None:
    finite = np.isfinite(mesh.vertices).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{what}: vertex {int(np.argmin(finite))} is not finite; remove or replace it"
        )
    bad = (mesh.faces < 0) | (mesh.faces >= len(mesh.vertices))
    if bad.any():
        face, corner = np.argwhere(bad)[0]
        raise ValueError(
            f"{what}: face {face} names vertex {mesh.faces[face, corner]}, but vertices run from "
            f"0 to {len(mesh.vertices) - 1}"
        )
