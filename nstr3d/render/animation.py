"""Output files of rendering: GIF and MP4 animations, and depth and normals as NPZ or EXR.

Every writer publishes a complete file or no file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.io.atomic import atomic_path
from nstr3d.render.camera import Camera
from nstr3d.render.traced import Buffers

ANIMATIONS, BUFFERS = (".gif", ".mp4"), (".npz", ".exr")


def save_animation(
    path: str | os.PathLike[str], frames: Iterable[np.ndarray], rate: float = 20.0
) -> None:
    """Write ``frames`` as .gif (endless) or .mp4 with ``rate`` frames a second.

    Each frame is ``(h, w, 3)`` floats in [0, 1], and all have one shape. Frames are taken one at a
    time; GIF keeps all of them in memory. MP4 drops an odd last row or column. Raises ValueError if
    the extension is another, there are no frames, a frame has another shape, or the rate is not
    from 0.1 to 100. Raises ModuleNotFoundError if MP4 is written without the extra ``render``.
    """
    path = Path(path)
    if path.suffix.lower() not in ANIMATIONS:
        raise ValueError(
            f"{path}: animations are written as GIF or MP4; end the name in "
            f"{' or '.join(ANIMATIONS)}"
        )
    if not 0.1 <= rate <= 100:
        raise ValueError(f"{path}: an animation shows 0.1 to 100 frames a second, not {rate}")
    save = _save_gif if path.suffix.lower() == ".gif" else _save_mp4
    supply = _checked(path, frames)
    first = next(supply)
    with atomic_path(path) as temporary:
        save(temporary, chain([first], supply), rate)


def save_buffers(path: str | os.PathLike[str], buffers: Buffers, camera: Camera) -> None:
    """Write the depth and the world normals of ``buffers`` with the camera that measured them.

    The depth is along each ray in world units, infinite on a miss. .npz holds the arrays
    ``depth (h, w)``, ``normals (h, w, 3)`` and the camera's ``eye``, ``target``, ``up``, ``fov``
    and ``span`` (NaN for a pinhole). .exr holds the float channels Z and N.X, N.Y, N.Z. Raises
    ValueError if the extension is another, and ModuleNotFoundError if EXR is written without the
    extra ``render``.
    """
    path = Path(path)
    if path.suffix.lower() not in BUFFERS:
        raise ValueError(
            f"{path}: depth and normals are written as NPZ or EXR; end the name in "
            f"{' or '.join(BUFFERS)}"
        )
    placed = {
        name: value for name, value in asdict(camera).items() if name not in ("width", "height")
    }
    placed["span"] = np.nan if camera.span is None else camera.span
    if path.suffix.lower() == ".npz":
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, depth=buffers.depth, normals=buffers.normals, **placed)
        return
    try:
        import OpenEXR
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "EXR files need OpenEXR: pip install 'nstr3d[render]', or write .npz"
        ) from error
    channels = {"Z": buffers.depth} | {
        f"N.{axis}": np.ascontiguousarray(buffers.normals[..., i]) for i, axis in enumerate("XYZ")
    }
    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "camera": repr(camera),
    }
    with atomic_path(path) as temporary, OpenEXR.File(header, channels) as file:
        file.write(str(temporary))


def _checked(path: Path, frames: Iterable[np.ndarray]):
    """The frames as uint8.

    Raises ValueError if a frame has a shape unlike the first, or there are no frames.
    """
    shape = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise ValueError(
                f"{path}: frames have one shape (height, width, 3), not {shape} and {frame.shape}"
            )
        yield np.round(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    if shape is None:
        raise ValueError(f"{path}: an animation needs at least one frame")


def _save_gif(path: Path, frames: Iterable[np.ndarray], rate: float) -> None:
    from PIL import Image

    # All frames share one palette, so that static parts do not flicker.
    first, *others = (Image.fromarray(frame) for frame in frames)
    palette = first.quantize(colors=256, dither=Image.Dither.NONE)
    images = [
        image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for image in (first, *others)
    ]
    images[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / rate),
        loop=0,
    )


def _save_mp4(path: Path, frames: Iterable[np.ndarray], rate: float) -> None:
    try:
        from imageio_ffmpeg import write_frames
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "MP4 files need imageio-ffmpeg: pip install 'nstr3d[render]', or write .gif"
        ) from error
    writer = None
    for frame in frames:
        # The codec halves the colour resolution in both directions, so it needs even sizes.
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if writer is None:
            options: Any = {
                "fps": rate,
                "quality": 8,
                "macro_block_size": 2,
                "ffmpeg_log_level": "error",
            }
            writer = write_frames(str(path), (width, height), **options)
            writer.send(None)
        writer.send(np.ascontiguousarray(frame[:height, :width]))
    assert writer is not None
    writer.close()
