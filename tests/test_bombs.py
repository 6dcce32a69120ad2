"""Small files whose headers promise more than any machine holds are refused by the numbers of their
headers, before memory is taken."""

from __future__ import annotations

import io
import json
import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gltf import Gltf
from programs import needs_parts

import nstr3d.system as system
from nstr3d.io import load_cloud, load_mesh, load_picture, load_sound
from nstr3d.io.pcd import expand_lzf
from nstr3d.system import check_memory, free_memory, size_text

LEAST = 1 << 24  # bytes; what is taken before a file is refused is less
ROWS = 10**12


def npy(shape: str, kind: str = "'<f4'") -> bytes:
    """A NumPy file of 100 zeros after a header that promises ``shape``."""
    head = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + bytes(400)


def zipped(**members: bytes) -> bytes:
    """A ZIP file of ``members``, whose directory says that each has 2**42 bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_npy", ".npy"), data)
            archive.filelist[-1].file_size = 1 << 42
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")]
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved_picture(kind: str, old: bytes, new: bytes) -> bytes:
    """A picture of 24 x 16 pixels in which the bytes of its size are replaced."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (24, 16)).save(file, kind)
    assert old in file.getvalue()
    return file.getvalue().replace(old, new, 1)


def tiff(width: int, height: int) -> bytes:
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 99)]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4)


def instances() -> bytes:
    """A glTF scene of 999 nodes that each place the same 10,000 triangles."""
    count = 30_000
    buffer = {"byteLength": 4 * count * 3, "uri": "data:;base64," + "A" * (4 * count * 4)}
    nodes = [{"mesh": 0, "translation": [1, 0, 0]}] * 999
    return json.dumps(
        {
            "asset": {"version": "2.0"},
            "nodes": nodes,
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "accessors": [{"componentType": 5126, "type": "VEC3", "count": count, "bufferView": 0}],
            "bufferViews": [{"buffer": 0, "byteLength": 4 * count * 3}],
            "buffers": [buffer],
        }
    ).encode()


def ply(kind: str) -> bytes:
    head = f"ply\nformat {kind} 1.0\nelement vertex {ROWS}\nproperty float x\nproperty float y\n"
    head += f"property float z\nelement face {ROWS}\nproperty list uchar int vertex_indices\n"
    return head.encode() + b"end_header\n" + b"0 0 0\n" * 9


def pcd(kind: str) -> bytes:
    head = f"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {ROWS}\n"
    return f"{head}HEIGHT 1\nPOINTS {ROWS}\nDATA {kind}\n".encode() + b"0 0 0\n" * 9


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "rows.npy": (lambda: npy(f"({ROWS}, 3)"), "promises an array of 1000000000000 x 3 values in"),
    "negative.npy": (lambda: npy("(-1, 3)"), "promises an array of shape (-1, 3); it is damaged"),
    "wrapped.npy": (lambda: npy(f"({2**40}, {2**40})"), "promises an array of 1099511627776 x"),
    "record.npy": (
        lambda: npy(f"({ROWS},)", "[('x', '<f4'), ('y', '<f4'), ('z', '<f4')]"),
        "promises an array of 1000000000000 values in 12000000000000 bytes but holds 400",
    ),
    "large.npz": (lambda: zipped(points_npy=npy("(250000000000, 3)", "'<i1'")), "would take 12"),
    "short.npz": (lambda: zipped(points_npy=npy(f"({ROWS}, 3)", "'<f8'")), "but holds 43980465"),
    "pixels.png": (lambda: png(2**31 - 1, 2**31 - 1), "promises 4,611,686,014,132,420,609 pixels"),
    "rows.png": (lambda: png(1, 2**31 - 1), "promises 2,147,483,647 pixels; at most 178,956,970"),
    "picture.jpg": (
        lambda: saved_picture("JPEG", b"\0\x10\0\x18", b"\xff\xff\xff\xff"),
        "pixels; at most 178,956,970 are read",
    ),
    "picture.bmp": (
        lambda: saved_picture("BMP", bytes([24, 0, 0, 0, 16, 0]), bytes([0, 0, 16, 0, 0, 1])),
        "pixels; at most 178,956,970 are read",
    ),
    "picture.ppm": (
        lambda: b"P6\n99999999 99999999\n255\n" + bytes(99),
        "promises 9,999,999,800,000,001 pixels",
    ),
    "picture.tif": (lambda: tiff(2**31 - 1, 2**31 - 1), "pixels; at most 178,956,970 are read"),
    "text.ply": (lambda: ply("ascii"), "promises 1000000000000 points but holds 9;"),
    "binary.ply": (lambda: ply("binary_little_endian"), "points but holds 4;"),
    "text.pcd": (lambda: pcd("ascii"), "promises 1000000000000 points but holds 9;"),
    "binary.pcd": (lambda: pcd("binary"), "promises 1000000000000 points but holds 4;"),
    "packed.pcd": (lambda: pcd("binary_compressed"), "promises 540024880 compressed bytes but"),
    "mesh.off": (lambda: f"OFF\n{ROWS} {ROWS} 0\n0 0 0\n".encode(), "promises 1000000000000 vert"),
    "mesh.stl": (lambda: bytes(80) + b"\xff\xff\xff\x7f" + bytes(60), "promises 2147483647 facets"),
    "points.pts": (lambda: f"{ROWS}\n".encode() + b"0 0 0\n" * 9, "promises 1000000000000 points"),
}  # fmt: skip


