"""A contact sheet: a shape from six sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nstr3d.render.labels import titled
from nstr3d.render.panels import beside, stacked
from nstr3d.render.traced import RenderConfig, turntable
from nstr3d.sdf import Sdf
from nstr3d.types import Camera, Up

SIDES = {
    "front": (0.0, 0.0),
    "right": (90.0, 0.0),
    "above": (0.0, 90.0),
    "back": (180.0, 0.0),
    "left": (270.0, 0.0),
    "below": (0.0, -90.0),
}


def contact_sheet(
    sdf: Sdf, config: RenderConfig, size: tuple[int, int], up: Up = "y", device="cpu"
) -> np.ndarray:
    """Six labelled parallel views ``(h, w, 3)`` of ``sdf``, in two rows and at one scale.

    ``size`` is the width and height of a view in pixels. Raises ValueError without a backdrop.
    """
    if config.backdrop is None:
        raise ValueError("A contact sheet needs a background.")
    width, height = size
    cameras = [
        Camera.around(sdf.bounds, *angles, width=width, height=height, orthographic=True, up=up)
        for angles in SIDES.values()
    ]
    span = max(camera.span or 0.0 for camera in cameras)
    cameras = [replace(camera, span=span) for camera in cameras]
    views = [
        titled(view, name) for name, view in zip(SIDES, turntable(sdf, cameras, config, device))
    ]
    return stacked([beside(views[:3]), beside(views[3:])])
