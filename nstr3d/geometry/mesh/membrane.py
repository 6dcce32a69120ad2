"""The smoothest surface with a given border: a membrane."""

from __future__ import annotations

import numpy as np


def membrane(border: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A surface that spans the closed polygon ``border (n, 3)``.

    Returns new vertices ``(k, 3)`` and triangles ``(m, 3)``, whose indices count the vertices of
    the border first. The triangles run along the border in its direction.

    The surface is the harmonic map of the unit disc whose values on the circle are the border by
    arc length. Such a map has the least Dirichlet energy and stays within the convex hull of the
    border. On concentric circles it is a Fourier series, and the triangles are as large as their
    distance from the border.
    """
    count = len(border)
    length = np.linalg.norm(np.roll(border, -1, axis=0) - border, axis=1)
    arc = np.concatenate([[0.0], np.cumsum(length)]) / length.sum()
    samples = 1 << max(4, (4 * count - 1).bit_length())
    closed, at = np.concatenate([border, border[:1]]), np.arange(samples) / samples
    circle = np.column_stack([np.interp(at, arc, closed[:, axis]) for axis in range(3)])
    series = np.fft.rfft(circle, axis=0)
    rings, added, faces = _rings(count), [], []
    outer, first = arc[:-1], 0
    for radius, size in rings:
        decay = radius ** np.arange(len(series))
        values = np.fft.irfft(series * decay[:, None], samples, axis=0)
        inner = np.arange(size) / size
        faces.append(_zipper(outer, inner, first, first + len(outer)))
        added.append(values[:: samples // size])
        first, outer = first + len(outer), inner
    added.append(circle.mean(axis=0, keepdims=True))
    around, centre = np.arange(len(outer)), np.full(len(outer), first + len(outer))
    faces.append(np.column_stack([first + around, first + np.roll(around, -1), centre]))
    return np.concatenate(added), np.concatenate(faces)


def _rings(count: int) -> list[tuple[float, int]]:
    """The radius of each circle of vertices, from the border inward, and its number of vertices.

    Each circle has about half as many as the one before, and lies an edge length further in.
    """
    rings, radius, size = [], 1.0, count
    while size >= 8:
        radius *= 1 - 2 * np.pi / size
        size = 1 << ((size // 2).bit_length() - 1)
        rings.append((radius, size))
    return rings


def _zipper(outer: np.ndarray, inner: np.ndarray, first: int, second: int) -> np.ndarray:
    """Triangles between two circles of vertices with angles ``outer`` and ``inner``, in turns.

    Both begin at 0. The vertices are numbered from ``first`` and from ``second``.
    """
    middles = [(each + np.append(each[1:], 1.0)) / 2 for each in (outer, inner)]
    order = np.argsort(np.concatenate(middles), kind="stable")
    step = order < len(outer)  # the outer circle goes on by one vertex, else the inner one
    here, there = np.cumsum(step) - step, np.cumsum(~step) - ~step
    own = first + here % len(outer)
    other = second + there % len(inner)
    third = np.where(step, first + (here + 1) % len(outer), second + (there + 1) % len(inner))
    return np.column_stack([own, third, other])
