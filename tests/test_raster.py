"""The sphere tracer and the OpenGL renderer, which share no code, agree."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from oracles import cube, sphere, torus
from programs import needs, needs_parts

from nstr3d.geometry.shapes import primitives
from nstr3d.render.camera import Camera
from nstr3d.render.opengl import raster_turntable, rasterise
from nstr3d.render.traced import Backdrop, measure, render
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Mesh

FRONT = Camera((0.0, 0.0, 6.0), (0.0, 0.0, 0.0), width=96, height=80)


@needs_parts("render")
@needs("egl")
@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("kind", ["fitted", "analytic"])
def test_traced_depth_is_that_of_the_extracted_mesh_in_opengl(
    torus_fit: Fit, kind: str, orthographic: bool
) -> None:
    sdf = torus_fit.sdf() if kind == "fitted" else primitives.torus()
    camera = Camera.around(
        sdf.bounds, elevation=40, width=192, height=160, orthographic=orthographic
    )
    traced = measure(sdf, camera)
    drawn = rasterise(extract_mesh(sdf, 128), camera).depth
    both, either = traced.mask & np.isfinite(drawn), traced.mask | np.isfinite(drawn)
    assert both.sum() / either.sum() > 0.995
    error = np.abs(traced.depth[both] - drawn[both]) / float(sdf.bounds.extent.max())
    assert np.mean(error < 2e-3) > 0.995


@needs_parts("render")
@needs("egl")
@pytest.mark.skipif(sys.platform != "linux", reason="triton is for Linux")
def test_triton_can_be_loaded_after_a_picture() -> None:
    """Mesa's LLVM has the names of triton's; a process that loaded both in this order crashed."""
    code = """
from nstr3d.geometry.shapes.primitives import torus
from nstr3d.render.camera import Camera
from nstr3d.render.opengl import rasterise
from nstr3d.surface.extract import extract_mesh

mesh = extract_mesh(torus(), 8)
rasterise(mesh, Camera.around(mesh.bounds, width=16, height=16))
import triton
rasterise(mesh, Camera.around(mesh.bounds, width=16, height=16))
print("alive")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "alive\n", (ran.returncode, ran.stderr[-2000:])


@needs_parts("render")
@needs("egl")
def test_depth_is_analytic_before_a_cube_in_both_projections() -> None:
    for camera in (FRONT, replace(FRONT, span=4.0)):
        depth = rasterise(cube(), camera).depth
        forward = camera.rays().directions.numpy()[:, 2].reshape(80, 96)
        expected = 5 / -forward
        x, y = (np.tan(math.radians(17.5)) * 5 if camera.span is None else 2.0) * np.array(
            [1.2, 1.0]
        )
        column = ((np.arange(96) + 0.5) / 96 * 2 - 1) * x
        row = (1 - (np.arange(80) + 0.5) / 80 * 2) * y
        front = (np.abs(column) < 0.99)[None, :] & (np.abs(row) < 0.99)[:, None]
        beside = (np.abs(column) > 1.01)[None, :] | (np.abs(row) > 1.01)[:, None]
        np.testing.assert_allclose(depth[front], expected[front], atol=1e-4)
        assert np.isinf(depth[beside]).all()


@needs_parts("render")
@needs("egl")
def test_where_a_mesh_lies_and_how_large_it_is_does_not_show() -> None:
    shape = torus()
    camera = Camera.around(shape.bounds, width=64, height=64)
    far = Mesh(shape.vertices * 1e-3 + (3e4, -2e4, 1e4), shape.faces)
    near, moved = (
        rasterise(shape, camera),
        rasterise(far, Camera.around(far.bounds, width=64, height=64)),
    )
    both = np.isfinite(near.depth) & np.isfinite(moved.depth)
    assert both.sum() > 0.99 * np.isfinite(near.depth).sum()
    np.testing.assert_allclose(moved.depth[both], near.depth[both] * 1e-3, rtol=2e-3)


