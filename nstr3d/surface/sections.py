"""Contours of a solid on a plane, by marching triangles on a grid of the plane and by exact roots
on the grid's edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from nstr3d.sdf import Sdf
from nstr3d.surface.asking import check_vector
from nstr3d.surface.roots import between
from nstr3d.types import Polylines, expect

ACCURACY = 1e-5  # diagonals of the bounds
PADDING = 0.03  # of the longest side, added to the rectangle on the plane
FINEST = 1 << 13  # cells along the longest side


def slice_contours(
    sdf: Sdf, origin: Sequence[float], normal: Sequence[float], resolution: int
) -> Polylines:
    """See `nstr3d.sdf.queries.Queries.slice`.

    Raises ValueError if the solid reaches out of its bounds on the plane.
    """
    at, across = check_vector(origin, "origin"), check_vector(normal, "normal")
    expect(resolution, (int, np.integer), "resolution")
    if not 2 <= resolution <= FINEST:
        raise ValueError(f"resolution must be from 2 to {FINEST}, not {resolution}")
    size = np.linalg.norm(across / max(np.abs(across).max(), 1e-300))
    if not size > 0:
        raise ValueError("normal must not be the zero vector.")
    nodes, shape = _sheet(sdf, at, across / np.abs(across).max() / size, int(resolution))
    if not len(nodes):
        return Polylines(np.zeros((0, 3)), np.zeros(1, np.int64))
    with torch.no_grad():
        inside = np.concatenate(
            [sdf(part) <= 0 for part in np.array_split(nodes, 1 + len(nodes) // 65536)]
        )
    grid = inside.reshape(shape)
    if grid[[0, -1]].any() or grid[:, [0, -1]].any():
        raise ValueError("the solid reaches out of its bounds on the plane, so give larger bounds")
    tails, heads, edges = _march(inside, shape)
    ends = nodes[edges]
    swap = ~inside[edges[:, 0]][:, None]
    low, high = np.where(swap, ends[:, 1], ends[:, 0]), np.where(swap, ends[:, 0], ends[:, 1])
    accuracy = ACCURACY * sdf.bounds.diagonal
    points, _ = between(sdf, torch.from_numpy(low), torch.from_numpy(high), accuracy)
    order, starts = _loops(tails, heads, len(edges))
    return Polylines(points.numpy()[order], starts)


def _sheet(
    sdf: Sdf, origin: np.ndarray, normal: np.ndarray, resolution: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Nodes of a grid on the plane that covers its part in the bounds, and their counts along both
    axes. The axes and ``normal`` are a right-handed system. There are none if the plane misses the
    bounds."""
    helper = np.eye(3)[np.abs(normal).argmin()]
    first = np.cross(helper, normal)
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(normal, first)])
    lower, upper = (np.array(corner) for corner in (sdf.bounds.lower, sdf.bounds.upper))
    corners = np.array(list(product(*zip(lower, upper))))
    heights = (corners - origin) @ normal
    if heights.min() > 0 or heights.max() < 0:
        return np.zeros((0, 3)), (0, 0)
    # Where the edges of the box cross the plane are the corners of the common polygon.
    pairs = [(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1]
    a, b = np.array(pairs).T
    crossing = heights[a] * heights[b] <= 0
    a, b = a[crossing], b[crossing]
    gaps = heights[a] - heights[b]
    share = np.where(gaps == 0, 0.0, heights[a] / np.where(gaps == 0, 1.0, gaps))[:, None]
    polygon = np.concatenate(
        [corners[a] + share * (corners[b] - corners[a]), corners[b][gaps == 0]]
    )
    flat = (polygon - origin) @ axes.T
    longest = float(sdf.bounds.extent.max())
    cell = longest * (1 + 2 * PADDING) / resolution
    low, high = flat.min(axis=0) - PADDING * longest, flat.max(axis=0) + PADDING * longest
    counts = np.ceil((high - low) / cell).astype(int) + 1
    u, v = (start + cell * np.arange(count) for start, count in zip(low, counts))
    places = np.stack(np.meshgrid(u, v, indexing="ij"), axis=-1).reshape(-1, 2)
    return origin + places @ axes, (int(counts[0]), int(counts[1]))


def _march(inside: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed segments across the triangles of a grid, with the inside on their left: numbers of
    the crossed edges at their tails and heads ``(s,)``, and the nodes of these edges ``(e, 2)``."""
    index = np.arange(len(inside)).reshape(shape)
    a, b, c, d = (
        part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
    )
    triangles = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    held = inside[triangles]
    mixed = held.any(axis=1) & ~held.all(axis=1)
    triangles, held = triangles[mixed], held[mixed]
    # Turn each triangle, so that its first corner is the one that differs from the other two.
    alone = np.where(held.sum(axis=1) == 1, held.argmax(axis=1), (~held).argmax(axis=1))
    rows = np.arange(len(triangles))
    apex, left, right = (triangles[rows, (alone + turn) % 3] for turn in range(3))
    apex_inside = inside[apex]
    ahead, behind = np.stack([apex, right], axis=1), np.stack([apex, left], axis=1)
    # Around an inner apex, counter-clockwise corners (apex, left, right) have the inside on the
    # left of the way from the edge to the left corner to the edge to the right corner.
    tail = np.where(apex_inside[:, None], behind, ahead)
    head = np.where(apex_inside[:, None], ahead, behind)
    both = np.sort(np.concatenate([tail, head]), axis=1)
    _, first, number = np.unique(
        both[:, 0] * len(inside) + both[:, 1], return_index=True, return_inverse=True
    )
    return number[: len(tail)], number[len(tail) :], both[first]


def _loops(tails: np.ndarray, heads: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The points in the order of their loops, each closed by its first point, and the starts."""
    following = np.full(count, -1)
    following[tails] = heads
    ahead, seen = following.tolist(), bytearray(count)
    order, starts = [], [0]
    for begin in range(count):
        if seen[begin]:
            continue
        at = begin
        while not seen[at]:
            seen[at] = 1
            order.append(at)
            at = ahead[at]
        order.append(begin)
        starts.append(len(order))
    return np.array(order, np.int64), np.array(starts, np.int64)
