"""Pictures read from files and written as PNG, with 8 or 16 bits per channel.

Every error message is one sentence that names the file.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import atomic_path, check_readable
from nstr3d.io.deepcolour import (
    deep_ppm,
    encode_deep_png,
    has_signed_samples,
    is_deep_colour,
    low_bytes,
    stored_mode,
)
from nstr3d.io.errors import ContentError
from nstr3d.io.room import check_room
from nstr3d.types import expect

LARGE = 1 << 24  # a PNG of at least this many values is compressed at a lower level


@dataclass(frozen=True)
class Picture:
    """A picture: ``values (h, w, c)`` float32 in [0, 1], where c is 1 (grey), 3 (RGB) or 4 (RGBA).

    ``bits`` are the bits per channel of the file, 32 for floats. ``notes`` are clauses about the
    file, each of which says what the reader left out or changed.
    """

    values: np.ndarray
    bits: int = 8
    notes: tuple[str, ...] = ()


def load_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The ``values (h, w, c)`` float32 in [0, 1] of `load_picture`, with the same errors."""
    return load_picture(path).values


def load_picture(path: str | os.PathLike[str]) -> Picture:
    """A picture of 1 to 16 bits per channel or of floats, rotated as its EXIF tag says.

    Only the first of several frames is read. Palettes and CMYK become RGB or RGBA. Raises
    ``FileNotFoundError``, ``IsADirectoryError``, and ``ValueError`` if Pillow cannot read the file
    as a picture or its floats are not in [0, 1].
    """
    from PIL import Image, ImageOps

    path = Path(path)
    check_readable(path)
    try:
        with _quiet(), Image.open(path) as opened:
            width, height = opened.size
            size = width * height * (4 + 8 * len(opened.getbands()))  # Pillow's bytes and floats
            check_room(path, f"{width:,} x {height:,} pixels", size)
            frames = getattr(opened, "n_frames", 1)
            stored, is_signed = stored_mode(opened), has_signed_samples(opened)
            colours = deep_ppm(path, opened)
            mode, picture = opened.mode, ImageOps.exif_transpose(opened)
            picture.load()
        notes = [f"it has {frames} frames, of which the first was taken"] if frames > 1 else []
        if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            notes.append(f"its {mode} colours were turned into RGB")
        if colours is not None:
            values, bits = colours, 16
        elif picture.mode.startswith("I") or picture.mode == "F":
            values, bits, note = _deep_grey(picture, stored, is_signed)
            notes += [note] if note else []
        else:
            values, bits = (
                np.asarray(picture.convert(_eight_bit_mode(picture)), np.float32) / np.float32(255),
                8,
            )
            if is_deep_colour(stored):
                values, bits = (
                    (values * np.float32(255 * 256) + low_bytes(path)) / np.float32(65535),
                    16,
                )
            elif ";16" in stored:
                notes.append("of its 16 bits per channel the upper 8 were read")
    except ContentError:
        raise
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        pixels = re.search(r"\d+", str(error))  # Pillow's sentence begins with the count
        promised = f"{int(pixels[0]):,}" if pixels else "too many"
        raise ContentError(
            f"{path} promises {promised} pixels; at most {most:,} are read, so shrink it"
        ) from error
    except Exception as error:  # decoders raise any exception for a damaged file
        raise ContentError(
            f"{path} could not be read as a picture; convert it to PNG or JPEG"
        ) from error
    if not (values.min() >= 0 and values.max() <= 1):  # written so that NaN fails too
        raise ValueError(
            f"{path}: its values span [{values.min()}, {values.max()}] of full scale; scale them "
            "to [0, 1] first"
        )
    return Picture(values if values.ndim == 3 else values[..., None], bits, tuple(notes))


