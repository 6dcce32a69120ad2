"""Lines to files: PLY, GLB, VTP, JSON, and to Open3D. Written atomically; colours are a byte per channel."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io import atomic_path
from nstr3d.types import Polylines


def save_lines(path: str | os.PathLike[str], lines: Polylines, colours: np.ndarray | None = None) -> None:
    """Write ``lines`` in three dimensions by extension: .ply, .glb, .vtp, or .json (of any dimension).

    ``colours (n, 3)`` in [0, 1] colour the points (black without); the lines' ``values`` go into VTP and JSON as numbers, and
    into PLY as the property "value". PLY and VTP keep coordinates in double precision, GLB in single. Raises ValueError for an
    unknown extension, for no lines, and for points, values or colours that are not finite or do not fit.
    """
    path = Path(path)
    encode = _ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise ValueError(f"{path}: cannot write lines with the extension '{path.suffix}'; use one of {', '.join(_ENCODERS)}")
    _check(str(path), lines, colours)
    if encode is not _json and lines.points.shape[1] != 3:
        raise ValueError(f"{path}: lines in {lines.points.shape[1]} dimensions go into .json; {path.suffix} holds 3")
    data = encode(lines, _bytes(lines, colours))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def line_set(lines: Polylines, colours: np.ndarray | None = None) -> Any:
    """``lines`` as an ``open3d.geometry.LineSet``, a segment in the mean colour of its ends.

    Raises ValueError as `save_lines`, ModuleNotFoundError where Open3D cannot be imported.
    """
    _check("the line set", lines, colours)
    if lines.points.shape[1] != 3:
        raise ValueError(f"A line set holds lines in 3 dimensions, not {lines.points.shape[1]}.")
    try:
        import open3d  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # a missing system library is an OSError
        raise ModuleNotFoundError(f"Open3D could not be imported ({error}); pip install nstr3d[open3d].") from error
    segments = lines.segments
    found = open3d.geometry.LineSet(
        points=open3d.utility.Vector3dVector(lines.points), lines=open3d.utility.Vector2iVector(segments.astype(np.int32))
    )
    if colours is not None:
        found.colors = open3d.utility.Vector3dVector(colours[segments].mean(axis=1).astype(np.float64))
    return found


def _check(what: str, lines: Polylines, colours: np.ndarray | None) -> None:
    if not len(lines.segments):
        raise ValueError(f"{what}: there are no lines to save; a line has at least two points")
    if not np.isfinite(lines.points).all() or (lines.values is not None and not np.isfinite(lines.values).all()):
        raise ValueError(f"{what}: the lines hold points or values that are not finite")
    if colours is not None and (colours.shape != (len(lines.points), 3) or not (colours.min() >= 0 and colours.max() <= 1)):
        raise ValueError(f"{what}: {len(lines.points)} points of lines need colours (n, 3) in [0, 1], not {colours.shape}")


def _bytes(lines: Polylines, colours: np.ndarray | None) -> np.ndarray:
    return np.zeros((len(lines.points), 3), np.uint8) if colours is None else np.round(colours * 255).astype(np.uint8)


def _ply(lines: Polylines, colours: np.ndarray) -> bytes:
    kinds = [("point", "<f8", 3), ("colour", "u1", 3)]
    header = "property double x\nproperty double y\nproperty double z\n"
    header += "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    if lines.values is not None:
        kinds.append(("value", "<f8"))  # type: ignore[arg-type]
        header += "property double value\n"
    vertices = np.zeros(len(lines.points), kinds)
    vertices["point"], vertices["colour"] = lines.points, colours
    if lines.values is not None:
        vertices["value"] = lines.values
    edges = lines.segments.astype("<i4")
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{header}"
    head += f"element edge {len(edges)}\nproperty int vertex1\nproperty int vertex2\nend_header\n"
    return head.encode("ascii") + vertices.tobytes() + edges.tobytes()


def _glb(lines: Polylines, colours: np.ndarray) -> bytes:
    import trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.path.entities import Line

    segments = lines.segments
    shades = colours[segments].astype(np.float64).mean(axis=1).round().astype(np.uint8)
    opaque = np.column_stack([shades, np.full(len(shades), 255, np.uint8)])
    # trimesh colours entities, so each segment is one.
    path = trimesh.path.Path3D([Line(ends) for ends in segments], lines.points, colors=opaque, process=False)
    return export_glb(trimesh.Scene({"streamlines": path}))


def _vtp(lines: Polylines, colours: np.ndarray) -> bytes:
    """VTK's XML PolyData, arrays inline in base64 after their length."""
    sizes = np.diff(lines.starts)
    ends = lines.starts[1:][sizes > 0]

    def array(name: str, kind: str, values: np.ndarray, width: int = 1) -> str:
        data = np.ascontiguousarray(values).tobytes()
        text = base64.b64encode(np.uint32(len(data)).astype("<u4").tobytes() + data).decode("ascii")
        return f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{width}" format="binary">{text}</DataArray>'

    values = "" if lines.values is None else array("value", "Float64", lines.values.astype("<f8"))
    body = [
        f'<Piece NumberOfPoints="{len(lines.points)}" NumberOfLines="{len(ends)}">',
        f"<PointData>{array('colour', 'UInt8', colours, 3)}{values}</PointData>",
        f"<Points>{array('Points', 'Float64', lines.points.astype('<f8'), 3)}</Points>",
        f"<Lines>{array('connectivity', 'Int64', np.arange(len(lines.points), dtype='<i8'))}",
        f"{array('offsets', 'Int64', ends.astype('<i8'))}</Lines></Piece>",
    ]
    head = '<?xml version="1.0"?>\n<VTKFile type="PolyData" version="0.1" byte_order="LittleEndian" header_type="UInt32">'
    return "\n".join([head, "<PolyData>", *body, "</PolyData></VTKFile>\n"]).encode("ascii")


def _json(lines: Polylines, colours: np.ndarray) -> bytes:
    parts = [slice(first, last) for first, last in zip(lines.starts[:-1], lines.starts[1:])]
    found = [
        {"points": lines.points[part].tolist(), "colours": colours[part].tolist()}
        | ({} if lines.values is None else {"values": lines.values[part].tolist()})
        for part in parts
    ]
    return (json.dumps({"lines": found}, allow_nan=False) + "\n").encode("ascii")


_ENCODERS = {".ply": _ply, ".glb": _glb, ".vtp": _vtp, ".json": _json}
