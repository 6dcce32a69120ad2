"""Creases of clouds without normals: a point near a crease takes the normal of its own side."""

import numpy as np
import pytest

from nstr3d.geometry.cloud.orient import outward_normals
from nstr3d.geometry.cloud.patches import Patches, fit_patches, normals_beside_creases
from nstr3d.jobs.cloud import first_surface
from nstr3d.types import PointCloud


def box(count: int, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points on the surface of the cube [-1, 1]^3, with Gaussian noise of deviation ``noise`` in
    each coordinate, and the normals of their faces."""
    generator = np.random.default_rng(seed)
    points, normals = generator.uniform(-1, 1, (count, 3)), np.zeros((count, 3))
    axis, sign = generator.integers(0, 3, count), generator.choice([-1.0, 1.0], count)
    points[np.arange(count), axis] = normals[np.arange(count), axis] = sign
    return points + noise * generator.standard_normal((count, 3)), normals


def flat(centres: np.ndarray, normals: np.ndarray, scale: np.ndarray, noise: float) -> Patches:
    """Patches without slope or curvature."""
    first = np.cross(normals, np.roll(normals, 1, axis=1) + [0.1, 0.2, 0.3])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    frames = np.stack([first, np.cross(normals, first), normals], axis=1)
    count = len(centres)
    return Patches(
        centres, frames, np.zeros((count, 6)), np.ones(count), scale, np.zeros(count), noise
    )


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_patches_of_a_cube_without_normals_lie_on_its_faces(noise):
    points, _ = box(4000, noise)
    patches = fit_patches(points, outward_normals(points), measured=False)
    beside = np.degrees(np.arccos(np.clip(np.abs(patches.normals).max(axis=1), 0, 1)))
    assert np.mean(beside > 10) < 0.03  # such normals blend two faces


@pytest.mark.parametrize("seed", range(2))
def test_a_cube_without_normals_keeps_its_edges(seed):
    points, normals = box(6000, seed=seed)
    blind, seeing = (
        first_surface(PointCloud(points, cloud_normals), cells=(80, 640)).mesh.vertices
        for cloud_normals in (None, normals)
    )
    error = [np.abs(np.abs(vertices).max(axis=1) - 1).mean() for vertices in (blind, seeing)]
    assert error[0] < 2 * error[1] < 0.001


def test_a_point_takes_the_normal_of_the_larger_patch_that_passes_it():
    centres = np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0, -0.5]])
    blurred, up, right = (
        np.array([1, 0, 1]) / np.sqrt(2),
        np.array([0.0, 0, 1]),
        np.array([1.0, 0, 0]),
    )
    points, near = np.array([[0.1, 0, 0], [0, 0, -0.1]]), np.array([0, 0])
    patches = flat(centres, np.stack([blurred, up, right]), np.array([7, 40, 40]), 0.01)
    np.testing.assert_allclose(
        normals_beside_creases(patches, points, near), [up, right], atol=1e-12
    )


@pytest.mark.parametrize("reason", ["no larger", "off", "far", "opposed"])
def test_a_point_keeps_its_normal_without_good_reason(reason):
    own, up = np.array([1, 0, 1]) / np.sqrt(2), np.array([0.0, 0, 1 if reason != "opposed" else -1])
    scale = np.array([7, 10 if reason == "no larger" else 40])
    centres = np.array(
        [[0.0, 0, 0], [1.6 if reason == "far" else 0.5, 0, 0.1 if reason == "off" else 0]]
    )
    patches = flat(centres, np.stack([own, up]), scale, 0.01)
    np.testing.assert_allclose(
        normals_beside_creases(patches, np.zeros((1, 3)), np.array([0])), own[None], atol=1e-12
    )
