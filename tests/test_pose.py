"""Which way is up: the guess, and cameras about each axis."""

import numpy as np
import pytest
from oracles import cube, sphere
from quick import QUICK, changed

import nstr3d
from nstr3d.geometry.mesh.pose import guess_up
from nstr3d.io import save_mesh
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Output
from nstr3d.render.camera import Camera
from nstr3d.types import Box, Mesh

AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}


def dome(axis: int) -> Mesh:
    """The upper half of a ball on a flat base across ``axis``."""
    ball = sphere(3)
    vertices = ball.vertices.copy()
    vertices[:, axis] = np.maximum(vertices[:, axis], 0)
    return Mesh(vertices, ball.faces)


def test_a_flat_base_decides_between_y_and_z() -> None:
    assert guess_up(dome(2)) == "z"
    assert guess_up(dome(1)) == "y"
    assert guess_up(Mesh(dome(2).vertices * (1, 1, -1), dome(2).faces[:, ::-1])) == "y"
    assert guess_up(cube()) == "y"  # no base is larger than the others
    assert guess_up(sphere(3)) == "y"


@pytest.mark.parametrize(("suffix", "up"), [(".glb", "y"), (".GLTF", "y"), (".stl", "z")])
def test_formats_decide_where_they_define_the_axis(suffix: str, up: str) -> None:
    assert guess_up(dome(3 - "xyz".index(up)), suffix) == up


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_a_camera_stands_upright_and_sees_the_box(up) -> None:
    box = Box((1.0, 2.0, 3.0), (3.0, 3.0, 7.0))
    axis = np.array(AXES[up[-1]]) * (-1 if up[0] == "-" else 1)
    camera = Camera.around(box, azimuth=25.0, elevation=20.0, up=up)
    outward = np.subtract(camera.eye, camera.target)
    np.testing.assert_allclose(camera.up, axis, atol=1e-12)
    height = outward @ axis / np.linalg.norm(outward)
    assert height == pytest.approx(np.sin(np.radians(20)))
    corners = np.array([[x, y, z] for x in (1, 3) for y in (2, 3) for z in (3, 7)], float)
    right, above, backward = camera.axes
    away = corners - camera.eye
    reach = np.tan(np.radians(camera.fov / 2)) * -(away @ backward)
    assert (np.abs(away @ right) <= reach).all()
    assert (np.abs(away @ above) <= reach).all()


def test_the_front_looks_along_minus_z_or_along_y() -> None:
    box = Box((-1.0,) * 3, (1.0,) * 3)
    for up, toward in (("y", (0, 0, 1)), ("z", (0, -1, 0))):
        camera = Camera.around(box, azimuth=0.0, elevation=0.0, up=up)
        outward = np.subtract(camera.eye, camera.target)
        np.testing.assert_allclose(outward / np.linalg.norm(outward), toward, atol=1e-12)
        np.testing.assert_allclose(camera.axes[0], (1, 0, 0), atol=1e-12)
    with pytest.raises(ValueError, match="up is one of"):
        Camera.around(box, up="w")


def test_a_model_knows_the_axis_of_its_input(tmp_path) -> None:
    save_mesh(tmp_path / "dome.ply", dome(2))
    job = changed(MeshJob(tmp_path / "dome.ply", output=Output(tmp_path / "a")), **QUICK)
    assert run(job).report["input"]["up"] == "z"
    assert nstr3d.load(tmp_path / "a" / "model.safetensors").provenance["up"] == "z"
    chosen = changed(job, up="-x", out=tmp_path / "b")
    assert run(chosen).report["input"]["up"] == "-x"
