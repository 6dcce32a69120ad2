"""Meshes as the bytes of a PLY, OBJ, OFF, STL or GLB file, in single or double precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.io.gltf import encode_glb, placed_points, points_fit_float32
from nstr3d.io.light import to_linear
from nstr3d.io.ply import encode_ply, table_of
from nstr3d.types import Mesh, Up

CLAY = (0.66, 0.62, 0.57)  # linear RGB of the material
# Rotations that turn the axis that points up to +y.
UPRIGHT: dict[Up, np.ndarray] = {
    "y": np.eye(3),
    "-y": np.diag([1.0, -1.0, -1.0]),
    "z": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "-z": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "x": np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]]),
    "-x": np.array([[0, 1.0, 0], [-1, 0, 0], [0, 0, 1]]),
}


def fits_float32(mesh: Mesh) -> bool:
    """Whether single precision moves no vertex by more than `FLOAT32_TOLERANCE` of the extent."""
    return points_fit_float32(mesh.vertices)


@dataclass(frozen=True)
class Extras:
    """What a mesh file may hold besides triangles: ``normals (v, 3)`` and display RGB ``colours (v,
    3)`` in [0, 1] of the vertices, the axis that is ``up``, and a ``texture`` as `encode_glb` takes
    it. A format leaves out what it cannot hold."""

    normals: np.ndarray | None = None
    colours: np.ndarray | None = None
    up: Up = "y"
    texture: tuple[np.ndarray, bytes] | None = None


def _encode_ply(mesh: Mesh, single: bool, extras: Extras) -> bytes:
    """Binary PLY with float32 coordinates if ``single``, float64 otherwise."""
    normals, colours = extras.normals, extras.colours
    columns = dict(zip("xyz", mesh.vertices.astype("<f4" if single else "<f8").T))
    if normals is not None:
        columns |= dict(zip(("nx", "ny", "nz"), normals.astype("<f4").T))
    if colours is not None:
        shades = np.round(colours * 255).astype(np.uint8)
        columns |= dict(zip(("red", "green", "blue"), shades.T))
    faces = np.empty(len(mesh.faces), [("vertex_indices", "<i4", 3)])
    faces["vertex_indices"] = mesh.faces
    return encode_ply(vertex=table_of(columns), face=faces)


def _encode_obj(mesh: Mesh, single: bool, extras: Extras) -> bytes:
    normals, colours = extras.normals, extras.colours
    text, faces = _lines("v {} {} {}\n", mesh.vertices, single), mesh.faces + 1
    if colours is not None:  # no standard, but what most programs read
        shades = _lines("{} {} {}\n", np.round(colours, 4), True)
        pairs = zip(text.splitlines(), shades.splitlines())
        text = "".join(f"{place} {shade}\n" for place, shade in pairs)
    if normals is None:
        return (text + _lines("f {} {} {}\n", faces, single)).encode("ascii")
    text += _lines("vn {} {} {}\n", normals.astype(np.float32), True)
    twice = np.repeat(faces, 2, axis=1)
    return (text + _lines("f {}//{} {}//{} {}//{}\n", twice, single)).encode("ascii")


def _encode_off(mesh: Mesh, single: bool, extras: Extras) -> bytes:
    header = f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n"
    return (
        header
        + _lines("{} {} {}\n", mesh.vertices, single)
        + _lines("3 {} {} {}\n", mesh.faces, single)
    ).encode("ascii")


def _encode_stl(mesh: Mesh, single: bool, extras: Extras) -> bytes:
    corners = mesh.corners
    if not single:  # binary STL has no doubles
        vertex = "vertex {} {} {}\n"
        facet = f"facet normal 0 0 0\nouter loop\n{vertex * 3}endloop\nendfacet\n"
        return f"solid mesh\n{_lines(facet, corners.reshape(-1, 9), single)}endsolid mesh\n".encode(
            "ascii"
        )
    facets = np.zeros(
        len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")]
    )
    facets["corners"] = corners  # normals stay zero: readers compute them from the vertex order
    return (
        b"binary STL".ljust(80) + np.uint32(len(facets)).astype("<u4").tobytes() + facets.tobytes()
    )


def encode_mesh_glb(mesh: Mesh, single: bool, extras: Extras) -> bytes:
    """GLB whose node turns the axis that is up upward."""
    colours, texture = extras.colours, extras.texture
    vertices, placement = (mesh.vertices, np.eye(4)) if single else placed_points(mesh.vertices)
    turn = np.eye(4)
    turn[:3, :3] = UPRIGHT[extras.up]  # in glTF y is up
    placement = turn @ placement
    # Without a material, viewers assume metal and show the mesh black.
    base = CLAY if colours is None and texture is None else (1.0, 1.0, 1.0)
    surface = {"baseColorFactor": [*base, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.6}
    shown = {} if texture is None else {"baseColorTexture": {"index": 0}}
    material = {"pbrMetallicRoughness": surface | shown, "doubleSided": False}
    plain = np.array_equal(placement, np.eye(4))
    return encode_glb(
        "mesh",
        vertices,
        mesh.faces,
        material,
        # The colours of glTF are linear; 16 bits keep dark ones apart.
        colours=None if colours is None else np.round(to_linear(colours) * 65535).astype(np.uint16),
        placement=None if plain else placement,
        normals=extras.normals,
        texture=texture,
    )


COLOURED = ".ply", ".obj", ".glb"  # the formats that hold colours
ENCODERS = {
    ".ply": _encode_ply,
    ".obj": _encode_obj,
    ".stl": _encode_stl,
    ".off": _encode_off,
    ".glb": encode_mesh_glb,
}


def _lines(template: str, rows: np.ndarray, single: bool) -> str:
    """``template`` filled with each row of numbers. Floats have 9 digits for single and 17 digits
    for double precision, which restores them exactly."""
    number = "%d" if np.issubdtype(rows.dtype, np.integer) else "%.9g" if single else "%.17g"
    line = template.replace("{}", number)
    return "".join(
        (line * len(block)) % tuple(block.ravel().tolist())
        for block in np.array_split(rows, len(rows) // 65536 + 1)
    )
