"""Analytic shapes against brute force and their stated bounds, and checks of the shipped meshes."""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nstr3d.autodiff import jacobian
from nstr3d.geometry.shapes import primitives as P
from nstr3d.geometry.shapes.ripples import drifting_ripple
from nstr3d.sdf import Sdf
from nstr3d.types import Box

# torch's forward mode calls a function that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)

ASSETS = Path(__file__).parents[1] / "assets"
TILT = ((1.0, 2.0, -0.5), 37.0)


def _waves(points: torch.Tensor) -> torch.Tensor:
    return torch.sin(9 * points[:, 0]) * torch.cos(9 * points[:, 2])


EXACT_BALL = P.sphere(0.3, (-0.7, 0.1, -0.5))
EXACT = {
    "sphere": P.sphere(0.7, (0.1, -0.2, 0.3)),
    "torus": P.torus(0.8, 0.3),
    "box": P.box((0.5, 0.8, 0.3)),
    "rounded_box": P.rounded_box((0.5, 0.8, 0.3), 0.1),
    "thin_plate": P.thin_plate(1.6, 0.05),
    "capsule": P.capsule((-0.4, 0.2, 0.1), (0.5, -0.3, 0.4), 0.25),
    "cylinder": P.cylinder(0.5, 0.7),
    "ellipsoid": P.ellipsoid((0.9, 0.5, 0.2)),
    "shells": P.shells(1.0, 0.8, 0.5),
    "repeated": P.repeat(EXACT_BALL, (0.7, 0.9, 1.0), (3, 1, 2)),
    "moved": P.translate(P.rotate(P.scale(P.cylinder(0.5, 0.7), 0.8), *TILT), (0.2, -0.1, 0.1)),
}
BOUNDS = {
    "gyroid_slab": P.gyroid_slab(0.9, 0.15, 1.0, 0.1),
    "bracket": P.bracket(),
    "ripple": drifting_ripple().sdf,
    "union": P.union(EXACT["sphere"], EXACT["box"], EXACT["torus"]),
    "intersection": P.intersection(EXACT["ellipsoid"], P.rotate(EXACT["box"], *TILT)),
    "difference": P.difference(EXACT["box"], EXACT["sphere"], EXACT["capsule"]),
    "smooth_union": P.smooth_union(EXACT["sphere"], EXACT["ellipsoid"], EXACT["capsule"], k=0.3),
    "smooth_difference": P.smooth_difference(
        EXACT["box"], EXACT["sphere"], EXACT["capsule"], k=0.2
    ),
    "smooth_intersection": P.smooth_intersection(
        EXACT["box"], EXACT["sphere"], EXACT["capsule"], k=0.2
    ),
    "offset": P.offset(EXACT["torus"], 0.1),
    "shell": P.shell(EXACT["box"], 0.1),
    "blend": P.blend(EXACT["box"], EXACT["sphere"], 0.3),
    "stretched": P.scale(EXACT["torus"], (1.0, 2.0, 0.7)),
    "gyroid": P.gyroid(0.9, 0.15, (1.0, 0.6, 0.8)),
    "displace": P.displace(EXACT["torus"], _waves, amplitude=0.05, lipschitz=9.0),
    "smooth_union of displaced": P.smooth_union(
        P.displace(EXACT["sphere"], _waves, amplitude=0.05, lipschitz=9.0),
        P.rotate(P.shells(), *TILT),
        k=0.1,
    ),
}
ALL = EXACT | BOUNDS

everyone = pytest.mark.parametrize("shape", ALL.values(), ids=ALL.keys())


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Runs on one thread: the batches are too small for more, which are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _points(count: int, seed: int, half: float = 1.6) -> torch.Tensor:
    return (
        torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2
        - 1
    ) * half


def _box_distance(bounds: Box, points: torch.Tensor) -> torch.Tensor:
    lower, upper = points.new_tensor(bounds.lower), points.new_tensor(bounds.upper)
    return torch.maximum(lower - points, points - upper).clamp_min(0).norm(dim=-1)


# ------------------------------------------------------------------------------
# closed-form samples of the surfaces


