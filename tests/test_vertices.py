"""Normals at the vertices of meshes, in files, and meshes with fewer faces."""

from pathlib import Path

import numpy as np
import pytest
from oracles import cube
from oracles import sphere as ball

from nstr3d.geometry.mesh.decimate import decimate
from nstr3d.geometry.mesh.repair import structure
from nstr3d.geometry.mesh.surface import volume
from nstr3d.geometry.shapes.primitives import box, sphere
from nstr3d.io import load_mesh, save_mesh
from nstr3d.io.cloud import load_cloud
from nstr3d.sdf import Sdf
from nstr3d.surface.vertices import vertex_normals
from nstr3d.types import Mesh


def test_the_normals_of_a_ball_are_its_radii() -> None:
    mesh = ball(3)
    radii = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    np.testing.assert_allclose(vertex_normals(sphere(), mesh), radii, atol=1e-9)


@pytest.mark.parametrize("scale", [0.0, float("nan"), -1.0])
def test_faces_stand_in_where_the_gradient_fails(scale: float) -> None:
    exact = sphere()
    wrong = Sdf(lambda points: exact.distance(points) * scale, exact.bounds)
    normals = vertex_normals(wrong, ball(3))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-9)
    assert ((normals * ball(3).vertices).sum(axis=1) > 0.99).all()


def test_corners_and_edges_have_unit_normals_that_point_outward() -> None:
    normals = vertex_normals(box(), cube())
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-9)
    assert ((normals * cube().vertices).sum(axis=1) > 0.9).all()


def test_files_keep_normals_and_geometry(tmp_path: Path) -> None:
    mesh = ball(2)
    normals = np.roll(vertex_normals(sphere(), mesh), 1, axis=1)  # not what a reader computes
    for suffix in (".ply", ".obj", ".glb"):
        save_mesh(tmp_path / f"a{suffix}", mesh, normals=normals)
        loaded = load_mesh(tmp_path / f"a{suffix}")
        np.testing.assert_allclose(loaded.vertices, mesh.vertices, atol=1e-6)
        np.testing.assert_array_equal(loaded.faces, mesh.faces)
    written = load_cloud(tmp_path / "a.ply").normals
    assert written is not None
    np.testing.assert_allclose(written, normals, atol=1e-6)
    lines = (tmp_path / "a.obj").read_text().splitlines()
    rows = [line.split()[1:] for line in lines if line.startswith("vn")]
    np.testing.assert_allclose(np.array(rows, float), normals, atol=1e-6)
    assert lines[-1].split()[1].split("//")[0] == lines[-1].split()[1].split("//")[1]
    assert normals.astype("<f4").tobytes() in (tmp_path / "a.glb").read_bytes()
    assert b'"NORMAL"' in (tmp_path / "a.glb").read_bytes()


@pytest.mark.parametrize("normals", [np.zeros((8, 3)), np.ones((7, 3)) / 3**0.5])
def test_normals_that_are_none_are_refused(tmp_path: Path, normals: np.ndarray) -> None:
    with pytest.raises(ValueError, match="unit vectors"):
        save_mesh(tmp_path / "a.ply", cube(), normals=normals)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_glb_turns_the_axis_that_points_up_to_y(tmp_path: Path, up) -> None:
    axis = np.zeros(3)
    axis["xyz".index(up[-1])] = -1.0 if up[0] == "-" else 1.0
    tall = Mesh(cube().vertices * (1 + 2 * np.abs(axis)) + axis * 10, cube().faces)
    save_mesh(tmp_path / "a.glb", tall, up=up)
    turned = load_mesh(tmp_path / "a.glb")
    assert volume(turned) == pytest.approx(volume(tall))  # a rotation, not a mirror image
    np.testing.assert_allclose(turned.bounds.centre, [0, tall.bounds.centre @ axis, 0], atol=1e-6)
    assert int(turned.bounds.extent.argmax()) == 1


def test_a_decimated_ball_is_closed_round_and_as_small_as_asked() -> None:
    mesh = Mesh(ball(4).vertices * 1e-3 + 1e4, ball(4).faces)
    small = decimate(mesh, 300)
    assert 200 < len(small.faces) <= 300
    assert structure(small) == (1, True)
    radii = np.linalg.norm(small.vertices - 1e4, axis=1) / 1e-3
    np.testing.assert_allclose(radii, 1, atol=0.02)
    assert decimate(mesh, len(mesh.faces)) is mesh
    with pytest.raises(ValueError, match="at least 4 faces"):
        decimate(mesh, 3)
