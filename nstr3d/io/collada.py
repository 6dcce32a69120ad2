"""Polygons of COLLADA files, by pycollada."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.polygons import Polygons
from nstr3d.io.room import check_archive

Part = tuple[np.ndarray, np.ndarray, np.ndarray]
# Elements with a surface that pycollada leaves out, and what they are.
UNREAD = {
    "instance_controller": "skinned or morphed parts",
    "tristrips": "strips",
    "trifans": "fans",
    "ph": "polygons with holes",
}


def read_collada(path: Path) -> Polygons:
    """The polygons of the scene of a .dae file, or of the first one in a .zae archive.

    Transforms and instances are applied, and faces of mirrored parts turned. Raises `ContentError`
    for a damaged file, and for parts that are not read: skinned and morphed ones, strips and fans,
    polygons with holes, and parts that are missing.
    """
    import collada
    import collada.common

    ignored = [collada.common.DaeError, collada.scene.DaeInstanceNotLoadedError]
    file = collada.Collada(io.BytesIO(_text(path)), ignore=ignored)
    _check_whole(file, path)
    parts = [
        part
        for node in (file.scene.nodes if file.scene is not None else [])
        for part in _parts(node, np.eye(4), path)
    ]
    starts = np.cumsum([0] + [len(points) for points, _, _ in parts])
    corners = [corners + start for (_, corners, _), start in zip(parts, starts)]
    return Polygons(
        np.concatenate([np.zeros((0, 3)), *(points for points, _, _ in parts)]),
        np.concatenate([np.zeros(0, np.int64), *corners]),
        np.concatenate([np.zeros(0, np.int64), *(counts for _, _, counts in parts)]),
    )


def _text(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".dae")]
        if not names:
            raise ContentError(f"{path} holds no .dae file; export it again")
        return archive.read(names[0])


def _check_whole(file: Any, path: Path) -> None:
    """Raises `ContentError` for parts with a surface that pycollada has left out."""
    root = file.xmlnode.getroot()
    for name, what in UNREAD.items():
        if count := sum(1 for _ in root.iter(file.tag(name))):
            raise ContentError(
                f"{path} has {count} {what} ({name}), which are not read; export it as GLB"
            )
    nodes = {node.get("id") for node in root.iter(file.tag("node"))}
    held = {"geometry": {part.id for part in file.geometries}, "node": nodes}
    for kind, names in held.items():
        for instance in root.iter(file.tag(f"instance_{kind}")):
            name = str(instance.get("url", "")).removeprefix("#")
            if name not in names:
                what = "part" if kind == "geometry" else kind
                raise ContentError(
                    f"{path} places the {what} {name!r}, which is missing or damaged; export it "
                    "again"
                )


def _parts(node: Any, place: np.ndarray, path: Path) -> Iterator[Part]:
    """The points, corners and counts of corners of the polygons below ``node``."""
    import collada
    import collada.polylist
    import collada.triangleset

    if isinstance(node, collada.scene.Node):
        for child in node.children or []:
            yield from _parts(child, place @ np.asarray(node.matrix, np.float64), path)
    elif isinstance(node, collada.scene.GeometryNode):
        for primitive in node.geometry.primitives:
            is_triangles = isinstance(primitive, collada.triangleset.TriangleSet)
            is_surface = is_triangles or isinstance(primitive, collada.polylist.Polylist)
            if is_surface and primitive.vertex is not None:  # other primitives are lines
                yield _placed(primitive, is_triangles, place, path)


def _placed(primitive: Any, is_triangles: bool, place: np.ndarray, path: Path) -> Part:
    corners = np.asarray(primitive.vertex_index, np.int64).ravel()
    points = np.asarray(primitive.vertex, np.float64)
    counts = np.full(len(corners) // 3, 3)
    if not is_triangles:
        counts = np.asarray(primitive.vcounts, np.int64).ravel()
    if counts.sum() != len(corners):
        raise ContentError(
            f"{path} promises faces of {counts.sum()} corners in a part but holds {len(corners)}; "
            "it is damaged or cut short"
        )
    if len(corners) and not 0 <= corners.min() <= corners.max() < len(points):
        raise ContentError(f"{path}: a face names a vertex that is not there; export it again")
    if np.linalg.det(place[:3, :3]) < 0:
        corners = _reversed(corners, counts)
    return points @ place[:3, :3].T + place[:3, 3], corners, counts


def _reversed(corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The corners of polygons in the opposite order."""
    ends = np.cumsum(counts)
    return corners[np.repeat(2 * ends - counts - 1, counts) - np.arange(len(corners))]
