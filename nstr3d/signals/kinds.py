"""The kind of a file by its extension: a picture, a sound, or else a mesh."""

from __future__ import annotations

from pathlib import Path

SOUNDS = (
    ".wav",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aif",
    ".aiff",
    ".au",
    ".caf",
    ".w64",
    ".rf64",
)
IMAGES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
    ".pnm", ".tga", ".jp2", ".avif", ".ico", ".apng", ".jfif", ".dds", ".qoi",
)  # fmt: skip


def kind_of(path: Path) -> str:
    """The kind of a file by its extension: "image", "sound", or "mesh" for any other extension."""
    suffix = path.suffix.lower()
    return "image" if suffix in IMAGES else "sound" if suffix in SOUNDS else "mesh"
