"""Normals, areas, volume, sampling and normalisation of meshes against closed forms."""

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.geometry.mesh.surface import (
    area,
    face_areas,
    face_normals,
    normalise,
    sample_surface,
    volume,
)
from nstr3d.types import Mesh


def test_cube_measures() -> None:
    mesh = oracles.cube(half=1.5, centre=(7.0, 8.0, 9.0))
    np.testing.assert_allclose(face_areas(mesh), 4.5)
    assert area(mesh) == pytest.approx(54)
    assert volume(mesh) == pytest.approx(27)
    assert volume(oracles.inverted(mesh)) == pytest.approx(-27)
    outward = mesh.vertices[mesh.faces].mean(axis=1) - [7, 8, 9]
    np.testing.assert_allclose(np.einsum("fi,fi->f", face_normals(mesh), outward), 1.5)


def test_volume_far_away_is_not_lost_to_cancellation() -> None:
    assert volume(oracles.cube(half=0.5, centre=(2.0**30, 0.0, -(2.0**30)))) == 1


def test_a_face_without_area_has_no_normal() -> None:
    mesh = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(face_normals(mesh), 0)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_normalise_fills_the_unit_box_and_leads_back(scale: float, offset: float) -> None:
    box = oracles.cube().vertices * [1.0, 0.5, 2.0]
    mesh = Mesh((box + offset) * scale, oracles.cube().faces)
    unit, frame = normalise(mesh)
    np.testing.assert_allclose(np.abs(unit.vertices).max(axis=0), [0.45, 0.225, 0.9], rtol=1e-9)
    np.testing.assert_allclose(
        frame.to_world(unit.vertices), mesh.vertices, rtol=1e-15, atol=1e-15 * scale
    )
    np.testing.assert_array_equal(unit.faces, mesh.faces)


@settings(deadline=None)
@given(st.floats(-12, 12), st.tuples(*[st.floats(-1e3, 1e3)] * 3))
def test_normalise_does_not_see_similarity(
    exponent: float, shift: tuple[float, float, float]
) -> None:
    mesh, scale = oracles.torus(8, 6), 10.0**exponent
    unit, frame = normalise(Mesh((mesh.vertices + shift) * scale, mesh.faces))
    np.testing.assert_allclose(unit.vertices, normalise(mesh)[0].vertices, atol=1e-11)
    assert frame.scale == pytest.approx(1.4 * scale / 0.9)


def test_normalise_ignores_unused_vertices() -> None:
    mesh = oracles.cube()
    with_stray = Mesh(np.concatenate([mesh.vertices, [[100.0, 0, 0]]]), mesh.faces)
    assert normalise(with_stray)[1] == normalise(mesh)[1]


def test_normalise_refuses_nothing_and_points() -> None:
    with pytest.raises(ValueError, match="no faces"):
        normalise(Mesh(np.eye(3), np.zeros((0, 3), int)))
    with pytest.raises(ValueError, match="coincide"):
        normalise(Mesh(np.ones((3, 3)), np.array([[0, 1, 2]])))


def test_samples_lie_on_their_faces_in_proportion_to_area() -> None:
    mesh, count = Mesh(oracles.cube().vertices * [1.0, 2.0, 5.0], oracles.cube().faces), 20_000
    points, faces = sample_surface(mesh, count, np.random.default_rng(0))
    own_plane = np.einsum(
        "ni,ni->n", face_normals(mesh)[faces], points - mesh.vertices[mesh.faces[faces, 0]]
    )
    np.testing.assert_allclose(own_plane, 0, atol=1e-14)
    assert (np.abs(points) <= [1 + 1e-12, 2 + 1e-12, 5 + 1e-12]).all()
    expected = face_areas(mesh) / area(mesh) * count
    # Only the two strata at the ends of a face may put their sample into another face.
    assert (np.abs(np.bincount(faces, minlength=12) - expected) < 2).all()


def test_samples_are_uniform_within_a_face() -> None:
    triangle = Mesh(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    points, _ = sample_surface(triangle, 100_000, np.random.default_rng(0))
    np.testing.assert_allclose(points.mean(axis=0), [1 / 3, 1 / 3, 0], atol=3e-3)
    np.testing.assert_allclose(
        np.cov(points[:, :2].T), np.array([[2, -1], [-1, 2]]) / 36, atol=1e-3
    )


def test_any_part_of_the_samples_covers_the_surface() -> None:
    _, faces = sample_surface(oracles.cube(), 12_000, np.random.default_rng(0))
    assert (np.abs(np.bincount(faces[:1200], minlength=12) - 100) < 50).all()


def test_samples_depend_on_the_generator_alone() -> None:
    one, two, other = (
        sample_surface(oracles.torus(), 50, np.random.default_rng(seed))[0] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_sampling_skips_faces_without_area_and_takes_zero_for_an_answer() -> None:
    mesh = oracles.tetrahedron()
    padded = Mesh(mesh.vertices, np.concatenate([[[1, 1, 2]], mesh.faces, [[0, 0, 0], [3, 3, 1]]]))
    assert set(sample_surface(padded, 1000, np.random.default_rng(0))[1]) == {1, 2, 3, 4}
    assert sample_surface(mesh, 0, np.random.default_rng(0))[0].shape == (0, 3)


def test_sampling_refuses_a_mesh_without_area() -> None:
    with pytest.raises(ValueError, match="no area"):
        sample_surface(Mesh(np.eye(3), np.array([[0, 0, 1]])), 5, np.random.default_rng(0))
