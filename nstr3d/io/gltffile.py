"""The structure and numbers of a glTF 2.0 file: its JSON tree, buffers, views and accessors."""

from __future__ import annotations

import base64
import json
import re
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from nstr3d.io.errors import ContentError
from nstr3d.io.room import check_room

TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
DRACO = "KHR_draco_mesh_compression"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
INSTANCING = "EXT_mesh_gpu_instancing"
VISIBILITY = "KHR_node_visibility"
READ = {DRACO, *MESHOPT, INSTANCING, VISIBILITY, "KHR_mesh_quantization"}
# Extensions of materials, pictures, lights, behaviour and data, which do not change the triangles.
HARMLESS = re.compile(
    r"(KHR|EXT|MSFT|ADOBE|AGI|CESIUM|FB|GOOGLE)_"
    r"(materials|texture|lights|xmp|animation|audio|structural_metadata|mesh_features"
    r"|instance_features|primitive_outline|metadata|feature_metadata|emitter|node_hoverability"
    r"|node_selectability|interactivity|physics|implicit_shapes|lod|packing|techniques"
    r"|mesh_manifold|ngon_encoding|articulations|stk_metadata)\w*|VRM\w*|OMI_\w*"
)
# Rows of an accessor without data, beyond which it is refused unless its rows are replaced.
MOST_ZEROS = 1 << 20
CHECKED = 1 << 20  # vertices and triangles after which the free memory is looked at again
MESHOPT_RATIO = 1024  # the most bytes of vertices that one byte of meshopt holds
# Bytes of the rows of vertices that meshopt's filters can decode.
STRIDES = {"QUATERNION": (8,), "OCTAHEDRAL": (4, 8)}
STRIDES |= dict.fromkeys(("NONE", "EXPONENTIAL"), range(4, 257, 4))


