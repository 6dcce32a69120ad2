"""Signs of estimated normals: patches of wrong signs, thin shapes with sharp rims, open sheets."""

import numpy as np
import pytest
from oracles import sphere, torus

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.orient import has_layers, outward_normals, without_isles
from nstr3d.geometry.mesh.surface import face_normals, sample_surface


def lens(count: int, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and normals of two bowls of radius 1 and ``height`` that meet in a sharp rim."""
    generator = np.random.default_rng(0)
    angle, radius = generator.uniform(0, 2 * np.pi, count), np.sqrt(generator.random(count))
    side = generator.choice([-1.0, 1.0], count)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    normals = np.stack([2 * height * x, 2 * height * y, side], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return np.stack([x, y, side * height * (1 - radius**2)], axis=1), normals


def wave(count: int, noise: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    x, y = generator.uniform(-1, 1, (2, count))
    height = 0.2 * np.sin(3 * x) * np.cos(2 * y) + noise * generator.standard_normal(count)
    return np.stack([x, y, height], axis=1)


@pytest.mark.parametrize(("count", "height", "most"), [(10_000, 0.15, 0.01), (10_000, 0.04, 0.1)])
def test_a_thin_shape_with_a_sharp_rim_has_two_sides(
    count: int, height: float, most: float
) -> None:
    points, normals = lens(count, height)
    wrong = (outward_normals(points) * normals).sum(axis=1) < 0
    assert wrong.mean() < most
    # The signs are wrong only where the two sides are within two spacings of each other.
    spacing = np.sqrt(2 * np.pi / count)
    assert wrong[2 * np.abs(points[:, 2]) > 2 * spacing].mean() < 0.005


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_a_plate_as_thin_as_the_spacing_has_two_sides(noise: float) -> None:
    generator = np.random.default_rng(0)
    side = generator.choice([0.0, 1.0], 20_000)  # the spacing on each is 0.01
    points = np.column_stack([generator.random((20_000, 2)), 0.01 * side])
    points += noise * generator.standard_normal(points.shape)
    wrong = outward_normals(points)[:, 2] * (2 * side - 1) < 0
    assert wrong.mean() < 0.05


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_an_open_sheet_is_turned_alike(noise: float) -> None:
    points = wave(4000, noise)
    normals = outward_normals(points)
    up = normals[:, 2] > 0
    assert min(up.mean(), 1 - up.mean()) < 0.002


def test_layers_are_those_of_thin_shapes() -> None:
    for points, expected in (
        (lens(5000, 0.1)[0], True),
        (wave(5000, 0.0), False),
        (sample_surface(sphere(4), 5000, np.random.default_rng(0))[0], False),
    ):
        tree = Neighbours(points)
        normals = outward_normals(tree)
        assert has_layers(tree, normals, 0.0, 0.03) is expected
    noisy = wave(5000, 0.02)
    up = np.tile([0.0, 0.0, 1.0], (5000, 1))
    assert not has_layers(Neighbours(noisy), up, 0.02, 0.03)


def test_isles_of_wrong_signs_are_turned_over() -> None:
    mesh = torus(64, 32)
    points, faces = sample_surface(mesh, 8000, np.random.default_rng(0))
    normals = face_normals(mesh)[faces]
    wrong = normals.copy()
    for centre in points[[0, 100, 200]]:
        wrong[np.linalg.norm(points - centre, axis=1) < 0.2] *= -1
    assert ((wrong * normals).sum(axis=1) < 0).sum() > 100
    np.testing.assert_array_equal(without_isles(points, wrong), normals)
    np.testing.assert_array_equal(without_isles(points, normals), normals)
    np.testing.assert_array_equal(without_isles(points, -normals), -normals)


def test_sides_of_thin_shapes_are_no_isles() -> None:
    for height in (0.03, 0.15):
        points, normals = lens(6000, height)
        turned = (without_isles(points, normals) != normals).any(axis=1)
        # Where the sides are nearer than the spacing, a few points among those of the other turn.
        assert turned.mean() < 0.001
        assert (2 * np.abs(points[turned, 2]) < np.sqrt(2 * np.pi / 6000)).all()
