"""Pictures: the silhouette, the direction of the light, shadows, and the effects of the options."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.shapes.primitives import scale, sphere, torus, translate, union
from nstr3d.render.camera import Camera
from nstr3d.render.ground import Ground, Shade, _blurred
from nstr3d.render.projection import project
from nstr3d.render.shading import Studio
from nstr3d.render.traced import Backdrop, RenderConfig, render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.types import Box

FRONT = Camera((0.0, 0.0, 6.0), (0.0, 0.0, 0.0), width=96, height=80)
PLAIN = RenderConfig(samples_per_axis=1)
FAR_AWAY = translate(sphere(), (0.0, 0.0, 100.0))


def silhouette(image: np.ndarray, camera: Camera) -> np.ndarray:
    """The pixels ``(h, w)`` that differ from a picture of a shape behind the camera."""
    return np.abs(image - render(FAR_AWAY, camera, PLAIN)).max(axis=-1) > 1e-6


def test_shape_type_and_range() -> None:
    image = render(sphere(), FRONT)
    assert image.shape == (80, 96, 3)
    assert image.dtype == np.float32
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1


def test_the_silhouette_of_a_sphere_is_its_cone() -> None:
    covered = silhouette(render(sphere(), FRONT, PLAIN), FRONT)
    directions = FRONT.rays().directions.numpy()
    clearance = 6 * np.sqrt(directions[:, 0] ** 2 + directions[:, 1] ** 2)
    sure = np.abs(clearance - 1) > 1e-3
    assert np.array_equal(covered.ravel()[sure], (clearance < 1)[sure])


def test_the_key_light_comes_from_the_upper_left_and_turns_with_the_camera() -> None:
    for camera in (
        FRONT,
        replace(FRONT, eye=(6.0, 0.0, 0.0)),
        replace(FRONT, eye=(0.0, 1.0, -6.0)),
    ):
        image = render(sphere(), camera).mean(axis=-1)
        assert image[28, 36] > image[28, 59] > image[51, 59]


def test_supersampling_is_the_mean_of_a_finer_picture() -> None:
    fine = render(torus(), replace(FRONT, width=192, height=160), PLAIN)
    mean = render(torus(), FRONT, RenderConfig(samples_per_axis=2, contrast=0.0))
    np.testing.assert_allclose(mean, fine.reshape(80, 2, 96, 2, 3).mean(axis=(1, 3)), atol=4e-3)
    plain = render(torus(), FRONT, PLAIN)
    assert np.abs(np.diff(mean, axis=1)).max() < np.abs(np.diff(plain, axis=1)).max()


def test_pixels_on_the_silhouette_are_shares_of_the_shape_and_the_background() -> None:
    """The share of the disc that the pixels show is its area, to a tenth of what stairs give."""
    black = Backdrop((0.0,) * 3, (0.0,) * 3)
    white = Studio(lambda points: torch.full_like(points, 1e6), occlusion_taps=0, shadow_steps=0)
    radius = math.tan(math.asin(1 / 6)) / math.tan(math.radians(17.5)) * 40
    shares = [
        render(sphere(), FRONT, RenderConfig(white, black, count)).mean() * 80 * 96
        for count in (1, 3)
    ]
    stairs, smooth = np.abs(np.array(shares) / (math.pi * radius**2) - 1)
    assert smooth < 2e-3
    assert len(np.unique(render(sphere(), FRONT, RenderConfig(white, black)))) > 3
    assert stairs > smooth


def test_the_ground_is_dark_below_the_shape_and_from_below_is_not_there() -> None:
    above, below = replace(FRONT, eye=(0.0, 3.0, 6.0)), replace(FRONT, eye=(0.0, -3.0, 6.0))
    soft = RenderConfig(ground=Ground())
    change = render(sphere(), above, soft) - render(sphere(), above)
    assert change.max() <= 1e-6
    assert change.min() < -0.1
    column, row = project(above, np.array([[0.0, -1.0, 0.4]]))[0][0]
    assert change[int(row) :, int(column)].min() < -0.02
    np.testing.assert_array_equal(change[:20], 0)
    np.testing.assert_array_equal(render(sphere(), below, soft), render(sphere(), below))


def test_a_ground_of_impossible_looks_raises() -> None:
    for strength, reach in ((1.5, 0.2), (0.5, 0.0)):
        with pytest.raises(ValueError, match="strength from 0 to 1"):
            Ground(strength, reach)


def test_the_chunk_changes_nothing() -> None:
    np.testing.assert_allclose(
        render(torus(), FRONT), render(torus(), FRONT, chunk=1111), atol=1e-6
    )


def test_hollows_are_darker_with_occlusion_and_open_ground_is_not() -> None:
    floor = Sdf(lambda points: points[:, 2], Box((-1.0, -1.0, -0.1), (1.0, 1.0, 0.0)))
    wall = translate(sphere(0.3), (0.0, 0.0, 0.1))
    lit = RenderConfig(Studio(shadow_steps=0), samples_per_axis=1)
    dull = RenderConfig(Studio(shadow_steps=0, occlusion_taps=0), samples_per_axis=1)
    open_ratio = render(floor, FRONT, lit) / render(floor, FRONT, dull)
    np.testing.assert_allclose(open_ratio[36:44, 40:56], 1.0, atol=1e-5)
    scene = union(floor, wall)
    ratio = (render(scene, FRONT, lit) / render(scene, FRONT, dull)).mean(axis=-1)
    # Ball and floor meet about 0.3 from the centre.
    contact = 40 + round(0.3 / (6 * math.tan(math.radians(17.5))) * 40)
    assert ratio[contact : contact + 2, 48].min() < 0.9


def test_a_shadow_falls_away_from_the_key_light() -> None:
    floor = Sdf(lambda points: points[:, 2], Box((-1.0, -1.0, -0.1), (1.0, 1.0, 0.0)))
    scene = union(floor, translate(sphere(0.15), (0.0, 0.0, 0.5)))
    bright, shaded = (
        render(scene, FRONT, RenderConfig(Studio(shadow_steps=steps))).mean(axis=-1)
        for steps in (0, 40)
    )
    # The key light stands at (-0.55, 0.75, 0.70), so the shadow of a ball at height 0.5 falls at
    # (0.39, -0.54).
    pixels = 40 / math.tan(math.radians(17.5)) / 6
    row, column = 40 + round(0.54 * pixels), 48 + round(0.39 * pixels)
    assert shaded[row, column] < 0.9 * bright[row, column]
    mirrored = 80 - row, 96 - column
    assert math.isclose(shaded[mirrored], bright[mirrored], abs_tol=0.02)


def test_compiled_and_plain_shadows_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = union(torus(), translate(sphere(0.2), (0.5, 0.2, 0.5)))
    compiled = render(scene, FRONT)
    monkeypatch.setattr("nstr3d.surface.emptyspace.numba_found", lambda: False)
    plain = render(scene, FRONT)
    assert float(np.abs(compiled - plain).max()) < 2e-3
    assert float(np.abs(compiled - plain).mean()) < 1e-6


def test_world_units_do_not_show() -> None:
    large = translate(scale(torus(), 40.0), (500.0, 0.0, -80.0))
    a = render(torus(), Camera.around(torus().bounds, width=64, height=64))
    b = render(large, Camera.around(large.bounds, width=64, height=64))
    assert float(np.mean(np.abs(a - b).max(axis=-1) > 1e-3)) < 0.005


def test_a_mesh_looks_like_the_shape_that_it_samples() -> None:
    mesh = extract_mesh(sphere(), 40)
    image, expected = render(MeshDistance(mesh).sdf(), FRONT), render(sphere(), FRONT)
    assert float(np.abs(image - expected).mean()) < 0.005


def test_a_field_of_single_precision_is_rendered() -> None:
    single = Sdf(lambda points: sphere().distance(points.to(torch.float32)), sphere().bounds)
    np.testing.assert_allclose(render(single, FRONT), render(sphere(), FRONT), atol=0.02)


def test_side_by_side_keeps_the_pictures_and_puts_white_between() -> None:
    a, b = np.zeros((4, 3, 3), np.float32), np.full((4, 5, 3), 0.5, np.float32)
    row = side_by_side([a, b], gap=2)
    assert row.shape == (4, 10, 3)
    np.testing.assert_array_equal(row[:, :3], a)
    np.testing.assert_array_equal(row[:, 3:5], 1.0)
    np.testing.assert_array_equal(row[:, 5:], b)


def test_pictures_of_different_heights_and_none_raise() -> None:
    with pytest.raises(ValueError, match=r"\[4, 5\]"):
        side_by_side([np.zeros((4, 3, 3)), np.zeros((5, 3, 3))])
    with pytest.raises(ValueError, match="common height"):
        side_by_side([])


def test_no_samples_raise() -> None:
    with pytest.raises(ValueError, match="samples_per_axis"):
        render(sphere(), FRONT, RenderConfig(samples_per_axis=0))


@pytest.mark.parametrize("axis", [2, 3])
def test_the_blur_of_the_ground_spreads_a_point_along_an_axis(axis: int) -> None:
    image = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    image[0, 0, 20, 20] = 1
    spread = _blurred(image, axis, 3.0)
    line = spread[0, 0, :, 20] if axis == 2 else spread[0, 0, 20]
    at = torch.arange(41, dtype=torch.float64) - 20
    assert float(line.sum()) == pytest.approx(1)
    assert float(spread.sum()) == pytest.approx(1)  # nothing beside the line
    assert float((line * at**2).sum()) ** 0.5 == pytest.approx(3.0, rel=0.02)
    assert torch.allclose(_blurred(torch.ones_like(image), axis, 9.0), torch.ones_like(image))


def test_the_shadow_on_the_ground_has_no_rim() -> None:
    ball = Sdf(lambda p: p.norm(dim=1) - 1, Box((-1.0,) * 3, (1.0,) * 3))
    dark = Shade(Ground(), ball, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)).dark[0, 0]
    rim = torch.cat([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    assert float(rim.max()) == 0
    assert float(torch.diff(dark[: len(dark) // 4], dim=0).abs().max()) < 0.02  # no step outside
    assert float(dark.max()) > 0.5
