"""A soft shadow on the ground that a shape stands on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.render.clearance import clearance
from nstr3d.sdf import Sdf
from nstr3d.types import Rays

NODES = 144  # nodes of the shadow's grid to a side
TAPS = 6  # heights at which the distance above the ground is taken
WIDTH = 0.5  # of the blur of what shades at a height, in heights
GAP = 1e-3  # diagonals between the lowest point of the shape and the ground


@dataclass(frozen=True)
class Ground:
    """The looks of the ground: it is invisible but for the shadow of the shape.

    ``strength`` from 0 to 1 is the darkness where the ground sees no sky, and ``reach``, in
    diagonals of the bounds, the greatest height of what shades it. Raises ValueError for other
    numbers.
    """

    strength: float = 0.55
    reach: float = 0.25

    def __post_init__(self):
        if not 0 <= self.strength <= 1 or not self.reach > 0:
            raise ValueError(
                "A ground has a strength from 0 to 1 and a positive reach, "
                f"not {self.strength} and {self.reach}."
            )


class Shade:
    """The shadow of ``sdf`` on the ground across ``up (3,)``, a unit vector along an axis or any
    other direction, below the lowest corner of the bounds."""

    def __init__(self, ground: Ground, sdf: Sdf, up: Tensor) -> None:
        self.ground, self.up = ground, up
        centre = torch.as_tensor(sdf.bounds.centre).to(up)
        half = torch.as_tensor(sdf.bounds.extent / 2).to(up)
        diagonal = sdf.bounds.diagonal
        self.base = centre - up * float((half * up.abs()).sum() + GAP * diagonal)
        side = torch.eye(3).to(up)[int(up.abs().argmin())]
        first = torch.linalg.cross(up, side)
        first = first / first.norm()
        self.plane = torch.stack([first, torch.linalg.cross(up, first)])  # (2, 3)
        reach = ground.reach * diagonal
        self.half = self.plane.abs() @ half + (1 + 2 * WIDTH) * reach  # (2,)
        at = torch.linspace(-1, 1, NODES).to(up)
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        flat = torch.stack([columns, rows], dim=-1).reshape(-1, 2) * self.half
        # What the blur spreads ends softly at the rim.
        inside = ((self.half - flat.abs()) / (WIDTH * reach)).clamp(0, 1)
        fade = (inside * inside * (3 - 2 * inside)).prod(dim=1).reshape(1, 1, NODES, NODES)
        self.dark = fade * self._dark(sdf, self.base + flat @ self.plane, diagonal)

    def _dark(self, sdf: Sdf, points: Tensor, diagonal: float) -> Tensor:
        """The share of the sky ``(1, 1, NODES, NODES)`` that the shape hides from ``points``.

        What is high up is seen from a wide area of the ground, so its shadow is blurred: otherwise
        ridges of the shape would leave streaks.
        """
        blocked, total = points.new_zeros(1, 1, NODES, NODES), 0.0
        spacing = (2 * self.half / (NODES - 1)).tolist()
        with torch.no_grad():
            for tap in range(1, TAPS + 1):
                height = self.ground.reach * diagonal * (tap / TAPS) ** 2
                weight = 0.8**tap
                reach = torch.full_like(points[:, 0], height)
                free = clearance(sdf, points + height * self.up, reach) / height
                shade = (1 - free).clamp(0, 1).reshape(1, 1, NODES, NODES)
                for axis, step in zip((3, 2), spacing):
                    shade = _blurred(shade, axis, WIDTH * height / step)
                blocked += weight * shade
                total += weight
        return blocked / total

    def light(self, rays: Rays) -> Tensor:
        """The factor ``(n,)`` from 1 - strength to 1 by which the ground darkens what is behind it.

        It is 1 for rays that do not meet the ground from above.
        """
        fall = -(rays.directions @ self.up)
        height = (rays.origins - self.base) @ self.up
        meets = (fall > 1e-6) & (height > 0)
        travel = torch.where(meets, height / torch.where(meets, fall, 1.0), 0.0)
        flat = (rays.origins + travel[:, None] * rays.directions - self.base) @ self.plane.T
        at = (flat / self.half)[None, None]  # (1, 1, n, 2)
        dark = torch.nn.functional.grid_sample(self.dark, at, align_corners=True).reshape(-1)
        return 1 - self.ground.strength * torch.where(meets, dark, 0.0)


def _blurred(image: Tensor, axis: int, width: float) -> Tensor:
    """``image (1, 1, h, w)`` blurred along ``axis`` by a Gaussian of ``width`` nodes, dark outside
    the image as at its rim."""
    reach = min(int(3 * width) + 1, image.shape[axis] - 1)
    at = torch.arange(-reach, reach + 1).to(image)
    kernel = torch.exp(-0.5 * (at / max(width, 1e-6)) ** 2)
    shape, pads = ((1, 1, 1, -1), (reach, reach, 0, 0))
    if axis == 2:
        shape, pads = (1, 1, -1, 1), (0, 0, reach, reach)
    padded = torch.nn.functional.pad(image, pads, mode="replicate")
    return torch.nn.functional.conv2d(padded, (kernel / kernel.sum()).reshape(shape))
