"""Painted meshes as viewers draw them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import cube, sphere
from test_companions import paint

from nstr3d.cli.looks import View
from nstr3d.cli.view import load_scene
from nstr3d.geometry.mesh.normals import corner_normals
from nstr3d.geometry.mesh.surface import area, face_areas, volume
from nstr3d.types import Mesh
from nstr3d.view.painting import paint_finely, split_finely


def test_a_mesh_that_is_split_finely_is_the_same_surface() -> None:
    mesh = sphere(3)
    fine, normals = split_finely(mesh, 20_000)
    assert 8_000 < len(fine.faces) <= 20_000
    assert area(fine) == pytest.approx(area(mesh), rel=1e-12)
    assert volume(fine) == pytest.approx(volume(mesh), rel=1e-12)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)
    # Normals between the corners are those of the sphere, nearly.
    unit = fine.vertices / np.linalg.norm(fine.vertices, axis=1, keepdims=True)
    assert (normals * unit).sum(axis=1).min() > 0.995


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5000))
def test_faces_of_any_size_are_split_evenly(seed: int, most: int) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.standard_normal((6, 3, 3)) * generator.uniform(0, 3, (6, 1, 1))
    corners[0] = 1.0  # without area
    mesh = Mesh(corners.reshape(-1, 3), np.arange(18).reshape(-1, 3))
    fine, normals = split_finely(mesh, most)
    assert 6 <= len(fine.faces) <= max(most, 6)
    assert area(fine) == pytest.approx(area(mesh))  # no two faces have an edge in common
    assert face_areas(fine).max() <= max(area(mesh), face_areas(mesh).max())
    assert np.isfinite(normals).all()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(100, 20_000))
def test_no_crack_opens_between_faces_of_different_sizes(seed: int, most: int) -> None:
    mesh = sphere(1)
    scale = np.random.default_rng(seed).uniform(0.2, 3.0, (len(mesh.vertices), 1))
    fine, _ = split_finely(Mesh(mesh.vertices * scale, mesh.faces), most)
    _, place = np.unique(fine.vertices, axis=0, return_inverse=True)
    faces = place.reshape(-1)[fine.faces]
    proper = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    directed = np.concatenate([proper[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    # Every edge is met as often in one direction as in the other, so that the surface is closed.
    forward, counts = np.unique(directed, axis=0, return_counts=True)
    backward, others = np.unique(directed[:, ::-1], axis=0, return_counts=True)
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(counts, others)


def test_a_mesh_of_many_faces_is_drawn_as_it_is() -> None:
    mesh = sphere(3)
    fine, normals = split_finely(mesh, 100)
    np.testing.assert_allclose(fine.corners, mesh.corners)
    np.testing.assert_allclose(normals.reshape(-1, 3, 3), corner_normals(mesh), atol=1e-12)


def test_faces_of_one_edge_keep_their_own_colours() -> None:
    mesh = cube()

    def by_face(points: np.ndarray) -> np.ndarray:
        return np.eye(3)[np.abs(points / np.abs(mesh.vertices).max(axis=0)).argmax(axis=1)]

    fine, normals, colours = paint_finely(mesh, by_face)
    np.testing.assert_array_equal(colours, np.abs(normals).round())
    assert len(colours) == len(fine.vertices)


def test_the_viewers_get_the_colours_of_a_mesh_file(tmp_path: Path, capsys) -> None:
    paint(tmp_path, (255, 0, 0))
    shapes, _ = load_scene(View((tmp_path / "cube.obj",)))
    assert shapes[0].paint is not None
    at = np.array([[0.0, 0.5, 1.0], [0.0, -0.5, 1.0]])  # the centres of both rows of the texture
    np.testing.assert_allclose(shapes[0].paint(at), [[1, 0, 0], [90 / 255] * 3], atol=0.01)
    np.testing.assert_allclose(shapes[0].sdf().colour(at), shapes[0].paint(at), atol=0.01)
    (tmp_path / "skin.png").unlink()
    assert load_scene(View((tmp_path / "cube.obj",)))[0][0].paint is None
    assert "skin.png is not there" in capsys.readouterr().err
