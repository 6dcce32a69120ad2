"""Small glTF files made by hand, for the tests of the reader."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

CODES = {"i1": 5120, "u1": 5121, "<i2": 5122, "<u2": 5123, "<u4": 5125, "<f4": 5126}
CODES |= {"|i1": 5120, "|u1": 5121}
KINDS = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Gltf:
    """A glTF file in the making: accessors are added, and the tree is filled by the test."""

    def __init__(self) -> None:
        self.body = b""
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "bufferViews": [],
            "accessors": [],
        }

    def view(self, data: bytes, **more: Any) -> int:
        self.body += b"\0" * (-len(self.body) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.body), "byteLength": len(data)}
        self.tree["bufferViews"].append(entry | more)
        self.body += data
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, **more: Any) -> int:
        rows = values.reshape(len(values), -1)
        entry = {
            "bufferView": self.view(values.tobytes()),
            "componentType": CODES[values.dtype.str],
            "count": len(rows),
            "type": KINDS[rows.shape[1]],
        }
        self.tree["accessors"].append(entry | more)
        return len(self.tree["accessors"]) - 1

    def save(self, path: Path, uri: str = "", more: tuple[dict[str, Any], ...] = ()) -> Path:
        """A GLB, or a glTF whose buffer is the file of the name ``uri``. ``more`` are entries of
        further buffers."""
        self.body += b"\0" * (-len(self.body) % 4)
        self.tree["buffers"] = [
            {"byteLength": len(self.body)} | ({"uri": uri} if uri else {}),
            *more,
        ]
        text = json.dumps(self.tree).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.body), b"BIN\0") + self.body
        path.write_bytes(
            text if uri else struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks
        )
        return path