@contextmanager
def _quiet() -> Iterator[None]:
    """In the block Pillow warns of nothing: of damaged tags it warns in words of its own, and of
    large pictures from 89 million pixels on. From twice as many on it raises an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes ``image (h, w, 3)`` or ``(h, w, 4)``, uint8 or float in [0, 1], as PNG, atomically.

    Floats are dithered by an ordered pattern, so smooth gradients show no bands. Multiples of 1/255
    are written exactly. Raises ``ValueError`` for an extension other than .png, another shape or
    type, and floats that are not finite or outside [0, 1].
    """
    expect(image, np.ndarray, "image")
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.size == 0:
        raise ValueError(f"{path}: a picture has shape (height, width, 3 or 4), not {image.shape}")
    if np.issubdtype(image.dtype, np.floating):
        _check_range(path, image)
        image = _dithered(image)
    if image.dtype != np.uint8:
        raise ValueError(f"{path}: a picture is uint8 or float, not {image.dtype}")
    _save_png(Path(path), image)


def save_picture(path: str | os.PathLike[str], picture: Picture) -> None:
    """Writes ``picture`` as grey, RGB or RGBA PNG, atomically.

    The file has 8 bits per channel if ``picture.bits`` is at most 8, and 16 otherwise. Raises
    ``ValueError`` for an extension other than .png, another shape, and values that are not finite
    or outside [0, 1].
    """
    image = picture.values
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0:
        raise ValueError(
            f"{path}: a picture has shape (height, width, 1, 3 or 4), not {image.shape}"
        )
    _check_range(path, image)
    peak, kind = (255, np.uint8) if picture.bits <= 8 else (65535, np.uint16)
    _save_png(
        Path(path), np.round(image * np.float64(peak) if peak > 255 else image * peak).astype(kind)
    )


def _check_range(path: str | os.PathLike[str], image: np.ndarray) -> None:
    if not (image.min() >= 0 and image.max() <= 1):  # written so that NaN fails too
        raise ValueError(
            f"{path}: float pictures lie in [0, 1], but this one spans [{image.min()}, "
            f"{image.max()}]; clip it first"
        )


def _dithered(image: np.ndarray) -> np.ndarray:
    """``image (h, w, c)`` in [0, 1] as uint8, rounded up or down by an 8 x 8 Bayer pattern."""
    order = np.zeros((1, 1))
    for _ in range(3):
        order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
    rows, columns = (np.arange(side) % len(order) for side in image.shape[:2])
    threshold = ((order + 0.5) / order.size - 0.5)[rows[:, None], columns]
    return np.round(image * 255.0 + threshold[..., None]).clip(0, 255).astype(np.uint8)


def _eight_bit_mode(picture: Any) -> str:
    """The 8-bit mode that keeps the colours and transparency of the picture: L, RGB or RGBA."""
    if picture.mode in ("1", "L"):
        return "L"
    return "RGBA" if picture.has_transparency_data else "RGB"


def _deep_grey(picture: Any, stored: str, is_signed: bool) -> tuple[np.ndarray, int, str]:
    """Values, scaled to [0, 1] for integers, and bits of a grey picture of integers or floats, and
    a note about the scale of signed integers and of 32 bits."""
    values = np.asarray(picture)
    if picture.mode == "F":
        return values.astype(np.float32), 32, ""
    if picture.mode != "I":
        return (values / np.float64(65535)).astype(np.float32), 16, ""
    if not is_signed:
        values = values.view(np.uint32)
    is_wide = bool(values.max() > 65535)
    peak = np.iinfo(values.dtype).max if is_wide else 32767 if "16S" in stored else 65535
    is_told = "32" in stored or is_signed  # full scale of such files is a convention
    note = f"its integers, up to {values.max()}, were divided by {peak}" if is_told else ""
    return (values / np.float64(peak)).astype(np.float32), 16, note


def encode_png(image: np.ndarray) -> bytes:
    """``image (h, w, 3)`` or ``(h, w, 4)`` uint8 as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def _save_png(path: Path, image: np.ndarray) -> None:
    """Writes ``image (h, w, 1, 3 or 4)`` uint8 or uint16."""
    from PIL import Image

    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: pictures are written as PNG; end the name in .png")
    level = 6 if image.size < LARGE else 2  # level 6 saves a few per cent and takes many seconds
    with atomic_path(path) as temporary:
        if image.dtype == np.uint8 or image.shape[2] == 1:
            Image.fromarray(
                np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)
            ).save(temporary, format="PNG", compress_level=level)
        else:
            temporary.write_bytes(encode_deep_png(image))
