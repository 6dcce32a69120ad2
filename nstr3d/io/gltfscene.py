"""Triangles of a glTF 2.0 scene in scene coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.draco import decode_draco
from nstr3d.io.errors import ContentError
from nstr3d.io.gltffile import DRACO, INSTANCING, VISIBILITY, GltfFile
from nstr3d.io.polygons import Polygons, fan_triangles, strip_triangles

TRIANGLES, STRIP, FAN = 4, 5, 6  # drawing modes; lower modes are points and lines
FLOAT = 5126  # the component type of floats


def read_gltf(path: Path) -> Polygons:
    """The triangles of the default scene of a glTF or GLB file.

    Transforms, instances, skins in their rest pose and default morph weights are applied. Indices
    of mirrored parts are turned, so that triangles stay counter-clockwise seen from outside. Points
    and lines give vertices only if there are no triangles. Hidden nodes are left out. Raises
    `ContentError` as `GltfFile` does, and if a decoder of compressed parts is not installed.
    """
    file = GltfFile(path)
    parts, notes = read_parts(file)
    if not parts and file.tree.get("meshes"):
        raise file.fault("has meshes, but no node of its scene places them; export its scene again")
    meshes = [part for part in parts if len(part.faces)]
    vertices = [part.vertices for part in meshes or parts]
    starts = np.cumsum([0] + [len(part) for part in vertices])
    faces = [part.faces + start for part, start in zip(meshes, starts)]
    corners = np.concatenate([np.zeros((0, 3), np.int64), *faces])
    points = np.concatenate([np.zeros((0, 3)), *vertices])
    return Polygons(points, corners.ravel(), np.full(len(corners), 3), tuple(notes))


@dataclass(frozen=True)
class Part:
    """A placed primitive: its ``vertices (v, 3)`` in scene coordinates, its triangles ``faces (f,
    3)``, and its entry in the file."""

    vertices: np.ndarray
    faces: np.ndarray
    primitive: dict[str, Any]


def read_parts(file: GltfFile) -> tuple[list[Part], list[str]]:
    """The placed primitives of the default scene, and sentences on what was left out. Raises the
    errors of `read_gltf`."""
    try:
        roots, notes = _roots(file)
        placed = list(_nodes(file, roots))
        places = {index: place for index, place, _ in placed}
        parts = [
            part
            for index, place, is_shown in placed
            if is_shown
            for part in _parts(file, index, place, places)
        ]
        hidden = sum("mesh" in file.item("nodes", index) for index, _, shown in placed if not shown)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise file.fault(
            "could not be read as glTF: its structure is damaged; export it again"
        ) from error
    notes += file.notes
    if hidden:
        notes.append(f"{hidden} hidden nodes ({VISIBILITY}) were left out")
    return parts, notes


def _roots(file: GltfFile) -> tuple[list[int], list[str]]:
    """The root nodes of the default scene, and a note if there are other scenes."""
    scenes, nodes = file.tree.get("scenes", []), file.tree.get("nodes", [])
    if not scenes:
        children = {child for node in nodes for child in node.get("children", [])}
        for node in nodes:  # coarser copies of the node
            children |= set(node.get("extensions", {}).get("MSFT_lod", {}).get("ids", []))
        return [index for index in range(len(nodes)) if index not in children], []
    index = file.tree.get("scene", 0)
    roots = file.item("scenes", index).get("nodes", [])
    others = sum(not set(scene.get("nodes", [])) <= set(roots) for scene in scenes)
    note = f"it has {len(scenes)} scenes, of which scene {index}, the default, was read"
    return roots, [note] if others else []


def _nodes(file: GltfFile, roots: list[int]) -> Iterator[tuple[int, np.ndarray, bool]]:
    """All nodes below ``roots`` with their transforms ``(4, 4)`` to scene coordinates, and whether
    they are shown."""
    waiting = [(root, np.eye(4), True) for root in reversed(roots)]
    seen: set[int] = set()
    while waiting:
        index, above, is_shown = waiting.pop()
        if index in seen:
            raise file.fault(f"has node {index} in two places; export it again")
        seen.add(index)
        node = file.item("nodes", index)
        local = _local(file, node)
        if not np.isfinite(local).all():
            raise file.fault(f"has a transform of node {index} that is not finite; export it again")
        place = above @ local
        is_shown &= node.get("extensions", {}).get(VISIBILITY, {}).get("visible", True) is not False
        yield index, place, is_shown
        waiting += [(child, place, is_shown) for child in reversed(node.get("children", []))]


def _local(file: GltfFile, node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        matrix = np.array(node["matrix"], np.float64).reshape(4, 4).T
        if np.isfinite(matrix[3]).all() and not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
            raise file.fault("has a matrix with perspective, which is not applied; export it again")
        return matrix
    return _placements(
        *(
            np.array([node.get(name, default)], np.float64)
            for name, default in (
                ("translation", [0, 0, 0]),
                ("rotation", [0, 0, 0, 1]),
                ("scale", [1, 1, 1]),
            )
        )
    )[0]


def _placements(shift: np.ndarray, turn: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Transforms ``(n, 4, 4)`` that scale ``(n, 3)``, then turn by quaternions ``(n, 4)`` in the
    order x, y, z, w, then shift ``(n, 3)``."""
    with np.errstate(invalid="ignore", over="ignore"):  # `_nodes` reports what is not finite
        length = np.linalg.norm(turn, axis=1, keepdims=True)
        x, y, z, w = (turn / np.where(length > 0, length, 1)).T
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    result = np.tile(np.eye(4), (len(shift), 1, 1))
    with np.errstate(invalid="ignore"):
        result[:, :3, :3] = np.moveaxis(rotation, 2, 0) * scale[:, None, :]
    result[:, :3, 3] = shift
    return result


