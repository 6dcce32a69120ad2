"""The job that fits a mesh: its outputs, stopping and resuming, refusals and the report."""

import json
import math
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import cube, sphere
from quick import QUICK, changed
from safetensors.torch import load_file, save_file

from nstr3d.cli.tables import table
from nstr3d.geometry.mesh.surface import area
from nstr3d.io import load_mesh, save_mesh
from nstr3d.jobs import fitting, surface
from nstr3d.jobs import publishing as outputs
from nstr3d.jobs.mesh import MeshJob, MeshStages, run
from nstr3d.jobs.meshwarnings import missing_warnings
from nstr3d.jobs.options import Parts
from nstr3d.jobs.results import CHECKPOINT, MESH, MODEL, PICTURE
from nstr3d.jobs.stages import Interrupted, Listener
from nstr3d.jobs.walk import REPORT
from nstr3d.model.checkpoint import load
from nstr3d.surface.coverage import Coverage
from nstr3d.types import Mesh

RESULTS = {MODEL, MESH, PICTURE, REPORT}


def job_for(tmp_path, mesh: Mesh | None = None, **options) -> MeshJob:
    path = tmp_path / "input.ply"
    if mesh is not None or not path.exists():
        save_mesh(path, mesh or sphere(2))
    chosen = {
        "steps": 60,
        "params": 6000,
        "resolution": 32,
        "picture": 24,
        "out": tmp_path / "new" / "out",
    }
    return changed(MeshJob(path), **(QUICK | chosen | options))


def names(folder) -> set[str]:
    return set(os.listdir(folder))