def _grid(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.meshgrid(u, v, indexing="ij")
    return a.ravel(), b.ravel()


def _sphere_samples() -> np.ndarray:
    """Points of the unit sphere, about 0.01 apart."""
    polar, azimuth = _grid(np.linspace(0, math.pi, 314), np.linspace(0, 2 * math.pi, 628))
    return np.stack(
        [np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)], axis=-1
    )


def _torus_samples() -> np.ndarray:
    ring, tube = _grid(np.linspace(0, 2 * math.pi, 700), np.linspace(0, 2 * math.pi, 200))
    reach = 0.8 + 0.3 * np.cos(tube)
    return np.stack([reach * np.cos(ring), 0.3 * np.sin(tube), reach * np.sin(ring)], axis=-1)


def _box_samples(half: tuple[float, float, float]) -> np.ndarray:
    sides = []
    for axis in range(3):
        u, v = (np.linspace(-half[i], half[i], 160) for i in range(3) if i != axis)
        a, b = _grid(u, v)
        sides += [
            np.insert(np.stack([a, b], axis=-1), axis, sign * half[axis], axis=-1)
            for sign in (-1, 1)
        ]
    return np.concatenate(sides)


def _cylinder_samples() -> np.ndarray:
    angle, height = _grid(np.linspace(0, 2 * math.pi, 320), np.linspace(-0.7, 0.7, 140))
    wall = np.stack([0.5 * np.cos(angle), height, 0.5 * np.sin(angle)], axis=-1)
    angle, reach = _grid(np.linspace(0, 2 * math.pi, 320), np.linspace(0, 0.5, 50))
    lid = np.stack(
        [reach * np.cos(angle), np.full_like(reach, 0.7), reach * np.sin(angle)], axis=-1
    )
    return np.concatenate([wall, lid, lid * (1, -1, 1)])


def _capsule_samples() -> np.ndarray:
    """Points of the capsule's tube and two hemispheres."""
    a, b, radius = np.array((-0.4, 0.2, 0.1)), np.array((0.5, -0.3, 0.4)), 0.25
    axis = (b - a) / np.linalg.norm(b - a)
    side = np.cross(axis, (0.0, 0.0, 1.0))
    side /= np.linalg.norm(side)
    angle, along = _grid(np.linspace(0, 2 * math.pi, 200), np.linspace(0, 1, 120))
    rim = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(axis, side)
    tube = a + along[:, None] * (b - a) + radius * rim
    ball = _sphere_samples()
    return np.concatenate(
        [tube, a + radius * ball[ball @ axis <= 0], b + radius * ball[ball @ axis >= 0]]
    )


def _rounded_box_samples() -> np.ndarray:
    """Points of the core box's faces moved outwards, of quarter tubes about its edges and of
    octants of spheres about its corners."""
    core, radius = np.array((0.4, 0.7, 0.2)), 0.1
    ball, turn = _sphere_samples(), np.linspace(0, 2 * math.pi, 401)[:-1]
    pieces = [np.sign(ball) * core + radius * ball]
    for axis in range(3):
        unit = np.eye(3)[axis]
        along, angle = _grid(np.linspace(-core[axis], core[axis], 120), turn)
        tube = np.insert(np.stack([np.cos(angle), np.sin(angle)], axis=-1), axis, 0.0, axis=-1)
        pieces.append(np.sign(tube) * core + radius * tube + along[:, None] * unit)
        sides = _box_samples((0.4, 0.7, 0.2))
        pieces += [
            sides[sides[:, axis] == sign * core[axis]] + sign * radius * unit for sign in (-1, 1)
        ]
    return np.concatenate(pieces)


