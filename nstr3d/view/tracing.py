"""The sphere-traced view of a browser page: a picture with depth for the camera of a visitor.

The origin of the page's scene is the middle of the shapes, and the scene is scaled. Cameras and
distances in this module are in world units unless a text says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nstr3d.geometry.shapes.combinators import joint_paint
from nstr3d.render.camera import Camera
from nstr3d.render.traced import GREY, RenderConfig, measure, render
from nstr3d.sdf import Sdf
from nstr3d.types import Box
from nstr3d.view.controls import Settings
from nstr3d.view.scene import joint_box

# A traced picture is nearer than its surface by this, in scene units, so that it hides the mesh.
BEFORE = 0.004
BEHIND = 160.0  # depth of the background in scene units; viser's limit is 167
TRACED = 720  # largest height of a traced picture in pixels


def view_of(camera: Any) -> tuple[Any, ...] | None:
    """Eye, target, up, vertical angle of view in radians, width and height in pixels of a visitor's
    camera, in scene units. None before the page has reported its camera."""
    if camera.update_timestamp == 0.0 or min(camera.image_width, camera.image_height) < 1:
        return None
    eye, target, up = (
        tuple(np.round(np.asarray(v), 6).tolist())
        for v in (camera.position, camera.look_at, camera.up_direction)
    )
    return (
        eye,
        target,
        up,
        round(float(camera.fov), 6),
        int(camera.image_width),
        int(camera.image_height),
    )


def camera_of(camera: Any, bounds: Box, scale: float) -> Camera:
    """A visitor's camera in world units, whose picture has the aspect ratio of the page. The origin
    of the scene is the middle of ``bounds``. A world unit is ``scale`` scene units."""
    nowhere = (0.0, 0.0, 3.0), (0.0,) * 3, (0.0, 1.0, 0.0), 0.6, 16, 16
    eye, target, up, fov, width, height = view_of(camera) or nowhere
    ex, ey, ez = (np.asarray(eye) / scale + bounds.centre).tolist()
    tx, ty, tz = (np.asarray(target) / scale + bounds.centre).tolist()
    shrink = min(1.0, TRACED / height)
    pixels = max(1, round(width * shrink)), max(1, round(height * shrink))
    return Camera((ex, ey, ez), (tx, ty, tz), up, float(np.degrees(fov)), *pixels)


def traced(sdf: Sdf, camera: Camera, scale: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures ``(h, w, 3)`` uint8 from ``camera`` and their depths ``(h, w)`` in scene units.

    The first picture has a quarter of the camera's width and height, the second has the full size.
    Raises ValueError for a camera inside the surface.
    """
    for shrink in (4, 1):
        small = replace(
            camera, width=max(1, camera.width // shrink), height=max(1, camera.height // shrink)
        )
        picture = render(
            sdf, small, RenderConfig(backdrop=GREY, samples_per_axis=1 if shrink > 1 else 2)
        )
        depth = measure(sdf, small).depth
        ahead = -(small.rays().directions.numpy() @ small.axes[2]).reshape(depth.shape)
        far = _spread(np.where(np.isfinite(depth), depth * ahead * scale - BEFORE, BEHIND))
        yield np.round(picture * 255).astype(np.uint8), far


def shown(sdfs: Sequence[Sdf], now: Settings) -> Sdf:
    """The union of all ``sdfs``, each at the iso level and cut by the plane of the controls."""
    return _union([_shown_sdf(sdf, now) for sdf in sdfs])


def _shown_sdf(sdf: Sdf, now: Settings) -> Sdf:
    level = sdf.offset(now.iso) if now.iso else sdf
    plane = now.plane
    if plane is None:
        return level
    return Sdf(
        lambda p: torch.maximum(level.bound(p), p[:, plane.axis] - plane.offset),
        level.bounds,
        level.lipschitz,
        paint=level.paint,
    )


def _spread(depth: np.ndarray) -> np.ndarray:
    """The minimum of ``depth`` over 5 x 5 pixels, so that the coarser outline of a mesh does not
    appear beside the outline of the traced picture."""
    for axis in (0, 1):
        around = np.pad(depth, [(2, 2) if n == axis else (0, 0) for n in (0, 1)], mode="edge")
        depth = np.min(
            [around.take(np.arange(depth.shape[axis]) + n, axis=axis) for n in range(5)], axis=0
        )
    return depth


def _union(sdfs: Sequence[Sdf]) -> Sdf:
    if len(sdfs) == 1:
        return sdfs[0]
    bounds = joint_box([sdf.bounds for sdf in sdfs])
    return Sdf(
        lambda p: torch.stack([sdf.bound(p) for sdf in sdfs]).amin(dim=0),
        bounds,
        max(sdf.lipschitz for sdf in sdfs),
        paint=joint_paint(sdfs),
    )
