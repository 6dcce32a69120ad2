"""Files in and out: meshes, images and JSON.

Every reader answers bad input with one sentence that names the file; every writer publishes a
complete file or nothing.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.meshformats import ENCODERS, encode_ply, fits_float32
from nstr3d.types import Mesh

LARGE = 1 << 24  # values of a picture


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to: it replaces ``path`` when the block succeeds
    and vanishes when it fails.

    A reader sees the old file or the whole new one, never a part. The temporary keeps the suffix of
    ``path``, so that writers which go by extension work. Raises ``FileNotFoundError`` if the folder
    is missing, ``IsADirectoryError`` if ``path`` is a folder.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: what it points at is replaced
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file inside it")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {target.parent} does not exist; create it before saving {target.name}"
        )
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(
            mode
        )  # some writers, that of safetensors for one, make a file that only its owner may read
        os.replace(temporary, target)
    except BaseException as error:
        if (
            isinstance(error, OSError)
            and error.strerror
            and error.filename in (None, str(temporary))
        ):
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """The triangles of a mesh file (OBJ, PLY, STL, OFF, GLB, GLTF and whatever else trimesh reads)
    as one `Mesh`.

    Scenes are flattened with their transforms, polygons are triangulated, textures, colours and
    normals are dropped. Vertices stay as stored: `repair` merges duplicates. Raises
    ``FileNotFoundError``, ``IsADirectoryError`` or ``ValueError`` where the file holds no mesh,
    non-finite vertices or faces that name vertices which are not there.
    """
    path = Path(path)
    vertices, faces = _read_scene(path, _mesh_format(path))
    if len(faces) == 0 and len(vertices) == 0:
        raise ValueError(
            f"{path} holds no geometry; check that the export that wrote it was not empty"
        )
    if len(faces) == 0:
        raise ValueError(
            f"{path} has {len(vertices)} points but no faces; fit it with apps/fit_points.py, "
            "or export it again as triangles if it was a mesh (triangle strips are not read)"
        )
    mesh = Mesh(vertices, faces)
    _check_mesh(mesh, str(path))
    return mesh


def save_mesh(path: str | os.PathLike[str], mesh: Mesh, colours: np.ndarray | None = None) -> None:
    """Write ``mesh`` by extension: .ply, .obj, .stl, .off or .glb, atomically; with ``colours (v,
    3)`` in [0, 1] as .ply.

    Coordinates are float32 unless that would move a vertex by more than 1e-6 of the extent (far
    from the origin, or at an absurd scale): then PLY turns to double, OBJ and OFF to 17 digits, STL
    to ASCII, GLB to a node transform. Raises ``ValueError`` for an unknown extension, a mesh
    without faces, non-finite vertices or faces out of range.
    """
    path = Path(path)
    encode = ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise ValueError(
            f"{path}: cannot write the extension '{path.suffix}'; use one of {', '.join(ENCODERS)}"
        )
    if len(mesh.faces) == 0:
        raise ValueError(f"{path}: the mesh to save has no faces")
    _check_mesh(mesh, f"the mesh to save to {path}")
    if colours is not None:
        if (
            encode is not encode_ply
            or colours.shape != mesh.vertices.shape
            or not (colours.min() >= 0 and colours.max() <= 1)
        ):
            raise ValueError(
                f"{path}: colours (v, 3) in [0, 1], one for each vertex, go into .ply, not "
                f"{colours.shape}"
            )
        data = encode_ply(mesh, fits_float32(mesh), np.round(colours * 255).astype(np.uint8))
    else:
        data = encode(mesh, fits_float32(mesh))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


@dataclass(frozen=True)
class Picture:
    """``values (h, w, c)`` float32 in [0, 1], c being 1 (grey), 3 (RGB) or 4 (RGBA), the ``bits``
    per channel that the file has (32 for floats), and ``notes``: what was left out or changed, a
    sentence each."""

    values: np.ndarray
    bits: int = 8
    notes: tuple[str, ...] = ()


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture as ``(h, w, c)`` float32 in [0, 1]: `load_picture` without what it says about the
    file."""
    return load_picture(path).values