SAMPLES = {
    "sphere": lambda: _sphere_samples() * 0.7 + (0.1, -0.2, 0.3),
    "torus": _torus_samples,
    "box": lambda: _box_samples((0.5, 0.8, 0.3)),
    "rounded_box": _rounded_box_samples,
    "thin_plate": lambda: _box_samples((0.8, 0.025, 0.8)),
    "capsule": _capsule_samples,
    "cylinder": _cylinder_samples,
    "ellipsoid": lambda: _sphere_samples() * (0.9, 0.5, 0.2),
    "shells": lambda: np.concatenate([r * _sphere_samples() for r in (1.0, 0.8, 0.5)]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_distance_is_the_distance_to_dense_samples_of_the_surface(name):
    points, spacing = _points(1500, seed=1), 0.012
    distance = EXACT[name](points).abs().numpy()
    nearest = cKDTree(SAMPLES[name]()).query(points.numpy())[0]
    # The nearest sample is at most one spacing beside the foot of the perpendicular.
    assert (nearest >= distance - 1e-9).all()
    assert (nearest <= np.hypot(distance, spacing) + 2e-4).all()


@pytest.mark.parametrize("name", SAMPLES)
def test_distance_vanishes_on_the_surface(name):
    surface = torch.from_numpy(SAMPLES[name]())
    assert EXACT[name](surface).abs().max() < 1e-9


@pytest.mark.parametrize("shape", EXACT.values(), ids=EXACT.keys())
def test_exact_distances_have_unit_gradient(shape):
    slope = shape.gradient(_points(4000, seed=2)).norm(dim=-1)
    assert (slope - 1).abs().max() < 1e-6
    assert shape.lipschitz == 1.0


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("sphere", (0.1, -0.2, 0.3), (0.1, 0.6, 0.3)),
        ("torus", (0.8, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ("box", (0.49, 0.79, 0.29), (0.49, 0.79, 0.31)),
        ("rounded_box", (0.49, 0.0, 0.0), (0.49, 0.79, 0.29)),
        ("thin_plate", (0.7, 0.0, 0.7), (0.7, 0.03, 0.7)),
        ("capsule", (0.55, -0.3, 0.4), (0.5, 0.2, 0.4)),
        ("cylinder", (0.0, 0.69, 0.49), (0.4, 0.0, 0.4)),
        ("ellipsoid", (0.85, 0.0, 0.0), (0.0, 0.0, 0.25)),
        ("shells", (0.9, 0.0, 0.0), (0.65, 0.0, 0.0)),
        ("gyroid_slab", (0.0, 0.0, 0.0), (0.225, 0.225, 0.0)),
        ("bracket", (0.0, -0.65, 0.0), (0.65, -0.65, 0.1)),
        ("difference", (0.45, 0.75, -0.25), (0.1, 0.0, 0.2)),
    ],
)
def test_negative_inside_and_positive_outside(name, inside, outside):
    distance = ALL[name](np.array([inside, outside]))
    assert distance[0] < 0 < distance[1]


def test_the_middle_of_an_ellipsoid_is_its_shortest_radius_deep():
    shape = P.ellipsoid((0.9, 0.5, 0.2))
    assert shape(torch.zeros(1, 3, dtype=torch.float64)).item() == pytest.approx(-0.2, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(0.02, 2.0)] * 3), st.integers(0, 2**31))
def test_ellipsoids_of_any_radii_have_unit_gradient_and_reach_their_poles(radii, seed):
    shape = P.ellipsoid(radii)
    assert (shape.gradient(_points(200, seed, half=3.0)).norm(dim=-1) - 1).abs().max() < 1e-4
    poles = torch.diag(torch.tensor(radii, dtype=torch.float64))
    assert shape(torch.cat([poles, -poles])).abs().max() < 1e-9
    assert torch.allclose(shape(poles * 3), 2 * torch.tensor(radii, dtype=torch.float64))


# ------------------------------------------------------------------------------
# properties of every shape


@everyone
def test_lipschitz_bound_holds_between_near_and_far_points(shape):
    start = _points(6000, seed=3)
    for step in (1e-3, 0.03, 1.0):
        end = start + step * _points(6000, seed=4, half=1.0)
        change = (shape(end) - shape(start)).abs()
        assert (change <= shape.lipschitz * (end - start).norm(dim=-1) * (1 + 1e-6) + 1e-9).all()


@everyone
def test_distance_grows_outside_the_bounds_so_they_hold_the_zero_set(shape):
    points = torch.cat([_points(6000, seed=5), _points(2000, seed=6, half=6.0)])
    beyond = _box_distance(shape.bounds, points)
    outside = beyond > 0
    assert outside.any()
    assert (shape(points[outside]) >= beyond[outside] - 1e-9).all()


