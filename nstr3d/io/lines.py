"""Line files: PLY, GLB, VTP and JSON, written atomically with 8 bits per colour channel."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable
from nstr3d.io.gltf import encode_glb, placed_points, points_fit_float32
from nstr3d.io.ply import element_names, encode_ply, read_ply, table_of
from nstr3d.types import Polylines


def save_lines(
    path: str | os.PathLike[str], lines: Polylines, colours: np.ndarray | None = None
) -> None:
    """Writes ``lines``, atomically. The extension gives the format: .ply, .glb, .vtp or .json.

    Lines are in 3 dimensions, or in any dimension for .json. ``colours (n, 3)`` in [0, 1] are
    colours of the points; without them the points are black. The ``values`` of the lines are stored
    in VTP and JSON as numbers and in PLY as the property "value"; GLB drops them. PLY, VTP and JSON
    store coordinates in double precision, GLB in single precision with a node transform where that
    would round visibly. Raises ValueError for an unknown
    extension, for no lines, for points or values that are not finite, and for colours of another
    shape or range.
    """
    path = Path(path)
    encode = _ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise ValueError(
            f"{path}: cannot write lines with the extension '{path.suffix}'; use one of "
            f"{', '.join(_ENCODERS)}"
        )
    _check(str(path), lines, colours)
    if encode is not _json and lines.points.shape[1] != 3:
        raise ValueError(
            f"{path}: lines in {lines.points.shape[1]} dimensions go into .json; {path.suffix} "
            "holds 3"
        )
    data = encode(lines, _bytes(lines, colours))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def load_lines(path: str | os.PathLike[str]) -> tuple[Polylines, np.ndarray]:
    """The lines of a .ply file with edges or a .json file from `save_lines`, and their colours.

    The colours ``(n, 3)`` are in [0, 1]. Successive segments of a .ply file that share a point
    become one line; see `joined`. Raises FileNotFoundError, IsADirectoryError or ValueError naming
    the file.
    """
    path = Path(path)
    check_readable(path)
    decode = {".ply": _from_ply, ".json": _from_json}.get(path.suffix.lower())
    if decode is None:
        raise ValueError(f"{path}: lines are read from .ply and .json, not {path.suffix}")
    try:
        lines, colours = decode(path)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:  # a damaged file may raise any of these
        raise ValueError(
            f"{path} could not be read as lines; write it with save_lines or with nstr3d flow"
        ) from error
    _check(str(path), lines, colours)
    return lines, colours


def holds_lines(path: Path) -> bool:
    """Whether ``path`` is a file of lines: JSON, or PLY with edges."""
    if path.suffix.lower() == ".json":
        return True
    if path.suffix.lower() != ".ply" or not path.is_file():
        return False
    return "edge" in element_names(path)


def joined(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins segments with the point indices ``ends (s, 2)`` to lines.

    Returns the point indices in the order of the lines, and the ``starts`` of `Polylines`. A
    segment continues the line of the preceding segment if it begins at the end point of the
    preceding segment.
    """
    begins = np.ones(len(ends), bool)
    begins[1:] = ends[1:, 0] != ends[:-1, 1]
    rows = np.where(begins, 2, 1)  # points that a segment adds: 2 if it begins a line
    first = np.cumsum(rows) - rows
    order = np.repeat(ends[:, 1], rows)
    order[first[begins]] = ends[begins, 0]
    return order, np.append(first[begins], len(order)).astype(np.int64)


def _check(what: str, lines: Polylines, colours: np.ndarray | None) -> None:
    if not len(lines.segments):
        raise ValueError(f"{what}: there are no lines to save; a line has at least two points")
    if not np.isfinite(lines.points).all() or (
        lines.values is not None and not np.isfinite(lines.values).all()
    ):
        raise ValueError(f"{what}: the lines hold points or values that are not finite")
    if colours is not None and (
        colours.shape != (len(lines.points), 3) or not (colours.min() >= 0 and colours.max() <= 1)
    ):
        raise ValueError(
            f"{what}: {len(lines.points)} points of lines need colours (n, 3) in [0, 1], not "
            f"{colours.shape}"
        )


def _bytes(lines: Polylines, colours: np.ndarray | None) -> np.ndarray:
    return (
        np.zeros((len(lines.points), 3), np.uint8)
        if colours is None
        else np.round(colours * 255).astype(np.uint8)
    )


