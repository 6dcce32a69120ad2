"""Lines in pictures: they are where the camera sees them."""

from dataclasses import replace

import numpy as np
import pytest

from nstr3d.geometry.shapes.primitives import sphere, translate
from nstr3d.render.camera import Camera
from nstr3d.render.drawing import draw_flat, draw_lines
from nstr3d.render.points import splat
from nstr3d.render.projection import project
from nstr3d.render.traced import measure
from nstr3d.types import Box, PointCloud, Polylines

CAMERA = Camera.around(Box((-1.0,) * 3, (1.0,) * 3), width=60, height=48)


ORTHOGRAPHIC = Camera.around(Box((-1.0,) * 3, (1.0,) * 3), width=60, height=48, orthographic=True)


@pytest.mark.parametrize("camera", [CAMERA, ORTHOGRAPHIC, replace(CAMERA, up=(0.3, 1.0, -0.2))])
def test_projection_undoes_the_cameras_rays(camera):
    rays = camera.rays()
    depth = np.random.default_rng(0).uniform(1, 5, len(rays.directions))
    points = rays.origins.numpy() + rays.directions.numpy() * depth[:, None]
    pixels, projected_depth = project(camera, points)
    rows, columns = np.indices((48, 60))
    np.testing.assert_allclose(pixels[:, 0], columns.ravel() + 0.5, atol=1e-6)
    np.testing.assert_allclose(pixels[:, 1], rows.ravel() + 0.5, atol=1e-6)
    np.testing.assert_allclose(projected_depth, depth)
    assert np.isinf(project(camera, 2 * np.array([camera.eye]))[1]).all()


@pytest.mark.parametrize("camera", [CAMERA, ORTHOGRAPHIC])
def test_lines_and_points_cover_the_surface_that_the_camera_sees_there(camera):
    seat = np.array([0.5, 0.6, 0.3])
    ball = translate(sphere(0.15), tuple(seat))
    surface = np.isfinite(measure(ball, camera).depth)
    dot = Polylines(seat + 0.2 * camera.axes[2] + [[-1e-3, 0, 0], [1e-3, 0, 0]], np.array([0, 2]))
    drawn = draw_lines(np.zeros((48, 60, 3), np.float32), camera, ball, dot, np.ones((2, 3)))
    places = np.argwhere(drawn[..., 0] > 0)
    assert len(places)
    np.testing.assert_allclose(places.mean(axis=0), np.argwhere(surface).mean(axis=0), atol=1)
    picture = splat(PointCloud(seat[None]), camera)[..., 0]
    places = np.argwhere(picture != picture[0, 0])
    np.testing.assert_allclose(places.mean(axis=0), np.argwhere(surface).mean(axis=0), atol=1.5)


def test_points_behind_the_camera_are_not_painted():
    for camera in (CAMERA, ORTHOGRAPHIC):
        behind = 1.5 * np.array([camera.eye]) - 0.5 * np.array(camera.target)
        picture = splat(PointCloud(behind), camera)
        assert (picture == picture[0, 0]).all()


def test_a_surface_hides_what_is_behind_it():
    ball, blank = sphere(0.8), np.zeros((48, 60, 3), np.float32)
    toward = np.array(CAMERA.eye) / np.linalg.norm(CAMERA.eye)
    side = np.cross(toward, [0, 1, 0])
    bar = np.stack([-0.3 * side, 0.3 * side])
    colours = np.array([[1.0, 0, 0], [1.0, 0, 0]])
    for place, visible in ((1.0, True), (0.0, False), (-1.0, False)):
        line = Polylines(bar + place * toward, np.array([0, 2]))
        drawn = draw_lines(blank, CAMERA, ball, line, colours)
        assert bool(drawn.any()) == visible
    assert drawn.max() <= 1
    with pytest.raises(ValueError, match="The camera takes pictures"):
        draw_lines(blank[:10], CAMERA, ball, line, colours)


def test_a_flat_line_covers_its_pixels_in_its_colours():
    line = Polylines(np.array([[5.5, 10.5], [30.5, 10.5]]), np.array([0, 2]))
    drawn = draw_flat(
        np.ones((20, 40, 3), np.float32), line, np.array([[1.0, 0, 0], [0, 0, 1.0]]), width=1.0
    )
    np.testing.assert_allclose(drawn[10, 7:29, 1], 0, atol=0.5)
    assert drawn[10, 6, 0] > drawn[10, 6, 2]
    assert drawn[10, 29, 2] > drawn[10, 29, 0]
    untouched = np.ones((20, 40), bool)
    untouched[8:13, 3:34] = False
    assert (drawn[untouched] == 1).all()
    outside = Polylines(np.array([[-50.0, -50], [-10, -20]]), np.array([0, 2]))
    assert (draw_flat(np.ones((20, 40, 3), np.float32), outside, np.zeros((2, 3))) == 1).all()