def load_picture(path: str | os.PathLike[str]) -> Picture:
    """A picture of 1 to 16 bits or of floats, rotated as its EXIF tag says; the first frame of
    several, palettes and CMYK as RGB or RGBA.

    Raises ``FileNotFoundError``, ``IsADirectoryError`` or ``ValueError`` if the file is no picture
    that Pillow reads, or holds floats that are not in [0, 1].
    """
    from PIL import Image, ImageOps

    path = Path(path)
    check_readable(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # a large picture is no attack; a huge one still raises
            frames = getattr(opened, "n_frames", 1)
            raw = [
                str(tile[3] if isinstance(tile[3], str) else tile[3][0])
                for tile in opened.tile
                if tile[3]
            ]
            mode, picture = opened.mode, ImageOps.exif_transpose(opened)
            picture.load()
        notes = [f"it has {frames} frames, of which the first was taken"] if frames > 1 else []
        if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            notes.append(f"its {mode} colours were turned into RGB")
        if picture.mode.startswith("I") or picture.mode == "F":
            values, bits = _deep_grey(picture)
        else:
            values, bits = (
                np.asarray(picture.convert(_eight_bit_mode(picture)), np.float32) / np.float32(255),
                8,
            )
            if raw and raw[0].startswith(("RGB;16", "RGBA;16")):
                values, bits = (
                    (values * np.float32(255 * 256) + _low_bytes(path)) / np.float32(65535),
                    16,
                )
            elif raw and ";16" in raw[0]:
                notes.append("of its 16 bits per channel the upper 8 were read")
    except Exception as error:  # decoders raise whatever the damaged byte led to
        cause = "it is too large" if "exceeds limit" in str(error) else "convert it to PNG or JPEG"
        raise ValueError(f"{path} could not be read as a picture; {cause}") from error
    if not (values.min() >= 0 and values.max() <= 1):  # written so that NaN fails too
        raise ValueError(
            f"{path}: its floats span [{values.min()}, {values.max()}]; scale them to [0, 1] first"
        )
    return Picture(values if values.ndim == 3 else values[..., None], bits, tuple(notes))


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write ``image (h, w, 3)`` or ``(h, w, 4)``, uint8 or float in [0, 1], as PNG, atomically.

    Raises ``ValueError`` for another extension, shape or type, and for floats that are not finite
    or outside [0, 1].
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.size == 0:
        raise ValueError(f"{path}: a picture has shape (height, width, 3 or 4), not {image.shape}")
    if np.issubdtype(image.dtype, np.floating):
        save_picture(path, Picture(image))
        return
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: a picture is uint8 or float, not {image.dtype}")
    _save_png(Path(path), image)


def save_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write ``picture`` as PNG of 8 bits per channel, or of 16 if it has more, atomically; grey,
    RGB or RGBA as it is.

    Raises ``ValueError`` for another extension or shape, and for values that are not finite or
    outside [0, 1].
    """
    image = picture.values
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0:
        raise ValueError(
            f"{path}: a picture has shape (height, width, 1, 3 or 4), not {image.shape}"
        )
    if not (image.min() >= 0 and image.max() <= 1):  # written so that NaN fails too
        raise ValueError(
            f"{path}: float pictures lie in [0, 1]; this one spans [{image.min()}, "
            f"{image.max()}], clip it first"
        )
    peak, kind = (255, np.uint8) if picture.bits <= 8 else (65535, np.uint16)
    _save_png(
        Path(path), np.round(image * np.float64(peak) if peak > 255 else image * peak).astype(kind)
    )


def save_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write ``data`` (dicts, lists, tuples, strings, numbers, numpy scalars and arrays) as indented
    JSON, atomically.

    Raises ``ValueError`` naming the key path of a NaN or infinity, or of a value that JSON has no
    form for.
    """
    text = json.dumps(_plain(data, "data"), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def check_readable(path: Path) -> None:
    """Raises ``FileNotFoundError``, ``IsADirectoryError`` or ``ValueError`` unless ``path`` is a
    file that holds something."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file inside it")
    if not path.exists():
        raise FileNotFoundError(
            f"{path} {'is a link to nothing' if path.is_symlink() else 'does not exist'}"
        )
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")


def _mesh_format(path: Path) -> str:
    """The file type by extension, once the path is known to be worth opening."""
    from trimesh.exchange.load import mesh_formats

    check_readable(path)
    file_type = path.suffix.lower().lstrip(".")
    if file_type not in mesh_formats():
        raise ValueError(
            f"{path}: unknown mesh extension '{path.suffix}'; .obj, .ply, .stl, .off, .glb and "
            ".gltf work"
        )
    return file_type


def _read_scene(path: Path, file_type: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``(v, 3)`` and faces ``(f, 3)`` of all meshes in the file; if it has none, its loose
    points and no faces."""
    import trimesh

    source = _obj_text(path) if file_type == "obj" else str(path)
    try:
        if file_type == "stl":
            _check_stl(path)
        scene = trimesh.load_scene(source, file_type=file_type, process=False, skip_materials=True)
        parts = list(_placed_parts(scene))
    # third-party parsers raise anything, and none of it says what is wrong with the file
    except Exception as error:
        wrong_index = file_type in ("obj", "off") and (
            isinstance(error, IndexError) or "index" in str(error)
        )
        cause = (
            "a face names a vertex that is not there"
            if wrong_index
            else "it is damaged, or of another format"
        )
        raise ValueError(
            f"{path} could not be read as {file_type.upper()}: {cause}; export it again"
        ) from error
    meshes = [part for part in parts if len(part[1])]
    vertices = [part[0] for part in meshes or parts]
    starts = np.cumsum([0] + [len(v) for v in vertices])
    if not meshes:
        return np.concatenate([np.zeros((0, 3)), *vertices]), np.zeros((0, 3), np.int64)
    for (
        part_vertices,
        part_faces,
    ) in meshes:  # before the shift below would turn a wrong index into another part's vertex
        _check_mesh(Mesh(part_vertices, part_faces), str(path))
    return np.concatenate(vertices), np.concatenate(
        [f + start for (_, f), start in zip(meshes, starts)]
    )


def _obj_text(path: Path) -> io.StringIO:
    """The text of an OBJ without comments: in any old encoding, of which only the ASCII part
    matters."""
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{path} is binary, so no OBJ; rename it to its true format")
    data = re.sub(
        rb"#[^\n]*", b"", data
    )  # the parser takes a comment after a face for part of the face
    zero = re.search(rb"^[ \t]*f[^\n]*[ \t]0(?=[\s/]|\Z)", data, re.MULTILINE)
    if zero:  # which would silently become the last vertex
        line = data.count(b"\n", 0, zero.end()) + 1
        raise ValueError(
            f"{path}: the face on line {line} names vertex 0, but OBJ counts from 1; export it "
            "again"
        )
    return io.StringIO(data.decode("utf-8", errors="replace"))


def _check_stl(path: Path) -> None:
    """Raises ValueError for bytes that are no text and not as many as their count of facets says:
    where a guesser of encodings is installed, the parser takes them for text without facets."""
    with open(path, "rb") as file:
        head = file.read(1 << 12)
    facets = int.from_bytes(head[80:84], "little")
    if b"\0" in head and path.stat().st_size != 84 + 50 * facets:
        raise ValueError("a binary STL of another length than its header says")


def _placed_parts(scene: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vertices in scene coordinates and faces of every placed geometry; mirrored ones keep their
    outside."""
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        with np.errstate(
            invalid="ignore"
        ):  # infinities in the file are reported later, with their place
            placed = (
                np.asarray(geometry.vertices, np.float64) @ transform[:3, :3].T + transform[:3, 3]
            )
        faces = np.asarray(getattr(geometry, "faces", np.zeros((0, 3))), np.int64)
        yield placed, faces[:, ::-1] if np.linalg.det(transform[:3, :3]) < 0 else faces


def _check_mesh(mesh: Mesh, what: str) -> None:
    finite = np.isfinite(mesh.vertices).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{what}: vertex {int(np.argmin(finite))} is not finite; remove or replace it"
        )
    bad = (mesh.faces < 0) | (mesh.faces >= len(mesh.vertices))
    if bad.any():
        face, corner = np.argwhere(bad)[0]
        raise ValueError(
            f"{what}: face {face} names vertex {mesh.faces[face, corner]}, but vertices run from "
            f"0 to {len(mesh.vertices) - 1}"
        )


def _eight_bit_mode(picture: Any) -> str:
    """The plain mode that keeps what the picture has: grey, colour, and transparency."""
    if picture.mode in ("1", "L"):
        return "L"
    return "RGBA" if picture.has_transparency_data else "RGB"


def _deep_grey(picture: Any) -> tuple[np.ndarray, int]:
    """Values in [0, 1] and bits of a grey picture of integers or floats."""
    values = np.asarray(picture)
    if picture.mode == "F":
        return values.astype(np.float32), 32
    return (values / np.float64(65535)).astype(np.float32), 16


def _low_bytes(path: Path) -> np.ndarray:
    """The lower byte ``(h, w, 3 or 4)`` of each 16-bit channel: Pillow decodes to 8, so it is asked
    for the others."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        for index, tile in enumerate(opened.tile):
            raw = tile.args if isinstance(tile.args, str) else tile.args[0]
            order = (
                "B"
                if raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
                else "L"
            )
            args = (
                raw[:-1] + order
                if isinstance(tile.args, str)
                else (raw[:-1] + order, *tile.args[1:])
            )
            opened.tile[index] = tile._replace(args=args)
        return np.asarray(ImageOps.exif_transpose(opened), np.float32)


def _save_png(path: Path, image: np.ndarray) -> None:
    """``image (h, w, 1, 3 or 4)`` uint8 or uint16."""
    from PIL import Image

    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as PNG; end the name in .png")
    level = 6 if image.size < LARGE else 2  # a large one takes many seconds for a few per cent
    with atomic_path(path) as temporary:
        if image.dtype == np.uint8 or image.shape[2] == 1:
            Image.fromarray(
                np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)
            ).save(temporary, format="PNG", compress_level=level)
        else:
            temporary.write_bytes(_encode_deep_png(image))


def _encode_deep_png(image: np.ndarray) -> bytes:
    """PNG of ``image (h, w, 3 or 4)`` uint16, which Pillow cannot write: each row as its difference
    to the one above."""
    height, width, channels = image.shape
    rows = image.astype(">u2").view(np.uint8).reshape(height, -1)
    change = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))  # modulo 256
    lines = np.concatenate([np.full((height, 1), 2, np.uint8), change], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b"")
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def _plain(value: Any, where: str) -> Any:
    """``value`` with numpy turned into plain Python, refusing what JSON cannot hold."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            f"{where} is {value}, which JSON cannot hold; leave it out or replace it by None"
        )
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; convert it to numbers, "
        "strings or lists"
    )
