"""Points with edges or triangles as the bytes of a GLB file (binary glTF 2.0)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

# Codes of glTF for the target of a buffer view, the type of a number, and the drawing mode.
VERTICES, INDICES = 34962, 34963
FLOAT32, UINT8, UINT16, UINT32 = 5126, 5121, 5123, 5125
MODES = {2: 1, 3: 4}  # rows of 2 indices are drawn as lines, rows of 3 as triangles
# Rounding errors of float32 above this fraction of the extent would be visible in the geometry.
FLOAT32_TOLERANCE = 1e-6


def points_fit_float32(points: np.ndarray) -> bool:
    """Whether single precision moves none of ``points (n, 3)`` by more than `FLOAT32_TOLERANCE` of
    their extent."""
    extent = np.ptp(points, axis=0).max()
    with np.errstate(over="ignore"):
        loss = np.abs(points.astype(np.float32).astype(np.float64) - points).max()
    return bool(loss <= FLOAT32_TOLERANCE * extent)


def placed_points(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``points (n, 3)`` about the origin with size 1, and the placement ``(4, 4)`` that maps them
    back.

    Coordinates of glTF are single precision, but node transforms are decimal text.
    """
    lower, upper = points.min(axis=0), points.max(axis=0)
    scale = float((upper - lower).max())
    placement = np.eye(4)
    placement[:3] = np.column_stack([np.eye(3) * scale, (lower + upper) / 2])
    return (points - placement[:3, 3]) / scale, placement


def encode_glb(
    name: str,
    points: np.ndarray,
    indices: np.ndarray,
    material: Mapping[str, Any],
    colours: np.ndarray | None = None,
    placement: np.ndarray | None = None,
    normals: np.ndarray | None = None,
    texture: tuple[np.ndarray, bytes] | None = None,
) -> bytes:
    """A scene with one node ``name`` of lines or triangles between ``points (n, 3)``.

    Points are stored as float32. The rows of ``indices`` are lines ``(m, 2)`` or triangles
    ``(m, 3)``. ``colours (n, 3)`` are linear colours of the points in uint8 or uint16, and
    ``normals (n, 3)`` their unit normals. ``placement (4, 4)`` maps the
    points to world coordinates; glTF stores it as decimal text, so it keeps double precision.
    ``material`` is a glTF material dictionary. ``texture`` holds texture coordinates ``(n, 2)``
    with v upward and the bytes of a PNG, the texture 0 of the material.
    """
    rows = indices.astype("<u4")
    parts, attributes = _attributes(points.astype("<f4"), colours, normals)
    if texture is not None:
        attributes["TEXCOORD_0"] = len(parts)
        uv = np.stack([texture[0][:, 0], 1 - texture[0][:, 1]], axis=1).astype("<f4")
        parts.append((uv.tobytes(), VERTICES, _accessor(FLOAT32, len(uv), "VEC2")))
    parts.append((rows.tobytes(), INDICES, _accessor(UINT32, rows.size, "SCALAR")))
    primitive = {
        "attributes": attributes,
        "indices": len(parts) - 1,
        "mode": MODES[rows.shape[1]],
        "material": 0,
    }
    node = {"name": name, "mesh": 0}
    if placement is not None:
        node["matrix"] = placement.T.ravel().tolist()  # glTF stores matrices by columns
    body = b"".join(data for data, _, _ in parts)  # each part is a multiple of 4 bytes long
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "nstr3d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "extensionsUsed": list(material.get("extensions", ())),
        "accessors": [{"bufferView": at} | part[2] for at, part in enumerate(parts)],
        "bufferViews": [
            {
                "buffer": 0,
                "byteOffset": sum(len(data) for data, _, _ in parts[:at]),
                "byteLength": len(data),
                "target": target,
            }
            for at, (data, target, _) in enumerate(parts)
        ],
        "buffers": [{"byteLength": len(body)}],
    }
    if texture is not None:
        view = {"buffer": 0, "byteOffset": len(body), "byteLength": len(texture[1])}
        tree["images"] = [{"bufferView": len(parts), "mimeType": "image/png"}]
        tree["textures"] = [{"source": 0}]
        tree["bufferViews"].append(view)
        body += texture[1] + bytes(-len(texture[1]) % 4)
        tree["buffers"][0]["byteLength"] = len(body)
    if not tree["extensionsUsed"]:
        del tree["extensionsUsed"]  # glTF forbids an empty list
    return _container(json.dumps(tree, allow_nan=False).encode("ascii"), body)


def _attributes(
    points: np.ndarray, colours: np.ndarray | None, normals: np.ndarray | None
) -> tuple[list[tuple[bytes, int, dict[str, Any]]], dict[str, int]]:
    """The parts of the buffer that describe the points, and the part of each attribute."""
    box = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
    vectors = _accessor(FLOAT32, len(points), "VEC3")
    parts, attributes = [(points.tobytes(), VERTICES, vectors | box)], {"POSITION": 0}
    if colours is not None:
        full, kind = (255, UINT8) if colours.dtype == np.uint8 else (65535, UINT16)
        shades = np.column_stack([colours, np.full(len(colours), full, colours.dtype)])
        accessor = _accessor(kind, len(points), "VEC4") | {"normalized": True}
        attributes["COLOR_0"] = len(parts)
        parts.append((shades.tobytes(), VERTICES, accessor))
    if normals is not None:
        attributes["NORMAL"] = len(parts)
        parts.append((normals.astype("<f4").tobytes(), VERTICES, vectors))
    return parts, attributes


def _accessor(number: int, count: int, kind: str) -> dict[str, Any]:
    return {"componentType": number, "count": count, "type": kind}


def _container(text: bytes, body: bytes) -> bytes:
    """The file's header and its two chunks. Spaces pad the text to a multiple of 4 bytes."""
    text += b" " * (-len(text) % 4)
    chunks = b"".join(
        struct.pack("<I4s", len(data), kind) + data
        for data, kind in ((text, b"JSON"), (body, b"BIN\0"))
    )
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
