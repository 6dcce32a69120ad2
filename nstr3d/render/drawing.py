"""Lines drawn into pictures: lines in world units behind surfaces, and flat lines."""

from __future__ import annotations

import math

import numpy as np

from nstr3d.render.camera import Camera
from nstr3d.render.projection import project
from nstr3d.sdf import Sdf
from nstr3d.surface.trace import sphere_trace
from nstr3d.types import Polylines

FINE = 3  # pixels of the canvas per pixel of the picture along each axis
BEFORE = 0.004  # diagonals by which a visible line may lie behind the surface


def draw_lines(
    picture: np.ndarray,
    camera: Camera,
    sdf: Sdf,
    lines: Polylines,
    colours: np.ndarray,
    width: float = 1.5,
) -> np.ndarray:
    """Draw ``lines`` in world units on a picture that ``camera`` took of ``sdf``.

    Returns a new picture. ``picture`` is ``(h, w, 3)``, ``colours (n, 3)`` are the colours of the
    lines' points, and ``width`` is in pixels. Parts of lines that the surface hides are not drawn.
    Raises ValueError if the picture does not have the camera's size.
    """
    if picture.shape != (camera.height, camera.width, 3):
        raise ValueError(
            f"The camera takes pictures {camera.height, camera.width, 3}, not {picture.shape}."
        )
    seen = sphere_trace(sdf, camera.rays()).depth.reshape(camera.height, camera.width).numpy()
    pixels, depth = project(camera, lines.points)
    limit = BEFORE * sdf.bounds.diagonal
    return _drawn(picture, pixels, depth, lines.segments, colours, width, seen + limit)


def draw_flat(
    picture: np.ndarray, lines: Polylines, colours: np.ndarray, width: float = 1.5
) -> np.ndarray:
    """Draw ``lines`` on ``picture (h, w, 3)``; returns a new picture.

    The points ``(n, 2)`` of the lines are columns and rows in pixels. ``colours (n, 3)`` are the
    colours of these points, and ``width`` is in pixels.
    """
    depth = np.zeros(len(lines.points))
    return _drawn(
        picture,
        lines.points,
        depth,
        lines.segments,
        colours,
        width,
        np.full(picture.shape[:2], np.inf),
    )


def _drawn(
    picture, pixels, depth, segments, colours, width: float, limit: np.ndarray
) -> np.ndarray:
    height, columns = picture.shape[:2]
    whole = np.isfinite(depth[segments]).all(axis=1)
    a, b = segments[whole].T
    counts = np.maximum(1, np.ceil(np.linalg.norm(pixels[b] - pixels[a], axis=1) * FINE)).astype(
        np.int64
    )
    counts = np.minimum(counts, 4 * FINE * max(height, columns))  # for lines far out of the picture
    piece = np.repeat(np.arange(len(a)), counts)
    fraction = (
        (np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[piece]
    )[:, None]
    at = pixels[a[piece]] * (1 - fraction) + pixels[b[piece]] * fraction
    far = depth[a[piece]] * (1 - fraction[:, 0]) + depth[b[piece]] * fraction[:, 0]
    shade = colours[a[piece]] * (1 - fraction) + colours[b[piece]] * fraction
    column, row = np.floor(at).astype(np.int64).T
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < height)
    inside[inside] = far[inside] <= limit[row[inside], column[inside]]
    at, far, shade = at[inside], far[inside], shade[inside]
    order = np.argsort(-far, kind="stable")  # the nearest points are drawn last
    return _blended(picture, at[order], shade[order], width)


def _blended(picture: np.ndarray, at: np.ndarray, shade: np.ndarray, width: float) -> np.ndarray:
    """``picture`` with discs of ``width`` pixels at ``at (n, 2)``.

    The discs are drawn on a finer canvas, which is averaged down.
    """
    height, columns = picture.shape[:2]
    canvas = np.zeros((height * FINE, columns * FINE, 4), np.float32)
    radius = width * FINE / 2
    reach = math.ceil(radius)
    centre = np.floor(at * FINE).astype(np.int64)
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            if down * down + across * across <= radius * radius:
                x, y = (centre + (across, down)).T
                fits = (x >= 0) & (x < canvas.shape[1]) & (y >= 0) & (y < canvas.shape[0])
                canvas[y[fits], x[fits], :3] = shade[fits]
                canvas[y[fits], x[fits], 3] = 1
    mean = canvas.reshape(height, FINE, columns, FINE, 4)
    cover = mean[..., 3:].mean(axis=(1, 3))
    return (picture * (1 - cover) + mean[..., :3].mean(axis=(1, 3))).clip(0, 1).astype(np.float32)
