"""The camera: where a picture is taken from, and the ray through each of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from nstr3d.types import Box, Rays, Up

MARGIN = 1.08  # size of the box that a camera's view holds, relative to the bounds


def _upright(up: Up) -> np.ndarray:
    """The rotation ``(3, 3)`` that takes +y to the axis ``up``. Raises ValueError for another
    word."""
    if up not in get_args(Up):
        raise ValueError(f"up is one of {', '.join(get_args(Up))}, not {up}.")
    columns = {
        "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
        "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    }
    turn = np.array(columns[up[-1]], np.float64).T
    return turn * (-1, -1, 1) if up.startswith("-") else turn


@dataclass(frozen=True)
class Camera:
    """A camera at ``eye`` that looks at ``target``; ``up`` points upwards in the picture.

    ``fov`` is the vertical angle of view in degrees. With ``span``, the height of the view in world
    units, the camera is orthographic: rays are parallel and ``fov`` is ignored. Raises ValueError
    for a picture without pixels, an angle or span out of range, or an undefined view direction.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    fov: float = 35.0
    width: int = 512
    height: int = 512
    span: float | None = None

    def __post_init__(self):
        if min(self.width, self.height) < 1:
            raise ValueError(
                f"A picture needs at least 1 x 1 pixels, not {self.width} x {self.height}."
            )
        if not 0 < self.fov < 180:
            raise ValueError(
                f"A camera's angle of view must lie between 0 and 180 degrees, not at {self.fov}."
            )
        if self.span is not None and not 0 < self.span < math.inf:
            raise ValueError(
                f"An orthographic camera's span must be positive and finite, not {self.span}."
            )
        numbers = (*self.eye, *self.target, *self.up)
        forward = np.subtract(self.target, self.eye)
        lengths = np.linalg.norm(forward) * np.linalg.norm(self.up)
        if (
            not all(map(math.isfinite, numbers))
            or not np.linalg.norm(np.cross(forward, self.up)) > 1e-9 * lengths
        ):
            raise ValueError(
                "A camera needs a finite eye, target and up, a target that differs from the eye, "
                "and an up that is not parallel to the view; "
                f"not eye {self.eye}, target {self.target} and up {self.up}."
            )

    @staticmethod
    def around(
        bounds: Box,
        azimuth: float = 30.0,
        elevation: float = 15.0,
        fov: float = 35.0,
        width: int = 512,
        height: int = 512,
        orthographic: bool = False,
        up: Up = "y",
    ) -> Camera:
        """A camera that sees all of ``bounds``.

        ``azimuth`` turns about the axis ``up``, counter-clockwise from above, and ``elevation`` is
        the angle above the horizon, both in degrees. At 0 the camera looks along -z if y is up, and
        along +y if z is up, as the front views of most programs do.
        """
        a, e = math.radians(azimuth), math.radians(elevation)
        turn = _upright(up)
        outward = turn @ [math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)]
        right = turn @ [math.cos(a), 0.0, -math.sin(a)]
        over = np.cross(outward, right)
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        corners = signs * bounds.extent / 2 * MARGIN
        half = math.tan(math.radians(fov) / 2)
        offset = np.maximum(np.abs(corners @ right) * height / width, np.abs(corners @ over))
        if orthographic:
            distance, span = (
                float((corners @ outward).max()) + bounds.diagonal,
                2 * float(offset.max()),
            )
        else:
            # A corner c, at depth d - c.outward, is in view if offset <= depth * half.
            distance, span = float((offset / half + corners @ outward).max()), None
        x, y, z = (bounds.centre + outward * distance).tolist()
        tx, ty, tz = bounds.centre.tolist()
        # In a view straight from above or below, the axis is parallel to the view and cannot be up.
        above = tuple((turn[:, 1] if abs(math.cos(e)) > 1e-6 else over).tolist())
        return Camera(
            (x, y, z), (tx, ty, tz), above, fov=fov, width=width, height=height, span=span
        )

    def orbit(self, frames: int) -> tuple[Camera, ...]:
        """``frames`` cameras on a full circle about the axis ``up`` through the target, this camera
        first, counter-clockwise from above. Raises ValueError if ``frames`` is less than 1."""
        from scipy.spatial.transform import Rotation

        if frames < 1:
            raise ValueError(f"An orbit needs at least 1 frame, not {frames}.")
        axis = np.asarray(self.up, np.float64) / np.linalg.norm(self.up)
        away = np.subtract(self.eye, self.target)
        cameras = []
        for turn in 2 * math.pi * np.arange(frames) / frames:
            turned = Rotation.from_rotvec(turn * axis).apply(away)
            x, y, z = (turned + self.target).tolist()
            cameras.append(replace(self, eye=(x, y, z)))
        return tuple(cameras)

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors ``(3, 3)``: right and up in the picture, and from target to eye."""
        backward = np.subtract(self.eye, self.target)
        backward = backward / np.linalg.norm(backward)
        right = np.cross(self.up, backward)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward])

    @property
    def pixel(self) -> float:
        """Pixel size in world units at depth 1. An orthographic camera returns its constant pixel
        size divided by the distance from eye to target."""
        if self.span is not None:
            return (
                self.span / self.height / float(np.linalg.norm(np.subtract(self.target, self.eye)))
            )
        return 2 * math.tan(math.radians(self.fov) / 2) / self.height

    def rays(self, device: torch.device | str = "cpu", which: Tensor | None = None) -> Rays:
        """One ray through each pixel centre, row by row from the top left: height * width rays.

        ``which (m,)`` are the indices of the pixels to take; None takes all.
        """
        eye = np.asarray(self.eye, np.float64)
        right, above, backward = self.axes
        half = self.span / 2 if self.span is not None else math.tan(math.radians(self.fov) / 2)
        pixels = np.arange(self.width * self.height) if which is None else which.cpu().numpy()
        row, column = np.divmod(pixels, self.width)
        x = ((column + 0.5) / self.width * 2 - 1) * half * self.width / self.height
        y = (1 - (row + 0.5) / self.height * 2) * half
        plane = x[:, None] * right + y[:, None] * above
        if self.span is not None:
            origins = torch.tensor(eye + plane, device=device)
            return Rays(origins, torch.tensor(-backward, device=device).expand_as(origins))
        directions = plane - backward
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        flat = torch.tensor(directions, device=device)
        return Rays(torch.tensor(eye, device=device).expand_as(flat), flat)
