"""Saved files of every format version: models load bit for bit, data sets open, and runs that other
defaults began are refused or fitted anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from quick import changed
from saved_files import (
    CONFIGS,
    EXPECTED,
    FAST,
    FIXTURES,
    batch_job,
    fingerprint,
    open_model,
    stopped_job,
    values,
)

from nstr3d import Dataset
from nstr3d.batch.run import Standing, run_batch
from nstr3d.jobs import fitting
from nstr3d.jobs.mesh import run
from nstr3d.model.checkpoint import FORMAT
from nstr3d.training import presets

FORMATS = sorted(path.name for path in FIXTURES.iterdir())
MODELS = [
    (name, model)
    for name in FORMATS
    for model in json.loads((FIXTURES / name / EXPECTED).read_text())
]


@pytest.fixture(autouse=True)
def as_then(monkeypatch):
    """Sets the preset and the package version that the files were made with. Runs with others are
    tested elsewhere."""
    monkeypatch.setitem(presets.PRESETS, "fast", FAST)
    monkeypatch.setattr(fitting, "package_version", lambda name: "0.1.0")


@pytest.fixture(params=FORMATS)
def folder(request, tmp_path) -> Path:
    """A copy of the files of one format version."""
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


def test_a_run_that_other_defaults_began_is_not_gone_on_with(folder: Path) -> None:
    """Since that run, levels have one more option and the loss uses gradients."""
    before = {path: path.read_bytes() for path in (folder / "stopped").iterdir()}
    with pytest.raises(ValueError, match=r"lacks the option LevelConfig\.order; go on with the"):
        run(changed(stopped_job(folder), resume=True))
    assert before == {path: path.read_bytes() for path in (folder / "stopped").iterdir()}


def test_a_data_set_opens(folder: Path) -> None:
    dataset = Dataset(folder / "dataset")
    assert dataset.ids == ("ball.ply",)
    fit = dataset["ball.ply"]
    assert fit.steps == 120
    sdf, centre = fit.sdf(), np.array([[1.0, 2.0, -1.0]])
    assert sdf(centre)[0] < -0.2
    assert sdf(centre + [0, 0, 0.5])[0] > 0.1
    assert dataset.stack(["ball.ply"]).ids == dataset.ids


def test_a_data_set_of_other_defaults_is_fitted_anew_once(folder: Path) -> None:
    job = batch_job(folder)
    standing = run_batch(job)
    assert (standing.fitted, standing.failed) == (1, 1)
    assert run_batch(job) == Standing(total=2, skipped=2, failed_before=1)
    levels = Dataset(folder / "dataset")["ball.ply"].field.config.levels
    assert {level.order for level in levels} == {2}
