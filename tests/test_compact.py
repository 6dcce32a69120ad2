"""Compressed shapes as results of jobs and of Python calls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import joined

from nstr3d import fit_mesh, fit_points, load, load_mesh, load_sdf, save
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.io import save_mesh
from nstr3d.io.interop import to_trimesh
from nstr3d.jobs.cloud import run_points
from nstr3d.jobs.compressoptions import Compression
from nstr3d.jobs.info import describe_file
from nstr3d.jobs.mesh import run
from nstr3d.jobs.options import Extraction, MeshJob, Output, PointsJob, Training
from nstr3d.types import Mesh

ASSETS = Path(__file__).resolve().parents[1] / "assets"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compact") / "torus"
    job = MeshJob(
        ASSETS / "torus.obj",
        extraction=Extraction(resolution=48, samples=5000, picture=48),
        output=Output(folder),
        compression=Compression(bytes=4000),
    )
    outcome = run(job)
    assert {path.name for path in outcome.files} == {
        "model.nstq", "mesh.ply", "render.png", "report.json"
    }  # fmt: skip
    assert outcome.report["field"]["bytes"] == (folder / "model.nstq").stat().st_size <= 4000
    assert outcome.report["accuracy"]["distance_error_near"] < 1e-3
    assert outcome.report["mesh"]["watertight"]
    return folder


def test_a_job_writes_a_model_of_so_many_bytes(finished):
    sdf = load_sdf(finished / "model.nstq")
    mesh = load_mesh(ASSETS / "torus.obj")
    points, _ = sample_surface(mesh, 2000, np.random.default_rng(0))
    assert np.abs(sdf(points)).mean() < 1e-3 * mesh.bounds.extent.max()


def test_a_model_in_few_bytes_describes_itself(finished):
    about = describe_file(finished)
    assert (about["kind"], about["field"]) == ("compressed shape", "pyramid")
    assert about["accuracy"]["iou_volume"] > 0.98
    assert about["up"] == "y"


def test_parts_that_are_lost_are_named(tmp_path):
    ball = load_mesh(ASSETS / "sphere.obj")
    crumb = Mesh(ball.vertices * 0.004 + (1.5, 0, 0), ball.faces)
    save_mesh(tmp_path / "both.obj", joined(ball, crumb))
    extraction = Extraction(resolution=64, samples=500, picture=0)
    job = MeshJob(
        tmp_path / "both.obj",
        extraction=extraction,
        output=Output(tmp_path / "out"),
        compression=Compression(bytes=900),
    )
    report = run(job).report
    assert report["mesh"]["components"] == 1
    (warning,) = [each for each in report["input"]["warnings"] if "part(s)" in each]
    assert warning.startswith("The surface has 1 part(s), that of the input 2:")


@pytest.mark.parametrize(
    "options",
    [{"training": Training(steps=5)}, {"training": Training(preset="fast")},
     {"training": Training(field="grid")}, {"output": Output(resume=True)},
     {"extraction": Extraction(certified=True)}, {"start": Path("a")}],
)  # fmt: skip
def test_options_of_training_and_bytes_exclude_each_other(options):
    with pytest.raises(ValueError, match="bytes"):
        MeshJob(ASSETS / "torus.obj", compression=Compression(bytes=4000), **options)


def test_a_fit_replaces_a_compressed_one_and_the_other_way(finished):
    job = MeshJob(
        ASSETS / "sphere.obj",
        training=Training(steps=2, pool=5000, params=5000),
        extraction=Extraction(resolution=16, samples=500, picture=0),
        output=Output(finished, overwrite=True),
    )
    run(job)
    assert not (finished / "model.nstq").exists()
    compact = MeshJob(
        job.path, extraction=job.extraction, output=job.output, compression=Compression(bytes=2000)
    )
    run(compact)
    assert not (finished / "model.safetensors").exists()


def nodes_of(path: Path) -> torch.Tensor:
    return load(path).field.nodes


@pytest.mark.parametrize(
    ("options", "compression"),
    [({}, {"bytes": 3000}), ({}, {"error": 1e-3}), ({"preset": "instant"}, {})],
)
def test_a_python_fit_equals_that_of_the_job(tmp_path, options, compression):
    small = Extraction(resolution=32, samples=500, picture=0)
    job = MeshJob(ASSETS / "torus.obj", Training(**options), small, Output(tmp_path / "out"))
    report = run(replace(job, compression=Compression(**compression))).report
    fit = fit_mesh(job.path, **options, **compression)
    path = tmp_path / "out" / "model.nstq"
    assert torch.equal(fit.field.nodes, nodes_of(path))
    save(tmp_path / "own.nstq", fit)
    assert (tmp_path / "own.nstq").read_bytes() == path.read_bytes()
    assert report["field"]["bytes"] == path.stat().st_size
    assert report["field"].get("error", 0.0) <= compression.get("error", 0.0)


def test_an_instant_fit_of_a_torus_is_exact(tmp_path):
    fit = fit_mesh(ASSETS / "torus.obj", preset="instant")
    mesh = load_mesh(ASSETS / "torus.obj")
    at = sample_surface(mesh, 2000, np.random.default_rng(0))[0]
    at = at + np.random.default_rng(1).normal(0, 0.01 * fit.frame.scale, at.shape)
    assert np.abs(fit.sdf()(at) - MeshDistance(mesh)(at)).mean() < 1e-4 * fit.frame.scale
    assert fit.field.config.plan.cells == 256


def test_points_are_compressed_too(tmp_path):
    ball = load_mesh(ASSETS / "sphere.obj")
    points, faces = sample_surface(ball, 3000, np.random.default_rng(0))
    np.save(tmp_path / "ball.npy", np.hstack([points, face_normals(ball)[faces]]))
    job = PointsJob(
        tmp_path / "ball.npy",
        extraction=Extraction(resolution=32, samples=500, picture=0),
        output=Output(tmp_path / "out"),
        compression=Compression(bytes=2500),
    )
    assert run_points(job).report["field"]["bytes"] <= 2500
    fit = fit_points(job.path, bytes=2500)
    assert torch.equal(fit.field.nodes, nodes_of(tmp_path / "out" / "model.nstq"))
    assert np.abs(fit.sdf()(points)).mean() < 0.01


def test_colours_are_left_out_with_a_warning():
    ball = load_mesh(ASSETS / "sphere.obj")
    coloured = to_trimesh(ball)
    grey = np.linspace(0, 255, len(ball.vertices)).astype(np.uint8)
    coloured.visual.vertex_colors = np.stack([grey, grey[::-1], grey, 0 * grey + 255], axis=1)
    with pytest.warns(UserWarning, match="keeps the shape alone"):
        assert fit_mesh(coloured, bytes=2000).colour_field is None


def test_an_error_out_of_reach_is_refused_with_the_error_that_was_reached():
    with pytest.raises(ValueError, match=r"error .*1e-07 cannot be reached: .* allow more"):
        fit_mesh(ASSETS / "torus.obj", error=1e-7)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bytes": 0}, "bytes must be positive"), ({"error": float("nan")}, "error must be positive"),
     ({"error": 2.0}, "error"), ({"bytes": 9000, "error": 1e-3}, "leave out bytes"),
     ({"bytes": 9000, "steps": 5}, "leave out steps"),
     ({"bytes": 9000, "preset": "fine"}, "leave out preset"),
     ({"preset": "instant", "steps": 5}, "instant trains nothing; leave out steps"),
     ({"preset": "instant", "colour_params": 5}, "leave out colour_params")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        fit_mesh(ASSETS / "torus.obj", **options)


def test_an_instant_preset_trains_nothing(tmp_path):
    for output, more in ((Output(resume=True), {}), (Output(), {"start": Path("a")})):
        with pytest.raises(ValueError, match="preset instant makes a file without training"):
            MeshJob(ASSETS / "torus.obj", Training("instant"), output=output, **more)
