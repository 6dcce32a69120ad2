"""Scans that lie beside each other, against the motions that they were moved by."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.cloud.prepare import prepare
from nstr3d.geometry.cloud.registration import LEAST, register, scans_of
from nstr3d.jobs.cloud import first_surface, points_warnings
from nstr3d.types import PointCloud

AXES = np.array([1.0, 0.7, 0.5])  # of the ellipsoid that is scanned
VIEWS = np.arange(6) * np.pi / 3  # angles of a turntable about y
ACROSS = 60  # points across a scan
GRID = np.stack(np.meshgrid(*[np.linspace(-1, 1, ACROSS)] * 2, indexing="ij"), axis=-1)
SEEN = GRID[(GRID**2).sum(axis=-1) < 0.9]  # (n, 2), row by row
SIZE = len(SEEN)


def scan(view: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points of the ellipsoid that parallel rays meet, row by row along y, and their normals, with
    the turntable at the angle ``view``."""
    places = SEEN + generator.uniform(-0.01, 0.01, SEEN.shape)
    y, x = places.T
    towards = np.stack([x, y, np.sqrt(1 - x * x - y * y)], axis=1)
    towards = towards @ Rotation.from_rotvec([0, view, 0]).as_matrix().T
    normals = towards / AXES
    return towards * AXES, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def scans(size: float, views=VIEWS) -> tuple[PointCloud, PointCloud]:
    """Six scans as they should be, and each moved by about ``size`` and turned by twice as much."""
    generator = np.random.default_rng(0)
    parts = [scan(view, generator) for view in views]
    moved = []
    for points, normals in parts:
        turn = Rotation.from_rotvec(2 * size * generator.standard_normal(3)).as_matrix()
        shift = size * generator.standard_normal(3)
        moved.append((points @ turn.T + shift, normals @ turn.T))
    true, beside = (
        PointCloud(*(np.concatenate(each) for each in zip(*clouds))) for clouds in (parts, moved)
    )
    return true, beside


def thickness(points: np.ndarray) -> float:
    """The root mean square height of ``points`` over the ellipsoid that fits them best, found by a
    linear fit of a quadric."""
    x, y, z = points.T
    terms = np.stack([x * x, y * y, z * z, x * y, y * z, z * x, x, y, z], axis=1)
    solution = np.linalg.lstsq(terms, np.ones(len(points)))[0]
    a, b, c, d, e, f, g, h, i = solution
    gradient = np.stack(
        [
            2 * a * x + d * y + f * z + g,
            2 * b * y + d * x + e * z + h,
            2 * c * z + e * y + f * x + i,
        ],
        axis=1,
    )
    height = (terms @ solution - 1) / np.linalg.norm(gradient, axis=1)
    return float(np.sqrt((height**2).mean()))


def test_scans_are_moved_onto_each_other() -> None:
    true, beside = scans(0.01)
    assert beside.normals is not None
    assert thickness(true.points) < 1e-12
    assert thickness(beside.points) > 0.005
    found = register(Neighbours(beside.points), beside.normals)
    assert found.scans == len(VIEWS)
    assert thickness(found.points) < 0.25 * thickness(beside.points)
    # All scans are rigid bodies, and the cloud as a whole stays in place.
    for start in range(0, len(found.points), SIZE):
        own = slice(start, start + SIZE)
        turn, _ = Rotation.align_vectors(found.normals[own], beside.normals[own])
        arms = [each[own] - each[own].mean(axis=0) for each in (beside.points, found.points)]
        np.testing.assert_allclose(arms[0] @ turn.as_matrix().T, arms[1], atol=1e-9)
    step = found.points - beside.points
    assert found.shift == pytest.approx(np.linalg.norm(step, axis=1).mean())
    np.testing.assert_allclose(step.mean(axis=0), 0, atol=1e-12)
    arms = beside.points - beside.points.mean(axis=0)
    np.testing.assert_allclose(np.cross(arms, step).mean(axis=0), 0, atol=1e-4)


def test_the_order_of_the_points_shows_the_scans() -> None:
    true, _ = scans(0.0)
    expected = np.repeat(np.arange(len(VIEWS)), SIZE)
    np.testing.assert_array_equal(scans_of(Neighbours(true.points)), expected)
    mixed = np.random.default_rng(0).permutation(len(true.points))
    assert not scans_of(Neighbours(true.points[mixed])).any()
    # A few points at the end are no scan.
    short = true.points[: SIZE + LEAST - 1]
    assert not scans_of(Neighbours(short)).any()


@pytest.mark.parametrize("case", ["in place", "mixed", "one", "apart"])
def test_other_clouds_stay(case: str) -> None:
    true, beside = scans(0.01)
    assert true.normals is not None
    assert beside.normals is not None
    points, normals = beside.points, beside.normals
    if case == "in place":
        points, normals = true.points, true.normals
    elif case == "mixed":
        mixed = np.random.default_rng(0).permutation(len(points))
        points, normals = points[mixed], normals[mixed]
    elif case == "one":
        points, normals = points[:SIZE], normals[:SIZE]
    else:  # the first and the fourth see opposite sides
        own = np.r_[0:SIZE, 3 * SIZE : 4 * SIZE]
        points, normals = points[own], normals[own]
    found = register(Neighbours(points), normals)
    assert found.scans == 0
    np.testing.assert_array_equal(found.points, points)
    np.testing.assert_array_equal(found.normals, normals)


def test_a_first_surface_of_scans_is_that_of_the_scans_in_place() -> None:
    _, beside = scans(0.008)
    first = first_surface(beside, cells=(60, 60))
    assert first.preparation.scans == len(VIEWS)
    assert thickness(first.mesh.vertices) < 0.2 * thickness(beside.points)
    assert any("6 scans" in warning for warning in points_warnings(first))


def test_scans_stay_if_the_user_says_so() -> None:
    _, beside = scans(0.008)
    clean, frame, done = prepare(beside, keep_scans=True)
    assert done.scans == done.shift == 0
    np.testing.assert_allclose(frame.to_world(clean.points), beside.points, atol=1e-12)


def test_the_shift_is_in_the_units_of_the_cloud() -> None:
    _, beside = scans(0.01)
    large = PointCloud(100 * beside.points, beside.normals)
    shifts = [prepare(each)[2].shift for each in (beside, large)]
    assert shifts[1] == pytest.approx(100 * shifts[0], rel=1e-6)