def _ply(lines: Polylines, colours: np.ndarray) -> bytes:
    columns = dict(zip("xyz", lines.points.astype("<f8").T))
    columns |= dict(zip(("red", "green", "blue"), colours.T))
    if lines.values is not None:
        columns["value"] = lines.values.astype("<f8")
    ends = lines.segments.astype("<i4")
    edges = table_of({"vertex1": ends[:, 0], "vertex2": ends[:, 1]})
    return encode_ply(vertex=table_of(columns), edge=edges)


def _glb(lines: Polylines, colours: np.ndarray) -> bytes:
    # Lines have no normals, so some viewers would light them black. The material is unlit; viewers
    # without the extension light the colours.
    material = {
        "extensions": {"KHR_materials_unlit": {}},
        "pbrMetallicRoughness": {"metallicFactor": 0.0},
    }
    points, placement = lines.points, None
    if not points_fit_float32(points):
        points, placement = placed_points(points)
    return encode_glb("streamlines", points, lines.segments, material, colours, placement)


def _vtp(lines: Polylines, colours: np.ndarray) -> bytes:
    """VTK's XML PolyData. Each array is inline in base64, preceded by its length in bytes."""
    sizes = np.diff(lines.starts)
    ends = lines.starts[1:][sizes > 0]

    def array(name: str, kind: str, values: np.ndarray, width: int = 1) -> str:
        data = np.ascontiguousarray(values).tobytes()
        text = base64.b64encode(np.uint32(len(data)).astype("<u4").tobytes() + data).decode("ascii")
        about = f'type="{kind}" Name="{name}" NumberOfComponents="{width}" format="binary"'
        return f"<DataArray {about}>{text}</DataArray>"

    values = "" if lines.values is None else array("value", "Float64", lines.values.astype("<f8"))
    body = [
        f'<Piece NumberOfPoints="{len(lines.points)}" NumberOfLines="{len(ends)}">',
        f"<PointData>{array('colour', 'UInt8', colours, 3)}{values}</PointData>",
        f"<Points>{array('Points', 'Float64', lines.points.astype('<f8'), 3)}</Points>",
        f"<Lines>{array('connectivity', 'Int64', np.arange(len(lines.points), dtype='<i8'))}",
        f"{array('offsets', 'Int64', ends.astype('<i8'))}</Lines></Piece>",
    ]
    head = (
        '<?xml version="1.0"?>\n'
        '<VTKFile type="PolyData" version="0.1" byte_order="LittleEndian" header_type="UInt32">'
    )
    return "\n".join([head, "<PolyData>", *body, "</PolyData></VTKFile>\n"]).encode("ascii")


def _json(lines: Polylines, colours: np.ndarray) -> bytes:
    parts = [slice(first, last) for first, last in zip(lines.starts[:-1], lines.starts[1:])]
    items = [
        {"points": lines.points[part].tolist(), "colours": colours[part].tolist()}
        | ({} if lines.values is None else {"values": lines.values[part].tolist()})
        for part in parts
    ]
    return (json.dumps({"lines": items}, allow_nan=False) + "\n").encode("ascii")


def _from_ply(path: Path) -> tuple[Polylines, np.ndarray]:
    vertices, edges = read_ply(path, "vertex", "edge")
    order, starts = joined(np.stack([edges["vertex1"], edges["vertex2"]], axis=1).astype(np.int64))
    points = np.stack([vertices[axis] for axis in "xyz"], axis=1).astype(np.float64)[order]
    colours = np.zeros_like(points)
    if {"red", "green", "blue"} <= set(vertices.dtype.names or ()):
        colours = (
            np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)[order] / 255.0
        )
    values = (
        vertices["value"][order].astype(np.float64)
        if "value" in (vertices.dtype.names or ())
        else None
    )
    return Polylines(points, starts, values), colours


def _from_json(path: Path) -> tuple[Polylines, np.ndarray]:
    items = json.loads(path.read_bytes())["lines"]
    starts = np.cumsum([0, *(len(line["points"]) for line in items)])
    parts = [
        np.array(line["points"], np.float64).reshape(len(line["points"]), -1)
        for line in items
        if line["points"]
    ]
    points = np.concatenate(parts) if parts else np.zeros((0, 3))
    colours = [
        np.array(line.get("colours") or np.zeros((len(line["points"]), 3))).reshape(-1, 3) / 255.0
        for line in items
    ]
    valued = bool(items) and all("values" in line for line in items)
    values = (
        np.concatenate([np.array(line["values"], np.float64) for line in items]) if valued else None
    )
    return Polylines(points, starts, values), np.concatenate([np.zeros((0, 3)), *colours])


_ENCODERS = {".ply": _ply, ".glb": _glb, ".vtp": _vtp, ".json": _json}