def stopping_at(step: int) -> Listener:
    def follow(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return Listener(step=follow)


def numbers(value):
    """Every number in nested JSON data."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> MeshJob:
    """A finished job. Tests must not change its files."""
    job = job_for(tmp_path_factory.mktemp("whole"), seed=1)
    run(job)
    return job


def report_of(job: MeshJob) -> dict:
    return json.loads((job.folder / REPORT).read_text())


def test_writes_every_output_and_a_report_of_finite_numbers(tmp_path):
    job = job_for(tmp_path)
    outcome = run(job, import_seconds=1.5)
    assert names(job.folder) == RESULTS == {path.name for path in outcome.files}
    report = json.loads((job.folder / REPORT).read_text())
    assert report == json.loads(json.dumps(outcome.report))
    assert all(math.isfinite(number) for number in numbers(report))
    assert set(report) == {
        "input",
        "field",
        "mesh",
        "seconds",
        "accuracy",
        "transport",
        "machine",
        "seed",
        "files",
    }
    assert report["files"] == [MODEL, MESH, PICTURE, REPORT]
    assert report["input"]["path"] == str(job.path)
    assert report["input"]["faces"] == len(sphere(2).faces)
    assert report["input"]["watertight"] is True
    assert report["field"]["bytes"] == (job.folder / MODEL).stat().st_size
    assert report["field"]["parameters"] <= 6000
    assert report["field"]["steps"] == 60
    assert report["mesh"]["faces"] == len(load_mesh(job.folder / MESH).faces)
    kinks = report["accuracy"]
    assert 0 < kinks["kink_mean"] < kinks["kink_p99"] < 90
    assert 0 < kinks["kink_control_mean"] < kinks["kink_control_p99"] < 90
    assert min(kinks["kink_points"], kinks["kink_control_points"]) > 100
    assert report["transport"] == {"loss": False, "weight": 0.0, "residual": None}
    stages = {"load", "build", "sample", "fit", "extract", "render", "score"}
    assert set(report["seconds"]) == stages | {"total", "import"}
    assert sum(report["seconds"][stage] for stage in stages) <= report["seconds"]["total"]
    assert report["seconds"]["import"] == 1.5
    assert report["machine"]["peak_memory_bytes"] > 1e7
    path = report["machine"]["path"]
    assert (path["name"], path["device"], path["others"]) == ("cpu", "cpu", [])
    assert "no GPU" in path["why"]
    assert load(job.folder / MODEL).field.parameter_count == report["field"]["parameters"]


def test_a_baseline_has_no_kinks_and_no_row_of_them(tmp_path):
    outcome = run(job_for(tmp_path, field="siren", params=20_000, steps=400))
    kinks = {key: value for key, value in outcome.report["accuracy"].items() if "kink" in key}
    assert len(kinks) == 6
    assert set(kinks.values()) == {None}
    assert "kink_failed" not in outcome.report
    assert "kinks" not in table(outcome).replace(str(tmp_path), "")


def test_same_seed_gives_the_same_report_and_files_and_another_seed_does_not(tmp_path, whole):
    jobs = [whole, *(changed(whole, out=tmp_path / str(seed), seed=seed) for seed in (1, 2))]
    for job in jobs[1:]:
        run(job)
    first, second, other = map(report_of, jobs)
    for report in (first, second, other):
        report.pop("seconds")
        report["machine"].pop("peak_memory_bytes")
    assert first == second
    assert first["accuracy"] != other["accuracy"]
    for name in (MESH, PICTURE):
        assert (whole.folder / name).read_bytes() == (jobs[1].folder / name).read_bytes()
    a, b = (load_file(job.folder / MODEL) for job in jobs[:2])
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-12, 0.0), (1e12, 0.0), (1e-30, 0.0), (5e29, 0.0), (1.0, 1e6)]
)
def test_results_are_in_the_units_and_place_of_the_input(tmp_path, scale, offset):
    mesh = sphere(2, scale, (offset, 0.0, -offset))
    job = job_for(tmp_path, mesh)
    run(job)
    result = load_mesh(job.folder / MESH).bounds
    assert np.abs(np.subtract(result.lower, mesh.bounds.lower)).max() < 0.2 * scale
    assert np.abs(np.subtract(result.upper, mesh.bounds.upper)).max() < 0.2 * scale


@pytest.mark.parametrize(
    ("scale", "what"), [(1e-31, "scale it up"), (1e31, "scale it down"), (1e300, "scale it down")]
)
def test_sizes_beyond_double_precision_are_refused(tmp_path, scale, what):
    with pytest.raises(ValueError, match=what):
        run(job_for(tmp_path, cube(scale)))


def test_a_field_without_a_closed_surface_asks_for_more_training(tmp_path):
    with pytest.raises(ValueError, match=r"no closed surface yet; train for more steps or seconds"):
        run(job_for(tmp_path, steps=1, field="siren"))
    assert names(tmp_path) == {"input.ply"}


def test_a_flat_sheet_is_refused_before_training(tmp_path):
    square = Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0.5], [0, 1, 0.5]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
    )
    steps = []
    with pytest.raises(ValueError, match=r"open sheet that encloses no volume .* pass open"):
        run(job_for(tmp_path, square), Listener(step=steps.append))
    assert steps == []
    assert names(tmp_path) == {"input.ply"}


def test_an_open_sheet_is_fitted_as_a_thin_solid_if_asked(tmp_path):
    square = Mesh(
        np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    report = run(replace(job_for(tmp_path, square, steps=200), parts=Parts(thickness=0.5))).report
    source = report["input"]
    assert source["thickness"] == 0.5
    assert source["account"]["thickened"] == source["account"]["parts"] == 1
    assert source["coverage"]["missing"] < 0.01
    assert report["mesh"]["components"] == 1


def test_the_default_thickness_is_two_cells(tmp_path):
    stages = MeshStages(
        replace(job_for(tmp_path, sphere(1), resolution=64), parts=Parts(open=True))
    )
    stages.read()
    stages.prepare()
    assert stages.prepared.thickness == pytest.approx(2 * 2 / 64)
    assert stages.prepared.account.closed == 1
    assert stages.identity["thickness"] == stages.prepared.thickness


def test_a_certified_fit_says_what_is_proven(tmp_path):
    report = run(job_for(tmp_path, certified=True)).report
    certificate = report["mesh"]["certificate"]
    assert certificate["hidden"] == certificate["unknown"] == 0
    assert certificate["cells"] >= certificate["crossed"] > 100
    with pytest.raises(ValueError, match="certified needs field nstr or grid"):
        job_for(tmp_path, certified=True, field="siren")


def test_a_sheet_thinner_than_single_precision_is_refused(tmp_path):
    square = Mesh(
        np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0.0]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    job = replace(job_for(tmp_path, square, steps=20), parts=Parts(thickness=1e-30))
    with pytest.raises(ValueError, match=r"thickness 1e-30 is below 1e-06 of the longest side, 2,"):
        run(job)


@pytest.mark.parametrize("thickness", [0.0, -1.0, math.inf])
def test_a_thickness_must_be_positive_and_finite(tmp_path, thickness):
    with pytest.raises(ValueError, match="thickness must be positive"):
        replace(job_for(tmp_path), parts=Parts(thickness=thickness))


def test_missing_surface_is_warned_of_above_a_hundredth():
    assert missing_warnings(None) == []
    assert missing_warnings(Coverage(0.0099, 0.5, 0.1, 1000)) == []
    (message,) = missing_warnings(Coverage(0.02, 0.0, 0.1, 1000))
    assert message.startswith("2.0% of the input's surface is missing")


def test_a_sheet_beside_a_solid_is_named_and_its_share_is_missing(tmp_path):
    ball = sphere(2)
    square = np.array([[2.0, 0, 0], [3, 0, 0], [3, 1, 0], [2, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]]) + len(ball.vertices)
    both = Mesh(np.concatenate([ball.vertices, square]), np.concatenate([ball.faces, faces]))
    warnings = []
    report = run(job_for(tmp_path, both, steps=150), Listener(warn=warnings.append)).report
    share = 1 / (1 + area(ball))
    account = report["input"]["account"]
    assert (account["parts"], account["closed"], account["sheets"]) == (2, 1, 1)
    assert account["left_out_share"] == pytest.approx(share, rel=1e-6)
    assert report["input"]["coverage"]["missing"] == pytest.approx(share, rel=0.05)
    assert any("1 of 2 parts are sheets" in each for each in warnings)
    assert any("surface is missing" in each for each in warnings)


def test_open_surface_is_warned_of_and_reported(tmp_path):
    closed, warnings = sphere(2), []
    job = job_for(
        tmp_path, Mesh(closed.vertices, closed.faces[closed.corners[:, :, 2].mean(axis=1) > -0.5])
    )
    report = run(job, Listener(warn=warnings.append)).report
    assert len(warnings) == 1
    assert "not watertight" in warnings[0]
    assert "negative means inside the closed surface" in warnings[0]
    assert report["input"]["warnings"] == warnings
    assert report["input"]["watertight"] is False


@pytest.mark.parametrize("step", [7, 59, 60])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, whole, step):
    job = changed(whole, out=tmp_path / "out")
    with pytest.raises(
        Interrupted,
        match=f"Stopped after {step} steps: the best model so far is in .*; go on with resume",
    ):
        run(job, stopping_at(step))
    assert names(job.folder) == {MODEL, CHECKPOINT}
    assert load(job.folder / MODEL).interrupted
    steps = []
    report = run(
        changed(job, resume=True), Listener(step=lambda progress: steps.append(progress.step))
    ).report
    assert steps == list(range(step + 1, 61))
    assert names(job.folder) == RESULTS
    expected, resumed = load_file(whole.folder / MODEL), load_file(job.folder / MODEL)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    before = report_of(whole)
    assert report["accuracy"] == before["accuracy"]
    assert report["field"] | {"bytes": 0} == before["field"] | {"bytes": 0}


def test_a_signal_stops_training_between_two_steps_and_a_second_one_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    job = job_for(tmp_path)

    def interrupt(times):
        return Listener(
            step=lambda progress: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(times)]
        )

    with pytest.raises(Interrupted, match="Stopped at once"):
        run(job, interrupt(2))
    assert not (tmp_path / "new").exists()
    with pytest.raises(Interrupted, match="Stopped after 1 steps"):
        run(job, interrupt(1))
    assert names(job.folder) == {MODEL, CHECKPOINT}
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@pytest.mark.parametrize("stage", ["load", "fit", "extract", "render", "score", "write"])
def test_a_stop_outside_training_leaves_nothing(tmp_path, stage):
    def interrupt(name):
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="nothing was written"):
        run(job_for(tmp_path), Listener(stage=interrupt))
    assert names(tmp_path) == {"input.ply"}


def test_a_long_fit_leaves_a_checkpoint_when_a_later_stage_fails(tmp_path):
    job = job_for(tmp_path, checkpoint_seconds=0.0)

    def interrupt(name):
        if name == "render":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"^Stopped; the checkpoint is .*; go on with resume"):
        run(job, Listener(stage=interrupt))
    assert names(job.folder) == {CHECKPOINT}
    with pytest.raises(FileExistsError, match="resume to go on from the checkpoint, overwrite"):
        run(job)
    assert run(changed(job, resume=True)).report["field"]["steps"] == 60
    assert names(job.folder) == RESULTS


def test_a_transport_loss_is_reported_with_what_it_leaves_unexplained(tmp_path):
    report = run(job_for(tmp_path, steps=30, transport=0.01)).report
    assert report["transport"]["loss"] is True
    assert report["transport"]["weight"] == 0.01
    assert 0 < report["transport"]["residual"] < 10


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, there):
    real, job = surface.save, job_for(tmp_path)
    if there:
        job.folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))

    def full(path, fit, training=None):
        real(path, fit, training)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(surface, "save", full)
    with pytest.raises(
        OSError, match=r"out could not be written to \(No space left on device\); make room"
    ):
        run(job)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr(
        fitting, "save", lambda path, fit, training=None: full(tmp_path / "aside", fit, training)
    )
    with pytest.raises(OSError, match="No space left"):
        run(job, stopping_at(3))
    (tmp_path / "aside").unlink()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with an input and the checkpoint of a stopped job."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Interrupted):
        run(job_for(folder), stopping_at(3))
    return folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"steps": 40}, "steps"),
        ({"params": 8000, "transport": 0.1}, "params, transport"),
        ({"seconds": 5.0}, "seconds"),
        ({"preset": "standard"}, "preset"),
    ],
)
def test_resuming_with_other_options_names_what_differs(stopped, changes, named):
    before = names(stopped / "new" / "out")
    with pytest.raises(
        ValueError,
        match=f"belongs to another run: {named} differ; use the same options and input",
    ):
        run(job_for(stopped, resume=True, **changes))
    assert names(stopped / "new" / "out") == before


def test_resuming_with_another_input_is_refused(stopped, tmp_path):
    shutil.copytree(stopped / "new", tmp_path / "new")
    with pytest.raises(ValueError, match="another run: sha256 differ"):
        run(job_for(tmp_path, cube(), resume=True))


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def _replace_by_foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def _replace_by_model(path):
    shutil.copy(path.with_name(MODEL), path)


def _misshape(path):
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]  # as in a file of an earlier version
    tensors = load_file(path)
    name = next(
        name for name in tensors if name.endswith(".table") and not name.startswith("training/")
    )
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, path, metadata)


def _misshape_moments(path):
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]  # as in a file of an earlier version
    tensors = load_file(path)
    save_file(tensors | {"training/adam.0.exp_avg": torch.zeros(2)}, path, metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated or not a safetensors file"),
        (_replace_by_foreign, "not of nstr3d"),
        (_replace_by_model, "finished model, not a checkpoint"),
        (_misshape, "where its config and its nodes need"),
        (_misshape_moments, "training state does not fit"),
    ],
)
def test_resuming_from_a_damaged_checkpoint_is_refused(stopped, tmp_path, damage, message):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    damage(tmp_path / "new" / "out" / CHECKPOINT)
    with pytest.raises(ValueError, match=message):
        run(job_for(tmp_path, resume=True))


def _of_newer_code(header):
    header["config"]["sparkle"] = 3


def _of_older_code(header):
    del header["config"]["start"]


def _of_a_run_with_an_option_more(header):
    header["provenance"]["sparkle"] = 3


def _of_a_run_with_an_option_less(header):
    del header["provenance"]["pool"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _of_newer_code,
            "has the option NstrConfig.sparkle, which is unknown here; use the version of nstr3d "
            "that wrote it",
        ),
        (
            _of_older_code,
            "lacks the option NstrConfig.start; go on with the version of nstr3d that wrote it, "
            "or fit anew",
        ),
        (
            _of_a_run_with_an_option_more,
            "version of nstr3d: sparkle is not an option of both; use the same .*",
        ),
        (
            _of_a_run_with_an_option_less,
            "version of nstr3d: pool is not an option of both; use the same .*",
        ),
    ],
)
def test_a_checkpoint_of_other_code_says_what_to_do(stopped, tmp_path, change, message):
    import safetensors

    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "new" / "out" / CHECKPOINT
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata["sha256"]  # as in a file of an earlier version
    header = json.loads(metadata["nstr3d"])
    change(header)
    save_file(load_file(path), path, metadata | {"nstr3d": json.dumps(header)})
    with pytest.raises(ValueError, match=message) as caught:
        run(job_for(tmp_path, resume=True))
    assert str(caught.value).count(". ") == 0  # one sentence


def test_resuming_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        run(job_for(tmp_path, resume=True))
    assert names(tmp_path) == {"input.ply"}


@pytest.mark.parametrize("name", sorted(RESULTS | {CHECKPOINT}))
def test_nothing_is_overwritten_unless_asked(tmp_path, name):
    job = job_for(tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"already holds {name}"):
        run(job)
    assert (job.folder / name).read_text() == "mine"
    assert names(job.folder) == {name}


def test_overwriting_replaces_results_and_an_old_checkpoint(tmp_path):
    job = job_for(tmp_path, overwrite=True)
    job.folder.mkdir(parents=True)
    for name in RESULTS | {CHECKPOINT}:
        (job.folder / name).write_text("mine")
    run(job)
    assert names(job.folder) == RESULTS
    assert all((job.folder / name).read_bytes() != b"mine" for name in RESULTS)


def test_other_files_in_the_folder_stay(tmp_path):
    job = job_for(tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / "notes.txt").write_text("mine")
    run(job)
    assert names(job.folder) == RESULTS | {"notes.txt"}


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    stages = []
    job = job_for(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for out in ("file", "file/below/it", "dangling", "dangling/below"):
        with pytest.raises(NotADirectoryError, match="is not a folder; choose another out"):
            run(changed(job, out=tmp_path / out), Listener(stage=stages.append))
    (job.folder / MESH).mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"mesh\.ply is a folder"):
        run(changed(job, overwrite=True), Listener(stage=stages.append))

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"cannot be written to \(Permission denied\)"):
        run(changed(job, out=tmp_path / "other"), Listener(stage=stages.append))
    assert stages == []
    assert names(tmp_path) == {"input.ply", "file", "dangling", "new"}


@pytest.mark.parametrize(
    "options",
    [{name: value} for name in ("params", "seconds", "steps") for value in (0, -1)]
    + [{name: value} for name in ("seconds", "transport") for value in (math.nan, math.inf)]
    + [
        {"resolution": 7},
        {"resolution": 10**6},
        {"picture": -1},
        {"picture": 16385},
        {"checkpoint_seconds": -1.0},
        {"checkpoint_seconds": math.nan},
        {"checkpoint_seconds": math.inf},
        {"transport": -0.1},
        {"seed": -1},
        {"seed": 2**32},
        {"preset": "best"},
    ],
)
def test_options_out_of_range_are_refused_by_name(tmp_path, options):
    with pytest.raises(ValueError, match=rf"^{next(iter(options))} (is|must)"):
        job_for(tmp_path, **options)


def test_a_budget_too_small_says_what_it_takes(tmp_path):
    with pytest.raises(
        ValueError, match=r"budget of 10 parameters is too small .* takes at least \d+"
    ):
        run(job_for(tmp_path, params=10))
    assert names(tmp_path) == {"input.ply"}


def test_device_and_path_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device; use device cpu"):
        run(job_for(tmp_path, device="cuda"))
    with pytest.raises(ValueError, match=r"^device is one of"):
        run(job_for(tmp_path, device="tpu"))
    with pytest.raises(ValueError, match=r"path triton needs a GPU"):
        run(job_for(tmp_path, compute_path="triton"))
    assert names(tmp_path) == {"input.ply"}


def test_plain_torch_can_be_asked_for_and_is_in_the_report(tmp_path):
    outcome = run(job_for(tmp_path, compute_path="torch"))
    assert outcome.report["machine"]["path"]["name"] == "torch"
    assert outcome.report["machine"]["path"]["why"] == "asked for"
