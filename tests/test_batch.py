"""Data sets, without worker processes: the selection of shapes, their ids, stores, the catalogue,
locks, packing and the overview."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from hostile.memory import SMALL, fit_of
from oracles import sphere
from quick import changed

from nstr3d.batch import shapes as shapes_module
from nstr3d.batch import worker
from nstr3d.batch.attempt import Task, publish
from nstr3d.batch.catalogue import CATALOGUE, COLUMNS, Catalogue, Known, row_of, select
from nstr3d.batch.engines import RayEngine, local_slots, packed
from nstr3d.batch.job import BatchJob, Rules
from nstr3d.batch.lock import meet, working_on
from nstr3d.batch.options import ShapeOptions, key_of
from nstr3d.batch.overview import OVERVIEW, save_overview
from nstr3d.batch.run import Standing, _lost
from nstr3d.batch.shapes import ShapeFile, describe_unread, find_shapes, in_shard, printable
from nstr3d.batch.store import Bucket, Folder, open_store
from nstr3d.batch.worker import fit_shape
from nstr3d.cli.batch import summary
from nstr3d.io import save_mesh
from nstr3d.io.lock import RUNS
from nstr3d.io.ply import encode_ply, table_of
from nstr3d.jobs.colouroptions import Colours
from nstr3d.jobs.options import Parts
from nstr3d.model.checkpoint import save
from nstr3d.system import process_space
from nstr3d.training import presets
from nstr3d.types import Mesh

QUICK = {
    "cells": 4,
    "steps": 120,
    "pool": 8192,
    "samples": 1000,
    "resolution": 16,
    "picture": 0,
    "device": "cpu",
}


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
    """An empty data set, of either kind."""
    if request.param == "folder":
        yield open_store(str(tmp_path / "out"))
        return
    yield open_store("memory://data/set")
    fsspec.filesystem("memory").store.clear()


def report_of(name: str, status: str = "done", near: float = 1e-4, **batch) -> dict:
    """A small report like those that a run writes."""
    accuracy = {"distance_error_near": near, "chamfer": 1e-3} if status == "done" else {}
    error = None if status == "done" else f"{name} is <broken>"
    return {
        "batch": {"status": status, "error": error, "key": "k", "config": "c", "stamp": "s"}
        | batch,
        "accuracy": accuracy,
    }


def write_report(store, name: str, **values) -> None:
    store.write(f"{name}/report.json", json.dumps(report_of(name, **values)).encode())


# ------------------------------------------------------------------------------
# shapes


def test_a_fitted_shape_without_its_whole_model_is_lost(store, tmp_path):
    model = tmp_path / "whole.safetensors"
    save(model, fit_of(SMALL))
    cut = model.read_bytes()[:-1]
    for name, content in (("whole", model.read_bytes()), ("cut", cut)):
        store.write(f"{name}/model.safetensors", content)
    store.write("gone/report.json", b"{}")
    rows = {name: Known("done", "", "", "") for name in ("whole", "cut", "gone")}
    rows["failed"] = Known("failed", "", "", "")
    shapes = [ShapeFile(name, f"/{name}.ply", "") for name in (*rows, "new")]
    lost = {"gone", "cut"} if isinstance(store, Folder) else {"gone"}
    assert _lost(store, shapes, rows) == lost


def test_ids_are_paths_whatever_they_hold(tmp_path):
    names = [
        "a b/ünï çode 形.obj",
        "chair.obj",
        "chair.ply",
        "x/chair.obj",
        "CHAIR.OBJ",
        "cloud.xyz",
        "quote'\"&<.stl",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    for name in ("notes.txt", "labels.csv", ".hidden.obj", "image.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/a.obj").write_text("x")
    assert [shape.id for shape in find_shapes(str(tmp_path))] == sorted(names)
    assert [shape.id for shape in find_shapes(f"file://{tmp_path}")] == sorted(names)


def test_shapes_in_formats_that_are_not_read_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes_module, "mesh_suffixes", lambda: frozenset({".3mf", ".obj"}))
    files = ["a.obj", "part.3mf", "d/robot.DAE", "d/x.step", "y.STEP", "scan.ply.gz", "box.binvox"]
    files += ["notes.txt", "a.mtl", "a.png", "backup.gz", ".hidden.step"]
    (tmp_path / "d").mkdir()
    for name in files:
        (tmp_path / name).write_text("x")
    unread: list[str] = []
    shapes = find_shapes(str(tmp_path), unread=unread)
    assert [shape.id for shape in shapes] == ["a.obj", "part.3mf"]
    assert sorted(unread) == ["box.binvox", "d/robot.DAE", "d/x.step", "scan.ply.gz", "y.STEP"]
    text = describe_unread(unread)
    assert text.startswith("5 file(s) of shapes are in formats that are not read")
    for part in ("2 .step", "1 .dae", "1 .ply.gz", "1 .binvox"):
        assert part in text
    assert text in summary(Standing(total=2, unread=unread), "out")
    for shape in shapes:
        (tmp_path / shape.id).unlink()
    with pytest.raises(ValueError, match=r"holds no shapes.*1 \.dae"):
        find_shapes(str(tmp_path))


def test_shapes_behind_a_url_that_are_not_read_are_named():
    store = open_store("memory://data/set")
    store.write("in/a.obj", b"1")
    store.write("in/sub/c.fbx", b"22")
    unread: list[str] = []
    assert [shape.id for shape in find_shapes("memory://data/set/in", unread=unread)] == ["a.obj"]
    assert unread == ["sub/c.fbx"]
    fsspec.filesystem("memory").store.clear()


def test_loops_and_dangling_links_and_the_output_inside(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/a.obj").write_text("x")
    (tmp_path / "deep/loop").symlink_to("..")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "again").symlink_to("deep")
    (tmp_path / "nowhere.obj").symlink_to("nothing")
    (tmp_path / "out/b.obj").mkdir(parents=True)
    (tmp_path / "out/b.obj/mesh.ply").write_text("x")
    for apart in (f"{tmp_path}/out", f"file://{tmp_path}/out", f"{tmp_path}/again/../out/"):
        shapes = find_shapes(str(tmp_path), apart_from=apart)
        assert [shape.id for shape in shapes] == ["deep/a.obj", "nowhere.obj"]
        assert shapes[1].stamp == ""


def test_the_output_inside_a_source_behind_a_url():
    store = open_store("memory://apart/in")
    for name in ("a.obj", "out/a.obj/mesh.ply", "outer/b.obj"):
        store.write(name, b"x")
    everything = ["a.obj", "out/a.obj/mesh.ply", "outer/b.obj"]
    for apart, ids in (
        ("memory://apart/in/out", ["a.obj", "outer/b.obj"]),
        ("memory://apart/in/out/", ["a.obj", "outer/b.obj"]),
        ("memory://elsewhere", everything),
        ("/apart/in/out", everything),  # a local folder
        ("", everything),
    ):
        assert [shape.id for shape in find_shapes("memory://apart/in", apart)] == ids


def test_names_that_are_no_text_are_spelt_out(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.obj")).write_text("x")
    (tmp_path / "two\nlines.obj").write_text("x")
    assert [shape.id for shape in find_shapes(str(tmp_path))] == ["\\xff.obj", "two\\nlines.obj"]
    long = "x" * 240 + ".obj"
    assert len(printable(long)) <= 200
    assert printable(long) != printable("x" * 241 + ".obj")
    assert printable(".a/.b.obj") == "_.a/_.b.obj"


def test_lists(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/a.obj").write_text("x")
    (tmp_path / "list.txt").write_text(
        f"# some\nm/a.obj\n\n./m/a.obj\n{tmp_path}/m/../m/b.obj\n/elsewhere/c.obj\n"
    )
    assert [shape.id for shape in find_shapes(str(tmp_path / "list.txt"))] == [
        "elsewhere/c.obj",
        "m/a.obj",
        "m/b.obj",
    ]
    (tmp_path / "list.csv").write_text(
        "class,id,path\nx,first,m/a.obj\nx,,m/b.obj\n", encoding="utf-8-sig"
    )
    assert {s.id: s.place for s in find_shapes(str(tmp_path / "list.csv"))} == {
        "first": f"{tmp_path}/m/a.obj",
        "m/b.obj": f"{tmp_path}/m/b.obj",
    }


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("l.csv", "file\na.obj\n", "no column named path"),
        ("l.txt", "# nothing\n", "holds no shapes"),
        ("a.obj", "x", "neither a folder nor a list"),
        ("none.txt", None, "does not exist"),
    ],
)
def test_bad_sources_are_refused(tmp_path, name, text, part):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=part):
        find_shapes(str(tmp_path / name))


def test_shapes_behind_a_url():
    store = open_store("memory://data/set")
    store.write("in/a b.obj", b"1")
    store.write("in/sub/c.ply", b"22")
    store.write("in/notes.txt", b"sub/c.ply\nmemory://data/set/in/a b.obj\n/tmp/none.obj\n")
    shapes = find_shapes("memory://data/set/in")
    assert [(s.id, s.place) for s in shapes] == [
        ("a b.obj", "memory://data/set/in/a b.obj"),
        ("sub/c.ply", "memory://data/set/in/sub/c.ply"),
    ]
    listed = find_shapes("memory://data/set/in/notes.txt")
    assert [s.id for s in listed] == ["a b.obj", "sub/c.ply", "tmp/none.obj"]
    assert [s.stamp for s in listed[:2]] == [s.stamp for s in shapes]
    store.write("in/sub/c.ply", b"33")
    assert find_shapes("memory://data/set/in")[1].stamp != shapes[1].stamp
    fsspec.filesystem("memory").store.clear()


def test_drivers_that_are_missing_and_protocols_that_are_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install nstr3d\[gs\]"):
        open_store("gs://bucket/x")
    with pytest.raises(ValueError, match="nonsense"):
        open_store("nonsense://x")


def test_shards_part_the_shapes():
    names = [f"shape {n}" for n in range(1000)]
    parts = [[name for name in names if in_shard(name, i, 3)] for i in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(250 < len(part) < 420 for part in parts)


# ------------------------------------------------------------------------------
# store


def test_stores_behave_alike(store, tmp_path):
    store.write("a b/ü.txt", b"one")
    store.write("a b/.hidden", b"x")
    store.write(".dot/file", b"x")
    (tmp_path / "file").write_bytes(b"two")
    store.put(tmp_path / "file", "c/d/e.bin")
    store.get("c/d/e.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"two"
    assert store.read("a b/ü.txt") == b"one"
    stamps = dict(store.stamps())
    assert list(stamps) == ["a b/ü.txt", "c/d/e.bin"]
    assert stamps["a b/ü.txt"] == store.stamp("a b/ü.txt")
    assert store.names("a b") == ["ü.txt"]
    assert store.names("none") == []
    store.write("a b/ü.txt", b"other")
    assert store.stamp("a b/ü.txt") != stamps["a b/ü.txt"]
    store.remove("a b/ü.txt")
    store.remove("a b/ü.txt")
    with pytest.raises(FileNotFoundError):
        store.read("a b/ü.txt")


# ------------------------------------------------------------------------------
# catalogue


def test_the_catalogue_follows_the_reports(store):
    write_report(store, "x/a", near=1e-4)
    write_report(store, "b", status="failed")
    with Catalogue(store) as catalogue:
        for _ in range(2):
            catalogue.sync()
            assert catalogue.counts() == {"done": 1, "failed": 1}
        assert catalogue.ids("distance_error_near < 2e-4") == {"x/a"}
        assert catalogue.ids("status <> 'done'") == {"b"}
        store.remove("b/report.json")
        write_report(store, "x/a", near=3e-4, key="other")
        write_report(store, "c", near=2e-3)
        store.write("d/report.json", b'{"cut sh')
        catalogue.sync()
        assert {name: known.status for name, known in catalogue.known().items()} == {
            "x/a": "done",
            "c": "done",
            "d": "failed",
        }
        assert catalogue.known()["x/a"].key == "other"
        catalogue.add("c", report_of("c", status="timeout"))
        catalogue.publish()
    with Catalogue(store) as again:
        assert {name: known.status for name, known in again.known().items()} == {
            "x/a": "done",
            "c": "timeout",
            "d": "failed",
        }


def test_conditions_that_are_none_are_refused_and_change_nothing(tmp_path):
    with Catalogue(Folder(tmp_path)) as catalogue:
        for bad in ("colour = 1", "status = ", "1); DELETE FROM shapes; --"):
            with pytest.raises(ValueError, match="columns: id, status"):
                catalogue.ids(bad)


@pytest.mark.parametrize("where", ["", "status = 'done'", "colour = 1"])
def test_a_catalogue_that_cannot_be_read_is_no_wrong_condition(tmp_path, monkeypatch, where):
    """Locked, damaged, without its table, and absent."""
    monkeypatch.setattr("nstr3d.batch.catalogue.WAIT", 0.05)
    path = tmp_path / CATALOGUE
    with Catalogue(Folder(tmp_path)) as catalogue:
        catalogue.connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OSError, match=f"{path} could not be used .*locked.*wait"):
            select(path, ("id",), where)
        catalogue.connection.rollback()
    for damage, reason in (
        (lambda: path.write_bytes(b"x" * 5000), "not a database"),
        (lambda: path.write_bytes(b""), "no such table"),
        (path.unlink, "unable to open"),
    ):
        damage()
        with pytest.raises(OSError, match=f"could not be used .*{reason}.*rebuilds it"):
            select(path, ("id",), where)


def test_a_catalogue_that_is_damaged_while_it_is_open_is_one_sentence(tmp_path):
    with Catalogue(Folder(tmp_path)) as catalogue:
        (tmp_path / CATALOGUE).write_bytes(b"x" * 5000)
        for read in (catalogue.known, catalogue.counts):
            with pytest.raises(OSError, match="could not be used as a catalogue"):
                read()


def test_a_catalogue_is_read_by_a_relative_path(tmp_path, monkeypatch):
    Catalogue(Folder(tmp_path)).connection.close()
    monkeypatch.chdir(tmp_path)
    assert select(Path(CATALOGUE), ("id",)) == []


def test_reports_of_another_form_are_rows_that_failed(tmp_path):
    store = Folder(tmp_path)
    store.write("a/report.json", b"[1, 2]")
    store.write("b/report.json", b'{"batch": 3, "mesh": [4]}')
    with Catalogue(store) as catalogue:
        catalogue.sync()
        assert catalogue.counts() == {"failed": 2}


def test_a_file_that_is_no_catalogue_is_refused(tmp_path):
    (tmp_path / CATALOGUE).write_bytes(b"x" * 5000)
    with pytest.raises(OSError, match="delete it"):
        Catalogue(Folder(tmp_path))


def test_two_writers_leave_one_row_each(tmp_path):
    store = Folder(tmp_path)
    for name in "abcdefgh":
        write_report(store, name)

    def write():
        with Catalogue(store) as catalogue:
            for name in "abcdefgh" * 3:
                catalogue.add(name, report_of(name))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["id"] for row in select(tmp_path / CATALOGUE, ("id",))] == list("abcdefgh")


def test_rows_hold_what_reports_say():
    report = {
        "batch": {"status": "done", "seconds": 2.0, "attempts": 1},
        "input": {"faces": 12, "warnings": ["One.", "Two."]},
        "field": {"name": "nstr", "parameters": 7, "bytes": 8, "steps": 9},
        "mesh": {"faces": 13, "watertight": True},
        "seconds": {"fit": 1.5},
        "accuracy": {"chamfer": 0.1},
        "points": {"mean": 0.2, "gap": 0.3},
        "machine": {"versions": {"nstr3d": "1"}},
    }
    row = row_of("a", report, "stamp")
    assert tuple(row) == COLUMNS
    expected = {
        "input_faces": 12,
        "parameters": 7,
        "faces": 13,
        "fit_seconds": 1.5,
        "chamfer": 0.1,
        "points_gap": 0.3,
        "nstr3d": "1",
    }
    assert {name: row[name] for name in expected} == expected
    assert (row["warnings"], row["report"], row["error"]) == ("One. Two.", "stamp", None)


def test_the_overview_is_worst_first_and_escapes(store):
    write_report(store, "good", near=1e-5)
    write_report(store, "poor & <b>", near=1e-2)
    write_report(store, "bad", status="failed")
    with Catalogue(store) as catalogue:
        catalogue.sync()
        save_overview(store, catalogue)
    page = store.read(OVERVIEW).decode()
    places = [
        page.index(part) for part in ("bad is &lt;broken&gt;", "poor &amp; &lt;b&gt;", ">good<")
    ]
    assert places == sorted(places)
    assert 'src="poor%20%26%20%3Cb%3E/render.png"' in page
    assert "1 failed" in page
    assert "http" not in page


# ------------------------------------------------------------------------------
# lock


def test_shards_meet_where_arithmetic_says():
    for n in range(1, 7):
        for m in range(1, 7):
            for i in range(1, n + 1):
                for j in range(1, m + 1):
                    common = any(k % n == i - 1 and k % m == j - 1 for k in range(n * m))
                    assert meet((i, n), (j, m)) == common


def test_a_second_run_is_refused_and_another_shard_is_not(store):
    with working_on(store, (1, 2)):
        with working_on(store, (2, 2)):
            assert len(store.names(RUNS)) == 2
        for shard in ((1, 2), (1, 1), (3, 4)):
            with (
                pytest.raises(FileExistsError, match=f"process {os.getpid()} .* shard of its own"),
                working_on(store, shard),
            ):
                raise AssertionError("it was let in")
    assert store.names(RUNS) == []


def test_locks_of_the_dead_are_taken_away(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = {"host": os.uname().nodename, "space": process_space()}
    for run, waits in (
        (here | {"pid": gone.pid, "born": "1"}, False),
        (here | {"pid": os.getpid(), "born": "1"}, False),  # another process has the number now
        ({"host": "elsewhere", "pid": 1, "born": "1"}, True),
    ):
        store.write(f"{RUNS}/dead.json", json.dumps(run | {"shard": [1, 1], "beat": 3}).encode())
        began = time.monotonic()
        with working_on(store, (1, 1), silence=1.0):
            assert len(store.names(RUNS)) == 1
            assert (time.monotonic() - began >= 1.0) == waits


def test_a_run_elsewhere_that_shows_signs_of_life_is_respected(store):
    run = {"host": "elsewhere", "pid": 1, "born": "1", "shard": [1, 1], "beat": 0}
    store.write(f"{RUNS}/other.json", json.dumps(run).encode())
    stop = threading.Event()

    def live():
        while not stop.wait(0.05):
            run["beat"] += 1
            store.write(f"{RUNS}/other.json", json.dumps(run).encode())

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with (
            pytest.raises(FileExistsError, match="elsewhere"),
            working_on(store, (1, 1), silence=10.0),
        ):
            raise AssertionError("it was let in")
    finally:
        stop.set()
        thread.join()


def test_a_run_shows_signs_of_life(store):
    with working_on(store, (1, 1), beat=0.05):
        name = f"{RUNS}/{store.names(RUNS)[0]}"
        deadline = time.monotonic() + 30
        while json.loads(store.read(name))["beat"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_an_output_that_cannot_be_written_to_is_one_sentence():
    with (
        pytest.raises(OSError, match="/sys/nstr3d cannot be written to"),
        working_on(open_store("/sys/nstr3d"), (1, 1)),
    ):
        raise AssertionError("it was let in")


# ------------------------------------------------------------------------------
# job options, workers and summaries


def test_keys_follow_content_reading_and_options_but_not_the_device():
    base = ShapeOptions()
    keys = {
        key_of("1", ".obj", base),
        key_of("2", ".obj", base),
        key_of("1", ".xyz", base),
        key_of("1", ".obj", changed(ShapeOptions(), seed=1)),
    }
    assert len(keys) == 4
    assert key_of("1", ".OBJ", changed(ShapeOptions(), device="cpu")) == key_of("1", ".obj", base)


@pytest.mark.parametrize(("field", "rate"), [("nstr", "decoder_rate"), ("siren", "rate")])
def test_digests_follow_the_defaults_of_presets_and_fields(monkeypatch, field, rate):
    def digest(**options) -> str:
        return changed(ShapeOptions(), field=field, **options).digest

    before = digest()
    assert before == digest(device="cpu")
    assert len({before, digest(preset="standard"), digest(params=2000)}) == 3
    preset, sized = presets.PRESETS["fast"], presets.FIELDS[field]
    with monkeypatch.context() as patched:
        patched.setitem(
            presets.PRESETS, "fast", replace(preset, training=replace(preset.training, batch=64))
        )
        assert digest() != before
    with monkeypatch.context() as patched:
        patched.setitem(
            presets.FIELDS, field, lambda params, near: replace(sized(params, near), **{rate: 1.0})
        )
        assert digest() != before
    assert digest() == before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"shard": (0, 2)}, "--shard"),
        ({"shard": (3, 2)}, "--shard"),
        ({"timeout": 0.0}, "--timeout"),
        ({"memory": -1.0}, "--memory"),
        ({"gpu_memory": 0.0}, "--gpu-memory"),
        ({"workers": 0}, "--workers"),
        ({"attempts": 0}, "--attempts"),
        ({"grace": -1.0}, "--grace"),
    ],
)
def test_options_out_of_range_are_refused(options, part):
    with pytest.raises(ValueError, match="^" + next(iter(options))) as refused:
        BatchJob("in", "out", **options)
    assert refused.value.args[0].with_flags.startswith(part)


def test_shape_options_are_checked_at_once():
    with pytest.raises(ValueError, match=r"^cells is"):
        BatchJob("in", "out", changed(ShapeOptions(), cells=1))
    with pytest.raises(ValueError, match=r"^cells is"):
        BatchJob("in", "out", changed(ShapeOptions(), cells=16, field="siren"))
    with pytest.raises(ValueError, match=r"^workers"):
        local_slots(0, "cpu", 1.0)


def test_processors_are_shared_and_gpus_are_packed():
    def layout(*args):
        return [(slot.threads, slot.device, slot.share) for slot in packed(*args)]

    assert layout(8, None, [], 1.0) == [(1, None, 1.0)] * 8
    assert layout(8, 2, [], 1.0) == [(4, None, 1.0)] * 2
    assert layout(2, 3, [], 1.0) == [(1, None, 1.0)] * 3
    assert layout(16, None, [10.0, 25.0], 10.0) == [(5, "0", 1.0), (5, "1", 0.5), (5, "1", 0.5)]
    assert layout(2, None, [80.0], 10.0) == [(1, "0", 1 / 8)] * 2
    assert layout(8, 1, [80.0, 80.0], 10.0) == [(8, "0", 1 / 8)]
    assert layout(4, None, [5.0], 10.0) == [(4, "0", 1.0)]


def test_ray_that_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"^engine ray .* pip install 'nstr3d\[batch\]'"):
        RayEngine("auto", 1)


def test_a_shape_from_a_url_is_fitted_into_a_store_behind_one(tmp_path):
    inputs = open_store("memory://shapes")
    save_mesh(tmp_path / "ball.ply", sphere(2))
    inputs.put(tmp_path / "ball.ply", "ball.ply")
    request = {
        "place": "memory://shapes/ball.ply",
        "scratch": str(tmp_path),
        "known_key": "",
        "options": asdict(changed(ShapeOptions(), **QUICK)),
        "memory": None,
    }
    answer = fit_shape(request)
    assert (answer["status"], answer["error"]) == ("done", None)
    assert fit_shape(request | {"known_key": answer["key"]})["status"] == "same"
    failed = fit_shape(request | {"place": "memory://shapes/none.ply"})
    assert (failed["status"], failed["key"]) == ("failed", "")
    assert str(tmp_path) not in failed["error"]

    out = open_store("memory://out")
    task = Task(
        ShapeFile("ball.ply", "memory://shapes/ball.ply", "s"),
        "memory://out",
        changed(ShapeOptions(), **QUICK),
        Rules(),
    )
    publish(out, task, tmp_path, answer["report"] | report_of("ball.ply"))
    assert out.names("ball.ply") == ["model.safetensors", "report.json"]
    again = Task(task.shape, task.out, task.options, task.rules, replaces=True)
    publish(out, again, tmp_path, report_of("ball.ply", status="failed"))
    assert out.names("ball.ply") == ["report.json"]
    assert isinstance(out, Bucket)
    fsspec.filesystem("memory").store.clear()


def test_a_ply_without_faces_is_fitted_as_points_and_hashed_once(tmp_path, monkeypatch):
    walked, hashes, outcome = [], {}, SimpleNamespace(report={})

    def follow(name):
        def walk(job, listener, sha256):
            walked.append(name)
            hashes[job.path] = sha256
            return outcome

        return walk

    for name in ("run", "run_points"):
        monkeypatch.setattr(worker, name, follow(name))
    cloud = tmp_path / "cloud.ply"
    cloud.write_bytes(encode_ply(vertex=table_of(dict(zip("xyz", sphere(2).vertices.T)))))
    save_mesh(tmp_path / "mesh.ply", sphere(2))
    (tmp_path / "damaged.ply").write_bytes(b"ply")
    for path in (cloud, tmp_path / "mesh.ply", tmp_path / "damaged.ply"):
        request = {"place": str(path), "scratch": str(tmp_path), "known_key": "", "memory": None}
        options = asdict(changed(ShapeOptions(), **QUICK))
        assert fit_shape(request | {"options": options})["status"] == "done"
    assert walked == ["run_points", "run", "run"]
    assert hashes == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in hashes}


def test_a_gltf_counts_with_its_buffers(tmp_path):
    vertices = sphere(1).vertices.astype("<f4").tobytes()
    gltf = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "data.bin", "byteLength": len(vertices)}],
    }
    (tmp_path / "a.gltf").write_text(json.dumps(gltf))
    request = {
        "place": str(tmp_path / "a.gltf"),
        "scratch": str(tmp_path),
        "known_key": "",
        "options": asdict(changed(ShapeOptions(), **QUICK)),
        "memory": None,
    }
    keys = []
    for content in (vertices, vertices[::-1]):
        (tmp_path / "data.bin").write_bytes(content)
        keys.append(fit_shape(request)["key"])
    assert keys[0] != keys[1]


def test_the_summary_counts_and_says_how_to_go_on():
    standing = Standing(
        total=10, skipped=3, fitted=5, failed=2, seconds=36.0, errors=[("a", "why")]
    )
    text = summary(standing, "out")
    assert "10 shapes: 3 up to date, 5 fitted, 2 failed" in text
    assert "700 shapes/hour" in text
    assert "a: why" in text
    assert "status <> 'done'" in text
    listed = summary(Standing(total=3, fitted=1, failed=2, refused=2), "out")
    assert "2 of the failures are faults of rows of the list or of names: mend them" in listed
    assert "status <> 'done'" not in listed


def test_rows_are_replaced_not_repeated(tmp_path):
    report = report_of("x")
    with Catalogue(Folder(tmp_path)) as catalogue:
        for round in range(2):
            with catalogue.connection:
                for number in range(0, 100_000, 50):
                    catalogue._insert(f"s{number}", report, str(round))
        assert catalogue.counts() == {"done": 2000}
    assert sqlite3.connect(tmp_path / CATALOGUE).execute(
        "SELECT DISTINCT report FROM shapes"
    ).fetchall() == [("1",)]
    assert np.isclose(select(tmp_path / CATALOGUE, ("chamfer",), limit=1)[0]["chamfer"], 1e-3)


def test_colours_are_options_of_a_data_set(tmp_path):
    options = ShapeOptions(colours=Colours("off"))
    assert ShapeOptions.from_dict(asdict(options)) == options
    assert options.digest != ShapeOptions().digest


def test_the_parts_that_are_kept_are_options_of_a_data_set(tmp_path):
    options = ShapeOptions(parts=Parts(open=True, thickness=0.2))
    assert ShapeOptions.from_dict(asdict(options)) == options
    assert options.digest != ShapeOptions().digest
    save_mesh(tmp_path / "a.ply", Mesh(np.eye(3), np.array([[0, 1, 2]])))
    request = {
        "place": str(tmp_path / "a.ply"),
        "scratch": str(tmp_path / "s"),
        "known_key": "",
        "options": asdict(changed(options, **QUICK)),
        "memory": None,
    }
    answer = fit_shape(request)
    assert (answer["status"], answer["report"]["input"]["thickness"]) == ("done", 0.2)