@everyone
def test_distance_never_exceeds_the_distance_to_a_sign_change(shape):
    points = _points(300, seed=7)
    value = shape(points)
    other = _points(20000, seed=8)
    opposite = other[(shape(other) < 0) != (shape(points[:1]) < 0)]
    same = (value < 0) == (value[0] < 0)
    nearest = torch.cdist(points[same], opposite).amin(dim=1)
    assert (value[same].abs() <= shape.lipschitz * nearest + 1e-9).all()


@everyone
def test_forward_and_reverse_mode_and_finite_differences_agree(shape):
    points, h = _points(300, seed=9), 1e-5
    reverse = shape.gradient(points)
    forward = jacobian(lambda p: shape(p)[:, None], points)[:, 0]
    assert torch.allclose(forward, reverse, atol=1e-8)
    steps = h * torch.eye(3, dtype=points.dtype)
    central = torch.stack([shape(points + s) - shape(points - s) for s in steps], dim=-1) / (2 * h)
    assert torch.allclose(central, reverse, atol=2e-5)


@everyone
def test_dtype_stays_and_the_origin_is_finite(shape):
    for dtype in (torch.float32, torch.float64):
        points = torch.cat(
            [
                torch.zeros(1, 3, dtype=dtype),
                torch.eye(3, dtype=dtype),
                _points(50, seed=10).to(dtype),
            ]
        )
        assert shape(points).dtype == dtype
        assert torch.isfinite(shape(points)).all()
        assert torch.isfinite(shape.gradient(points)).all()
    assert torch.allclose(shape(points.float()).double(), shape(points), atol=1e-5)
    assert shape(points[:0]).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(ALL)),
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1),
    st.floats(-180, 180),
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.floats(0.2, 5.0),
)
def test_rigid_motion_and_scale_move_the_distance_along(name, axis, degrees, offset, factor):
    shape, points = ALL[name], _points(200, seed=11)
    moved = P.translate(P.scale(P.rotate(shape, axis, degrees), factor), offset)
    # The same rotation by the matrix exponential of the axis' cross-product matrix.
    x, y, z = (math.radians(degrees) * np.array(axis) / np.linalg.norm(axis)).tolist()
    turn = torch.linalg.matrix_exp(
        torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    )
    there = factor * points @ turn.T + points.new_tensor(offset)
    assert torch.allclose(moved(there), factor * shape(points), atol=1e-9)
    assert moved.lipschitz == shape.lipschitz
    beyond = _box_distance(moved.bounds, there)
    assert (moved(there)[beyond > 0] >= beyond[beyond > 0] - 1e-9).all()


# ------------------------------------------------------------------------------
# combinators


def test_set_operations_agree_with_membership():
    a, b, points = EXACT["sphere"], EXACT["box"], _points(5000, seed=12)
    in_a, in_b = a(points) < 0, b(points) < 0
    assert ((P.union(a, b)(points) < 0) == (in_a | in_b)).all()
    assert ((P.intersection(a, b)(points) < 0) == (in_a & in_b)).all()
    assert ((P.difference(a, b)(points) < 0) == (in_a & ~in_b)).all()


def test_smooth_union_adds_a_quarter_of_k_at_most_and_only_near_creases():
    a, b, k, points = (
        P.sphere(0.5, (-0.4, 0, 0)),
        P.sphere(0.5, (0.4, 0, 0)),
        0.2,
        _points(5000, seed=13),
    )
    gain = P.union(a, b)(points) - P.smooth_union(a, b, k=k)(points)
    near = (a(points) - b(points)).abs() < k
    assert near.any()
    assert (gain[near] > 0).all()
    assert (gain[~near] == 0).all()
    assert gain.max() <= k / 4
    middle = torch.tensor([[0.0, 0.2, 0.1]])
    assert (P.union(a, b)(middle) - P.smooth_union(a, b, k=k)(middle)).item() == pytest.approx(
        k / 4
    )


def test_smooth_difference_is_the_complement_of_a_smooth_union():
    a, b, points = EXACT["box"], EXACT["sphere"], _points(2000, seed=14)
    outside = Sdf(lambda p: -a.distance(p), a.bounds)
    assert torch.equal(
        P.smooth_difference(a, b, k=0.2)(points), -P.smooth_union(outside, b, k=0.2)(points)
    )


