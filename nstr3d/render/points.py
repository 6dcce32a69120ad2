"""Pictures of point clouds: each point is a small square, lit from the camera."""

from __future__ import annotations

import math

import numpy as np

from nstr3d.render.camera import Camera
from nstr3d.render.projection import project
from nstr3d.types import PointCloud

BACKGROUND, DARKEST = 0.95, 0.15
COVERAGE = 1.5  # area of all squares over the area of the picture, about
WIDEST = 4  # width of the largest square in pixels


def splat(cloud: PointCloud, camera: Camera) -> np.ndarray:
    """The picture ``(height, width, 3)`` float32 in [0, 1] that ``camera`` takes of ``cloud``.

    The normals shade the points, if the cloud has normals.
    """
    pixels, depth = project(camera, cloud.points)
    ahead = np.isfinite(depth)
    column, row = np.floor(pixels[ahead]).astype(np.int64).T
    depth = depth[ahead]
    light = np.ones(len(depth))
    if cloud.normals is not None:
        light = np.abs(cloud.normals[ahead] @ camera.axes[2])
    width = int(
        np.clip(math.sqrt(COVERAGE * camera.width * camera.height / max(len(depth), 1)), 1, WIDEST)
    )
    picture = np.full((camera.height, camera.width), BACKGROUND, np.float32)
    order = np.argsort(-depth)  # the nearest points are painted last
    shift = np.arange(width) - width // 2
    rows = (row[order, None, None] + shift[:, None] + 0 * shift).reshape(-1)
    columns = (column[order, None, None] + 0 * shift[:, None] + shift).reshape(-1)
    grey = np.repeat(DARKEST + (BACKGROUND - DARKEST) * light[order] * 0.8, width * width)
    seen = (rows >= 0) & (rows < camera.height) & (columns >= 0) & (columns < camera.width)
    picture[rows[seen], columns[seen]] = grey[seen]
    return np.repeat(picture[..., None], 3, axis=2)
