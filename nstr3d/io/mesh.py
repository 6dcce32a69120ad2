"""Triangle meshes from files and to files.

Every error message is one sentence that names the file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable
from nstr3d.io.collada import read_collada
from nstr3d.io.errors import ContentError, NoFacesError
from nstr3d.io.foreign import beam_notes, check_xaml
from nstr3d.io.gltfscene import read_gltf
from nstr3d.io.kinds import unread
from nstr3d.io.meshformats import COLOURED, ENCODERS, Extras, fits_float32
from nstr3d.io.obj import read_obj
from nstr3d.io.off import read_off
from nstr3d.io.plymesh import read_ply_mesh
from nstr3d.io.polygons import Polygons, triangulate
from nstr3d.io.room import check_archive
from nstr3d.io.stl import read_stl
from nstr3d.types import Mesh, Up, expect


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """The triangles of a mesh file as one `Mesh`, as `read_mesh` reads them and with its errors.
    Notes about the file become Python warnings."""
    mesh, notes = read_mesh(path)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return mesh


def read_mesh(path: str | os.PathLike[str]) -> tuple[Mesh, list[str]]:
    """The triangles of a mesh file as one `Mesh`, and sentences about what was left out.

    The formats are OBJ, PLY, STL, OFF, GLB, GLTF and the other mesh formats of trimesh. The
    transforms of a scene are applied and its meshes joined. Polygons become triangles, concave ones
    too. Textures, colours and normals are dropped. Duplicate vertices stay; `repair` merges them.
    Raises ``FileNotFoundError``, ``IsADirectoryError``, `NoFacesError` for a point cloud, and
    ``ValueError`` if the file holds no mesh, less than it promises, non-finite vertices of faces,
    or faces that name vertices that do not exist.
    """
    path = Path(path)
    content = _content(path)
    vertices, corners = content.vertices, content.corners
    if len(corners) == 0 and len(vertices) == 0:
        raise ValueError(
            f"{path} holds no geometry; check that the export that wrote it was not empty"
        )
    _check_corners(content, str(path))
    vertices, corners = _without_stray_nans(vertices, corners)
    _check_finite(vertices, str(path))
    faces = triangulate(vertices, corners, content.counts)
    if len(faces) == 0:
        told = f" ({'; '.join(content.notes)})" if content.notes else ""
        raise NoFacesError(
            f"{path} has {len(vertices)} points but no faces{told}; fit it with "
            "nstr3d points, or export it again as triangles if it was a mesh"
        )
    notes = list(content.notes)
    if lines := int((content.counts < 3).sum()):
        notes.append(f"{lines} faces of fewer than 3 corners were left out")
    return Mesh(vertices, faces), [f"{path}: {note}." for note in notes]


def save_mesh(
    path: str | os.PathLike[str],
    mesh: Mesh,
    colours: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    up: Up = "y",
) -> None:
    """Writes ``mesh``, atomically. The extension gives the format: .ply, .obj, .stl, .off or .glb.

    Display RGB ``colours (v, 3)`` in [0, 1] of the vertices are written to .ply, .obj and .glb.
    ``normals (v, 3)`` of
    unit length are written to .ply, .obj and .glb. In glTF y is up, so .glb turns the axis ``up``
    to y by a node; the other formats do not say which axis is up. Coordinates are
    written in single precision unless that would move a vertex by more than 1e-6 of the extent, as
    it does far from the origin or at an extreme scale. Then PLY stores doubles, OBJ and OFF have 17
    digits, STL is ASCII with 17 digits, and GLB has a node transform. Raises ``ValueError`` for an
    unknown extension, a mesh without faces, non-finite vertices, faces out of range, colours of
    another shape, range or format, and normals of another shape or length.
    """
    expect(mesh, Mesh, "mesh")
    path = Path(path)
    encode = ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise ValueError(
            f"{path}: cannot write the extension '{path.suffix}'; use one of {', '.join(ENCODERS)}"
        )
    if len(mesh.faces) == 0:
        raise ValueError(f"{path}: the mesh to save has no faces")
    _check_mesh(mesh, f"the mesh to save to {path}")
    if normals is not None and not (
        normals.shape == mesh.vertices.shape
        and bool((np.abs(np.linalg.norm(normals, axis=1) - 1) < 1e-3).all())
    ):
        raise ValueError(f"{path}: the normals to save must be unit vectors of the vertices")
    if colours is not None and (
        path.suffix.lower() not in COLOURED
        or colours.shape != mesh.vertices.shape
        or not (colours.min() >= 0 and colours.max() <= 1)
    ):
        raise ValueError(
            f"{path}: only {', '.join(COLOURED)} store colours, and need colours (v, 3) in [0, 1], "
            f"not {colours.shape}"
        )
    data = encode(mesh, fits_float32(mesh), Extras(normals, colours, up))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _content(path: Path) -> Polygons:
    """The polygons of a file. Raises `ContentError` for every fault of the content."""
    read = _reader(path)
    try:
        return read(path)
    except (ContentError, OSError):
        raise
    except MemoryError as error:
        raise ContentError(
            f"{path} needs more memory than there is; export it with fewer faces"
        ) from error
    except Exception as error:  # damaged numbers may lead anywhere, in decoders too
        raise ContentError(
            f"{path} could not be read as {path.suffix[1:].upper()}: it is damaged, or of another "
            "format; export it again"
        ) from error


def _reader(path: Path) -> Callable[[Path], Polygons]:
    """The reader for the extension of ``path``. Raises the errors of `check_readable`, and
    ValueError for an extension that is not read."""
    check_readable(path)
    suffix = path.suffix.lower()
    if suffix in READERS:
        return READERS[suffix]
    if suffix in mesh_suffixes():
        return read_collada if suffix in (".dae", ".zae") else _read_with_trimesh
    raise ValueError(f"{path}: {unread(suffix)}")


def _read_with_trimesh(path: Path) -> Polygons:
    """All meshes of a file in a format of trimesh. A file without meshes gives its points."""
    import trimesh

    check_archive(path)
    if path.suffix.lower() == ".xaml":
        check_xaml(path)
    notes = beam_notes(path) if path.suffix.lower() == ".3mf" else ()
    kind = path.suffix.lower().removeprefix(".")
    scene = trimesh.load_scene(str(path), file_type=kind, process=False, skip_materials=True)
    parts = list(_placed_parts(scene))
    meshes = [part for part in parts if len(part[1])]
    for points, faces in meshes:  # before the shift below, which makes a wrong index a valid one
        if faces.min() < 0 or faces.max() >= len(points):
            raise ContentError(f"{path}: a face names a vertex that is not there; export it again")
    vertices = [part[0] for part in meshes or parts]
    starts = np.cumsum([0] + [len(part) for part in vertices])
    faces = np.concatenate(
        [np.zeros((0, 3), np.int64), *(f + start for (_, f), start in zip(meshes, starts))]
    )
    points = np.concatenate([np.zeros((0, 3)), *vertices])
    return Polygons(points, faces.ravel(), np.full(len(faces), 3), notes)


def mesh_suffixes() -> frozenset[str]:
    """The endings, with their dots, of the mesh files that can be read with what is installed."""
    from trimesh.exchange.load import mesh_formats

    return frozenset(READERS) | {f".{name}" for name in mesh_formats()}


READERS: dict[str, Callable[[Path], Polygons]] = {
    ".obj": read_obj,
    ".ply": read_ply_mesh,
    ".stl": read_stl,
    ".off": read_off,
    ".glb": read_gltf,
    ".gltf": read_gltf,
}


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


def _without_stray_nans(vertices: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``vertices`` without those that are not finite and belong to no polygon, and the corners
    renumbered."""
    finite = np.isfinite(vertices).all(axis=1)
    if finite.all():
        return vertices, corners
    kept = finite | (np.bincount(corners, minlength=len(vertices)) > 0)
    return vertices[kept], (np.cumsum(kept) - 1)[corners]


def _check_mesh(mesh: Mesh, what: str) -> None:
    _check_finite(mesh.vertices, what)
    _check_corners(Polygons(mesh.vertices, mesh.faces.ravel(), np.full(len(mesh.faces), 3)), what)


def _check_finite(vertices: np.ndarray, what: str) -> None:
    finite = np.isfinite(vertices).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{what}: vertex {int(np.argmin(finite))} is not finite; remove or replace it"
        )


def _check_corners(polygons: Polygons, what: str) -> None:
    count = len(polygons.vertices)
    bad = (polygons.corners < 0) | (polygons.corners >= count)
    if bad.any():
        corner = int(np.argmax(bad))
        face = np.searchsorted(np.cumsum(polygons.counts), corner, side="right")
        raise ValueError(
            f"{what}: face {face} names vertex {polygons.corners[corner]}, but vertices run from "
            f"0 to {count - 1}"
        )