def _parts(
    file: GltfFile, index: int, place: np.ndarray, places: dict[int, np.ndarray]
) -> Iterator[Part]:
    """The primitives and instances of a node."""
    node = file.item("nodes", index)
    if "mesh" not in node:
        return
    mesh = file.item("meshes", node["mesh"])
    weights = node.get("weights", mesh.get("weights", []))
    copies = place @ _instances(file, node)
    for primitive in mesh["primitives"]:
        vertices, faces = _geometry(file, primitive, weights)
        if "skin" in node:  # the joints place the vertices; glTF ignores the node's own transform
            skin = file.item("skins", node["skin"])
            moves = _joint_moves(file, primitive, skin, len(vertices), places)
            moved = np.einsum("nij,nj->ni", moves[:, :3, :3], vertices) + moves[:, :3, 3]
            mirrors = np.linalg.det(moves[:, :3, :3]) < 0
            turned = 2 * mirrors.sum() > len(mirrors)
            yield Part(moved, faces[:, ::-1] if turned else faces, primitive)
            continue
        file.take(len(copies) * (len(vertices) + len(faces)))
        for copy in copies:
            if (copy == np.eye(4)).all():
                yield Part(vertices, faces, primitive)
                continue
            with np.errstate(invalid="ignore", over="ignore"):  # non-finite vertices are told later
                moved = vertices @ copy[:3, :3].T + copy[:3, 3]
                is_mirror = np.linalg.det(copy[:3, :3]) < 0
            yield Part(moved, faces[:, ::-1] if is_mirror else faces, primitive)


def _instances(file: GltfFile, node: dict[str, Any]) -> np.ndarray:
    """Transforms ``(n, 4, 4)`` of the copies of a node's mesh relative to the node."""
    extension = node.get("extensions", {}).get(INSTANCING)
    if extension is None:
        return np.eye(4)[None]
    values = {name: file.accessor(at) for name, at in extension.get("attributes", {}).items()}
    count = max((len(value) for value in values.values()), default=1)
    names = {"TRANSLATION": [0, 0, 0], "ROTATION": [0, 0, 0, 1], "SCALE": [1, 1, 1]}
    rows = [
        np.asarray(values.get(name, np.tile(default, (count, 1))), np.float64)
        for name, default in names.items()
    ]
    if any(len(row) != count for row in rows):
        raise file.fault("has instances of unequal counts; export it again")
    return _placements(*rows)


