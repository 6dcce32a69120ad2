"""Fits in one call: they equal the jobs' models, and take what programs hold."""

import numpy as np
import pytest
import torch
import trimesh
from oracles import sphere
from quick import QUICK

import nstr3d
from nstr3d.io import save_image, save_mesh, save_sound
from nstr3d.io.interop import as_cloud, as_mesh, to_trimesh
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Output, Training
from nstr3d.jobs.signal import run_signal
from nstr3d.jobs.signaloptions import SignalJob
from nstr3d.types import Mesh, PointCloud

TRAINING = {name: value for name, value in QUICK.items() if hasattr(Training, name)}
TRAINING |= {"params": 6000, "steps": 40}
SMALL = Extraction(resolution=16, picture=0)


def same(one: nstr3d.Fit, other: nstr3d.Fit) -> bool:
    """Whether two fits have the same bits."""
    first, second = one.field.state_dict(), other.field.state_dict()
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and (one.frame, one.bounds) == (other.frame, other.bounds)
    )


def test_a_mesh_gives_the_model_of_the_job(tmp_path) -> None:
    save_mesh(tmp_path / "ball.ply", sphere(3))
    run(MeshJob(tmp_path / "ball.ply", Training(**TRAINING), SMALL, Output(tmp_path / "out")))
    expected = nstr3d.load(tmp_path / "out" / "model.safetensors")
    fit = nstr3d.fit_mesh(tmp_path / "ball.ply", **TRAINING)
    assert same(fit, expected)
    ball = nstr3d.load_mesh(tmp_path / "ball.ply")
    for source in (ball, (ball.vertices, ball.faces), to_trimesh(ball)):
        assert same(nstr3d.fit_mesh(source, **TRAINING), expected)
    assert float(fit.sdf()(np.zeros((1, 3)))[0]) < 0


def test_points_give_the_model_of_the_job(tmp_path) -> None:
    points = np.asarray(nstr3d.MeshDistance(sphere(3)).mesh.vertices)
    np.save(tmp_path / "ball.npy", np.concatenate([points, points], axis=1))
    job = PointsJob(tmp_path / "ball.npy", Training(**TRAINING), SMALL, Output(tmp_path / "out"))
    run_points(job)
    expected = nstr3d.load(tmp_path / "out" / "model.safetensors")
    for source in (tmp_path / "ball.npy", (points, points), PointCloud(points, points)):
        assert same(nstr3d.fit_points(source, **TRAINING), expected)


def test_pictures_and_sounds_give_the_models_of_the_jobs(tmp_path) -> None:
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    save_image(tmp_path / "a.png", picture)
    run_signal(SignalJob(tmp_path / "a.png", tmp_path / "picture", params=500))
    expected = nstr3d.load(tmp_path / "picture" / "model.safetensors")
    assert same(nstr3d.fit_image(tmp_path / "a.png", params=500), expected)
    assert same(nstr3d.fit_image(picture, params=500), expected)
    sound = nstr3d.Sound((generator.integers(-9, 9, (400, 1)) / 32768).astype(np.float32), 8000)
    save_sound(tmp_path / "a.wav", sound)
    run_signal(SignalJob(tmp_path / "a.wav", tmp_path / "sound", params=100))
    expected = nstr3d.load(tmp_path / "sound" / "model.safetensors")
    for source in (tmp_path / "a.wav", sound, sound.values[:, 0]):
        assert same(nstr3d.fit_sound(source, params=100), expected)


def test_what_is_not_a_shape_is_refused_by_what_it_is() -> None:
    ball = sphere(1)
    for call, error, words in (
        (lambda: nstr3d.fit_mesh(3), TypeError, "not int"),
        (lambda: nstr3d.fit_mesh(ball, speed=3), TypeError, "no option 'speed'"),
        (lambda: nstr3d.fit_mesh(ball, steps=-1), ValueError, "steps must be positive"),
        (lambda: nstr3d.fit_mesh((ball.vertices, ball.faces * 0.5)), ValueError, "integers"),
        (lambda: nstr3d.fit_mesh((ball.vertices[:, :2], ball.faces)), ValueError, r"\(n, 3\)"),
        (lambda: nstr3d.fit_mesh("none.obj"), FileNotFoundError, "none.obj"),
        (lambda: nstr3d.fit_points(np.zeros((5, 4))), ValueError, r"\(n, 3\) or \(n, 6\)"),
        (lambda: nstr3d.fit_points("a", normals="no"), ValueError, "'no'"),
        (lambda: nstr3d.fit_points([["a"] * 3]), TypeError, "array of numbers"),
        (lambda: nstr3d.fit_points((np.eye(3), np.eye(3)[:2])), ValueError, "3 points have 2"),
        (lambda: nstr3d.fit_image(np.full((4, 4), 3.0)), ValueError, "scale them"),
        (lambda: nstr3d.fit_image(np.zeros(4)), ValueError, r"not \(4,\)"),
        (lambda: nstr3d.fit_image(np.zeros((4, 4)), mask="a"), TypeError, "'mask'"),
        (lambda: nstr3d.fit_sound(np.array([np.nan])), ValueError, "finite"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_warnings_about_the_input_become_python_warnings() -> None:
    ball = sphere(2)
    with pytest.warns(UserWarning, match="not watertight"):
        nstr3d.fit_mesh(Mesh(ball.vertices, ball.faces[1:]), **TRAINING)


def test_meshes_and_clouds_of_other_programs_keep_their_numbers() -> None:
    ball = sphere(1)
    scene = trimesh.Scene([to_trimesh(ball)])
    np.testing.assert_array_equal(as_mesh(scene).vertices[as_mesh(scene).faces], ball.corners)
    torch_pair = torch.tensor(ball.vertices), torch.tensor(ball.faces)
    np.testing.assert_array_equal(as_mesh(torch_pair).faces, ball.faces)
    cloud = trimesh.PointCloud(ball.vertices)
    np.testing.assert_array_equal(as_cloud(cloud).points, ball.vertices)
    assert as_cloud(ball.vertices.tolist()).normals is None
    both = as_cloud(torch.tensor(np.concatenate([ball.vertices, ball.vertices], axis=1)))
    np.testing.assert_array_equal(both.normals, ball.vertices)
