"""Nearest triangles, compiled and in plain numpy, against libigl's tree; groups of points on the
same side against the winding number."""

from collections.abc import Iterator
from types import ModuleType

import igl
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.kernels.geometry import plaintriangles, triangles
from nstr3d.kernels.geometry.triangles import Triangles, along

TWINS = pytest.mark.parametrize("kernels", [triangles, plaintriangles], ids=["compiled", "plain"])


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restores torch's thread count after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def soup(count: int, size: float = 0.1, seed: int = 0) -> np.ndarray:
    """``count`` random triangles that may intersect, some of them without area."""
    generator = np.random.default_rng(seed)
    corners = (
        generator.uniform(-0.5, 0.5, (count, 1, 3)) + generator.normal(size=(count, 3, 3)) * size
    )
    corners[::7, 2] = corners[::7, 1]
    corners[3::11, 1] = corners[3::11, 0]
    corners[2::17, 2] = corners[2::17, 0]
    corners[::13] = corners[::13, :1]
    corners[5:6, 2] = corners[5:6, 0] + 2 * (corners[5:6, 1] - corners[5:6, 0])
    return corners


def libigl(corners: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3)
    tree = igl.AABB()
    tree.init(vertices, faces)
    squared, _, closest = tree.squared_distance(vertices, faces, points)
    return np.sqrt(squared), closest


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65, 3000])
@pytest.mark.parametrize("workers", [1, 2])
def test_it_finds_what_libigl_finds(count: int, workers: int) -> None:
    torch.set_num_threads(workers)
    corners, generator = soup(count), np.random.default_rng(1)
    points = np.concatenate(
        [generator.uniform(-1.5, 1.5, (900, 3)), corners[:50].mean(axis=1), corners[:50, 0]]
    )
    result = Triangles(corners).nearest(points)
    distance, _ = libigl(corners, points)
    np.testing.assert_allclose(result.distance, distance, atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(points - result.closest, axis=1), result.distance, atol=1e-12
    )
    own, _ = zip(
        *(
            libigl(corners[face][None], point[None])
            for face, point in zip(result.face[:100], points[:100])
        )
    )
    np.testing.assert_allclose(np.concatenate(own), result.distance[:100], atol=1e-12)


@given(st.integers(0, 10**6), st.floats(-6, 2), st.floats(-3, 12))
@settings(max_examples=30, deadline=None)
def test_the_size_of_triangles_and_the_way_to_them_do_not_matter(
    seed: int, size: float, away: float
) -> None:
    corners, generator = soup(40, 10.0**size / 100, seed), np.random.default_rng(seed + 1)
    points = generator.normal(size=(20, 3)) * 10.0**away
    result, (distance, _) = Triangles(corners).nearest(points), libigl(corners, points)
    np.testing.assert_allclose(result.distance, distance, rtol=1e-9, atol=1e-12)


def test_neither_order_nor_threads_change_which_of_equals_is_taken() -> None:
    mesh, generator = oracles.torus(), np.random.default_rng(2)
    corners = mesh.vertices[mesh.faces] / 4
    points = np.concatenate([corners[:, 0], generator.uniform(-0.6, 0.6, (2000, 3))])
    tree, order, result = Triangles(corners), generator.permutation(len(points)), []
    for workers in (1, 2):
        torch.set_num_threads(workers)
        result += [tree.nearest(points), tree.nearest(points[order])]
    for one in result[::2]:
        for other in result[1::2]:
            np.testing.assert_array_equal(one.face[order], other.face)
            np.testing.assert_array_equal(one.distance[order], other.distance)


@pytest.mark.parametrize("size", [1e-3, 0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_the_twins_agree_where_faces_have_no_area_or_lie_on_each_other(
    seed: int, size: float
) -> None:
    """Every face occurs three times, and points on sides and corners are equally near to several
    faces."""
    corners, generator = soup(300, size, seed), np.random.default_rng([seed, 1])
    corners = np.concatenate([corners, corners[:, [1, 2, 0]], corners[:, ::-1]])
    on = [corners[:300, 0], corners[:300].mean(axis=1), corners[:300, :2].mean(axis=1)]
    points = np.concatenate(
        [*on, generator.uniform(-1, 1, (600, 3)), generator.normal(size=(50, 3)) * 1e6]
    )
    compiled, plain = (
        each.Triangles(corners).nearest(points) for each in (triangles, plaintriangles)
    )
    np.testing.assert_allclose(plain.distance, compiled.distance, rtol=1e-12, atol=1e-15)
    assert (plain.distance[:900] < 1e-12).all()
    reached = np.linalg.norm(points - plain.closest, axis=1)
    np.testing.assert_allclose(reached, plain.distance, rtol=1e-12, atol=1e-15)
    for row in range(0, len(points), 50):
        own, _ = libigl(corners[plain.face[row]][None], points[row : row + 1])
        np.testing.assert_allclose(own, compiled.distance[row], rtol=1e-12, atol=1e-15)


def test_the_twins_agree_on_a_surface_and_mostly_on_its_faces() -> None:
    mesh, generator = oracles.torus(), np.random.default_rng(5)
    corners, points = mesh.vertices[mesh.faces] / 4, generator.uniform(-0.6, 0.6, (3000, 3))
    compiled, plain = (
        each.Triangles(corners).nearest(points) for each in (triangles, plaintriangles)
    )
    np.testing.assert_allclose(plain.distance, compiled.distance, atol=1e-15)
    np.testing.assert_allclose(plain.closest, compiled.closest, atol=1e-14)
    # The other points are nearest to an edge or a corner, which several faces share.
    assert np.mean(plain.face == compiled.face) > 0.4


@TWINS
@pytest.mark.parametrize("workers", [1, 2])
def test_points_that_are_alike_are_on_the_same_side(workers: int, kernels: ModuleType) -> None:
    torch.set_num_threads(workers)
    mesh, generator = oracles.sphere(3), np.random.default_rng(3)
    corners = mesh.vertices[mesh.faces] * 0.4 / np.abs(mesh.vertices).max()
    points = np.concatenate(
        [
            generator.uniform(-1, 1, (3000, 3)),
            corners[:, 0] * generator.normal(1, 0.02, (len(corners), 1)),
        ]
    )
    alike = kernels.Triangles(corners).nearest(points).alike
    tree = igl.FastWindingNumberBVH()
    tree.init(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3))
    inside = tree.winding_number(points) > 0.5
    assert 0.05 < inside.mean() < 0.95
    np.testing.assert_array_equal(inside[alike], inside)
    np.testing.assert_array_equal(alike[alike], alike)
    assert len(np.unique(alike)) < len(points) / 4


@TWINS
def test_nothing_is_nearest_to_no_points(kernels: ModuleType) -> None:
    result = kernels.Triangles(soup(10)).nearest(np.empty((0, 3)))
    assert [len(each) for each in result] == [0, 0, 0, 0]


def test_the_curve_is_the_same_in_both_twins() -> None:
    generator = np.random.default_rng(4)
    points = np.concatenate(
        [generator.uniform(-1.1, 1.1, (5000, 3)), generator.normal(size=(50, 3)) * 1e9]
    )
    np.testing.assert_array_equal(plaintriangles.along(points), along(points))
    assert plaintriangles.along(points).dtype == along(points).dtype


def test_the_curve_visits_neighbours_one_after_another() -> None:
    axis = (np.arange(8) + 0.5) / 4 - 1
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    walk = cells[np.argsort(along(cells))]
    np.testing.assert_allclose(np.abs(np.diff(walk, axis=0)).sum(axis=1), 0.25)
