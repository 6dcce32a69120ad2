"""Files that outlive the code: what every format's version wrote is read as it was, gone on with,
and not made anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from quick import changed
from safetensors import safe_open
from saved_files import (
    CONFIGS,
    EXPECTED,
    FAST,
    FIXTURES,
    STEPS,
    STOPPED_AT,
    batch_job,
    fingerprint,
    open_model,
    stopped_job,
    values,
)

from nstr3d import Dataset
from nstr3d.batch.options import key_of
from nstr3d.batch.run import Standing, run_batch
from nstr3d.jobs import fitting
from nstr3d.jobs.mesh import run
from nstr3d.jobs.results import CHECKPOINT, MODEL
from nstr3d.jobs.stages import Listener
from nstr3d.jobs.walk import REPORT
from nstr3d.model.checkpoint import FORMAT, load
from nstr3d.model.tags import encode_formerly
from nstr3d.training import presets

FORMATS = sorted(path.name for path in FIXTURES.iterdir())
MODELS = [
    (name, model)
    for name in FORMATS
    for model in json.loads((FIXTURES / name / EXPECTED).read_text())
]


@pytest.fixture(autouse=True)
def as_then(monkeypatch):
    """The presets and the version that the files were made with: others make other runs, which is
    tested elsewhere."""
    monkeypatch.setitem(presets.PRESETS, "fast", FAST)
    monkeypatch.setattr(fitting, "package_version", lambda name: "0.1.0")


@pytest.fixture(params=FORMATS)
def folder(request, tmp_path) -> Path:
    """A copy of the files of a format."""
    return shutil.copytree(FIXTURES / request.param, tmp_path / "files")


def test_there_are_files_of_this_format_and_of_the_first_with_every_kind_of_model() -> None:
    assert {FORMAT, "nstr3d-1"} <= set(FORMATS)
    for name in FORMATS:
        files = {path.name for path in (FIXTURES / name / "models").iterdir()}
        assert files == set(CONFIGS) == {model for of, model in MODELS if of == name}


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_model_is_what_it_was_bit_for_bit(name: str, model: str) -> None:
    expected = json.loads((FIXTURES / name / EXPECTED).read_text())[model]
    field = open_model(FIXTURES / name / "models" / model)
    assert field.config == CONFIGS[model]
    assert fingerprint(field) == expected["tensors"]
    np.testing.assert_allclose(values(field), expected["values"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "model", [model for name, model in MODELS if name == "nstr3d-1" and not model.endswith(".nstq")]
)
def test_configs_are_written_as_formerly_for_keys_of_then(model: str) -> None:
    with safe_open(FIXTURES / "nstr3d-1" / "models" / model, framework="pt") as file:
        header = json.loads(file.metadata()["nstr3d"])
    assert encode_formerly(CONFIGS[model]) == header["config"]


def test_a_stopped_run_goes_on_from_its_checkpoint(folder: Path) -> None:
    job, steps = changed(stopped_job(folder), resume=True), []
    assert load(job.folder / MODEL).interrupted
    report = run(job, Listener(step=lambda progress: steps.append(progress.step))).report
    assert steps == list(range(STOPPED_AT + 1, STEPS + 1))
    assert report["field"]["steps"] == STEPS
    assert report["accuracy"]["iou_volume"] > 0.9
    assert not (job.folder / CHECKPOINT).exists()


def test_a_checkpoint_is_of_other_options_still(folder: Path) -> None:
    with pytest.raises(ValueError, match="belongs to another run: pool differ"):
        run(changed(stopped_job(folder), resume=True, pool=9000))


def test_a_data_set_opens(folder: Path) -> None:
    dataset = Dataset(folder / "dataset")
    assert dataset.ids == ("ball.ply",)
    fit = dataset["ball.ply"]
    assert fit.steps == 120
    sdf, centre = fit.sdf(), np.array([[1.0, 2.0, -1.0]])
    assert sdf(centre)[0] < -0.2
    assert sdf(centre + [0, 0, 0.5])[0] > 0.1
    assert dataset.stack(["ball.ply"]).ids == dataset.ids


def test_a_data_set_is_not_fitted_anew(folder: Path) -> None:
    """Neither where its shapes have the times of change that it knows, nor where only their content
    says that they are the same.

    The default field's options count too: once other defaults have it fitted anew, this has had its
    time."""
    job = batch_job(folder)
    before = {path: path.read_bytes() for path in (folder / "dataset").rglob("model.safetensors")}
    reports = {
        path: json.loads(path.read_text())["batch"] for path in (folder / "dataset").rglob(REPORT)
    }
    for path, batch in reports.items():
        stamp = int(batch["stamp"].partition("-")[2])
        os.utime(folder / "shapes" / path.parent.name, ns=(stamp, stamp))
    assert len(reports) == 2
    assert run_batch(job) == Standing(total=2, skipped=2)
    os.utime(folder / "shapes" / "ball.ply")
    os.utime(folder / "shapes" / "flat.ply")
    standing = run_batch(job)
    assert (standing.fitted, standing.failed) == (1, 1)  # which counts what a worker looked at
    assert before == {
        path: path.read_bytes() for path in (folder / "dataset").rglob("model.safetensors")
    }
    for path, batch in reports.items():
        now = json.loads(path.read_text())["batch"]
        assert now["finished"] == batch["finished"]
        content = hashlib.sha256((folder / "shapes" / path.parent.name).read_bytes()).hexdigest()
        assert (now["config"], now["key"]) == (
            job.options.digest,
            key_of(content, ".ply", job.options),
        )
    assert run_batch(job) == Standing(total=2, skipped=2)
