"""Data sets of compressed shapes."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import good_shape

from nstr3d import Dataset, load
from nstr3d.batch.attempt import Task, publish
from nstr3d.batch.catalogue import Catalogue, Known, select
from nstr3d.batch.job import BatchJob, Rules
from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.run import _lost, run_batch
from nstr3d.batch.shapes import ShapeFile
from nstr3d.batch.store import open_store
from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.io import save_mesh
from nstr3d.jobs.compressoptions import Compression
from nstr3d.jobs.mesh import MeshJob
from nstr3d.jobs.options import Extraction, Training

SMALL = Extraction(resolution=24, samples=500, picture=0)
TINY = ShapeOptions(extraction=SMALL, compression=Compression(bytes=2000))


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A data set of three compressed ellipsoids."""
    folder = tmp_path_factory.mktemp("compressed")
    for number in range(3):
        save_mesh(folder / f"shapes{number}.ply", good_shape(number))
    (folder / "list.txt").write_text("".join(f"shapes{number}.ply\n" for number in range(3)))
    job = BatchJob(str(folder / "list.txt"), str(folder / "out"), TINY, workers=1)
    standing = run_batch(job, lambda standing: None)
    assert (standing.fitted, standing.failed) == (3, 0), standing.errors
    assert run_batch(job, lambda standing: None).skipped == 3
    return folder / "out"


def test_the_catalogue_tells_the_bytes_of_each_model(out):
    rows = select(out / "catalog.sqlite", ("id", "field", "bytes", "parameters", "iou_volume"))
    assert len(rows) == 3
    for row in rows:
        files = {path.name for path in (out / row["id"]).iterdir()}
        assert files == {"model.nstq", "report.json", "log.txt"}
        assert row["bytes"] == (out / row["id"] / "model.nstq").stat().st_size <= 2000
        assert (row["field"], row["parameters"]) == ("pyramid", None)
        assert row["iou_volume"] > 0.97


def test_a_data_set_reads_stacks_and_samples_them(out):
    dataset, points = Dataset(out), torch.rand(100, 3) * 2 - 1
    for name, fit in dataset:
        assert torch.equal(fit.field.nodes, load(out / name / "model.nstq").field.nodes)
    stacks = list(dataset.stacks(3))
    assert sum(len(stack.ids) for stack in stacks) == 3
    for stack in stacks:
        for values, name in zip(stack(points), stack.ids):
            torch.testing.assert_close(values, dataset[name].field(points), atol=1e-5, rtol=0)
    item = dataset.samples(200)[1]
    expected = dataset[dataset.ids[1]].field(item["points"])[:, 0]
    torch.testing.assert_close(item["distances"], expected, atol=1e-5, rtol=0)
    assert float(item["distances"][:100].abs().mean()) < 0.02


def test_a_data_set_of_both_kinds_is_read(out, tmp_path):
    store = open_store(str(tmp_path))
    for number, name in enumerate(Dataset(out).ids[:2]):
        model = out / name / "model.nstq"
        kind = "pyramid" if number else "nstr"
        report = {"batch": {"status": "done"}, "field": {"name": kind}}
        store.write(f"{name}/report.json", json.dumps(report).encode())
        suffix = "nstq" if number else "safetensors"
        store.write(f"{name}/model.{suffix}", model.read_bytes())
    with Catalogue(store) as catalogue:
        catalogue.sync()
    dataset = Dataset(tmp_path)
    assert sorted(dataset.models.values()) == ["model.nstq", "model.safetensors"]
    assert len(list(dataset)) == 2


def test_a_compressed_model_replaces_a_trained_one_and_the_other_way(tmp_path):
    store, scratch = open_store(str(tmp_path / "set")), tmp_path / "scratch"
    (scratch / "out").mkdir(parents=True)
    (scratch / "log.txt").write_text("")
    for suffix in ("nstq", "safetensors"):
        (scratch / "out" / f"model.{suffix}").write_bytes(b"x")
    report = {"batch": {"status": "done"}}
    for options, kept in ((TINY, "nstq"), (ShapeOptions(), "safetensors"), (TINY, "nstq")):
        task = Task(ShapeFile("a", "/a.ply", ""), store.url, options, Rules(), replaces=True)
        publish(store, task, scratch, report)
        models = [path.name for path in (tmp_path / "set" / "a").glob("model.*")]
        assert models == [f"model.{kept}"]


def test_a_compressed_model_that_is_cut_short_is_lost(out, tmp_path):
    store, data = open_store(str(tmp_path)), (out / Dataset(out).ids[0] / "model.nstq").read_bytes()
    for name, content in (("whole", data), ("cut", data[:-1]), ("none", b"")):
        store.write(f"{name}/model.nstq", content)
    shapes = [ShapeFile(name, f"/{name}.ply", "") for name in ("whole", "cut", "none", "gone")]
    rows = {shape.id: Known("done", "", "", "") for shape in shapes}
    assert _lost(store, shapes, rows) == {"cut", "none", "gone"}


def test_the_size_and_the_error_are_in_the_key_of_a_result():
    options = [
        Compression(),
        Compression(bytes=900),
        Compression(bytes=901),
        Compression(error=0.1),
    ]
    digests = {replace(TINY, compression=each).digest for each in options}
    instant = replace(TINY, compression=Compression(), training=Training("instant"))
    assert len(digests | {instant.digest}) == 5
    assert ShapeOptions.from_dict(asdict(TINY)) == TINY


def test_jobs_of_a_compressed_data_set_train_nothing():
    assert TINY.job(MeshJob, Path("a.ply"), Path("a")).training == Training()
    with pytest.raises(ValueError, match="leave out"):
        ShapeOptions(training=Training("fast", steps=9), compression=Compression(bytes=900))
    with pytest.raises(ValueError, match="leave out"):
        ShapeOptions(training=Training("fine"), compression=Compression(error=1e-3))


def test_points_in_a_compressed_data_set_are_compressed_too(tmp_path):
    mesh = good_shape(0)
    points, faces = sample_surface(mesh, 2000, np.random.default_rng(0))
    np.save(tmp_path / "ball.npy", np.hstack([points, face_normals(mesh)[faces]]))
    job = BatchJob(str(tmp_path), str(tmp_path / "out"), TINY, workers=1)
    assert run_batch(job, lambda standing: None).failed == 0
    (row,) = select(tmp_path / "out" / "catalog.sqlite", ("field", "bytes"))
    assert row["field"] == "pyramid"
    assert row["bytes"] <= 2000
