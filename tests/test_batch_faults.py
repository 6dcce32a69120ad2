"""Data sets under every kind of failure: the final catalogue equals that of an undisturbed run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import constant_part, good_shape, workers_of, write_shapes
from programs import needs_parts
from quick import changed

from nstr3d import load
from nstr3d.batch import options, worker
from nstr3d.batch.catalogue import CATALOGUE, select
from nstr3d.batch.job import BatchJob
from nstr3d.batch.options import ShapeOptions, key_of
from nstr3d.batch.run import Standing, run_batch
from nstr3d.batch.slot import Cancelled, Slot
from nstr3d.io import save_mesh
from nstr3d.jobs.stages import Interrupted

APP = Path(__file__).resolve().parents[1] / "apps" / "fit_dataset.py"
QUICK = {
    "cells": 4,
    "steps": 40,
    "pool": 8192,
    "samples": 1000,
    "resolution": 16,
    "picture": 0,
    "device": "cpu",
}
ENDLESS = changed(ShapeOptions(), **QUICK | {"steps": 10**7})
GOOD, BAD = 22, 8
HEAD = {
    "num_cpus": 1,
    "include_dashboard": False,
    "_system_config": {"worker_niceness": 0},  # Ray's default of 15 would make the workers wait
}


def job_for(shapes: Path, out: Path, **changes) -> BatchJob:
    return BatchJob(
        str(shapes),
        str(out),
        **({"options": changed(ShapeOptions(), **QUICK), "workers": 2} | changes),
    )


def start(shapes: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """Starts the app in a process of its own, as a user does."""
    words = [word for name, value in QUICK.items() for word in (f"--{name}", str(value))]
    command = [
        sys.executable,
        str(APP),
        str(shapes),
        "--out",
        str(out),
        "--workers",
        "2",
        *words,
        *more,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def reports(out: Path) -> int:
    return sum("report.json" in files for _, _, files in os.walk(out))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, GOOD, BAD)
    return folder


@pytest.fixture(scope="module")
def undisturbed(shapes, tmp_path_factory):
    out = tmp_path_factory.mktemp("data set") / "undisturbed"
    standing = run_batch(job_for(shapes, out))
    assert (standing.total, standing.fitted, standing.failed) == (GOOD + BAD, GOOD, BAD)
    return out


def test_bad_shapes_have_a_row_that_says_why(undisturbed):
    rows = {
        row["id"]: row
        for row in select(undisturbed / CATALOGUE, ("id", "status", "error", "attempts"))
    }
    assert len(rows) == GOOD + BAD
    assert {name for name, row in rows.items() if row["status"] != "done"} == {
        name for name in rows if name.startswith("bad/")
    }
    parts = ("not finite", "no volume", "holds", "PLY", "is empty", "vertex 7", "promises")
    for number, part in enumerate(parts):
        assert part in rows[f"bad/b{number:02d}.ply"]["error"]
        assert rows[f"bad/b{number:02d}.ply"]["attempts"] == 1
    assert "no regular file" in rows["bad/pipe.obj"]["error"]
    assert (undisturbed / "bad/b00.ply/log.txt").exists()
    assert not (undisturbed / "bad/b00.ply/model.safetensors").exists()


def test_every_fault_in_one_run_leaves_the_same_catalogue(shapes, undisturbed, tmp_path):
    out = tmp_path / "out"
    first = start(shapes, out)  # two of its workers are killed, then it gets SIGTERM
    for number, fault in enumerate((signal.SIGKILL, signal.SIGSEGV), 1):
        wait_for(
            lambda number=number: reports(out) >= 3 * number and len(workers_of(first.pid)) == 2,
            first,
        )
        if number == 1:
            second = start(shapes, out)  # refused, because the first still works on the same output
        os.kill(workers_of(first.pid)[0], fault)
    said = second.communicate()
    assert second.returncode == 1
    assert f"process {first.pid}" in said[1]
    assert said[1].count("\n") == 1
    wait_for(lambda: reports(out) >= 9, first)
    os.kill(first.pid, signal.SIGTERM)
    said = first.communicate()
    assert first.returncode == 130, said
    assert "run the same command again to fit them" in said[1]
    assert 9 <= reports(out) < GOOD + BAD
    # the shapes in progress were finished
    assert len(select(out / CATALOGUE, ("id",))) == reports(out)
    assert not workers_of(first.pid)

    third = start(shapes, out)  # gets SIGKILL
    before = reports(out)
    wait_for(lambda: reports(out) >= before + 3, third)
    orphans = workers_of(third.pid)
    third.kill()
    third.communicate()
    last = start(shapes, out, "--shard", "1/1")
    said = last.communicate()
    assert last.returncode == 1, said  # some shapes are bad
    assert said[1].startswith("error: ")
    # the killed run's workers have ended
    wait_for(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in orphans))
    assert constant_part(out) == constant_part(undisturbed)
    ours, theirs = (
        load(folder / "s000.ply" / "model.safetensors") for folder in (out, undisturbed)
    )
    for name, tensor in ours.field.state_dict().items():
        assert torch.equal(tensor, theirs.field.state_dict()[name])


def test_finished_shapes_are_skipped_by_content(shapes, undisturbed, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        save_mesh(folder / f"{number}.ply", good_shape(number))
    job = job_for(folder, tmp_path / "out", workers=1)
    assert run_batch(job).fitted == 2
    stamp = (tmp_path / "out/0.ply/model.safetensors").stat().st_mtime_ns
    assert run_batch(job) == Standing(total=2, skipped=2)
    os.utime(folder / "0.ply")  # changes the time stamp but not the content
    assert run_batch(job).ended == 1
    assert (tmp_path / "out/0.ply/model.safetensors").stat().st_mtime_ns == stamp
    assert run_batch(job).skipped == 2
    save_mesh(folder / "0.ply", good_shape(5))
    (folder / "1.ply").write_text("junk")
    standing = run_batch(job)
    assert (standing.fitted, standing.failed) == (1, 1)
    assert (tmp_path / "out/0.ply/model.safetensors").stat().st_mtime_ns != stamp
    assert not (tmp_path / "out/1.ply/model.safetensors").exists()
    (tmp_path / "out" / CATALOGUE).unlink()  # it can be rebuilt from the reports
    assert run_batch(job).skipped == 2
    assert run_batch(replace(job, options=changed(job.options, seed=1))).ended == 2
    assert run_batch(replace(job, where="status <> 'done'")).failed == 1


def test_fits_of_other_code_are_made_anew(one, tmp_path, monkeypatch):
    job = job_for(one, tmp_path / "out", workers=1)
    assert run_batch(job).fitted == 1
    place = next((tmp_path / "out").rglob("report.json"))
    report = json.loads(place.read_text())
    now = dict(report["batch"])
    shape = next(one.iterdir())
    content = hashlib.sha256(shape.read_bytes()).hexdigest()
    assert now["key"] == key_of(content, shape.suffix, job.options)
    with monkeypatch.context() as then:
        then.setattr(options, "FORMAT", options.FORMAT - 1)
        former = changed(ShapeOptions(), **QUICK)
        report["batch"] |= {"config": former.digest, "key": key_of(content, shape.suffix, former)}
    place.write_text(json.dumps(report))
    model = place.parent / "model.safetensors"
    model.write_bytes(b"of the code that was")
    assert run_batch(job).fitted == 1
    again = json.loads(place.read_text())["batch"]
    assert (again["config"], again["key"]) == (now["config"], now["key"])
    assert load(model).steps == QUICK["steps"]
    assert run_batch(job).skipped == 1


def test_shards_share_an_output(shapes, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text(
        "\n".join(
            str(shapes / name) for name in ("s000.ply", "bad/b00.ply", "bad/b01.ply", "bad/b04.ply")
        )
    )
    for shard in ((1, 2), (2, 2)):
        run_batch(job_for(few, tmp_path / "out", shard=shard, workers=1))
    assert run_batch(job_for(few, tmp_path / "out")).skipped == 4
    assert len(select(tmp_path / "out" / CATALOGUE, ("id",))) == 4


@contextlib.contextmanager
def at_stage_fit(tmp_path: Path, monkeypatch, action: Callable[[int], None]) -> Iterator[None]:
    """Calls ``action`` with the process id of each worker of this process once it has begun to
    train."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    stop, seen = threading.Event(), set()

    def watch():
        while not stop.wait(0.02):
            logs = {path for path in scratch.glob("nstr3d-*/log.txt") if path not in seen}
            for path in logs:
                with contextlib.suppress(OSError):
                    if "fit" in path.read_text():
                        seen.add(path)
                        for pid in workers_of(os.getpid()):
                            action(pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@pytest.fixture
def one(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    save_mesh(folder / "a.ply", good_shape(0))
    return folder


@pytest.mark.parametrize(
    ("fault", "status", "attempts", "part"),
    [
        (signal.SIGSTOP, "timeout", 1, "longer than 8 s, in the stage fit"),  # the worker hangs
        (signal.SIGSEGV, "crashed", 2, "SIGSEGV, in the stage fit"),
        (signal.SIGKILL, "killed", 2, "memory runs out, in the stage fit"),
    ],
)
def test_a_shape_that_always_fails_costs_a_row_and_can_be_tried_again(
    one, tmp_path, monkeypatch, fault, status, attempts, part
):
    out = tmp_path / "out"
    with at_stage_fit(tmp_path, monkeypatch, lambda pid: os.kill(pid, fault)):
        timeout = 8.0 if fault == signal.SIGSTOP else 600.0
        standing = run_batch(job_for(one, out, options=ENDLESS, timeout=timeout, workers=1))
    assert standing.failed == 1
    row = select(out / CATALOGUE, ("status", "attempts", "error"))[0]
    assert (row["status"], row["attempts"]) == (status, attempts)
    assert part in row["error"]
    assert not workers_of(os.getpid())
    if fault == signal.SIGSEGV:
        assert "Segmentation fault" in (out / "a.ply/log.txt").read_text()
        assert run_batch(job_for(one, out, where=f"status = '{status}'", workers=1)).fitted == 1
        assert select(out / CATALOGUE, ("status",)) == [{"status": "done"}]


def test_memory_beyond_the_limit_costs_a_row(one, tmp_path):
    greedy = changed(ShapeOptions(), **QUICK | {"pool": 18_000_000})
    assert (
        run_batch(job_for(one, tmp_path / "out", options=greedy, memory=1.5, workers=1)).failed == 1
    )
    row = select(tmp_path / "out" / CATALOGUE, ("status", "error"))[0]
    assert row["status"] == "failed"
    assert row["error"].startswith("out of memory")


def test_what_does_not_end_within_the_grace_is_left_without_a_row(one, tmp_path, monkeypatch):
    with (
        at_stage_fit(tmp_path, monkeypatch, lambda pid: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(Interrupted, match="1 of 1 shapes are left"),
    ):
        run_batch(job_for(one, tmp_path / "out", options=ENDLESS, grace=0.5, workers=1))
    assert select(tmp_path / "out" / CATALOGUE, ("id",)) == []
    assert not workers_of(os.getpid())


def test_a_worker_that_cannot_start_ends_the_run_with_its_reason(one, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="No worker process starts"):
        run_batch(job_for(one, tmp_path / "out", workers=1))


def test_an_output_that_fills_up_ends_the_run_with_its_reason(one, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nstr3d.batch.store.replace_set", full)
    with pytest.raises(OSError, match=r"could not be written to \(No space left on device\)"):
        run_batch(job_for(one, tmp_path / "out", workers=1))


def request_in(scratch: Path) -> dict[str, Any]:
    """A request for a shape that does not exist."""
    return {
        "place": "/none.ply",
        "scratch": str(scratch),
        "known_key": "",
        "options": asdict(changed(ShapeOptions(), **QUICK)),
        "memory": None,
    }


def test_a_worker_answers_in_order_and_ends_when_asked():
    slot = Slot(1)
    with tempfile.TemporaryDirectory() as scratch:
        answers = [slot.ask(request_in(Path(scratch)), 60) for _ in range(3)]
    assert {answer["error"] for answer in answers} == {"/none.ply does not exist"}
    assert slot.end() == 0
    assert slot.end() == 0


def test_a_shape_whose_log_cannot_be_opened_fails_at_once(tmp_path):
    slot = Slot(1)
    try:
        for scratch in (tmp_path / "none", tmp_path):
            answer = slot.ask(request_in(scratch), 60)
            assert answer["status"] == "failed"
            reason = f"{scratch}/log.txt" if scratch.name == "none" else "/none.ply does not exist"
            assert reason in answer["error"]
    finally:
        assert slot.end() == 0


def test_a_request_that_makes_no_sense_fails_at_once(tmp_path):
    slot = Slot(1)
    try:
        answer = slot.ask(request_in(tmp_path) | {"options": {"sparkle": 3}}, 60)
        assert answer["status"] == "failed"
        assert answer["error"] == "KeyError: 'training'"
    finally:
        assert slot.end() == 0


@pytest.mark.parametrize(
    ("figure", "status", "reason"),
    [
        (np.float32(0.5), "done", None),
        (np.int64(3), "done", None),
        (float("nan"), "failed", "data.report.figure is nan, which JSON cannot hold"),
        (object(), "failed", "data.report.figure is a object, which JSON cannot hold"),
    ],
)
def test_a_report_is_plain_json_or_its_shape_fails(tmp_path, monkeypatch, figure, status, reason):
    answer = {
        "status": "done",
        "error": None,
        "key": "",
        "beside": "",
        "report": {"figure": figure},
    }
    monkeypatch.setattr(worker, "fit_shape", lambda request: answer)
    monkeypatch.setattr(worker.os, "dup2", lambda log, stream: None)
    said = json.loads(worker._answer(request_in(tmp_path)))
    assert said["status"] == status
    assert reason is None or said["error"].startswith(reason)
    assert status == "failed" or said["report"]["figure"] == figure


class _Ended(BaseException):
    pass


def test_a_worker_that_cannot_answer_ends_its_process(tmp_path, monkeypatch):
    """Else the parent would wait for its answer until the timeout."""

    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    def leave(code: int) -> None:
        raise _Ended(code)

    monkeypatch.setattr(worker, "_answer", lambda request: "{}")
    monkeypatch.setattr(worker.os, "_exit", leave)
    requests: queue.SimpleQueue = queue.SimpleQueue()
    requests.put({})
    with pytest.raises(_Ended, match="1"):
        worker._work(requests, Closed(), 1.0)


def test_a_slot_that_is_cancelled_before_its_worker_starts_fits_nothing():
    slot = Slot(1)
    slot.cancel()
    with pytest.raises(Cancelled):
        slot.ask({}, 60)
    assert slot.end() == 0  # no process is left behind


def test_the_run_as_a_whole_fails_where_no_shape_can_be_fitted(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.obj").write_text("junk")
    process = start(folder, tmp_path / "out")
    said = process.communicate()
    assert process.returncode == 1
    assert "Not one of 1 shapes could be fitted; bad.obj:" in said[1]


@needs_parts("batch")
def test_a_ray_cluster_that_loses_a_machine_leaves_the_same_catalogue(
    shapes, undisturbed, tmp_path
):
    """One of two nodes is killed while it works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns about its own dependencies
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        node = cluster.add_node(num_cpus=1)
        removals: list[int] = []

        def disturb(standing: Standing) -> None:
            if standing.ended >= 3 and not removals:
                removals.append(standing.ended)
                cluster.remove_node(node, allow_graceful=False)

        names = sorted(row["id"] for row in constant_part(undisturbed))[::3]
        few = shapes / "few.lst"
        few.write_text("\n".join(names))
        try:
            standing = run_batch(job_for(few, tmp_path / "out", address=cluster.address), disturb)
        finally:
            ray.shutdown()
            cluster.shutdown()
    assert removals
    assert standing.ended == standing.total == len(names)
    assert constant_part(tmp_path / "out") == [
        row for row in constant_part(undisturbed) if row["id"] in set(names)
    ]
    report = json.loads((tmp_path / "out" / names[-1] / "report.json").read_text())
    assert report["batch"]["status"] == "done"


@needs_parts("batch")
def test_a_ray_cluster_that_is_not_there_is_one_sentence(one, tmp_path):
    with pytest.raises(OSError, match="No Ray cluster answers at"):
        run_batch(job_for(one, tmp_path / "out", address="auto"))
