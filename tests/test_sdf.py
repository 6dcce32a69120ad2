"""World-unit distances made from fields on the unit box."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.shapes.combinators import union
from nstr3d.geometry.shapes.motions import rotate, translate
from nstr3d.geometry.shapes.primitives import box, sphere, torus
from nstr3d.render.camera import Camera
from nstr3d.sdf import Sdf, from_field
from nstr3d.surface.trace import sphere_trace
from nstr3d.types import Box, Frame

RADIUS = 0.6
BOUNDS = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


class Ball(nn.Module):
    """The exact distance to a ball of radius 0.6, as a field: single precision by default, with one
    weight."""

    in_dim, out_dim = 3, 1

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(RADIUS, dtype=dtype))

    def forward(self, points: Tensor) -> Tensor:
        assert points.dtype == self.radius.dtype
        return points.norm(dim=1, keepdim=True) - self.radius


def draw(count: int = 200, reach: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 3))


def ball_sdf(frame: Frame | None = None, dtype: torch.dtype = torch.float32) -> Sdf:
    return from_field(Ball(dtype), frame or Frame.identity(), BOUNDS, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_in_numpy_out_and_torch_in_torch_out(dtype: type) -> None:
    points, sdf = draw().astype(dtype), ball_sdf()
    expected = np.linalg.norm(points, axis=1) - RADIUS
    for answer in (sdf(points), sdf.gradient(points), sdf.normals(points)):
        assert isinstance(answer, np.ndarray)
        assert answer.dtype == dtype
    tensor = torch.from_numpy(points)
    for answer in (sdf(tensor), sdf.gradient(tensor), sdf.normals(tensor)):
        assert isinstance(answer, Tensor)
        assert answer.dtype == tensor.dtype
    assert sdf(points).shape == (200,)
    np.testing.assert_allclose(sdf(points), expected, atol=1e-6)
    np.testing.assert_allclose(sdf(tensor).detach(), expected, atol=1e-6)
    np.testing.assert_allclose(
        sdf.normals(points), points / np.linalg.norm(points, axis=1, keepdims=True), atol=1e-6
    )


def test_numpy_points_may_be_strided_or_integer() -> None:
    sdf, points = ball_sdf(), draw()
    np.testing.assert_array_equal(sdf(points[::-2]), sdf(points)[::-2])
    np.testing.assert_allclose(
        sdf(np.array([[0, 0, 0], [1, 0, 0]])), [-RADIUS, 1 - RADIUS], atol=1e-6
    )


def test_what_is_printed_says_where_the_shape_is() -> None:
    assert repr(sphere(1.0)) == ("<Sdf in the box (-1 -1 -1) to (1 1 1), Lipschitz bound 1>")


def test_no_points_no_distances() -> None:
    assert ball_sdf()(np.zeros((0, 3))).shape == (0,)
    assert ball_sdf().gradient(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_distances_are_in_world_units_wherever_the_frame_is(scale: float) -> None:
    frame = Frame((3e3 * scale, -2e3 * scale, 1e3 * scale), scale)
    unit = draw(reach=0.99)
    actual = ball_sdf(frame)(frame.to_world(unit))
    np.testing.assert_allclose(actual / scale, np.linalg.norm(unit, axis=1) - RADIUS, atol=1e-6)
    np.testing.assert_allclose(
        ball_sdf(frame).gradient(frame.to_world(unit)),
        unit / np.linalg.norm(unit, axis=1, keepdims=True),
        atol=1e-5,
    )


def beyond(count: int, reach: float) -> np.ndarray:
    """Points outside the unit box, in unit-box coordinates."""
    unit = draw(count, reach=reach)
    return unit[np.abs(unit).max(axis=1) > 1]


def test_outside_the_unit_box_the_bound_is_positive_and_safe() -> None:
    frame = Frame((5.0, 0.0, -5.0), 2.0)
    unit = beyond(4000, 4.0)
    bound = ball_sdf(frame, torch.float64).bound
    actual = bound(torch.from_numpy(frame.to_world(unit))).detach().numpy()
    exact = (np.linalg.norm(unit, axis=1) - RADIUS) * frame.scale
    to_box = np.linalg.norm(np.maximum(np.abs(unit) - 1, 0), axis=1) * frame.scale
    assert (actual > 0).all()
    assert (actual <= exact * (1 + 1e-12)).all()
    assert (actual >= to_box * (1 - 1e-12)).all()
    # On an axis, the nearest point of the box lies between the point and the ball. The bound is
    # sqrt(gap^2 + 0.4^2), times the scale.
    axis = torch.from_numpy(frame.to_world(np.array([[3.0, 0, 0]])))
    np.testing.assert_allclose(bound(axis).detach(), 2 * np.hypot(2, 1 - RADIUS))


class Shape(nn.Module):
    """An analytic shape as a field in double precision, with one weight that does nothing."""

    in_dim, out_dim = 3, 1

    def __init__(self, shape: Sdf):
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, points: Tensor) -> Tensor:
        return self.shape.distance(points)[:, None]


PAIR = union(translate(sphere(0.25), (0.6, 0.6, 0.6)), translate(sphere(0.3), (-0.6, -0.5, 0.3)))


@pytest.mark.parametrize("reach", [1.05, 1.5, 3.0, 100.0])
@pytest.mark.parametrize(
    ("shape", "angle"),  # the gradient jumps where two parts are equally near
    [
        (sphere(0.9), 1.0),
        (translate(sphere(0.2), (0.6, -0.6, 0.5)), 0.1),
        (box((0.9, 0.3, 0.15)), 0.1),
        (torus(0.65, 0.2), 0.5),
        (rotate(box((0.85, 0.02, 0.02)), (1, 1, 0), 30), 0.1),
        (PAIR, 0.2),
    ],
)
def test_outside_the_unit_box_the_value_is_the_distance(
    shape: Sdf, angle: float, reach: float
) -> None:
    frame = Frame((5.0, 0.0, -5.0), 2.0)
    sdf = from_field(Shape(shape), frame, BOUNDS, 1.0)
    unit = beyond(3000, reach)
    exact = shape(unit) * frame.scale
    actual = sdf(frame.to_world(unit))
    assert (actual >= exact * (1 - 1e-9)).all()
    assert (actual <= exact * 1.004).all()
    assert (actual - exact).mean() <= 8e-4
    slope = sdf.gradient(frame.to_world(unit))
    np.testing.assert_allclose(np.linalg.norm(slope, axis=1), 1.0)
    turned = np.degrees(np.arccos(np.clip((slope * shape.gradient(unit)).sum(axis=1), -1, 1)))
    assert turned.mean() < angle


def test_a_moved_fit_has_the_gradient_of_its_new_place() -> None:
    field = NstrConfig(levels=(LevelConfig(2, plain=4),), hidden=8).build(3, 1).double()
    moved = rotate(from_field(field, Frame.identity(), BOUNDS, 1.0), (0, 0, 1), 90)
    assert_slope(moved, draw(50, reach=0.7), 1e-6)


def test_shapes_made_of_fits_stay_below_the_distance() -> None:
    part = from_field(Shape(sphere(0.3)), Frame.identity(), BOUNDS, 1.0)
    points = draw(2000, reach=9.0)
    far = 4.0 * np.eye(3)[0]
    whole = union(translate(part, tuple(far)), translate(part, tuple(-far)))
    exact = np.minimum(*(np.linalg.norm(points - at, axis=1) for at in (far, -far))) - 0.3
    bound = whole.bound(torch.from_numpy(points)).detach().numpy()
    assert (bound <= exact + 1e-9).all()
    np.testing.assert_allclose(whole(points), exact, rtol=4e-3)


def test_outside_a_solid_that_fills_the_box_the_value_is_the_gap() -> None:
    class Full(Ball):
        def forward(self, points: Tensor) -> Tensor:
            return super().forward(points) - 9

    sdf = from_field(Full(torch.float64), Frame.identity(), BOUNDS, 1.0)
    np.testing.assert_allclose(sdf(np.array([[1.5, 0, 0], [4.0, 5.0, 0]])), [0.5, 5.0])
    assert (sdf(draw()) < 0).all()


def test_the_gradient_is_continuous_across_the_border_of_the_box() -> None:
    inside = np.concatenate([draw(50), draw(50, seed=1)])
    inside[:, 0] = 1 - 1e-9
    sdf = ball_sdf(dtype=torch.float64)
    np.testing.assert_allclose(sdf.gradient(inside), sdf.gradient(inside + [2e-9, 0, 0]), atol=1e-8)


def test_the_value_is_continuous_across_the_border_of_the_box() -> None:
    inside = np.concatenate([draw(50), draw(50, seed=1)])
    inside[:, 0] = 1 - 1e-9
    outside = inside + [2e-9, 0, 0]
    np.testing.assert_allclose(
        ball_sdf(dtype=torch.float64)(inside), ball_sdf(dtype=torch.float64)(outside), atol=1e-8
    )


def assert_slope(sdf: Sdf, points: np.ndarray, tolerance: float) -> None:
    actual = sdf.gradient(points)
    for axis in range(3):
        step = 1e-6 * np.eye(3)[axis]
        change = (sdf(points + step) - sdf(points - step)) / 2e-6
        np.testing.assert_allclose(actual[:, axis], change, atol=tolerance)


def test_gradient_is_the_finite_difference_inside() -> None:
    frame = Frame((1.0, 2.0, 3.0), 0.5)
    config = NstrConfig(levels=(LevelConfig(2, plain=4),), hidden=8)
    field = config.build(3, 1, generator=torch.Generator().manual_seed(0)).double()
    unit = draw()
    points = frame.to_world(unit[np.abs(unit).min(axis=1) > 1e-3])
    assert_slope(from_field(field, frame, BOUNDS, 1.0), points, 1e-7)


def test_gradient_is_the_finite_difference_outside() -> None:
    frame = Frame((1.0, 2.0, 3.0), 0.5)
    sdf = ball_sdf(frame, torch.float64)
    assert_slope(sdf, frame.to_world(beyond(300, 3.0)), 0.03)


def test_gradient_on_the_border_of_the_box_is_finite() -> None:
    border = draw()
    border[np.arange(200), np.arange(200) % 3] = np.where(np.arange(200) % 2, 1.0, -1.0)
    assert np.isfinite(ball_sdf().gradient(border)).all()


def test_normals_vanish_with_the_gradient() -> None:
    flat = Sdf(lambda points: points[:, 0] * 0 + 1, BOUNDS)
    assert not flat.normals(draw()).any()
    steep = Sdf(lambda points: 7 * points[:, 0], BOUNDS)
    np.testing.assert_allclose(steep.normals(draw()), np.broadcast_to([1.0, 0, 0], (200, 3)))
    np.testing.assert_allclose(steep.gradient(draw()), np.broadcast_to([7.0, 0, 0], (200, 3)))


def test_chunks_change_nothing() -> None:
    sizes = []

    class Watched(Ball):
        def forward(self, points: Tensor) -> Tensor:
            sizes.append(len(points))
            return super().forward(points)

    points = draw(100)
    whole, parts = (
        from_field(Watched(), Frame.identity(), BOUNDS, 1.0, chunk) for chunk in (100, 32)
    )
    np.testing.assert_array_equal(whole(points), parts(points))
    assert sizes == [100, 32, 32, 32, 4]
    np.testing.assert_allclose(whole(3 * points), parts(3 * points), rtol=1e-6)


def test_gradients_flow_to_the_points_through_any_number_of_them() -> None:
    points = torch.from_numpy(draw(100)).requires_grad_(True)
    from_field(Ball(), Frame.identity(), BOUNDS, 1.0, chunk=32)(points).sum().backward()
    assert points.grad is not None
    np.testing.assert_allclose(
        points.grad, points.detach() / points.detach().norm(dim=1, keepdim=True), atol=1e-6
    )


@pytest.mark.parametrize(("in_dim", "out_dim"), [(2, 1), (3, 2)])
def test_a_field_that_is_no_surface_raises(in_dim: int, out_dim: int) -> None:
    field = NstrConfig(levels=(LevelConfig(2, plain=1),)).build(in_dim, out_dim)
    with pytest.raises(ValueError, match=f"not {in_dim} to {out_dim}"):
        from_field(field, Frame.identity(in_dim), BOUNDS, 1.0)


def test_single_precision_points_far_off_are_not_moved_by_the_centre() -> None:
    """At 5.4e6 the steps of float32 are 0.5; the points are exact, and the centre is not."""
    frame = Frame((5405590.3, -512434.13, 0.2), 2.0)
    points = np.float32(np.array([[5405590.5, -512434.0, 0.5], [5405591.5, -512433.5, 1.0]]))
    away = np.linalg.norm(points.astype(np.float64) - frame.centre, axis=1)
    sdf = from_field(Ball(), frame, BOUNDS, 1.0)
    np.testing.assert_allclose(sdf(points), away - RADIUS * frame.scale, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(sdf.gradient(points), axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("value", [-0.2, 0.9, 2.0])
def test_a_level_set_is_where_its_bound_changes_sign(value: float) -> None:
    """Also outside the unit box, where the bound of the field is lower than its distance."""
    level, points = ball_sdf().offset(value), torch.from_numpy(draw(4000, 3.0))
    exact = points.norm(dim=1) - RADIUS - value
    clear = exact.abs() > 0.01
    with torch.no_grad():
        assert ((level.bound(points) <= 0) == (exact <= 0))[clear].all()
        assert (level.bound(points).abs() <= exact.abs() + 0.01).all()
    rays = Camera.around(level.bounds, 35, 35, width=24, height=24).rays()
    hits = sphere_trace(level, rays)
    assert hits.mask.sum() > 10
    reach = hits.points[hits.mask].norm(dim=1)
    assert (reach - RADIUS - value).abs().max() < 0.01
