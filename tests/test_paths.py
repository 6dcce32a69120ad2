"""The choice of a path of computation: calibration, faults of paths, and what is kept."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import standins
import torch
from standins import CPU, StandIn

from nstr3d.bench.devicereport import table
from nstr3d.io import usercache
from nstr3d.jobs.options import Training
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.render.traced import tracing_device
from nstr3d.training import calibration, choice, paths, trials
from nstr3d.training.calibration import TOLERANCE, Trial, measure
from nstr3d.training.choice import by_inference, choose
from nstr3d.training.paths import CpuKernels, FusedTriton, PlainTorch
from nstr3d.training.trials import in_process, trials_of

GPU = torch.device("cuda")
PROGRAM = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    "import standins; standins.serve_standins()"
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The folder of what is kept, empty at first."""
    monkeypatch.setattr(usercache, "cache_folder", lambda: tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture
def gpu(monkeypatch) -> None:
    """A machine whose torch finds a GPU."""
    monkeypatch.setattr(choice, "gpu", lambda: GPU)
    monkeypatch.setattr(paths, "find_spec", lambda name: name)


def right(path, training: float, inference: float = 1.0) -> Trial:
    return Trial(path.name, str(path.device), 1e-6, training, inference)


def faulty(path, fault: str = "it is broken") -> Trial:
    return Trial(path.name, str(path.device), fault=fault)


# The measurement


@pytest.mark.parametrize("kind", [CpuKernels, PlainTorch])
def test_the_paths_of_the_cpu_agree_with_double_precision(kind) -> None:
    trial = measure(kind(CPU), turn=0.01)
    assert trial.right
    assert 0 < trial.error < TOLERANCE / 4
    assert trial.training > 0
    assert trial.inference > 0


@pytest.mark.parametrize(
    ("kind", "fault", "passing"),
    [
        (standins.Wrong, "differ from those in double precision", False),
        (standins.WrongSteps, "differ from those in double precision", False),
        (standins.NotFinite, "not finite", False),
        (standins.Raising, "RuntimeError: no kernel image is available for execution", False),
        (standins.Exhausted, "too little free memory", True),
        (standins.Absent, "not installed", False),
    ],
)
def test_a_path_with_a_fault_is_known_and_not_timed(kind, fault, passing) -> None:
    trial = measure(kind(CPU), turn=0.01)
    assert not trial.right
    assert fault in trial.fault
    assert "\n" not in trial.fault
    assert trial.passing == passing
    assert trial.training is None
    assert trial.inference is None


def test_a_disagreement_has_its_size() -> None:
    error = measure(standins.Wrong(CPU), turn=0.01).error
    assert TOLERANCE < error < 1


def test_products_with_the_digits_of_tf32_do_not_pass() -> None:
    class Narrow(standins.Altered):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if getattr(func, "__name__", "") == "linear" and args[0].dtype == torch.float32:
                bits = [each.detach().view(torch.int32) & ~0x1FFF for each in args[:2]]
                narrow = [each.view(torch.float32) - full for each, full in zip(bits, args[:2])]
                args = (*[full + loss.detach() for full, loss in zip(args, narrow)], *args[2:])
            return func(*args, **(kwargs or {}))

    class Tf32(StandIn):
        @contextmanager
        def using(self):
            with plain_torch(), Narrow("", 1.0):
                yield

    trial = measure(Tf32(CPU), turn=0.01)
    assert not trial.right
    assert TOLERANCE < trial.error < 0.1


# The process of the trials


def test_a_path_that_ends_its_process_or_hangs_is_left_out_and_the_others_are_measured() -> None:
    kinds = (standins.Crashing, standins.Raising, standins.Leaving, standins.Exhausted)
    found = in_process([kind(CPU) for kind in kinds], PROGRAM, patience=60.0)
    assert [trial.path for trial in found] == [kind.name for kind in kinds]
    assert not any(trial.right for trial in found)
    crashed, raised, left, exhausted = found
    assert "died of signal 9" in crashed.fault
    assert "RuntimeError" in raised.fault
    assert "ended with code 3" in left.fault
    assert (crashed.passing, left.passing, exhausted.passing) == (True, False, True)


def test_a_path_that_hangs_is_ended() -> None:
    (trial,) = in_process([standins.Hanging(CPU)], PROGRAM, patience=0.5)
    assert "it took more than 0 s" in trial.fault or "it took more than 1 s" in trial.fault
    assert not trial.passing


@pytest.mark.parametrize(
    "output",
    ["", "trial: ", "trial: [1]", 'trial: {"path": "right"}', "trial: " + "[" * 100_000, "noise"],
)
def test_a_process_that_says_nonsense_is_a_fault(output) -> None:
    program = f"import sys; sys.stdout.write({output!r})"
    (trial,) = in_process([StandIn(CPU)], program)
    assert "ended with code 0" in trial.fault


def test_without_another_python_nothing_can_be_tried(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    (trial,) = in_process([StandIn(CPU)], PROGRAM)
    assert "cannot start another" in trial.fault
    assert trial.passing
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert in_process([StandIn(CPU)], PROGRAM)[0].passing


# What is kept


def keeping(monkeypatch, answer) -> list:
    """Replaces the process of the trials by ``answer``; gives the list of the paths it was asked
    for."""
    asked = []

    def measured(missing):
        asked.extend(missing)
        return [answer(path) for path in missing]

    monkeypatch.setattr(trials, "in_process", measured)
    return asked


def test_trials_are_kept_and_measured_again_when_asked(cache, monkeypatch) -> None:
    asked = keeping(monkeypatch, lambda path: right(path, 2.0))
    both = [CpuKernels(CPU), PlainTorch(CPU)]
    first = trials_of(both)
    assert trials_of(both) == first
    assert asked == both
    assert trials_of(both, again=True) == first
    assert asked == both * 2


def test_a_fault_is_kept_unless_it_may_pass(cache, monkeypatch) -> None:
    asked = keeping(monkeypatch, faulty)
    trials_of([PlainTorch(CPU)])
    trials_of([PlainTorch(CPU)])
    assert len(asked) == 1
    asked = keeping(monkeypatch, lambda path: replace(faulty(path), passing=True))
    trials_of([CpuKernels(CPU)])
    trials_of([CpuKernels(CPU)])
    assert len(asked) == 2


def test_a_path_that_cannot_be_tried_starts_no_process(cache, monkeypatch) -> None:
    asked = keeping(monkeypatch, faulty)
    (trial,) = trials_of([standins.Absent(CPU)])
    assert trial.fault == "it is not installed"
    assert not asked


@pytest.mark.parametrize("changed", ["versions", "code", "device"])
def test_trials_hold_for_one_device_version_and_code(cache, monkeypatch, changed) -> None:
    asked = keeping(monkeypatch, lambda path: right(path, 2.0))
    trials_of([PlainTorch(CPU)])
    before = trials.key_of(PlainTorch(CPU))
    monkeypatch.setattr(trials, "key_of", lambda path: {**before, changed: "another"})
    trials_of([PlainTorch(CPU)])
    assert len(asked) == 2


def test_the_key_names_the_device_the_driver_the_versions_and_the_code() -> None:
    key = trials.key_of(CpuKernels(CPU))
    assert key["versions"]["torch"]
    assert len(key["code"]) == 16
    assert key["device"]["threads"] == torch.get_num_threads()
    assert json.loads(json.dumps(key)) == key


def damage(text: str) -> list[str]:
    """Contents of a file that is damaged."""
    data = json.loads(text)
    trial = data["trial"]
    wrong = [
        {**trial, "error": "0"},
        {**trial, "error": -1.0},
        {**trial, "training": None},
        {**trial, "training": 0.0},
        {**trial, "fault": 3},
        {**trial, "path": "other"},
        {**trial, "extra": 1},
        {"path": trial["path"]},
        None,
    ]
    texts = [json.dumps({**data, "trial": each}) for each in wrong]
    texts += ["", text[: len(text) // 2], "null", "[]", "[" * 100_000, "\0\xff", "NaN"]
    return [*texts, json.dumps({**data, "format": 0}), json.dumps({**data, "key": {}})]


def test_damaged_files_are_measured_anew_and_mended(cache, monkeypatch) -> None:
    asked = keeping(monkeypatch, lambda path: right(path, 2.0))
    (first,) = trials_of([PlainTorch(CPU)])
    (file,) = cache.iterdir()
    whole = file.read_text()
    for count, text in enumerate(damage(whole), start=2):
        file.write_text(text, encoding="latin-1")
        assert trials_of([PlainTorch(CPU)]) == [first]
        assert len(asked) == count, text[:80]
        assert file.read_text() == whole


def test_runs_at_once_leave_a_whole_file(cache, monkeypatch) -> None:
    keeping(monkeypatch, lambda path: right(path, 2.0))
    runs = [threading.Thread(target=trials_of, args=([PlainTorch(CPU)], True)) for _ in range(8)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["trial"] == asdict(right(PlainTorch(CPU), 2.0))


def test_without_a_folder_trials_are_measured_each_time(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    for folder in (None, tmp_path / "file" / "kept"):
        monkeypatch.setattr(usercache, "cache_folder", lambda folder=folder: folder)
        asked = keeping(monkeypatch, lambda path: right(path, 2.0))
        for _ in range(2):
            assert trials_of([PlainTorch(CPU)]) == [right(PlainTorch(CPU), 2.0)]
        assert len(asked) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_the_folder_is_that_of_the_users_cache(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert usercache.cache_folder() == Path("/some/cache/nstr3d")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert usercache.cache_folder() == Path("/home/somebody/.cache/nstr3d")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert usercache.cache_folder() is None


# The choice


def test_without_a_gpu_nothing_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(choice, "gpu", lambda: None)

    def measured(paths):
        raise AssertionError("a machine without a GPU has nothing to measure")

    for device, path in (("auto", "auto"), ("cpu", "auto"), ("auto", "cpu"), ("auto", "torch")):
        chosen = choose(device, path, measured=measured)
        assert chosen.path == (PlainTorch(CPU) if path == "torch" else CpuKernels(CPU))
        assert not chosen.trials
        assert not chosen.warnings


def test_a_cpu_that_is_asked_for_is_not_measured(gpu) -> None:
    chosen = choose("cpu", measured=lambda paths: pytest.fail("measured"))
    assert chosen.path == CpuKernels(CPU)
    assert chosen.why == "asked for"


def speeds(rates: dict[str, float], inference: dict[str, float] | None = None):
    """Trials of paths with these speeds; a path without one has a fault."""

    def measured(paths):
        return [
            right(path, rates[path.name], (inference or rates)[path.name])
            if path.name in rates
            else faulty(path)
            for path in paths
        ]

    return measured


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({"triton": 3.0, "torch": 2.0, "cpu": 1.0}, FusedTriton(GPU)),
        ({"triton": 2.0, "torch": 3.0, "cpu": 1.0}, PlainTorch(GPU)),
        ({"triton": 2.0, "torch": 1.0, "cpu": 3.0}, CpuKernels(CPU)),
        ({"torch": 1.0, "cpu": 3.0}, CpuKernels(CPU)),
        ({"torch": 1.0}, PlainTorch(GPU)),
    ],
)
def test_the_fastest_right_path_is_taken(gpu, rates, best) -> None:
    chosen = choose(measured=speeds(rates))
    assert chosen.path == best
    assert len(chosen.warnings) == 3 - len(rates)
    about = chosen.describe()
    assert about["name"] == best.name
    assert about["samples_per_second"] == rates[best.name]
    assert len(about["others"]) == 2
    assert json.loads(json.dumps(about)) == about


def test_pictures_take_the_path_of_the_fastest_evaluation(gpu) -> None:
    measured = speeds(
        {"triton": 3.0, "torch": 2.0, "cpu": 1.0}, {"triton": 1.0, "torch": 5.0, "cpu": 2.0}
    )
    assert choose(speed=by_inference, measured=measured).path == PlainTorch(GPU)


def test_a_gpu_that_is_asked_for_is_not_left_for_a_faster_cpu(gpu) -> None:
    measured = speeds({"triton": 2.0, "torch": 1.0, "cpu": 9.0})
    assert choose("cuda", measured=measured).path == FusedTriton(GPU)
    assert choose("auto", "torch", measured=measured).path == PlainTorch(GPU)
    assert choose("auto", "torch", measured=measured).why == "asked for, and right"


def test_a_missing_package_is_no_reason_to_warn(gpu, monkeypatch) -> None:
    monkeypatch.setattr(paths, "find_spec", lambda name: None)
    chosen = choose(measured=speeds({"torch": 2.0, "cpu": 1.0}))
    assert chosen.path == PlainTorch(GPU)
    assert not chosen.warnings


def test_where_no_path_is_right_the_cpu_is_used_with_a_warning(gpu) -> None:
    chosen = choose(measured=speeds({}))
    assert chosen.path == CpuKernels(CPU)
    assert "No path could be verified" in chosen.warnings[-1]


@pytest.mark.parametrize(
    ("device", "path", "message"),
    [
        ("tpu", "auto", "device is one of auto, cpu, cuda, mps, not tpu"),
        ("auto", "cuda", "path is one of auto, triton, torch, cpu, not cuda"),
        ("mps", "auto", "finds no GPU of Apple"),
        ("cuda", "cpu", "path cpu is not for device cuda"),
        ("cpu", "triton", "path triton needs a GPU"),
        ("cuda", "auto", "no path is right on this device .triton: it is broken; torch: it is"),
        ("auto", "triton", "path triton cannot be used on cuda: it is broken"),
    ],
)
def test_what_cannot_be_chosen_is_refused(gpu, device, path, message) -> None:
    with pytest.raises(ValueError, match=message):
        choose(device, path, measured=speeds({}))


def test_a_device_that_torch_does_not_find_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(choice, "gpu", lambda: None)
    with pytest.raises(ValueError, match="finds no CUDA device"):
        choose("cuda")


def test_a_mac_has_no_triton(monkeypatch) -> None:
    monkeypatch.setattr(choice, "gpu", lambda: torch.device("mps"))
    assert [path.name for path in choice.candidates("mps", "auto")] == ["torch"]
    with pytest.raises(ValueError, match="path triton is not for device mps"):
        choice.candidates("mps", "triton")


def test_mps_is_taken_only_if_it_is_named(monkeypatch) -> None:
    """Pictures are traced on the CPU then, in float64."""
    monkeypatch.setattr(choice, "gpu", lambda: torch.device("mps"))
    assert choose().path.name == "cpu"
    assert "only if it is named" in choose().why
    assert tracing_device("mps") == tracing_device("cpu") == torch.device("cpu")
    assert tracing_device("cuda") == torch.device("cuda")


# What the user sees


def test_the_table_shows_every_path_and_the_choice(gpu) -> None:
    measured = speeds({"triton": 3e8, "torch": 2e6})
    found = choice.candidates("auto", "auto")
    text = table(found, measured(found), choose(measured=measured))
    assert "| triton | fused Triton kernels and captured steps | 1.0e-06 | 300 | 300 |" in text
    assert "left out: it is broken" in text
    assert "Fits take the path triton on cuda: the fastest of 2 right paths." in text


def test_the_command_shows_the_paths_and_writes_them(tmp_path) -> None:
    words = ["bench", "device", "--path", "cpu", "--out", str(tmp_path / "paths.json")]
    result = subprocess.run(
        [sys.executable, "-m", "nstr3d", *words],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert "Fits take the path cpu on cpu: asked for." in result.stdout
    data = json.loads((tmp_path / "paths.json").read_text())
    assert data["path"]["name"] == "cpu"
    assert data["trials"][0]["fault"] is None


def test_a_path_is_no_part_of_what_decides_a_result() -> None:
    from nstr3d.batch.options import ShapeOptions

    digests = {
        ShapeOptions(Training(preset="fast", compute_path=path)).digest
        for path in ("auto", "torch", "cpu", "triton")
    }
    assert len(digests) == 1


def test_calibration_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    calibration.measure(standins.Wrong(CPU))
    assert torch.equal(torch.rand(4), expected)