def _geometry(
    file: GltfFile, primitive: dict[str, Any], weights: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The vertices ``(v, 3)`` of a primitive, morphed, and its triangles ``(f, 3)``."""
    mode = primitive.get("mode", TRIANGLES)
    if type(mode) is not int or not 0 <= mode <= FAN:
        raise file.fault(f"has a primitive of the unknown mode {mode}; export it again")
    if DRACO in primitive.get("extensions", {}):
        kind = file.item("accessors", primitive["attributes"]["POSITION"])["componentType"]
        if kind != FLOAT:
            raise file.fault(
                f"has positions inside Draco ({DRACO}) that are no floats, which are not read; "
                "export it without compression"
            )
        vertices, indices = _draco(file, primitive["extensions"][DRACO])
        _compare_counts(file, primitive, mode, len(vertices), len(indices))
        mode = TRIANGLES  # the decoder returns triangles for strips too
    elif "POSITION" not in primitive["attributes"]:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    else:
        vertices = file.accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
        at = primitive.get("indices")
        indices = np.arange(len(vertices)) if at is None else file.accessor(at)[:, 0]
    for weight, target in zip(weights, primitive.get("targets", [])):
        if weight and "POSITION" in target:
            vertices = vertices + weight * file.accessor(target["POSITION"], len(vertices))
    if mode < TRIANGLES:
        return vertices, np.zeros((0, 3), np.int64)
    _check_indices(file, indices, len(vertices), mode)
    if mode == TRIANGLES:
        if len(indices) % 3:
            raise file.fault(
                f"has triangles of {len(indices)} indices, no multiple of 3; export it again"
            )
        return vertices, indices.reshape(-1, 3)
    # The first index of a strip or fan restarts nothing: glTF has no restart value.
    faces = strip_triangles(indices) if mode == STRIP else fan_triangles(indices)
    return vertices, faces


def _check_indices(file: GltfFile, indices: np.ndarray, held: int, mode: int) -> None:
    """Raises `ContentError` for ``indices (n,)`` that do not name some of ``held`` vertices. Among
    the vertices of all primitives a wrong index might name one of another."""
    if indices.dtype.kind != "i":
        raise file.fault("has indices that are no whole numbers; export it again")
    bad = (indices < 0) | (indices >= held)
    if bad.any():
        place = int(np.argmax(bad))
        face = place // 3 if mode == TRIANGLES else max(place - 2, 0)
        raise ContentError(
            f"{file.path}: face {face} names vertex {indices[place]}, but vertices run from 0 to "
            f"{held - 1}; export it again"
        )


def _draco(file: GltfFile, extension: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The vertices and indices that Draco has compressed."""
    try:
        return decode_draco(file.path, file.view(extension["bufferView"]).tobytes())
    except ModuleNotFoundError as error:
        raise file.fault(
            f"is compressed by Draco ({DRACO}): pip install nstr3d[gltf], or export it without "
            "compression"
        ) from error
    except ContentError:
        raise
    except ValueError as error:
        raise file.fault(
            f"could not be decompressed by Draco ({DRACO}): {error}; export it again"
        ) from error


def _compare_counts(
    file: GltfFile, primitive: dict[str, Any], mode: int, vertices: int, indices: int
) -> None:
    """Notes a part that holds fewer vertices or triangles than its accessors promise."""
    entry = file.item("accessors", primitive["attributes"]["POSITION"])
    counts = [("vertices", file.whole(entry, "count"), vertices)]
    if mode == TRIANGLES and "indices" in primitive:
        entry = file.item("accessors", primitive["indices"])
        counts.append(("triangles", file.whole(entry, "count") // 3, indices // 3))
    for what, promised, held in counts:
        if held < promised:
            file.notes.append(f"a Draco part holds {held} {what} where {promised} are promised")


def _joint_moves(
    file: GltfFile,
    primitive: dict[str, Any],
    skin: dict[str, Any],
    count: int,
    places: dict[int, np.ndarray],
) -> np.ndarray:
    """The transforms ``(count, 4, 4)`` of a primitive's vertices by the joints of a skin, where the
    nodes of the file place the joints."""
    joints = skin["joints"]
    inverse = np.tile(np.eye(4), (len(joints), 1, 1))
    if "inverseBindMatrices" in skin:
        matrices = file.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4)
        inverse = matrices.transpose(0, 2, 1)[: len(joints)]
    if any(joint not in places for joint in joints):
        raise file.fault("has a skin with joints outside its scene; export it again")
    moves = np.stack([places[joint] for joint in joints]) @ inverse
    blend = np.zeros((count, 4, 4))
    total = np.zeros(count)
    attributes, number = primitive["attributes"], 0
    while f"JOINTS_{number}" in attributes:
        which = file.accessor(attributes[f"JOINTS_{number}"])
        amount = file.accessor(attributes[f"WEIGHTS_{number}"]).astype(np.float64)
        if len(which) != count or which.max(initial=0) >= len(joints):
            raise file.fault("has a vertex that names a joint that is not there; export it again")
        blend += np.einsum("nk,nkij->nij", amount, moves[which])
        total += amount.sum(axis=1)
        number += 1
    if not (total > 0).all():
        raise file.fault("has skinned vertices without weights; export it again")
    return blend / total[:, None, None]
