"""The protocol of the Surface Reconstruction Benchmark."""

from pathlib import Path

import numpy as np
import pytest
from oracles import sphere
from scipy.spatial.transform import Rotation

from nstr3d.bench.srb import Result, deviation, independent, registration, scans, srb_table
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io import save_mesh
from nstr3d.io.ply import encode_ply, table_of
from nstr3d.types import Mesh

COUNT = 20_000


def test_concentric_spheres_deviate_by_the_difference_of_their_radii() -> None:
    truth = sphere(5)
    larger = Mesh(truth.vertices * 1.05, truth.faces)
    found = deviation(larger, truth, samples=COUNT)
    assert found.exact == pytest.approx(0.05, rel=0.01)
    assert found.farthest == pytest.approx(0.05, rel=0.02)
    # Between samples the distance is larger, by what the sampling adds.
    assert 0.1 < found.chamfer < 0.115
    assert found.hausdorff > 0.05


def test_the_floor_is_the_mean_distance_to_independent_samples() -> None:
    truth = sphere(5)
    # In a plane, the nearest of n random points to an area A is 0.5 sqrt(A / n) away in the mean.
    wanted = 2 * 0.5 * np.sqrt(4 * np.pi / COUNT)
    assert deviation(truth, truth, samples=COUNT).chamfer == pytest.approx(wanted, rel=0.03)


def test_independent_samples_are_on_the_surface_by_area() -> None:
    mesh = sphere(3)
    points = independent(mesh, COUNT, np.random.default_rng(0))
    even, _ = sample_surface(mesh, COUNT, np.random.default_rng(0))
    radii, wanted = (np.linalg.norm(each, axis=1).mean() for each in (points, even))
    assert abs(radii - wanted) < 1e-4
    assert np.abs(points.mean(axis=0)).max() < 0.02


def test_scans_are_placed_in_the_box_of_the_truth(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pair"):
        list(scans(tmp_path))
    truth = sphere(3)
    moved = Mesh(truth.vertices * 7 + [1.0, 2.0, 3.0], truth.faces)
    save_mesh(tmp_path / "ball.off", moved)
    table = table_of(dict(zip("xyz", moved.vertices.T)))
    (tmp_path / "scan_ball.ply").write_bytes(encode_ply(vertex=table))
    save_mesh(tmp_path / "scan_alone.ply", moved)
    (scan,) = scans(tmp_path)
    assert scan.name == "ball"
    np.testing.assert_allclose(np.abs(scan.truth.vertices).max(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(scan.cloud.points, scan.truth.vertices, atol=1e-5)
    far = deviation(scan.truth, scan.truth, samples=1000)
    result = Result("ball", False, "ours", far, far, 1.0)
    text = srb_table([result], "the command", "abc")
    assert "`the command`" in text
    assert text.count("| ball | no | ours |") == 1
    assert "| mean | no | ours |" in text


def test_registration_finds_the_similarity_that_a_scan_was_moved_by() -> None:
    truth = Mesh(sphere(4).vertices * [1.0, 0.7, 0.4] + [0.1, 0.0, 0.0], sphere(4).faces)
    points = independent(truth, 5000, np.random.default_rng(0))
    turn = Rotation.from_rotvec([0.01, -0.02, 0.015]).as_matrix()
    moved = 1.01 * points @ turn.T + [0.01, -0.005, 0.002]
    moved[:100] += np.random.default_rng(1).uniform(-0.3, 0.3, (100, 3))  # outliers
    found = registration(moved, truth)
    np.testing.assert_allclose(found[:3, :3] @ (1.01 * turn), np.eye(3), atol=1e-3)
    back = moved[100:] @ found[:3, :3].T + found[:3, 3]
    np.testing.assert_allclose(back, points[100:], atol=2e-3)
