"""Lines in files: PLY, GLB, VTP, JSON. Written atomically; colours are a byte per channel."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable
from nstr3d.io.gltf import encode_glb
from nstr3d.io.ply import element_names, encode_ply, read_ply, table_of
from nstr3d.types import Polylines


def save_lines(
    path: str | os.PathLike[str], lines: Polylines, colours: np.ndarray | None = None
) -> None:
    """Write ``lines`` in three dimensions by extension: .ply, .glb, .vtp, or .json (of any
    dimension).

    ``colours (n, 3)`` in [0, 1] colour the points (black without); the lines' ``values`` go into
    VTP and JSON as numbers, and into PLY as the property "value". PLY and VTP keep coordinates in
    double precision, GLB in single. Raises ValueError for an unknown extension, for no lines, and
    for points, values or colours that are not finite or do not fit.
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
    """The lines of a .ply with edges or a .json file as `save_lines` writes them, and their colours
    ``(n, 3)`` in [0, 1].

    Segments that continue each other become one line. Raises FileNotFoundError, IsADirectoryError
    or ValueError naming the file.
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
    ) as error:  # whatever the damaged byte led to
        raise ValueError(
            f"{path} could not be read as lines; write it with save_lines or nstr3d's flow"
        ) from error
    _check(str(path), lines, colours)
    return lines, colours


def holds_lines(path: Path) -> bool:
    """Whether a file is one of lines: JSON, or PLY with edges."""
    if path.suffix.lower() == ".json":
        return True
    if path.suffix.lower() != ".ply" or not path.is_file():
        return False
    return "edge" in element_names(path)


def joined(ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segments between the points of rows ``ends (s, 2)`` as lines: the rows in the order of the
    lines, and their ``starts``.

    A segment that begins where the one before it ended goes on with that line.
    """
    begins = np.ones(len(ends), bool)
    begins[1:] = ends[1:, 0] != ends[:-1, 1]
    rows = np.where(begins, 2, 1)  # a line's first segment brings two points, others one
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
    # Lines have no normals. Under light some viewers would show them black, so the material is
    # unlit; viewers without that extension show the colours under light.
    material = {
        "extensions": {"KHR_materials_unlit": {}},
        "pbrMetallicRoughness": {"metallicFactor": 0.0},
    }
    return encode_glb("streamlines", lines.points, lines.segments, material, colours)


def _vtp(lines: Polylines, colours: np.ndarray) -> bytes:
    """VTK's XML PolyData, arrays inline in base64 after their length."""
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
    found = [
        {"points": lines.points[part].tolist(), "colours": colours[part].tolist()}
        | ({} if lines.values is None else {"values": lines.values[part].tolist()})
        for part in parts
    ]
    return (json.dumps({"lines": found}, allow_nan=False) + "\n").encode("ascii")


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
    found = json.loads(path.read_bytes())["lines"]
    starts = np.cumsum([0, *(len(line["points"]) for line in found)])
    parts = [
        np.array(line["points"], np.float64).reshape(len(line["points"]), -1)
        for line in found
        if line["points"]
    ]
    points = np.concatenate(parts) if parts else np.zeros((0, 3))
    colours = [
        np.array(line.get("colours") or np.zeros((len(line["points"]), 3))).reshape(-1, 3) / 255.0
        for line in found
    ]
    valued = bool(found) and all("values" in line for line in found)
    values = (
        np.concatenate([np.array(line["values"], np.float64) for line in found]) if valued else None
    )
    return Polylines(points, starts, values), np.concatenate([np.zeros((0, 3)), *colours])


_ENCODERS = {".ply": _ply, ".glb": _glb, ".vtp": _vtp, ".json": _json}