def read(path: Path) -> None:
    suffix = path.suffix
    if suffix in (".png", ".jpg", ".bmp", ".ppm", ".tif"):
        load_picture(path)
    elif suffix in (".wav", ".flac", ".aiff", ".au"):
        load_sound(path)
    elif suffix in (".gltf", ".glb", ".off", ".stl"):
        load_mesh(path)
    else:
        load_cloud(path)


def refusal(path: Path) -> tuple[str, int]:
    """The error of reading a file, and the bytes that were taken beside the file's."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^/") as refused:
            read(path)
        return str(refused.value), tracemalloc.get_traced_memory()[1] - path.stat().st_size
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 1 TB were free, whatever this machine has."""
    monkeypatch.setattr(system, "free_memory", lambda: 10**12)


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_promises_much_is_refused_by_its_header(name, tmp_path: Path) -> None:
    make, reason = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make())
    said, taken = refusal(path)
    assert said.startswith(f"{path}")
    assert reason in said
    assert "\n" not in said
    assert taken < LEAST + 10 * path.stat().st_size


@needs_parts("audio")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_sound_that_promises_terabytes_is_refused_by_its_header(suffix, tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / f"sound{suffix}"
    soundfile.write(path, np.zeros((100, 2)), 8000)
    data = bytearray(path.read_bytes())
    if suffix == ".flac":  # 36 bits of the count of samples
        data[8 + 13 : 8 + 18] = bytes([data[8 + 13] | 15]) + b"\xff" * 4
        promise = r"promises 68,719,476,735 x 2 samples, which would take 825 GB"
    else:
        place = data.index(b"data") + 4
        data[place : place + 4] = struct.pack("<I", 0x7FFEFFFF)
        promise = r"promises 2147418111 bytes of samples but holds 400"
    path.write_bytes(data)
    said, taken = refusal_with(path, 10**11)
    assert promise in said
    assert taken < LEAST


def refusal_with(path: Path, free: int) -> tuple[str, int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "free_memory", lambda: free)
        return refusal(path)


@needs_parts("las")
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_las_that_promises_terabytes_is_refused_by_its_header(suffix, tmp_path: Path) -> None:
    import laspy

    path = tmp_path / f"points.{suffix}"
    las = laspy.create(point_format=6, file_version="1.4")
    las.xyz = np.random.default_rng(0).normal(size=(50, 3))
    las.write(path)
    data = bytearray(path.read_bytes())
    data[247:255] = struct.pack("<Q", ROWS)  # the count of points of LAS 1.4
    path.write_bytes(data)
    said, taken = refusal(path)
    short = "promises 1000000000000 points but holds 50; it is cut short"
    room = "promises 1,000,000,000,000 points, which would take 78 TB of memory, but 1 TB are free"
    assert (short if suffix == "las" else room) in said
    assert taken < LEAST


def in_draco(data: bytes, path: Path) -> Path:
    """A glTF file with a mesh whose triangles are in the Draco ``data``."""
    file = Gltf()
    extension = {"bufferView": file.view(data), "attributes": {"POSITION": 0}}
    part = {"attributes": {"POSITION": 0}, "extensions": {"KHR_draco_mesh_compression": extension}}
    file.tree["accessors"] = [{"componentType": 5126, "count": 4, "type": "VEC3"}]
    file.tree["meshes"] = [{"primitives": [part]}]
    return file.save(path)


def varint(number: int) -> bytes:
    low = bytes([number & 127 | (128 if number > 127 else 0)])
    return low + varint(number >> 7) if number > 127 else low


@needs_parts("gltf")
@pytest.mark.parametrize("method", [0, 1])
def test_draco_that_promises_much_is_refused_by_its_header(method, tmp_path: Path) -> None:
    """Faces come first in the sequential code; in the other, vertices after a byte."""
    head = b"DRACO\2\2\1" + bytes([method, 0, 0]) + bytes(method)
    counts = [(1 << 32) - 1, 4] if method == 0 else [4, (1 << 32) - 1]
    data = head + b"".join(map(varint, counts))
    said, _ = refusal(in_draco(data + bytes(99), tmp_path / "a.glb"))
    assert "promises 4,294,967,295 faces and 4 vertices by Draco in" in said
    said, taken = refusal_with(in_draco(data + bytes(1 << 23), tmp_path / "b.glb"), 10**11)
    assert "promises 4,294,967,295 faces by Draco, which would take 859 GB of memory, but" in said
    assert taken < 10 * LEAST
    for damaged in (head, b"DRACO\2\1" + data[7:], b"DRACO\2\2\0" + data[8:], b""):
        said, _ = refusal(in_draco(damaged + bytes(not damaged), tmp_path / "c.glb"))
        assert "could not be decompressed by Draco" in said


def test_what_fits_into_a_limit_of_pillow_is_compared_with_the_free_memory(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    path.write_bytes(png(12_000, 12_000))
    said, taken = refusal_with(path, 10**9)
    assert said == (
        f"{path} promises 12,000 x 12,000 pixels, which would take 4.03 GB of memory, but 1 GB are "
        "free; use a smaller file"
    )
    assert taken < LEAST


def test_few_nodes_that_place_a_part_often_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.gltf"
    path.write_bytes(instances())
    said, taken = refusal_with(path, 10**8)
    assert "vertices and faces, which would take 1" in said
    assert taken < 1 << 28


def test_compressed_bytes_that_expand_without_end_are_left_at_the_size() -> None:
    bomb = b"\0a" + b"\xe0\xff\0" * 100_000  # each three bytes repeat the last letter 264 times
    with pytest.raises(ValueError, match="more than 265 bytes came out, not 100"):
        expand_lzf(bomb, 100)


def test_the_free_memory_is_some_and_what_exceeds_it_is_refused(monkeypatch) -> None:
    monkeypatch.undo()
    free = free_memory()
    if sys.platform != "win32":
        assert free is not None
        assert 1 << 20 < free < 1 << 50
    monkeypatch.setattr(system, "free_memory", lambda: 2_000_000)
    check_memory(2_000_000, "It", "stop.")
    with pytest.raises(ValueError, match=r"^It would take 2 TB of memory, but 2 MB are free; st"):
        check_memory(2e12, "It", "stop.")
    monkeypatch.setattr(system, "free_memory", lambda: None)
    check_memory(2e12, "It", "stop.")
    assert [size_text(size) for size in (9, 1500, 2.5e16)] == ["9 bytes", "1.5 kB", "25 PB"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are read on Linux")
def test_a_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.undo()
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 26), before[1]))
        free = free_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert free is not None
    assert free <= 1 << 26
