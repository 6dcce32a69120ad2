"""Orientation by a field that sees no normals and no winding number, on shapes whose normals are
known."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from oracles import sphere
from test_cloud import ball, ring

from nstr3d.io import save_mesh
from nstr3d.jobs.cloud import first_surface
from nstr3d.training.unoriented import TRAINING, carried_normals, unsigned_samples
from nstr3d.types import PointCloud


@pytest.mark.parametrize(
    "cloud", [ball(1500, 0.01, radius=0.9), ring(1500)], ids=["sphere", "torus"]
)
def test_signs_are_right_everywhere(cloud):
    normals = carried_normals(0.65 * cloud.points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)
    assert np.einsum("nd,nd->n", normals, cloud.normals).min() > 0


def test_samples_are_on_the_points_or_know_how_far_these_are():
    points = 0.9 * ball(200).points
    samples = unsigned_samples(points, 1000, np.random.default_rng(0))
    at, value = samples.points.double().numpy(), samples.values[:, 0].double().numpy()
    nearest = np.linalg.norm(at[:, None] - points, axis=2).min(axis=1)
    np.testing.assert_allclose(value, nearest, atol=2e-6)
    assert np.mean(value == 0) == pytest.approx(0.5)
    assert np.abs(at).max() <= 1


SHORT = replace(TRAINING, steps=10, pool=4000)  # too short to leave the ball that it starts from


def test_the_same_points_give_the_same_bits():
    points = 0.65 * ring(500).points
    np.testing.assert_array_equal(
        carried_normals(points, training=SHORT), carried_normals(points, training=SHORT)
    )


def test_a_first_surface_can_take_its_signs_from_the_carrier_and_ignores_given_normals(monkeypatch):
    monkeypatch.setattr(
        "nstr3d.jobs.cloud.carried_normals", partial(carried_normals, training=SHORT)
    )
    cloud = ball(1000)
    first = first_surface(PointCloud(cloud.points, np.zeros_like(cloud.points)), carried_signs=True)
    assert not first.preparation.measured
    assert np.abs(np.linalg.norm(first.mesh.vertices, axis=1) - 1).mean() < 0.01


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (ball(50).points, "at least 100"),
        (ball(200).points * [1, 1, 0], "in a plane"),
        (np.full((200, 3), np.nan), "not finite"),
    ],
)
def test_bad_points_are_refused_before_any_training(points, reason):
    with pytest.raises(ValueError, match=reason):
        first_surface(PointCloud(points), carried_signs=True)


def test_the_benchmark_counts_wrong_signs(app, tmp_path, capsys, monkeypatch):
    race = app("bench.orientation")

    def radial(tree):
        return tree.points / np.linalg.norm(tree.points, axis=1, keepdims=True)

    methods = {"radial": radial, "inward": lambda tree: -radial(tree)}
    monkeypatch.setattr(race, "METHODS", methods)
    save_mesh(tmp_path / "ball.ply", sphere(3))
    small = ["--samples", "2000", "--cells", "32"]
    assert race.main([str(tmp_path / "ball.ply"), "--counts", "1000", "--noises", "0", *small]) == 0
    exact, signed, right, inward = (
        [float(cell) for cell in line.split("|")[4:-1]]
        for line in capsys.readouterr().out.splitlines()[2:]
    )
    normals, sides, box, far = range(4)
    assert (
        exact[normals]
        == exact[sides]
        == exact[far]
        == right[normals]
        == right[sides]
        == right[far]
        == 0
    )
    assert signed[normals] == signed[sides] == 0
    assert inward[normals] == inward[sides] == 100
    assert inward[far] > 50
    assert right[box] < 2
    assert race.main([str(tmp_path / "none.ply")]) == 1
