"""Arithmetic of the shared types: boxes, meshes, frames, samples, cameras and lattices."""

import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nstr3d.render.camera import Camera
from nstr3d.types import Box, Frame, Lattice, Mesh, Samples

NUMBER = st.floats(-100, 100, width=32)


def test_box_measures() -> None:
    box = Box((-1.0, 0.0, 2.0), (1.0, 3.0, 8.0))
    assert box.extent.tolist() == [2.0, 3.0, 6.0]
    assert box.centre.tolist() == [0.0, 1.5, 5.0]
    assert box.diagonal == 7.0
    assert box.scaled(2.0) == Box((-2.0, -1.5, -1.0), (2.0, 4.5, 11.0))
    assert box.scaled(1.0) == box


def test_mesh_bounds_hold_used_vertices_only() -> None:
    cube = oracles.cube(0.5, centre=(1.0, 2.0, 3.0))
    stray = Mesh(np.concatenate([cube.vertices, [[100.0, -100.0, 0.0]]]), cube.faces)
    assert stray.bounds == Box((0.5, 1.5, 2.5), (1.5, 2.5, 3.5))
    assert cube.corners.shape == (12, 3, 3)
    assert (cube.corners[3, 1] == cube.vertices[cube.faces[3, 1]]).all()


@given(st.tuples(NUMBER, NUMBER, NUMBER), st.floats(1e-3, 1e3), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_frames_lead_there_and_back(
    centre: tuple[float, float, float], scale: float, seed: int
) -> None:
    frame, unit = Frame(centre, scale), np.random.default_rng(seed).uniform(-1, 1, (10, 3))
    world = frame.to_world(unit)
    np.testing.assert_allclose(world, unit * scale + centre)
    np.testing.assert_allclose(frame.to_unit(world), unit, atol=1e-15 * (1 + 1000 / scale))
    np.testing.assert_allclose(frame.to_unit(np.array([centre])), 0)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_identity_frame_changes_nothing(dim: int) -> None:
    points = np.random.default_rng(0).normal(size=(5, dim))
    assert (Frame.identity(dim).to_unit(points) == points).all()
    assert (Frame.identity(dim).to_world(points) == points).all()


def test_frames_compute_in_double_precision() -> None:
    point = np.array([[1e6 + 0.25, 0, 0]], np.float32)
    assert Frame((1e6, 0.0, 0.0), 1e-3).to_unit(point).tolist() == [[250.0, 0.0, 0.0]]


def test_samples_count_their_points() -> None:
    assert len(Samples(torch.zeros(7, 3), torch.zeros(7, 1))) == 7


@pytest.mark.parametrize(("width", "height"), [(9, 5), (5, 9), (7, 7)])
def test_rays_are_unit_and_the_middle_one_meets_the_target(width: int, height: int) -> None:
    camera = Camera((3.0, 4.0, 5.0), (0.5, -1.0, 2.0), fov=50.0, width=width, height=height)
    rays = camera.rays()
    assert rays.origins.shape == rays.directions.shape == (width * height, 3)
    np.testing.assert_allclose(rays.directions.norm(dim=1), 1, atol=1e-15)
    assert (rays.origins.numpy() == camera.eye).all()
    forward = np.subtract(camera.target, camera.eye)
    middle = rays.directions[(height // 2) * width + width // 2]
    np.testing.assert_allclose(middle, forward / np.linalg.norm(forward), atol=1e-15)


def test_rays_run_from_the_top_left_and_span_the_field_of_view() -> None:
    rays = (
        Camera((0.0, 0.0, 5.0), (0.0, 0.0, 0.0), fov=60.0, width=40, height=20)
        .rays()
        .directions.reshape(20, 40, 3)
    )
    first, last = rays[0, 0].numpy(), rays[-1, -1].numpy()
    assert first[0] < 0 < first[1]
    assert last[1] < 0 < last[0]
    half = math.tan(math.radians(30))
    # The picture plane at depth 1 has height 2 half and width 4 half. The centre of the first pixel
    # is half a pixel from the picture's corner.
    np.testing.assert_allclose(
        first[:2] / -first[2], [-2 * half * (1 - 1 / 40), half * (1 - 1 / 20)], atol=1e-14
    )
    np.testing.assert_allclose(first * [-1, -1, 1], last, atol=1e-15)


@given(
    corner=st.tuples(NUMBER, NUMBER, NUMBER),
    extent=st.tuples(*[st.floats(0.1, 10.0)] * 3),
    azimuth=st.floats(-180, 180),
    elevation=st.floats(-80, 80),
    fov=st.floats(10, 90),
    width=st.integers(8, 600),
    height=st.integers(8, 600),
)
@settings(max_examples=60, deadline=None)
def test_a_camera_around_a_box_sees_all_of_it(
    corner: tuple[float, float, float],
    extent: tuple[float, float, float],
    azimuth: float,
    elevation: float,
    fov: float,
    width: int,
    height: int,
) -> None:
    bounds = Box(corner, tuple(np.add(corner, extent).tolist()))
    camera = Camera.around(bounds, azimuth, elevation, fov, width, height)
    np.testing.assert_allclose(camera.target, bounds.centre)
    forward = np.subtract(camera.target, camera.eye)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, camera.up)
    right /= np.linalg.norm(right)
    corners = (
        np.array([np.where(bits, bounds.upper, bounds.lower) for bits in np.ndindex(2, 2, 2)])
        - camera.eye
    )
    depth = corners @ forward
    half = math.tan(math.radians(fov) / 2)
    assert (depth > 0).all()
    assert (np.abs(corners @ right / depth) <= half * width / height * (1 + 1e-9)).all()
    assert (np.abs(corners @ np.cross(right, forward) / depth) <= half * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("azimuth", "elevation", "outward"),
    [(0, 0, (0, 0, 1)), (90, 0, (1, 0, 0)), (180, 30, (0, 0.5, -math.sqrt(0.75)))],
)
def test_azimuth_and_elevation_name_the_direction(
    azimuth: float, elevation: float, outward: tuple[float, ...]
) -> None:
    bounds = Box((1.0, 2.0, 3.0), (3.0, 4.0, 5.0))
    camera = Camera.around(bounds, azimuth, elevation)
    offset = np.subtract(camera.eye, bounds.centre)
    np.testing.assert_allclose(offset / np.linalg.norm(offset), outward, atol=1e-12)


def test_samples_lie_at_the_centres_of_square_cells() -> None:
    lattice = Lattice((2, 4))
    assert lattice.size == 8
    assert lattice.bounds == Box((0.0, 0.0), (2.0, 4.0))
    points = lattice.points(np.arange(8))
    np.testing.assert_allclose(points[:4, 1], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(points[::4, 0], [-0.25, 0.25])
    np.testing.assert_allclose(lattice.frame.to_world(points[6:7]), [[1.5, 2.5]])
    np.testing.assert_allclose(Lattice((5,)).points(np.array([2])), [[0.0]])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_a_lattice_without_samples_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        Lattice(shape)


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (1.0, 2.0, -0.5)])
def test_an_orbit_is_a_full_circle_about_up_anticlockwise(up) -> None:
    start = Camera((3.0, 1.5, -2.0), (0.5, -1.0, 0.25), up)
    cameras, axis = start.orbit(12), np.divide(up, np.linalg.norm(up))
    offset = np.array([np.subtract(camera.eye, camera.target) for camera in cameras])
    np.testing.assert_allclose(offset[0], np.subtract(start.eye, start.target), atol=1e-12)
    np.testing.assert_allclose(offset @ axis, offset[0] @ axis)
    across = offset - (offset @ axis)[:, None] * axis
    following, square = np.roll(across, -1, axis=0), across[0] @ across[0]
    np.testing.assert_allclose((across * following).sum(axis=1), square * np.cos(np.pi / 6))
    np.testing.assert_allclose(np.cross(across, following) @ axis, square * np.sin(np.pi / 6))
    assert all(camera == replace(start, eye=camera.eye) for camera in cameras)