def test_displacement_moves_the_surface_outwards_by_the_relief():
    shape = P.displace(
        P.sphere(1.0), lambda points: torch.ones_like(points[:, 0]), amplitude=0.1, lipschitz=1.0
    )
    assert shape(torch.tensor([[1.1, 0.0, 0.0]])).item() == pytest.approx(0.0, abs=1e-6)
    assert shape.lipschitz == pytest.approx(1.1)
    assert shape.bounds.upper == pytest.approx((1.1, 1.1, 1.1))


def test_gyroid_wall_is_as_thick_as_stated():
    # At the origin, where all sines vanish, the sheet is steepest and its normal is (1, 1, 1).
    period, thickness = 1.0, 0.05
    slab = P.gyroid_slab(period, thickness, radius=2.0, rim=0.1)
    direction = torch.ones(1, 3, dtype=torch.float64) / math.sqrt(3)
    assert (
        slab(direction * thickness / 2 * 0.98).item()
        < 0
        < slab(direction * thickness / 2 * 1.05).item()
    )


# ------------------------------------------------------------------------------
# errors


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: P.sphere(0.0), "radius must be positive"),
        (lambda: P.sphere(math.nan), "radius must be positive"),
        (lambda: P.sphere(1e31), r"radius must be from 1e-30 to 1e\+30, not 1e\+31"),
        (lambda: P.sphere(1e-320), "radius must be from 1e-30"),
        (lambda: P.sphere(1.0, (0.0, -1e31, 0.0)), r"centre must be finite and at most 1e\+30"),
        (lambda: P.sphere().offset(10**400), r"offset must be finite and at most 1e\+30, not 1000"),
        (lambda: P.sphere(1.0, (0.0, 0.0)), "centre must be three finite numbers"),
        (lambda: P.sphere(1.0, (0.0, math.inf, 0.0)), "centre must be three finite numbers"),
        (lambda: P.torus(0.5, 0.5), "smaller than its major radius"),
        (lambda: P.box((1.0, -1.0, 1.0)), "half_extents must be positive"),
        (lambda: P.rounded_box((0.2, 1.0, 1.0), 0.2), "smaller than the smallest half extent"),
        (lambda: P.thin_plate(1.0, 0.0), "half_extents must be positive"),
        (lambda: P.capsule((0.0, 1.0, 0.0), (0.0, 1.0, 0.0), 0.1), "use a sphere"),
        (lambda: P.cylinder(1.0, -1.0), "half_height must be positive"),
        (lambda: P.ellipsoid((1.0, 0.0, 1.0)), "radii must be positive"),
        (lambda: P.shells(1.0, 0.5, 0.8), "inner < cavity < outer"),
        (lambda: P.gyroid_slab(period=0.0), "period must be positive"),
        (lambda: P.union(), "union needs at least one shape"),
        (lambda: P.intersection(), "intersection needs at least one shape"),
        (lambda: P.difference(P.sphere()), "difference needs at least one shape"),
        (lambda: P.smooth_union(P.sphere(), k=0.0), "k must be positive"),
        (
            lambda: P.smooth_difference(P.sphere(), k=0.1),
            "smooth_difference needs at least one shape",
        ),
        (
            lambda: P.displace(P.sphere(), _waves, amplitude=-0.1, lipschitz=1.0),
            "amplitude must be positive",
        ),
        (lambda: P.rotate(P.sphere(), (0.0, 0.0, 0.0), 10.0), "axis must not be the zero vector"),
        (lambda: P.scale(P.sphere(), -2.0), "factor must be positive"),
        (lambda: P.translate(P.sphere(), (1.0,)), "offset must be three finite numbers"),
    ],
)
def test_impossible_shapes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# ------------------------------------------------------------------------------
# the shipped meshes


@functools.cache
def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([row[1:] for row in rows if row[0] == "v"], np.float64)
    return vertices, np.array([row[1:] for row in rows if row[0] == "f"], np.int64) - 1


