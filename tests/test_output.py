"""One output has one writer, and its files change at once: locks, races, killed and stopped runs,
and the advice that a refused run gives, followed in that state."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import sphere
from PIL import Image
from quick import QUICK, changed
from safetensors.torch import load_file

from nstr3d.cli import command as cli
from nstr3d.io import fileset, save_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.io.fileset import replace_set, settle, stage
from nstr3d.io.folder import Folder
from nstr3d.io.lock import RUNS, Policy, hold
from nstr3d.jobs import signal as signaljob
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.publishing import writing_alone, writing_file
from nstr3d.jobs.results import CHECKPOINT, COMPRESSED, MESH, MODEL, PICTURE, UNFINISHED
from nstr3d.jobs.signal import COMPARISON, SignalJob, run_signal
from nstr3d.jobs.stages import Interrupted, Listener, stop_on_signal
from nstr3d.jobs.walk import REPORT
from nstr3d.model.checkpoint import load
from nstr3d.system import process_space, process_start, stop_signals

ROOT = Path(__file__).resolve().parents[1]
RESULTS = {MODEL, MESH, PICTURE, REPORT}
IMAGES = {MODEL, signaljob.PICTURE, COMPARISON, REPORT}
# A program that runs the words after its second argument as a command, changed by the first.
PROGRAM = """
import os, signal, sys, time
from nstr3d.cli import main
from nstr3d.jobs import signal as job
from nstr3d.jobs.signal import SignalStages
exec(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


def mesh_job(folder: Path, **options: Any) -> MeshJob:
    path = folder / "in.ply"
    if not path.exists():
        save_mesh(path, sphere(2))
    chosen = {"steps": 30, "params": 6000, "resolution": 24, "picture": 16, "samples": 500}
    return changed(MeshJob(path), **(QUICK | chosen | {"out": folder / "out"} | options))


def picture_job(folder: Path, **options: Any) -> SignalJob:
    path = folder / "in.png"
    if not path.exists():
        values = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
        Image.fromarray(values).save(path)
    return changed(SignalJob(path, folder / "out", params=300), **options)


def contents(folder: Path) -> dict[str, bytes]:
    """The visible files directly in ``folder``."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def start(change: str, *words: object) -> "subprocess.Popen[str]":
    """A process of the command ``nstr3d`` with ``words``, changed by the statements ``change``."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, change, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def stopping_at(step: int) -> Listener:
    def follow(progress: Any) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return Listener(step=follow)


# ------------------------------------------------------------------------------
# the lock


def refuse(who: str) -> OSError:
    return FileExistsError(f"taken by {who}")


def test_of_runs_that_ask_at_the_same_time_exactly_one_gets_the_lock(tmp_path: Path) -> None:
    for turn in range(15):
        folder, barrier, done = Folder(tmp_path / str(turn)), threading.Barrier(6), []
        ended = threading.Event()

        def ask(
            folder: Folder = folder,
            barrier: threading.Barrier = barrier,
            done: list[str] = done,
            ended: threading.Event = ended,
        ) -> None:
            barrier.wait()
            try:
                with hold(folder, Policy(refuse)):
                    done.append("held")
                    ended.wait(10)
            except FileExistsError:
                done.append("refused")
            if done.count("refused") == 5:
                ended.set()

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == ["held"] + ["refused"] * 5
        assert not any((folder.path / RUNS).glob("*"))


def test_a_refused_run_is_told_the_owner_and_the_age_and_may_run_later(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    with writing_alone(job.folder, job.names) as lock:
        lock.write(began=time.time() - 3 * 3600 - 125)
        owner = f"process {os.getpid()} on .*, which began 3 h 2 min ago"
        with pytest.raises(
            FileExistsError, match=f"{owner}; wait for it to end, or choose"
        ) as told:
            run_signal(job)
        assert "another out" in str(told.value)
        run_signal(changed(job, out=tmp_path / "another"))  # the second advice
    assert not job.folder.exists() or list(job.folder.iterdir()) == []
    run_signal(job)  # the first advice
    assert set(contents(job.folder)) == IMAGES
    assert {path.name for path in job.folder.iterdir()} == IMAGES


def test_a_zombie_holds_no_lock(tmp_path: Path) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    try:
        born = process_start(zombie.pid)
        assert born not in ("", None)
        record = {"host": "here", "space": process_space(), "pid": zombie.pid, "born": born}
        folder = Folder(tmp_path)
        folder.write(f"{RUNS}/z.json", json.dumps(record | {"beat": 0, "holds": True}).encode())
        with pytest.raises(FileExistsError), hold(folder, Policy(refuse)):
            pass
        end = time.monotonic() + 30
        while process_start(zombie.pid) != "":  # nobody has waited for the process
            assert time.monotonic() < end
            time.sleep(0.05)
        with hold(folder, Policy(refuse)):
            assert len(folder.names(RUNS)) == 1
    finally:
        zombie.wait()


def test_a_container_of_the_same_name_is_judged_by_its_heartbeat(tmp_path: Path) -> None:
    """A process number of another container says nothing about the processes of this one."""
    record = {"host": os.uname().nodename, "space": "another", "pid": 1 << 30, "born": "1"}
    folder, waited = Folder(tmp_path), []
    folder.write(f"{RUNS}/c.json", json.dumps(record | {"beat": 0, "holds": True}).encode())
    began = time.monotonic()
    with hold(folder, Policy(refuse, wait=waited.append, silence=0.5)):
        assert time.monotonic() - began >= 0.5
    assert len(waited) == 1
    assert "waiting up to" in waited[0]


def test_a_lost_lock_publishes_nothing_but_keeps_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = picture_job(tmp_path)
    real = signaljob.SignalStages.measure

    def sleep(self: Any) -> None:  # as a machine that slept, so that another run took over
        for path in (job.folder / RUNS).iterdir():
            path.unlink()
        real(self)

    monkeypatch.setattr(signaljob.SignalStages, "measure", sleep)
    with pytest.raises(FileExistsError, match=r"taken over .* results of this run are in") as told:
        run_signal(job)
    apart = Path(str(told.value).rpartition(" in ")[2].rstrip("."))
    assert set(contents(apart)) == IMAGES
    assert contents(job.folder) == {}


def test_files_that_appear_during_a_run_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = picture_job(tmp_path)
    real = signaljob.SignalStages.measure

    def appear(self: Any) -> None:
        (job.folder / MODEL).write_text("mine")
        real(self)

    monkeypatch.setattr(signaljob.SignalStages, "measure", appear)
    with pytest.raises(FileExistsError, match=f"already holds {MODEL}.*results of this run are in"):
        run_signal(job)
    assert contents(job.folder) == {MODEL: b"mine"}
    (apart,) = (path for path in job.folder.iterdir() if path.is_dir())
    assert set(contents(apart)) == IMAGES


def test_a_forged_report_has_no_file_replaced_that_no_job_writes(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_signal(job)
    others = ("thesis.tex", "../a.png", "sub", "unfinished")
    (job.folder / "thesis.tex").write_text("mine")
    (job.folder / "sub").mkdir()
    report = json.loads((job.folder / REPORT).read_text())
    for files in ([*report["files"], *others], "thesis.tex", {"thesis.tex": 1}, [["thesis.tex"]]):
        (job.folder / REPORT).write_text(json.dumps(report | {"files": files}))
        run_signal(changed(job, overwrite=True))
    assert (job.folder / "thesis.tex").read_text() == "mine"
    assert (job.folder / "sub").is_dir()
    assert job.path.is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_processes_with_one_output_one_fails_and_says_so(
    tmp_path: Path, overwrite: bool
) -> None:
    job = picture_job(tmp_path)
    if overwrite:
        run_signal(job)
    words = ["fit", job.path, "--out", job.folder, "--params", 300]
    words += ["--overwrite"] if overwrite else []
    ready = [tmp_path / "ready-0", tmp_path / "ready-1"]
    # Both begin at the same moment, and each needs a second.
    change = """
real = job.SignalStages.prepare
job.SignalStages.prepare = lambda self: (time.sleep(1), real(self))[1]
open({own!r}, "w").close()
while not os.path.exists({other!r}): time.sleep(0.001)
"""
    runs = [
        start(change.format(own=str(ready[i]), other=str(ready[1 - i])), *words) for i in (0, 1)
    ]
    said = [process.communicate(timeout=300) for process in runs]
    codes = [process.returncode for process in runs]
    assert sorted(codes) == [0, 1], said
    error = said[codes.index(1)][1]
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert f"is being written by process {runs[codes.index(0)].pid}" in error
    assert {path.name for path in job.folder.iterdir()} == IMAGES


# ------------------------------------------------------------------------------
# the set changes at once

OLD = {"a": b"old a", "b": b"old b", "c": b"old c"}
NEW = {"a": b"new a", "b": b"new b", "d": b"new d"}
# Replaces OLD by NEW in a folder, and dies before the n-th change of the file system.
DYING = """
import importlib.util, os, sys
place, folder, number, links = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "links"
spec = importlib.util.spec_from_file_location("fileset", place)
fileset = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fileset)
from pathlib import Path
if not links:
    def refuse(*args, **options): raise OSError(1, "no links here")
    os.symlink = refuse
staged = fileset.stage(Path(folder))
for name in ("a", "b", "d"):
    (staged / name).write_bytes(b"new " + name.encode())
count = 0
changes = ("os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir")
def watch(event, args):
    global count
    if event in changes:
        count += 1
        if count == number:
            os._exit(9)
sys.addaudithook(watch)
fileset.replace_set(Path(folder), staged, ["a", "b", "c"])
"""


def old_set(folder: Path) -> None:
    folder.mkdir()
    for name, data in (OLD | {"mine.txt": b"mine"}).items():
        (folder / name).write_bytes(data)


def test_a_run_that_dies_at_any_moment_leaves_one_set_whole(tmp_path: Path) -> None:
    seen, number = [], 0
    mine = {"mine.txt": b"mine"}
    while True:
        number += 1
        folder = tmp_path / str(number)
        old_set(folder)
        words = [str(fileset.__file__), str(folder), str(number), "links"]
        died = subprocess.run([sys.executable, "-I", "-S", "-c", DYING, *words]).returncode
        assert died in (0, 9)
        shown = contents(folder)
        assert shown in (OLD | mine, NEW | mine), number
        settle(folder)  # as the next run does
        assert contents(folder) == shown
        assert not any(path.is_symlink() or path.is_dir() for path in folder.iterdir())
        seen.append(shown == NEW | mine)
        if died == 0:
            break
    assert number > 10
    assert seen == sorted(seen)  # old, then new
    assert seen[0] is False
    assert seen[-1] is True


def test_without_links_files_are_moved_and_the_next_run_ends_what_died(tmp_path: Path) -> None:
    mine, number = {"mine.txt": b"mine"}, 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        old_set(folder)
        words = [str(fileset.__file__), str(folder), str(number), "none"]
        died = subprocess.run([sys.executable, "-I", "-S", "-c", DYING, *words]).returncode
        settle(folder)
        assert contents(folder) in (OLD | mine, NEW | mine), number
        assert not any(path.is_dir() for path in folder.iterdir())
        if died == 0:
            break
    assert contents(folder) == NEW | mine


@pytest.mark.parametrize("shape", ["link", "link to a link", "moves", "a plan of another kind"])
def test_a_folder_from_anyone_moves_nothing_from_or_to_elsewhere(
    shape: str, tmp_path: Path
) -> None:
    folder, secret = tmp_path / "out", tmp_path / "private"
    work = folder / fileset.WORK
    work.mkdir(parents=True)
    secret.mkdir()
    (secret / "key").write_text("mine")
    (work / "set").mkdir()
    (work / "set" / "x").write_text("theirs")
    if shape.startswith("link"):
        (folder / "key").symlink_to(f"{fileset.WORK}/{fileset.CURRENT}/key")
        target = "../../private" if shape == "link" else "way"
        (work / "way").symlink_to("../../private")
        (work / fileset.CURRENT).symlink_to(target)
    else:
        plans = {"staged": "set", "new": ["../../../private/key"], "gone": ["../private/key"]}
        plan = json.dumps(plans if shape == "moves" else [1])
        (work / fileset.MOVING).write_text(plan)
    settle(folder)
    assert (secret / "key").read_text() == "mine"
    assert not list(folder.iterdir())


def test_links_in_the_place_of_hidden_folders_lead_nowhere(tmp_path: Path) -> None:
    out, private = tmp_path / "out", tmp_path / "private"
    out.mkdir()
    (private / "set").mkdir(parents=True)
    for name in (".key", "set/key"):
        (private / name).write_text("mine")
    (out / fileset.WORK).symlink_to(private)
    settle(out)
    assert not list(out.iterdir())
    (out / RUNS).symlink_to(private)
    with (
        pytest.raises(FileExistsError, match=r"\.runs is a link; remove it"),
        writing_alone(out, ()),
    ):
        pass
    assert {path.name for path in private.rglob("*")} == {".key", "set", "key"}


def test_a_refused_step_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    old_set(folder)
    before = contents(folder)
    staged = stage(folder)
    (staged / "a").write_bytes(b"new a")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fileset, "_point", full)
        patch.setattr(fileset, "_move", full)
        with pytest.raises(OSError, match="No space"):
            replace_set(folder, staged, OLD)
    assert contents(folder) == before
    settle(folder)
    assert {path.name for path in folder.iterdir()} == set(before)


def test_a_link_of_the_user_is_shown_until_the_set_changes(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"old a")
    folder.mkdir()
    (folder / "a").symlink_to(os.path.join("..", "elsewhere"))
    fileset.stage(folder)
    fileset._link(folder, ["a"])
    assert contents(folder) == {"a": b"old a"}
    settle(folder)
    assert contents(folder) == {"a": b"old a"}
    assert elsewhere.read_bytes() == b"old a"


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ("job.SignalStages.measure = lambda self: os.kill(os.getpid(), signal.SIGKILL)", False),
        ("job.save_picture = lambda *args: os.kill(os.getpid(), signal.SIGKILL)", False),
        (
            "from nstr3d.io import fileset\nfileset.settle = lambda *args, **options: "
            "os.path.islink(sys.argv[4]) and os.kill(os.getpid(), signal.SIGKILL)",
            True,
        ),
    ],
)
def test_a_killed_job_leaves_a_whole_set_and_the_next_run_cleans_up(
    tmp_path: Path, change: str, new: bool
) -> None:
    job = picture_job(tmp_path)
    run_signal(job)
    before = contents(job.folder)
    (job.folder / "mine.txt").write_text("mine")
    change = change.replace("sys.argv[4]", repr(str(job.folder / MODEL)))
    killed = start(change, "fit", job.path, "--out", job.folder, "--params", 100, "--overwrite")
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    after = contents(job.folder)
    assert after.pop("mine.txt") == b"mine"
    assert set(after) == IMAGES
    assert (after != before) == new
    config = json.loads(after[REPORT])["field"]
    assert config["bytes"] == len(after[MODEL])  # the report is about this model
    assert {path.name for path in job.folder.iterdir()} > IMAGES | {"mine.txt"}  # the leftovers
    report = run_signal(changed(job, overwrite=True)).report
    assert {path.name for path in job.folder.iterdir()} == IMAGES | {"mine.txt"}
    assert contents(job.folder)[MODEL] == before[MODEL]
    assert report["files"] == [*job.names]


