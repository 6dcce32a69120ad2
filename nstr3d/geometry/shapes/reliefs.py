"""Closed meshes with fine relief whose local frequency drifts, as test shapes for fields.

The reliefs are a knurl, a thread, scales and cloth. All are defined in closed form and are about as
large as the unit box. Facets are far smaller than ridges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.types import Mesh


def drifting(along: np.ndarray, mean: float, drift: float) -> np.ndarray:
    """The phase, in radians, whose frequency is ``mean + drift * along``.

    It is the integral of the frequency from 0 to ``along``.
    """
    return mean * along + drift * along**2 / 2


def knurl() -> Mesh:
    """A barrel with crossed ridges.

    Their frequency along the axis rises from 6 to 54 radians per unit.
    """

    def ridges(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        phase = drifting(height, 30.0, 24.0)
        return 0.012 * (np.sin(24 * angle + phase) + np.sin(24 * angle - phase))

    return barrel(ridges)


def thread() -> Mesh:
    """A barrel with one helical ridge.

    Its frequency along the axis rises from 9 to 79 radians per unit.
    """
    return barrel(lambda angle, height: 0.02 * np.sin(angle + drifting(height, 44.0, 35.2)))


def scales() -> Mesh:
    """A barrel with rows of round scales that become smaller along the axis.

    Every other row is shifted by half a scale.
    """

    def rows(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        phase = drifting(height, 30.0, 20.0)
        return 0.016 * np.exp(np.sin(14 * angle) * np.sin(phase / 2) + 0.5 * np.cos(phase) - 0.5)

    return barrel(rows)


def cloth(side: int = 700) -> Mesh:
    """A waved sheet of plain weave, closed at its rim.

    The weave becomes finer towards one corner. The upper and the lower side have ``side x side``
    vertices each.
    """
    grid = np.linspace(-1, 1, side)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    rim = np.clip(1 - x**8, 0, 1) * np.clip(1 - y**8, 0, 1)
    warp, weft = drifting(x, 38.0, 18.0), drifting(y, 38.0, 18.0)
    weave = 0.01 * rim * np.sin(warp) * np.sin(weft)
    middle = 0.12 * np.sin(2.5 * x + 1) * np.cos(2 * y)
    half = 0.07 * np.sqrt(rim)
    scale = 0.9
    top, bottom = (
        np.stack([scale * x, scale * y, middle + way * (half + weave)], axis=-1) for way in (1, -1)
    )
    index = np.arange(side * side).reshape(side, side)
    under = index + side * side
    edge = np.zeros((side, side), bool)
    edge[[0, -1], :] = edge[:, [0, -1]] = True
    under[edge] = index[edge]  # both sides share the vertices of the rim
    faces = np.concatenate([_quads(index), _quads(under)[:, ::-1]])
    # At two corners, a triangle with all vertices on the rim would belong to both sides.
    faces = faces[~edge.ravel()[faces % (side * side)].all(axis=1)]
    vertices = np.concatenate([top.reshape(-1, 3), bottom.reshape(-1, 3)])
    return drop_unused_vertices(Mesh(vertices, faces))


def barrel(
    relief: Callable[[np.ndarray, np.ndarray], np.ndarray], around: int = 1200, along: int = 700
) -> Mesh:
    """A barrel of radius 0.6 and height 2 along z with relief on its wall.

    ``relief(angle, height)`` is the outward displacement of the wall; the angle is in radians and
    the height from -1 to 1. The lids have no relief. ``around`` and ``along`` are the numbers of
    samples around the axis and along it.
    """
    angle, height = np.linspace(0, 2 * np.pi, around, endpoint=False), np.linspace(-1, 1, along)
    angle, height = np.meshgrid(angle, height, indexing="ij")
    profile = 0.6 * np.clip(1 - height**16, 0, 1) ** 0.25
    radius = np.maximum(profile + relief(angle, height) * (np.abs(height) < 0.97), 0.0)
    wall = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)[:, 1:-1]
    index = np.arange(around * (along - 2)).reshape(around, along - 2)
    closed = np.concatenate([index, index[:1]])
    south, north = np.full(around, index.size), np.full(around, index.size + 1)
    lids = [
        np.stack([closed[1:, 0], closed[:-1, 0], south], axis=1),
        np.stack([closed[:-1, -1], closed[1:, -1], north], axis=1),
    ]
    vertices = np.concatenate([wall.reshape(-1, 3), [[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]])
    return Mesh(vertices, np.concatenate([_quads(closed), *lids]))


def _quads(index: np.ndarray) -> np.ndarray:
    """Two triangles for every cell of a lattice of vertex indices ``(m, n)``.

    They are counter-clockwise if the first axis runs right and the second runs up.
    """
    a, b, c, d = (
        index[:-1, :-1].ravel(),
        index[1:, :-1].ravel(),
        index[1:, 1:].ravel(),
        index[:-1, 1:].ravel(),
    )
    return np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])


RELIEFS: dict[str, Callable[[], Mesh]] = {
    "knurl": knurl,
    "thread": thread,
    "scales": scales,
    "cloth": cloth,
}
