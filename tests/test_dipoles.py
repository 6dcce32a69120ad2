"""Sums of dipoles by a tree, against sums over all pairs and against each other."""

import numpy as np
import pytest

from nstr3d.kernels.geometry.dipoles import Dipoles

WIDTH = 0.1


def cloud(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on the unit sphere and outward vectors of equal length. The sum of their lengths is
    the sphere's area."""
    points = np.random.default_rng(0).standard_normal((count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, points * (4 * np.pi / count)


def number(at: np.ndarray, points: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    offset = points - at[:, None]
    return (
        np.einsum("mnd,nd->mn", offset, vectors) / (np.sum(offset**2, axis=2) + WIDTH**2) ** 1.5
    ).sum(axis=1) / (4 * np.pi)


def test_the_tree_gives_the_sum_over_all_pairs():
    points, vectors = cloud(2000)
    assert Dipoles(points).number(vectors, WIDTH) == pytest.approx(
        number(points, points, vectors), abs=0.02
    )
    at = 1.5 * points[:50]
    assert Dipoles(points).number(vectors, WIDTH, at) == pytest.approx(
        number(at, points, vectors), abs=0.01
    )
    few = Dipoles(points[:20])  # a single box: the sum is exact
    assert few.number(vectors[:20], WIDTH) == pytest.approx(
        number(points[:20], points[:20], vectors[:20]), abs=1e-6
    )


def test_the_slope_is_minus_the_gradient_of_the_number():
    points, vectors = cloud(20)
    step = 1e-4
    ends = [
        number(points + step * axis, points, vectors)
        - number(points - step * axis, points, vectors)
        for axis in np.eye(3)
    ]
    assert Dipoles(points).slope(vectors, WIDTH) == pytest.approx(
        -np.stack(ends, axis=1) / (2 * step), rel=1e-3, abs=1e-3
    )
    points, vectors = cloud(2000)
    slope = Dipoles(points).slope(vectors, WIDTH)
    cosine = np.einsum("nd,nd->n", slope, points) / np.linalg.norm(slope, axis=1)
    assert cosine.min() > 0.9


def test_the_adjoint_is_one():
    points, vectors = cloud(20)
    values = np.random.default_rng(1).standard_normal(20)
    dipoles = Dipoles(points)
    there, back = (
        dipoles.number(vectors, WIDTH) @ values,
        np.sum(vectors * dipoles.adjoint(values, WIDTH)),
    )
    assert there == pytest.approx(back, rel=1e-4)