class GltfFile:
    """A glTF or GLB file. Numbers are decoded at the first need.

    Raises `ContentError` for a file that is not glTF 2.0, is cut short, names a buffer file that is
    missing, or requires an extension that would change the triangles and is not read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        text, self.chunk = self._chunks(data) if data[:4] == b"glTF" else (data, b"")
        try:
            tree = json.loads(text.decode("utf-8-sig").rstrip("\0"))
            version = str(tree["asset"]["version"])
        except (ValueError, KeyError, TypeError) as error:
            raise self.fault(
                "could not be read as glTF: it is damaged, or of another format; export it again"
            ) from error
        if not version.startswith("2"):
            raise self.fault(f"is glTF {version}, which is not read; export it as glTF 2.0")
        self.tree: dict[str, Any] = tree
        for name in tree.get("extensionsRequired", []):
            if name not in READ and not HARMLESS.fullmatch(name):
                raise self.fault(
                    f"requires the glTF extension {name}, which is not read; export it without"
                )
        self.views: dict[int, np.ndarray] = {}
        self.buffers: dict[int, bytes] = {}
        self.notes: list[str] = []  # sentences on what parts lack
        self.placed = self.checked = 0  # vertices and triangles of the parts so far

    def take(self, rows: int) -> None:
        """Counts ``rows`` more vertices and triangles of placed parts. Raises `ContentError` if
        they do not fit into the free memory: a few nodes can place a part any number of times."""
        self.placed += rows
        if self.placed > self.checked + CHECKED:
            self.checked = self.placed
            check_room(self.path, f"{self.placed:,} vertices and faces", 48 * self.placed)

    def fault(self, sentence: str) -> ContentError:
        """An error about this file."""
        return ContentError(f"{self.path} {sentence}")

    def item(self, kind: str, index: int) -> dict[str, Any]:
        """Entry ``index`` of the list ``kind`` of the tree."""
        entries = self.tree.get(kind, [])
        if type(index) is not int or not 0 <= index < len(entries):
            raise self.fault(
                f"names entry {index} of its {kind}, but has {len(entries)} of them; export it "
                "again"
            )
        return entries[index]

    def whole(self, entry: dict[str, Any], name: str, default: int | None = None) -> int:
        """The property ``name`` of ``entry``, a whole number that is not negative."""
        value = entry[name] if default is None else entry.get(name, default)
        is_whole = type(value) is int or (isinstance(value, float) and value.is_integer())
        if not is_whole or not 0 <= value < 1 << 53:
            raise self.fault(
                f"has the {name} {str(value)[:20]}, which is no count; it is damaged, so export "
                "it again"
            )
        return int(value)

    def accessor(self, index: int, rows: int | None = None) -> np.ndarray:
        """The values ``(n, width)`` of an accessor: float64 for floats and normalised integers, and
        int64 for other integers. If ``rows`` is the count that it must have, an accessor may be
        without data and is then zero."""
        entry = self.item("accessors", index)
        count, width = self.whole(entry, "count"), WIDTHS[entry["type"]]
        kind = np.dtype(TYPES[entry["componentType"]])
        if rows is not None and count != rows:
            raise self.fault(
                f"has {count} rows instead of {rows} in accessor {index}; export it again"
            )
        if "bufferView" in entry:
            values = self._strided(entry["bufferView"], entry, count, width, kind)
        elif "sparse" in entry or rows is not None:
            held = self.whole(entry["sparse"], "count") if "sparse" in entry else 0
            if rows is None and count > MOST_ZEROS + 16 * held:
                raise self.fault(f"promises {count} rows in accessor {index} but holds {held}")
            values = np.zeros((count, width), kind)
        else:
            raise self.fault(
                f"has no data for accessor {index}; export it again, without compression"
            )
        if "sparse" in entry:
            values = self._replaced(values, entry["sparse"], kind)
        if kind.kind == "f":
            return values.astype(np.float64)
        if entry.get("normalized"):
            return np.maximum(values / float(np.iinfo(kind).max), -1.0)
        return values.astype(np.int64)

    def view(self, index: int) -> np.ndarray:
        """The bytes of a buffer view, decompressed."""
        if index not in self.views:
            entry = self.item("bufferViews", index)
            packed = next((e for n, e in entry.get("extensions", {}).items() if n in MESHOPT), None)
            fallback = packed and self._is_empty(entry["buffer"])
            if packed and (fallback or _has_meshoptimizer()):
                self.views[index] = self._unpacked(packed)
            else:
                self.views[index] = self._bytes(entry)
        return self.views[index]

    def _bytes(self, entry: dict[str, Any]) -> np.ndarray:
        """The bytes that ``byteOffset`` and ``byteLength`` of ``entry`` name in its buffer."""
        start, length = self.whole(entry, "byteOffset", 0), self.whole(entry, "byteLength")
        data = self._buffer(entry["buffer"])
        if start + length > len(data):
            raise self.fault(
                f"promises {start + length} bytes in buffer {entry['buffer']} but holds "
                f"{len(data)}; it is cut short"
            )
        return np.frombuffer(data, np.uint8, length, start)

    def _strided(
        self, view: int, entry: dict[str, Any], count: int, width: int, kind: np.dtype
    ) -> np.ndarray:
        """``count`` rows of ``width`` numbers that begin at the ``byteOffset`` of ``entry`` in a
        view."""
        data, size = self.view(view), width * kind.itemsize
        offset = self.whole(entry, "byteOffset", 0)
        stride = self.whole(self.item("bufferViews", view), "byteStride", 0) or size
        if stride < size:
            raise self.fault(
                f"has rows of {size} bytes at steps of {stride} in buffer view {view}; export it "
                "again"
            )
        needed = offset + stride * (count - 1) + size if count else 0
        if needed > len(data):
            raise self.fault(
                f"promises {count} rows in buffer view {view} but holds {len(data)} of {needed} "
                "bytes; it is cut short"
            )
        if not count:
            return np.zeros((0, width), kind)
        rows = np.lib.stride_tricks.as_strided(data[offset:], (count, size), (stride, 1))
        return np.ascontiguousarray(rows).view(kind)

    def _replaced(self, values: np.ndarray, sparse: dict[str, Any], kind: np.dtype) -> np.ndarray:
        """``values`` with the rows of a sparse accessor in place of some."""
        places, rows = sparse["indices"], sparse["values"]
        count = self.whole(sparse, "count")
        type_of_places = np.dtype(TYPES[places["componentType"]])
        at = self._strided(places["bufferView"], places, count, 1, type_of_places)[:, 0]
        if type_of_places.kind != "u":
            raise self.fault("has a sparse accessor with signed indices; export it again")
        if count and at.max() >= len(values):
            raise self.fault(f"replaces row {at.max()} of {len(values)} rows; export it again")
        values = values.copy()
        values[at] = self._strided(rows["bufferView"], rows, count, values.shape[1], kind)
        return values

    def _chunks(self, data: bytes) -> tuple[bytes, bytes]:
        """The JSON text and the binary chunk of a GLB file."""
        if len(data) < 20:
            raise self.fault(f"could not be read as GLB: it holds {len(data)} bytes; cut short")
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise self.fault(f"is glTF {version}, which is not read; export it as glTF 2.0")
        if length > len(data):
            raise self.fault(
                f"could not be read as GLB: it promises {length} bytes but holds {len(data)}; it "
                "is cut short"
            )
        chunks: dict[bytes, bytes] = {}
        place = 12
        while place + 8 <= length:
            size, kind = struct.unpack_from("<I4s", data, place)
            chunks.setdefault(kind, data[place + 8 : place + 8 + size])
            place += 8 + size
        return chunks.get(b"JSON", b""), chunks.get(b"BIN\0", b"")

    def _is_empty(self, index: int) -> bool:
        """Whether a buffer holds no data, because its views are compressed elsewhere."""
        entry = self.item("buffers", index)
        is_fallback = any(entry.get("extensions", {}).get(n, {}).get("fallback") for n in MESHOPT)
        return "uri" not in entry and (is_fallback or index > 0 or not self.chunk)

    def _buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            entry = self.item("buffers", index)
            if index and "uri" not in entry:  # the data inside a GLB are those of buffer 0
                raise self.fault(f"has no data for buffer {index}; export it again")
            self.buffers[index] = self._read_buffer(entry)
        return self.buffers[index]

    def _read_buffer(self, entry: dict[str, Any]) -> bytes:
        uri = entry.get("uri")
        if uri is None:
            return self.chunk
        if uri[:5].lower() == "data:":
            head, _, body = uri.partition(",")
            if not head.lower().endswith(";base64"):
                return unquote_to_bytes(body)
            text = re.sub(r"[\s=]", "", unquote(body))
            try:
                return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except ValueError as error:
                raise self.fault("has a damaged base64 buffer; export it again") from error
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", uri):
            raise self.fault(f"needs {uri[:80]}, which is not fetched; put the file beside it")
        names = (unquote(uri), uri, unquote(uri).replace("\\", "/"))  # as exporters write them
        for name in names:
            if (self.path.parent / name).is_file():
                return (self.path.parent / name).read_bytes()
        raise self.fault(
            f"needs the file {names[0]}, which is missing; put it into {self.path.parent}"
        )

    def _unpacked(self, packed: dict[str, Any]) -> np.ndarray:
        """The bytes of a view that meshopt has compressed."""
        if not _has_meshoptimizer():
            raise self.fault(
                f"is compressed by meshopt ({MESHOPT[0]}): pip install nstr3d[meshopt], or export "
                "it without compression"
            )
        import meshoptimizer  # pyright: ignore[reportMissingImports]

        data = self._bytes(packed).tobytes()
        count, stride = self.whole(packed, "count"), self.whole(packed, "byteStride")
        mode, how = packed["mode"], packed.get("filter", "NONE")
        strides = {"ATTRIBUTES": STRIDES.get(how, ())}.get(mode, (2, 4))
        if stride not in strides or count * stride > MESHOPT_RATIO * len(data):
            raise self.fault(
                f"promises {count} rows of {stride} bytes with the meshopt filter {how} in "
                f"{len(data)} bytes, which are not read; it is damaged, or of another version"
            )
        try:
            if mode == "ATTRIBUTES":
                kind = np.dtype(("V", stride))
                rows = meshoptimizer.decode_vertex_buffer(count, stride, data, dtype=kind)
                values = np.frombuffer(rows.tobytes(), np.uint8)
                unfilter = {
                    "EXPONENTIAL": meshoptimizer.decode_filter_exp,
                    "QUATERNION": meshoptimizer.decode_filter_quat,
                    "OCTAHEDRAL": meshoptimizer.decode_filter_oct,
                }.get(how)
                return unfilter(values, count, stride) if unfilter else values
            decode = {
                "TRIANGLES": meshoptimizer.decode_index_buffer,
                "INDICES": meshoptimizer.decode_index_sequence,
            }[mode]
            indices = decode(count, 4, data).astype("<u4")
        except (RuntimeError, ValueError, KeyError) as error:
            raise self.fault(
                "could not be decompressed by meshopt: it is damaged; export it again"
            ) from error
        return indices.astype("<u2" if stride == 2 else "<u4").view(np.uint8)


def _has_meshoptimizer() -> bool:
    from importlib.util import find_spec

    return find_spec("meshoptimizer") is not None
