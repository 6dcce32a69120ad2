"""Where a camera sees points."""

from __future__ import annotations

import math

import numpy as np

from nstr3d.types import Camera

NEAREST = 1e-9  # world units: a point no farther ahead of the eye counts as behind it


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where ``camera`` sees ``points (n, 3)``: columns and rows ``(n, 2)`` in pixels, the centre of
    the first pixel being (0.5, 0.5), and the depth ``(n,)`` along the ray through each point in
    world units, infinite behind the eye. The inverse of `Camera.rays`, for pinholes and
    orthographic cameras."""
    way = points - np.asarray(camera.eye, np.float64)
    across, above, ahead = (way @ camera.axes.T * (1, 1, -1)).T
    seen = ahead > NEAREST
    if camera.span is None:
        half, depth = math.tan(math.radians(camera.fov) / 2), np.linalg.norm(way, axis=1)
        scale = camera.height / 2 / half / np.where(seen, ahead, 1.0)
    else:
        scale, depth = camera.height / camera.span, ahead
    pixels = np.stack(
        [camera.width / 2 + scale * across, camera.height / 2 - scale * above], axis=1
    )
    return pixels, np.where(seen, depth, np.inf)
