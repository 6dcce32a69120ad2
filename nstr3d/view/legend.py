"""A scale of colours in the desktop window, which stays where it is when the view turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nstr3d.render.colours import VIRIDIS, colour_map
from nstr3d.render.labels import write

GREY = 0.93  # of the window's background, on which the words stand
TALL, WIDE, MARGIN, TYPE = 0.4, 14, 16, 13  # share of the height of the window; pixels
ROOM = 320  # pixels that words may take
DEEP = 0.3  # distance of the scale from the eye, in distances between the eye and the shapes


@dataclass(frozen=True)
class Scale:
    """What the colours from violet to yellow mean: ``lowest`` and ``highest``, and the ``title``
    with the units."""

    title: str
    lowest: str
    highest: str


class Legend:
    """A `Scale` at the left edge of Open3D's window of ``size`` pixels: a point for each pixel."""

    def __init__(self, open3d: Any, scale: Scale, size: tuple[int, int]) -> None:
        self.open3d = open3d
        image = picture(scale, round(TALL * size[1]))
        rows, columns = np.nonzero((np.abs(image - GREY) > 1 / 255).any(axis=2))
        self.pixels = np.stack(
            [columns + MARGIN, rows + (size[1] - len(image)) // 2], axis=1, dtype=np.float64
        )
        # Points: a mesh would have edges where the window shows wires.
        self.cloud = open3d.geometry.PointCloud(
            open3d.utility.Vector3dVector(np.zeros((len(self.pixels), 3)))
        )
        colours = image[rows, columns].astype(np.float64)
        self.cloud.colors = open3d.utility.Vector3dVector(colours)

    def place(self, parameters: Any, distance: float) -> None:
        """Moves the scale in front of the eye of Open3D's camera ``parameters``, which look at
        shapes at this ``distance``."""
        focal = parameters.intrinsic.get_focal_length()
        centre = parameters.intrinsic.get_principal_point()
        depth = DEEP * distance
        flat = (self.pixels - centre) / focal * depth
        seen = np.column_stack([flat, np.full(len(flat), depth)])
        turn, shift = parameters.extrinsic[:3, :3], parameters.extrinsic[:3, 3]
        self.cloud.points = self.open3d.utility.Vector3dVector((seen - shift) @ turn)


def picture(scale: Scale, tall: int) -> np.ndarray:
    """The scale, ``tall`` pixels without its title, on the grey of the window: ``(h, w, 3)``."""
    import torch

    top = 2 * TYPE
    image = np.full((top + tall, ROOM, 3), GREY, np.float32)
    share = torch.linspace(1, 0, tall, dtype=torch.float64)
    image[top:, :WIDE] = colour_map(share, VIRIDIS).numpy()[:, None]
    write(image, (0, 0), scale.title, TYPE)
    write(image, (WIDE + TYPE // 2, top), scale.highest, TYPE)
    write(image, (WIDE + TYPE // 2, top + tall - 1), scale.lowest, TYPE, "ls")
    return image
