"""The projection of points into the picture of a camera."""

from __future__ import annotations

import math

import numpy as np

from nstr3d.render.camera import Camera

NEAREST = 1e-9  # world units: a point no farther ahead of the eye counts as behind it


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels ``(n, 2)`` and the depths ``(n,)`` at which ``camera`` sees ``points (n, 3)``.

    Pixels are columns and rows; the centre of the first pixel is (0.5, 0.5). The depth is along the
    ray through each point, in world units, and infinite behind the eye. The function is the inverse
    of `Camera.rays`, for pinholes and orthographic cameras.
    """
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