@needs_parts("render")
@needs("egl")
def test_pictures_have_the_light_the_colours_and_the_backdrop_of_the_tracer() -> None:
    ball = sphere(5)
    drawn, traced = rasterise(ball, FRONT).picture, render(primitives.sphere(), FRONT)
    assert drawn.shape == traced.shape
    np.testing.assert_allclose(drawn[0], traced[0], atol=2 / 255)  # the backdrop
    inner = np.isfinite(rasterise(ball, FRONT).depth)
    assert np.corrcoef(drawn[inner].mean(axis=1), traced[inner].mean(axis=1))[0, 1] > 0.9
    red = np.tile((0.8, 0.1, 0.1), (len(ball.vertices), 1))
    clear = rasterise(ball, FRONT, red, backdrop=None).picture
    assert clear.shape == (80, 96, 4)
    assert clear[0, 0].tolist() == [0, 0, 0, 0]
    assert clear[40, 48, 3] == 1
    assert clear[40, 48, 0] > 2 * clear[40, 48, 1]
    edge = clear[(clear[..., 3] > 0) & (clear[..., 3] < 1)]
    assert len(edge) > 20  # anti-aliased
    plain = rasterise(ball, FRONT, backdrop=Backdrop((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))).picture
    np.testing.assert_allclose(plain[0, 0], (0, 0, 1), atol=1e-6)


@needs_parts("render")
@needs("egl")
def test_a_turntable_is_the_pictures_of_its_cameras() -> None:
    cameras = [*FRONT.orbit(3), replace(FRONT, width=40)]
    drawn = list(raster_turntable(cube(), cameras))
    assert [raster.picture.shape for raster in drawn] == [(80, 96, 3)] * 3 + [(80, 40, 3)]
    np.testing.assert_array_equal(drawn[1].depth, rasterise(cube(), cameras[1]).depth)


@needs_parts("render")
@needs("egl")
def test_a_mesh_behind_the_camera_is_not_there() -> None:
    assert np.isinf(rasterise(cube(), replace(FRONT, target=(0.0, 0.0, 12.0))).depth).all()


@needs_parts("render")
@needs("egl")
def test_the_back_of_a_face_has_its_depth_and_is_in_the_picture() -> None:
    """A triangle seen from behind, and a ball seen from inside."""
    face = Mesh(np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0.0]]), np.array([[0, 2, 1]]))
    camera = Camera((0.0, 0.0, 5.0), (0.0, 0.0, 0.0), width=9, height=9)
    inside = replace(camera, eye=(0.0, 0.0, 0.5), target=(0.0, 0.0, -1.0))
    for mesh, at, depth in ((face, camera, 5.0), (sphere(5), inside, 1.5)):
        for seen in (at, replace(at, span=1.0)):
            drawn = rasterise(mesh, seen, backdrop=None)
            assert drawn.depth[4, 4] == pytest.approx(depth, rel=1e-3)
            assert drawn.picture[4, 4, 3] == 1
    front, back = (
        rasterise(Mesh(face.vertices, face.faces[:, ::step]), camera, backdrop=None)
        for step in (1, -1)
    )
    np.testing.assert_array_equal(front.depth, back.depth)


@needs_parts("render")
@needs("egl")
@pytest.mark.parametrize("inside", [False, True])
def test_a_camera_that_would_see_through_the_mesh_is_refused(inside: bool) -> None:
    """The near plane is at 1/1000 of the diagonal, which is 3.46 here."""
    towards = -1.0 if not inside else 2.0

    def camera(away: float) -> Camera:
        eye = (0.0, 0.0, 1 - away if inside else 1 + away)
        return Camera(eye, (0.0, 0.0, towards), width=9, height=9)

    with pytest.raises(ValueError, match=r"is 0\.002 from the mesh.*Move the camera"):
        rasterise(cube(), camera(0.002))
    assert rasterise(cube(), camera(0.005)).depth[4, 4] == pytest.approx(0.005, rel=1e-3)
    parallel = replace(camera(0.002), span=1.0)
    rasterise(cube(), parallel)


def test_bad_meshes_and_colours_raise() -> None:
    with pytest.raises(ValueError, match="without faces"):
        rasterise(Mesh(np.zeros((3, 3)), np.zeros((0, 3), np.int64)), FRONT)
    for wrong in (np.zeros((2, 3)), np.full((8, 3), 1.5), np.full((8, 3), np.nan)):
        with pytest.raises(ValueError, match="takes colours"):
            rasterise(cube(), FRONT, wrong)


def test_without_pyrender_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrender", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nstr3d\[render\]'"):
        rasterise(cube(), FRONT)
