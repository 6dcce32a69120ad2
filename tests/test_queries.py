"""Questions about signed distances against closed forms, meshes and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.shapes import primitives as P
from nstr3d.sdf import Sdf, from_field
from nstr3d.surface import asking
from nstr3d.surface.extract import EmptySurface, extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Box, Frame

CENTRE = (0.1, -0.2, 0.3)
BALL, RING, BLOCK = P.sphere(0.8, CENTRE), P.torus(0.8, 0.3), P.box((0.5, 0.8, 0.3))
HALF = np.array([0.5, 0.8, 0.3])
EMPTY = P.sphere(0.5, (-2.0, 0, 0)) & P.sphere(0.5, (2.0, 0, 0))


def draw(count: int = 400, reach: float = 1.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (count, 3))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ring_closest(points: np.ndarray) -> np.ndarray:
    flat = points * [1, 0, 1]
    circle = 0.8 * unit(flat)
    return circle + 0.3 * unit(points - circle)


# closest points


@pytest.mark.parametrize(
    ("shape", "closest"),
    [(BALL, lambda p: CENTRE + 0.8 * unit(p - CENTRE)), (RING, ring_closest)],
    ids=["ball", "ring"],
)
def test_closest_points_of_smooth_shapes(shape: Sdf, closest) -> None:
    points = draw()
    found = shape.closest_points(points, 1e-9)
    np.testing.assert_allclose(found.points, closest(points), atol=1e-7)
    assert found.residual.max() <= 1e-9 * shape.bounds.diagonal
    np.testing.assert_array_equal(found.residual, abs(shape(found.points)))


def test_closest_points_of_a_box_and_of_a_union_of_balls() -> None:
    points = draw()
    outside = (abs(points) > HALF).any(axis=1)
    found = BLOCK.closest_points(points[outside], 1e-9).points
    np.testing.assert_allclose(found, np.clip(points[outside], -HALF, HALF), atol=1e-7)
    pair = P.sphere(0.4, (-0.5, 0, 0)) | P.sphere(0.4, (0.5, 0, 0))
    side = np.where(points[:, :1] < 0, -1, 1) * [[0.5, 0, 0]]
    away = (pair(points) > 0) & (abs(points[:, 0]) > 1e-3)
    found = pair.closest_points(points[away], 1e-9).points
    np.testing.assert_allclose(found, (side + 0.4 * unit(points - side))[away], atol=1e-7)


def test_closest_points_where_newton_goes_astray() -> None:
    """The distance is only a bound: far off it is too short, and its gradient points elsewhere."""
    lens = BALL.scale((2.0, 0.5, 1.0))
    points = draw(reach=3.0)
    found = lens.closest_points(points)
    assert found.residual.max() <= 3e-5 * lens.bounds.diagonal
    exact = MeshDistance(extract_mesh(lens, 128)).unsigned(points)
    way = np.linalg.norm(found.points - points, axis=1)
    np.testing.assert_allclose(way, exact, rtol=0.01, atol=1e-3)


def test_closest_points_on_the_medial_axis_are_at_the_distance() -> None:
    for shape, point in ((BALL, CENTRE), (RING, (0.0, 0.0, 0.0)), (BLOCK, (0.0, 0.0, 0.0))):
        found = shape.closest_points(np.array([point]))
        accuracy = 2e-3 * shape.bounds.diagonal
        assert np.linalg.norm(found.points[0] - point) == pytest.approx(
            abs(shape(np.array([point]))[0]), abs=accuracy
        )
        assert found.residual[0] <= 3e-5 * shape.bounds.diagonal


def test_closest_points_of_a_fit_agree_with_its_mesh(torus_fit: Fit) -> None:
    sdf, points = torus_fit.sdf(), draw(2000, 1.6)
    found = sdf.closest_points(points)
    exact = MeshDistance(extract_mesh(sdf, 160)).unsigned(points)
    excess = np.linalg.norm(found.points - points, axis=1) - exact
    assert found.residual.max() <= 1e-4 * torus_fit.frame.scale
    assert np.percentile(excess, 99) < 0.01
    assert abs(excess).mean() < 1e-3


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_frames_of_every_size_and_place(torus_fit: Fit, scale: float, shift: float) -> None:
    if shift and scale < 1:
        pytest.skip("a solid of 1e-6 a million off has no digits in float64")
    frame = Frame((shift, -shift, 0.0), torus_fit.frame.scale * scale)
    box = Box(*(tuple(frame.to_world(np.full((1, 3), end))[0].tolist()) for end in (-1.0, 1.0)))
    sdf = from_field(torus_fit.field, frame, box, torus_fit.lipschitz)
    base = from_field(
        torus_fit.field, Frame((0.0,) * 3, frame.scale / scale), box_of(torus_fit), 1.3
    )
    points = draw(100)
    world = points * scale + [shift, -shift, 0]
    found = sdf.closest_points(world)
    assert found.residual.max() <= 3e-5 * box.diagonal
    way = np.linalg.norm(found.points - world, axis=1) / scale
    expected = np.linalg.norm(base.closest_points(points).points - points, axis=1)
    np.testing.assert_allclose(way, expected, atol=5e-3)
    np.testing.assert_array_equal(sdf.contains(world), base.contains(points))
    assert sdf.volume(48) / scale**3 == pytest.approx(base.volume(48), rel=1e-3)


def box_of(fit: Fit) -> Box:
    return Box((-fit.frame.scale,) * 3, (fit.frame.scale,) * 3)


def test_an_empty_surface_has_no_closest_points() -> None:
    with pytest.raises(EmptySurface, match="no point of it is closest"):
        EMPTY.closest_points(draw(3))
    with pytest.raises(EmptySurface, match="no points"):
        EMPTY.sample_surface(10)
    with pytest.raises(ValueError, match="no centroid"):
        EMPTY.centroid(16)
    assert EMPTY.volume(16) == EMPTY.area(16) == 0
    assert not EMPTY.contains(draw()).any()
    assert not EMPTY.raycast(draw(), draw(seed=1)).hit.any()
    assert not EMPTY.inertia(16).any()
    assert len(EMPTY.slice((0, 0, 0), (1, 0, 0), 16)) == 0


def test_closest_points_have_the_derivative_of_the_projection() -> None:
    points = torch.from_numpy(draw(20)).requires_grad_(True)
    for shape in (BALL, RING):
        found = shape.closest_points(points, 1e-9).points
        (rates,) = torch.autograd.grad(found[:, 1].sum(), points)
        step = torch.tensor([0.0, 0.0, 1e-5], dtype=torch.float64)
        with torch.no_grad():
            ahead, behind = (
                shape.closest_points(points + side * step, 1e-11).points for side in (1, -1)
            )
        expected = (ahead - behind)[:, 1] / 2e-5
        torch.testing.assert_close(rates[:, 2], expected, atol=2e-3, rtol=2e-3)


def test_answers_follow_the_parameters_of_a_distance() -> None:
    """A ball whose radius grows by 1 moves its closest points by 1 and its hits by -1."""
    radius = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    ball = Sdf(lambda points: points.norm(dim=1) - radius, BALL.bounds)
    points = torch.from_numpy(draw(30))
    found = ball.closest_points(points).points
    (rate,) = torch.autograd.grad(found.norm(dim=1).sum(), radius)
    assert float(rate) == pytest.approx(30, rel=1e-4)
    rays = torch.tensor([[3.0, 0, 0]]).double(), torch.tensor([[-2.0, 0, 0]]).double()
    (rate,) = torch.autograd.grad(ball.raycast(*rays).distances.sum(), radius)
    assert float(rate) == pytest.approx(-1)


# rays


def test_rays_hit_a_ball_where_the_closed_form_says() -> None:
    starts = 3 * unit(draw(seed=1))
    aims = unit(draw(seed=2) - starts)
    hits = BALL.raycast(starts, 7 * aims)
    away = starts - CENTRE
    middle = -(away * aims).sum(axis=1)
    depth = middle**2 - (away**2).sum(axis=1) + 0.64
    clear = abs(depth) > 1e-3
    np.testing.assert_array_equal(hits.hit[clear], depth[clear] > 0)
    met = hits.hit & clear
    np.testing.assert_allclose(
        hits.distances[met], (middle - np.sqrt(np.maximum(depth, 0)))[met], atol=1e-5
    )
    np.testing.assert_allclose(hits.normals[met], unit(hits.points[met] - CENTRE), atol=1e-4)
    assert np.isinf(hits.distances[~hits.hit]).all()
    assert np.isinf(hits.points[~hits.hit]).all()
    assert not hits.normals[~hits.hit].any()


def test_rays_from_inside_leave_and_cross_all_walls() -> None:
    origin, along = np.array([[-2.0, 0, 0], [0.8, 0, 0], [0, 0, 0]]), np.array([[5.0, 0, 0]] * 3)
    found = RING.crossings(origin, along)
    np.testing.assert_array_equal(found.starts, [0, 4, 5, 7])
    expected = [0.9, 1.5, 2.5, 3.1, 0.3, 0.5, 1.1]
    np.testing.assert_allclose(found.distances, expected, atol=1e-5)
    np.testing.assert_array_equal(found.enters, [1, 0, 1, 0, 0, 1, 0])
    np.testing.assert_allclose(found.points[4], [1.1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(RING.raycast(origin, along).distances, [0.9, 0.3, 0.5], atol=1e-5)


def test_all_crossings_are_those_of_dense_samples() -> None:
    shape = RING - P.box((0.3, 1.0, 2.0))
    starts, aims = 3 * unit(draw(100, seed=3)), draw(100, 0.9, seed=4)
    along = unit(aims - starts)
    found = shape.crossings(starts, along)
    depths = np.linspace(0, 5, 5001)
    samples = starts[:, None] + depths[:, None] * along[:, None]
    inside = (shape(samples.reshape(-1, 3)) < 0).reshape(100, -1)
    changes = inside[:, 1:] != inside[:, :-1]
    assert (changes.sum(axis=1) == np.diff(found.starts)).mean() > 0.97  # others are grazed
    ray = np.repeat(np.arange(100), np.diff(found.starts))
    near = np.minimum((found.distances / depths[1]).astype(int), 4999)
    spread = changes[ray, near] | changes[ray, near - 1] | changes[ray, np.minimum(near + 1, 4999)]
    assert spread.mean() > 0.97
    assert abs(shape(found.points)).max() < 1e-5 * shape.bounds.diagonal
    for first, last in zip(found.starts[:-1], found.starts[1:]):
        assert (np.diff(found.distances[first:last]) > 0).all()
        assert (last - first) % 2 == 0


def test_a_ray_that_touches_or_runs_along_a_face_does_not_cross() -> None:
    origin = np.array([[-3.0, 0.8, 0.0], [-3.0, 0.81, 0]])
    assert not BLOCK.raycast(origin, np.array([[1.0, 0, 0]] * 2)).hit[1]
    ends = BLOCK.crossings(origin, np.array([[1.0, 0, 0]] * 2)).starts
    assert ends[1] % 2 == 0


def test_thickness_of_a_plate_a_ball_and_a_wall() -> None:
    plate = P.box((1.0, 0.05, 1.0))
    points = draw(50, 0.8) * [1, 0, 1] + [0, 0.05, 0]
    np.testing.assert_allclose(plate.thickness(points), 0.1, atol=1e-4)
    np.testing.assert_allclose(BALL.thickness(draw(50)), 1.6, atol=1e-4)
    outer = CENTRE + 0.9 * unit(draw(50))
    np.testing.assert_allclose(BALL.shell(0.1).thickness(outer), 0.1, atol=1e-4)


def test_distances_along_rays_have_the_derivative_of_the_closed_form() -> None:
    origin = torch.tensor([[3.0, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    along = torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    ball = P.sphere(0.8)
    start, turn = torch.autograd.grad(ball.raycast(origin, along).distances.sum(), (origin, along))
    depth = math.sqrt(0.64 - 0.01)
    torch.testing.assert_close(
        start, torch.tensor([[1.0, 0.1 / depth, 0]]).double(), atol=1e-4, rtol=0
    )
    expected = (3 - depth) * 0.1 / depth
    assert float(turn[0, 1]) == pytest.approx(expected, abs=1e-3)
    assert float(turn[0, 0]) == pytest.approx(0, abs=1e-3)  # the length of a direction is nothing


# solids


SOLIDS = {
    "ball": (BALL, 4 / 3 * math.pi * 0.8**3, 4 * math.pi * 0.64),
    "ring": (RING, 2 * math.pi**2 * 0.8 * 0.09, 4 * math.pi**2 * 0.8 * 0.3),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_measures_of_smooth_solids_are_those_of_the_closed_form(name: str) -> None:
    shape, volume, area = SOLIDS[name]
    found = shape.solid(64)
    assert found.volume == pytest.approx(volume, rel=1e-6)
    assert found.area == pytest.approx(area, rel=1e-6)
    assert abs(found.volume - volume) <= found.volume_error
    assert abs(found.area - area) <= found.area_error
    np.testing.assert_allclose(found.centroid, CENTRE if name == "ball" else np.zeros(3), atol=1e-7)


def test_inertia_of_a_ball_a_ring_and_a_box() -> None:
    volume = SOLIDS["ball"][1]
    np.testing.assert_allclose(BALL.inertia(64), 0.4 * volume * 0.64 * np.eye(3), atol=1e-6)
    mass, outer, inner = SOLIDS["ring"][1], 0.8, 0.3
    about = mass * (outer**2 + 0.75 * inner**2)
    across = mass * (0.5 * outer**2 + 0.625 * inner**2)
    np.testing.assert_allclose(RING.inertia(64), np.diag([across, about, across]), atol=1e-5)
    x, y, z = HALF**2 * 4
    expected = 8 * HALF.prod() / 12 * np.diag([y + z, x + z, x + y])
    found = BLOCK.translate((3.0, 0, 0))
    np.testing.assert_allclose(found.inertia(64), expected, rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(found.centroid(64), [3, 0, 0], atol=1e-4)
    assert found.volume(64) == pytest.approx(8 * HALF.prod(), rel=1e-3)


def test_measures_of_a_fit_agree_with_those_of_its_mesh(torus_fit: Fit) -> None:
    sdf = torus_fit.sdf()
    found, mesh = sdf.solid(96), extract_mesh(sdf, 160)
    other = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert found.volume == pytest.approx(other.volume, rel=1e-3)
    assert found.area == pytest.approx(other.area, rel=1e-3)
    np.testing.assert_allclose(found.centroid, other.center_mass, atol=1e-3)
    np.testing.assert_allclose(
        found.inertia, other.moment_inertia, atol=2e-3 * np.trace(found.inertia)
    )
    box, whole = sdf.tight_bounds(64), mesh.bounds
    np.testing.assert_allclose([box.lower, box.upper], [whole.lower, whole.upper], atol=1e-3)


def test_tight_bounds_are_those_of_the_closed_form() -> None:
    turned = P.capsule((-0.5, -0.2, 0), (0.4, 0.6, 0.1), 0.2).rotate((1, 2, 3), 40)
    whole = P.rotate(P.capsule((-0.5, -0.2, 0), (0.4, 0.6, 0.1), 1e-6), (1, 2, 3), 40)
    tight = turned.tight_bounds(48)
    ring = RING.rotate((1, 0, 0), 45).tight_bounds(48)
    assert ring.upper == pytest.approx(
        (1.1, 0.8 / math.sqrt(2) + 0.3, 0.8 / math.sqrt(2) + 0.3), abs=1e-4
    )
    assert (np.array(tight.upper) <= np.array(turned.bounds.upper) + 1e-6).all()
    assert tight.upper[0] == pytest.approx(whole.bounds.upper[0] + 0.2, abs=0.4)


def test_curvatures_of_a_ball_and_a_ring() -> None:
    points = BALL.closest_points(draw(100), 1e-9).points
    found = BALL.curvatures(points)
    np.testing.assert_allclose(found.mean, 1 / 0.8, rtol=1e-4)
    np.testing.assert_allclose(found.gaussian, 1 / 0.64, rtol=1e-4)
    tube = np.random.default_rng(0).uniform(0, 2 * math.pi, 200)
    out = 0.8 + 0.3 * np.cos(tube)
    points = np.stack([out, 0.3 * np.sin(tube), 0 * tube], axis=1)
    found = RING.curvatures(points)
    np.testing.assert_allclose(
        found.mean, (0.8 + 0.6 * np.cos(tube)) / (0.6 * out), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(found.gaussian, np.cos(tube) / (0.3 * out), rtol=1e-3, atol=1e-3)


def test_samples_are_even_by_area_on_the_surface_and_repeatable() -> None:
    cloud = RING.sample_surface(4000, seed=3, resolution=64)
    assert abs(RING(cloud.points)).max() <= 3e-5 * RING.bounds.diagonal
    np.testing.assert_allclose(cloud.normals, RING.normals(cloud.points))
    outer = (np.linalg.norm(cloud.points[:, ::2], axis=1) > 0.8).mean()
    assert outer == pytest.approx(0.5 + 0.3 / (math.pi * 0.8), abs=0.02)  # of the ring's area
    np.testing.assert_array_equal(cloud.points, RING.sample_surface(4000, 3, 64).points)
    assert len(RING.sample_surface(0).points) == 0


def test_slices_are_closed_and_have_the_solid_on_their_left() -> None:
    lines = RING.slice((0, 0, 0), (0, 5, 0))
    assert len(lines) == 2
    areas = []
    for first, last in zip(lines.starts[:-1], lines.starts[1:]):
        loop = lines.points[first:last]
        np.testing.assert_array_equal(loop[0], loop[-1])
        z, x = loop[:, 2], loop[:, 0]  # seen from +y
        areas.append(0.5 * float((z[:-1] * x[1:] - z[1:] * x[:-1]).sum()))
    assert sorted(areas) == pytest.approx([-math.pi * 0.25, math.pi * 1.21], rel=1e-3)
    assert abs(RING(lines.points)).max() <= 1e-5 * RING.bounds.diagonal
    assert len(RING.slice((0, 2, 0), (0, 1, 0))) == 0
    turned = BALL.slice(CENTRE, (1, 2, 3)).points
    assert np.linalg.norm(turned - CENTRE, axis=1) == pytest.approx(0.8, abs=1e-4)


# kinds, types and wrong calls


ASKED = {
    "closest": lambda sdf, at: sdf.closest_points(at).points,
    "contains": lambda sdf, at: sdf.contains(at),
    "rays": lambda sdf, at: sdf.raycast(at, at + 1).points,
    "crossings": lambda sdf, at: sdf.crossings(at, at + 1).points,
    "thickness": lambda sdf, at: sdf.thickness(at),
    "curvatures": lambda sdf, at: sdf.curvatures(at).mean,
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_answers_have_the_kind_and_type_of_the_points(name: str, dtype: type) -> None:
    points = draw(20).astype(dtype)
    answer, other = ASKED[name](RING, points), ASKED[name](RING, torch.from_numpy(points))
    assert isinstance(answer, np.ndarray)
    assert isinstance(other, Tensor)
    kind = bool if name == "contains" else dtype
    assert answer.dtype == kind
    np.testing.assert_array_equal(answer, other.detach().numpy())
    assert len(ASKED[name](RING, points[:0])) == 0


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    "wrong", [[[0, 0, 0]], np.zeros(3), np.zeros((2, 2)), np.full((1, 3), np.nan), torch.zeros(3)]
)
def test_wrong_points_are_refused(name: str, wrong) -> None:
    ask = {**ASKED, "rays": lambda sdf, at: sdf.raycast(at, at)}
    ask["crossings"] = lambda sdf, at: sdf.crossings(draw(1), at)
    with pytest.raises((TypeError, ValueError)) as caught:
        ask[name](RING, wrong)
    assert "\n" not in str(caught.value)


def test_wrong_numbers_are_refused() -> None:
    points = draw(2)
    for wrong, fault in (
        (0, ValueError),
        (-1.0, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
    ):
        with pytest.raises(fault, match="tolerance"):
            RING.closest_points(points, wrong)
        with pytest.raises(fault, match="tolerance"):
            RING.raycast(points, points, wrong)
        with pytest.raises(fault, match="step"):
            RING.curvatures(points, wrong)
    with pytest.raises(ValueError, match="directions must not be zero, as direction 1"):
        RING.raycast(points, points * [[1.0], [0.0]])
    with pytest.raises(ValueError, match="one shape"):
        RING.raycast(points, points[:1])
    with pytest.raises(ValueError, match="count"):
        RING.sample_surface(-1)
    with pytest.raises(TypeError, match="count"):
        RING.sample_surface(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="normal must not be the zero vector"):
        RING.slice((0, 0, 0), (0, 0, 0))
    with pytest.raises(ValueError, match="origin must be three finite numbers"):
        RING.slice((0, 0, math.inf), (0, 0, 1))
    with pytest.raises(ValueError, match="resolution"):
        RING.slice((0, 0, 0), (0, 0, 1), 1)
    with pytest.raises(ValueError, match="resolution"):
        RING.volume(1)


@pytest.mark.parametrize("name", ASKED)
def test_strides_whole_numbers_and_derivatives_do_not_matter(name: str) -> None:
    points = draw(10)
    wide = np.repeat(points, 2, axis=0)[::2]
    np.testing.assert_array_equal(ASKED[name](RING, wide), ASKED[name](RING, points))
    columns = torch.from_numpy(np.ascontiguousarray(points.T)).T.requires_grad_(True)
    answer = ASKED[name](RING, columns).detach().numpy()
    np.testing.assert_array_equal(answer, ASKED[name](RING, points))
    whole = np.array([[1, 0, 0], [0, 2, 1], [-1, 1, 0]])
    for kind in (np.int64, np.int8):
        found = ASKED[name](RING, whole.astype(kind))
        np.testing.assert_array_equal(found, ASKED[name](RING, whole.astype(np.float64)))


@pytest.mark.parametrize("name", ASKED)
def test_single_precision_far_from_the_origin_is_that_of_the_points(name: str) -> None:
    """Coordinates of a map: float32 has steps of 0.06 there, and answers add nothing to that."""
    shift = np.array([5e5, 4e6, 100.0])
    far = P.sphere(100.0, tuple(shift))
    points = (80 * draw(50) + shift).astype(np.float32)
    ask = {
        **ASKED,
        "rays": lambda sdf, at: sdf.raycast(at, 0 * at + 1).points,
        "crossings": lambda sdf, at: sdf.crossings(at, 0 * at + 1).points,
    }[name]
    found, exact = ask(far, points), ask(far, points.astype(np.float64))
    assert found.dtype == exact.astype(found.dtype).dtype
    np.testing.assert_array_equal(found, exact.astype(found.dtype))


@pytest.mark.parametrize("name", ASKED)
def test_many_points_are_asked_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The distance never sees more points at once than a few times the piece."""
    monkeypatch.setattr(asking, "CHUNK", 100)
    most = 0

    def distance(points: Tensor) -> Tensor:
        nonlocal most
        most = max(most, len(points))
        return points.norm(dim=1) - 0.8

    points = draw(1500)
    answer = ASKED[name](Sdf(distance, P.sphere(0.8).bounds), points)
    assert most <= 300
    monkeypatch.setattr(asking, "CHUNK", 1 << 16)
    np.testing.assert_array_equal(answer, ASKED[name](P.sphere(0.8), points))


def test_complex_numbers_truths_and_text_are_no_points() -> None:
    for wrong in (np.zeros((2, 3), complex), np.zeros((2, 3), bool), np.full((2, 3), "a")):
        with pytest.raises(TypeError, match="real numbers"):
            RING.contains(wrong)
    with pytest.raises(ValueError, match="origins must be finite"):
        RING.raycast(np.full((1, 3), np.inf), np.ones((1, 3)))
    with pytest.raises(ValueError, match="directions must be finite"):
        RING.raycast(np.ones((1, 3)), np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="of one kind"):
        RING.raycast(np.ones((1, 3)), torch.ones(1, 3))
