"""The colours of a painted surface: samples of them, and those at the nearest places."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.io.paint import Paint
from nstr3d.types import Mesh


def sample_paint(
    paint: Paint, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``count`` points ``(n, 3)`` spread evenly over the area of a painted surface, and their
    display RGB ``(n, 3)``. Raises ValueError if the surface has no area."""
    corners = [part.mesh.corners for part in paint.parts]
    areas = [
        np.linalg.norm(np.cross(each[:, 1] - each[:, 0], each[:, 2] - each[:, 0]), axis=1)
        for each in corners
    ]
    shares = np.array([area[np.isfinite(area)].sum() for area in areas])
    if not shares.sum() > 0:
        raise ValueError("The painted surface has no area.")
    points, colours = [], []
    for part, own, area, number in zip(
        paint.parts, corners, areas, generator.multinomial(count, shares / shares.sum())
    ):
        if number:
            area = np.where(np.isfinite(area), area, 0.0)
            faces = generator.choice(len(area), number, p=area / area.sum())
            a, b = np.sqrt(generator.random(number)), generator.random(number)
            weights = np.stack([1 - a, a * (1 - b), a * b], axis=1)
            points.append(np.einsum("nc,ncd->nd", weights, own[faces]))
            colours.append(part.at(faces, weights))
    order = generator.permutation(count)
    return np.concatenate(points)[order], np.concatenate(colours)[order]


class NearestPaint:
    """The colours of the places of a painted surface that are nearest to given points."""

    def __init__(self, paint: Paint) -> None:
        corners = np.concatenate([part.mesh.corners for part in paint.parts])
        sizes = [len(part.mesh.faces) for part in paint.parts]
        self._owner = np.repeat(np.arange(len(sizes)), sizes)
        self._face = np.concatenate([np.arange(size) for size in sizes])
        self._paint = paint
        self._kept = np.flatnonzero(np.isfinite(corners).all(axis=(1, 2)))
        soup = corners[self._kept].reshape(-1, 3)
        self._distance = MeshDistance(Mesh(soup, np.arange(len(soup)).reshape(-1, 3)))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Display RGB ``(n, 3)`` for ``points (n, 3)``."""
        _, nearest, closest = self._distance.nearest(points)
        weights = barycentric(self._distance.mesh.corners[nearest], closest)
        face = self._kept[nearest]
        colours = np.empty((len(points), 3))
        for index, part in enumerate(self._paint.parts):
            own = self._owner[face] == index
            colours[own] = part.at(self._face[face[own]], weights[own])
        return colours

    def colour(self, points: Tensor) -> Tensor:
        """What a call returns, for torch ``points (n, 3)``: the ``paint`` of an `Sdf`."""
        return torch.from_numpy(self(points.detach().cpu().double().numpy())).to(points)


def barycentric(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The weights ``(n, 3)`` of the ``corners (n, 3, 3)`` of triangles at ``points (n, 3)`` on
    them; those of triangles without area are even."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    at = points - corners[:, 0]
    aa, ab, bb, ca, cb = (
        np.einsum("nd,nd->n", *pair) for pair in ((a, a), (a, b), (b, b), (at, a), (at, b))
    )
    area = aa * bb - ab * ab
    flat = ~(area > 0)
    area = np.where(flat, 1.0, area)
    second, third = (bb * ca - ab * cb) / area, (aa * cb - ab * ca) / area
    weights = np.stack([1 - second - third, second, third], axis=1).clip(0, 1)
    weights[flat] = 1 / 3
    return weights / weights.sum(axis=1, keepdims=True)