def test_a_temporary_file_of_a_dead_process_goes_and_that_of_a_live_one_stays(
    tmp_path: Path,
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with atomic_path(tmp_path / "a.bin") as alive:
        names = [alive.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"), ".a.notes.bin", ".a.bin"]
        for name in names:
            (tmp_path / name).write_text("x")
        with atomic_path(tmp_path / "a.bin") as second:
            second.write_text("second")
        assert {path.name for path in tmp_path.iterdir()} == {alive.name, "a.bin", *names[1:]}
        alive.write_text("first")
    assert (tmp_path / "a.bin").read_text() == "first"


def test_the_old_set_goes_whole_also_what_the_new_one_lacks(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    report = run_signal(job).report
    report["files"] += [COMPRESSED, "../in.png"]  # as of a run with other options, and a lie
    (job.folder / REPORT).write_text(json.dumps(report))
    (job.folder / COMPRESSED).write_text("old")
    (job.folder / "mine.png").write_text("mine")
    run_signal(changed(job, overwrite=True))
    assert set(contents(job.folder)) == IMAGES | {"mine.png"}
    assert job.path.exists()


# ------------------------------------------------------------------------------
# stopped runs, and advice that is followed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> MeshJob:
    """A finished job; tests must not change its files."""
    job = mesh_job(tmp_path_factory.mktemp("finished"), seed=1)
    run(job)
    return job


def copy_of(job: MeshJob, folder: Path, **options: Any) -> MeshJob:
    """The same job with a copy of its results in ``folder``."""
    out = folder / "out"
    out.mkdir(parents=True)
    for name, data in contents(job.folder).items():
        (out / name).write_bytes(data)
    return changed(job, out=out, **options)


def test_an_overwrite_that_is_stopped_keeps_the_old_set_and_goes_on_as_told(
    tmp_path: Path, finished: MeshJob
) -> None:
    job = copy_of(finished, tmp_path, seed=2)
    before = contents(job.folder)
    with pytest.raises(FileExistsError, match=f"already holds {MODEL}, .*; pass overwrite or"):
        run(job)
    overwriting = changed(job, overwrite=True)
    with pytest.raises(Interrupted, match=f"{UNFINISHED}/{MODEL}; go on with resume") as told:
        run(overwriting, stopping_at(11))
    assert contents(job.folder) == before
    apart = job.folder / UNFINISHED
    assert set(contents(apart)) == {MODEL, CHECKPOINT}
    assert load(apart / MODEL).interrupted
    assert str(apart / MODEL) in str(told.value)
    with pytest.raises(FileExistsError, match="pass resume to go on from the checkpoint, overwr"):
        run(job)
    with pytest.raises(Interrupted, match=r"Stopped; the checkpoint is .*; go on with resume"):
        run(changed(job, resume=True), Listener(stage=stop_at("extract")))
    assert contents(job.folder) == before
    resumed = changed(job, resume=True)  # without overwrite: the stopped run had it
    assert run(resumed).report["field"]["steps"] == 30
    assert {path.name for path in job.folder.iterdir()} == RESULTS
    other = mesh_job(tmp_path, out=tmp_path / "whole", seed=2)
    run(other)
    expected, tensors = load_file(other.folder / MODEL), load_file(job.folder / MODEL)
    assert expected.keys() == tensors.keys()
    assert all(torch.equal(expected[name], tensors[name]) for name in expected)
    assert contents(job.folder)[MESH] == contents(other.folder)[MESH] != before[MESH]


def stop_at(name: str) -> Callable[[str], None]:
    def stop(stage: str) -> None:
        if stage == name:
            raise KeyboardInterrupt

    return stop


def test_an_overwrite_keeps_the_checkpoint_of_a_stopped_run_until_it_has_ended(
    tmp_path: Path,
) -> None:
    first, second = mesh_job(tmp_path), mesh_job(tmp_path, seed=5, overwrite=True)
    with pytest.raises(Interrupted):
        run(first, stopping_at(7))
    before = contents(first.folder)
    assert set(before) == {MODEL, CHECKPOINT}
    with pytest.raises(Interrupted, match="nothing was written"):  # no advice: nothing was saved
        run(second, Listener(stage=stop_at("load")))
    with pytest.raises(Interrupted):
        run(second, stopping_at(9))
    assert contents(first.folder) == before
    # Either goes on, with its own options.
    with pytest.raises(Interrupted, match=f"after 8 steps.*out/{MODEL}"):
        run(changed(first, resume=True), stopping_at(8))
    with pytest.raises(Interrupted, match=f"after 12 steps.*{UNFINISHED}/{MODEL}"):
        run(changed(second, resume=True), stopping_at(12))
    with pytest.raises(ValueError, match="belongs to another run: seed differ; use the same opt"):
        run(changed(first, seed=9, resume=True))
    run(changed(first, seed=9, overwrite=True))  # the advice: fit anew with overwrite
    assert set(contents(first.folder)) == RESULTS


def test_a_model_in_the_place_of_the_checkpoint_is_refused_with_advice_that_works(
    tmp_path: Path, finished: MeshJob
) -> None:
    job = copy_of(finished, tmp_path)
    (job.folder / CHECKPOINT).write_bytes((job.folder / MODEL).read_bytes())
    with pytest.raises(ValueError, match="nothing to resume; fit anew with overwrite instead of"):
        run(changed(job, resume=True, overwrite=True))
    run(changed(job, overwrite=True))
    assert {path.name for path in job.folder.iterdir()} == RESULTS


def test_resume_without_a_checkpoint_advises_to_leave_it_out(tmp_path: Path) -> None:
    job = mesh_job(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing to resume; run without resume"):
        run(changed(job, resume=True))
    run(job)
    assert {path.name for path in job.folder.iterdir()} == RESULTS


def test_an_overwrite_without_a_picture_leaves_no_picture_of_the_old_model(
    tmp_path: Path, finished: MeshJob
) -> None:
    job = copy_of(finished, tmp_path, overwrite=True, picture=0)
    report = run(job).report
    assert {path.name for path in job.folder.iterdir()} == RESULTS - {PICTURE}
    assert PICTURE not in report["files"]


def test_while_a_run_has_only_saved_its_checkpoint_another_is_told_to_wait(tmp_path: Path) -> None:
    """Not to resume from the checkpoint, which it may not do then."""
    job, told = mesh_job(tmp_path, checkpoint_seconds=0.0), []

    def try_too(progress: Any) -> None:
        if progress.step == 3:
            with pytest.raises(FileExistsError) as error:
                run(changed(job, seed=4))
            told.append(str(error.value))
            assert (job.folder / CHECKPOINT).exists()

    run(job, Listener(step=try_too))
    assert len(told) == 1
    assert "is being written by process" in told[0]
    assert {path.name for path in job.folder.iterdir()} == RESULTS


@pytest.mark.parametrize("blocked", ["file", "folder"])
def test_an_output_that_cannot_be_written_to_advises_another(tmp_path: Path, blocked: str) -> None:
    job = picture_job(tmp_path)
    if blocked == "file":
        job.folder.write_text("mine")
    else:
        (job.folder / MODEL).mkdir(parents=True)
    with pytest.raises(OSError, match="choose another out"):
        run_signal(job)
    run_signal(changed(job, out=tmp_path / "another"))


# ------------------------------------------------------------------------------
# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_stop_is_taken_like_ctrl_c(number: signal.Signals) -> None:
    outside = signal.signal(number, signal.SIG_DFL)  # nohup ignores SIGHUP
    try:
        assert cli.guarded(lambda: os.kill(os.getpid(), number)) == 130
        assert signal.getsignal(number) is signal.SIG_DFL
        with stop_on_signal() as stopped:
            os.kill(os.getpid(), number)
            assert stopped.wait(5)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, outside)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in stop_signals()
        assert cli.guarded(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
        with stop_on_signal() as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stopped.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


# ------------------------------------------------------------------------------
# single files of render and export


def test_a_file_has_one_writer_and_leftovers_of_killed_runs_go(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with atomic_path(path) as temporary:
        left = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
        temporary.write_text("x")
    left.write_text("half")
    (tmp_path / ".a.png.writing" / RUNS).mkdir(parents=True)  # of a run that was killed
    with writing_file(path):
        assert not left.exists()
        with (
            pytest.raises(
                FileExistsError, match=rf"a\.png is being written by process {os.getpid()}"
            ),
            writing_file(path),
        ):
            pass
        with writing_file(tmp_path / "b.png"):  # another file is free
            pass
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_render_and_export_write_one_at_a_time(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["render", "m.ply", "--out", "a.png"], ["export", "m", "--to", "ply"]):
        out = Path("a.png" if words[0] == "render" else "m.ply")
        with writing_file(out):
            assert cli.main(words) == 1
        assert f"error: {out} is being written by process" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_change_of_sets_makes_no_link_to_a_file_of_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked, point = [], fileset._point

    def noted(place: Path, *more: Any) -> None:
        linked.append(place.name)
        point(place, *more)

    monkeypatch.setattr(fileset, "_point", noted)
    (tmp_path / "gone").write_text("old")
    staged = fileset.stage(tmp_path)
    (staged / "new").write_text("new")
    fileset.replace_set(tmp_path, staged, ["gone", "new", "never"])
    assert {"gone", "new"} < set(linked)
    assert "never" not in linked
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