def _is_closed_and_consistent(faces: np.ndarray) -> bool:
    """Whether every directed edge occurs once, and so does its reverse."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forth = np.unique(edges, axis=0)
    return len(forth) == len(edges) and np.array_equal(forth, np.unique(edges[:, ::-1], axis=0))


def _component_volumes(vertices: np.ndarray, faces: np.ndarray) -> list[float]:
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    links = coo_array((np.ones(len(edges)), edges.T), shape=(len(vertices),) * 2)
    count, label = connected_components(links, directed=False)
    corners = vertices[faces]
    pieces = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    return sorted(np.bincount(label[faces[:, 0]], pieces, count).tolist())


@functools.cache
def _script():
    spec = importlib.util.spec_from_file_location("make_assets", ASSETS / "make_assets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_assets"] = module
    spec.loader.exec_module(module)
    return module


BALL = 4 / 3 * math.pi
VOLUMES = {
    "sphere": [BALL],
    "torus": [2 * math.pi**2 * 0.4**2],
    "plate": [2 * 2 * 0.02],
    "shells": [-BALL * 0.8**3, BALL * 0.5**3, BALL],
}
SHIPPED = ["bunny", "sphere", "torus", "gyroid", "bracket", "plate", "shells", "ripple"]


def test_the_closedness_check_finds_holes_flips_and_doubles():
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    assert _is_closed_and_consistent(tetrahedron)
    assert not _is_closed_and_consistent(tetrahedron[:3])
    assert not _is_closed_and_consistent(np.concatenate([tetrahedron[:3], tetrahedron[3:, ::-1]]))
    assert not _is_closed_and_consistent(np.concatenate([tetrahedron, tetrahedron]))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_meshes_are_watertight_outward_and_on_their_surface(name):
    vertices, faces = _read(ASSETS / f"{name}.obj")
    assert _is_closed_and_consistent(faces)
    volumes = _component_volumes(vertices, faces)
    assert sum(volumes) > 0
    assert len(volumes) == (3 if name == "shells" else 1)
    if name in VOLUMES:
        assert volumes == pytest.approx(VOLUMES[name], rel=0.02)
    shape = _script().RECIPES[name].shape()
    assert np.abs(shape(vertices)).max() < 1e-3
    assert (np.array(shape.bounds.lower) - 1e-4 <= vertices).all()
    assert (vertices <= np.array(shape.bounds.upper) + 1e-4).all()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_faces_look_along_the_gradient(name):
    vertices, faces = _read(ASSETS / f"{name}.obj")
    # At most 10,000 faces, because the normals of the bunny's distance are slow.
    corners = vertices[faces[:: 1 + len(faces) // 10000]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(normals, axis=-1)
    assert doubled.min() > 0
    outward = (normals * _script().RECIPES[name].shape().normals(corners.mean(axis=1))).sum(
        axis=-1
    ) / doubled
    # A sliver may lie across a sharp edge; all other faces point outwards.
    assert doubled[outward <= 0].sum() < 1e-4 * doubled.sum()


def test_the_bunny_stands_up_and_its_relief_is_sampled_finely_enough():
    vertices, faces = _read(ASSETS / "bunny.obj")
    extent = vertices.max(axis=0) - vertices.min(axis=0)
    assert extent.argmax() == 1
    script = _script()
    edge = np.linalg.norm(vertices[faces] - np.roll(vertices[faces], -1, axis=1), axis=-1).mean()
    assert 2 * math.pi / script.COAT.fast > 5.5 * edge
    assert script.COAT.fast == pytest.approx(3 * script.COAT.slow)


def test_shipped_meshes_are_small():
    sizes = {name: (ASSETS / f"{name}.obj").stat().st_size for name in SHIPPED}
    assert sizes.pop("bunny") <= 2_000_000
    assert sum(sizes.values()) <= 1_500_000


@pytest.mark.parametrize("name", ["sphere", "plate"])
def test_the_script_writes_the_shipped_file_again(name, tmp_path):
    script = _script()
    script.write_obj(tmp_path / "again.obj", script.mesh_shape(script.RECIPES[name]))
    assert (tmp_path / "again.obj").read_bytes() == (ASSETS / f"{name}.obj").read_bytes()


def test_the_bunny_keeps_its_lipschitz_bound():
    shape, start = _script().bunny(), _points(6000, seed=17, half=1.2)
    assert (shape.gradient(start).norm(dim=-1) <= shape.lipschitz + 1e-9).all()
    beyond = _box_distance(shape.bounds, start)
    assert (shape(start)[beyond > 0] >= beyond[beyond > 0] - 1e-9).all()
