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

    Points have their colours, those without a colour are grey, and the normals shade them, if the
    cloud has normals.
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
    shade = (DARKEST + (BACKGROUND - DARKEST) * light * 0.8)[:, None].repeat(3, axis=1)
    if cloud.colours is not None:
        colours = cloud.colours[ahead]
        known = np.isfinite(colours).all(axis=1)
        shade[known] = colours[known] * (DARKEST + (1 - DARKEST) * light[known, None])
    picture = np.full((camera.height, camera.width, 3), BACKGROUND, np.float32)
    order = np.argsort(-depth)  # the nearest points are painted last
    shift = np.arange(width) - width // 2
    rows = (row[order, None, None] + shift[:, None] + 0 * shift).reshape(-1)
    columns = (column[order, None, None] + 0 * shift[:, None] + shift).reshape(-1)
    painted = np.repeat(shade[order], width * width, axis=0)
    seen = (rows >= 0) & (rows < camera.height) & (columns >= 0) & (columns < camera.width)
    picture[rows[seen], columns[seen]] = painted[seen]
    return picture
