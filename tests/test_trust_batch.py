"""Data sets with files from elsewhere: a bad report, lock, row or id costs itself alone."""

from __future__ import annotations

import json
import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from datasets import good_shape
from mutations import replaced
from quick import changed

from nstr3d import Dataset
from nstr3d.batch.attempt import Task, _renew_report
from nstr3d.batch.catalogue import (
    CATALOGUE,
    COLUMNS,
    LARGEST_REPORT,
    METRICS,
    REAL,
    REPORT,
    WHOLE,
    Catalogue,
    row_of,
    select,
)
from nstr3d.batch.ids import (
    LONGEST,
    LONGEST_ID,
    RESERVED,
    fault_of_id,
    id_of_path,
    stays_inside,
)
from nstr3d.batch.job import BatchJob, Rules
from nstr3d.batch.lock import working_on
from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.overview import OVERVIEW, SHOWN, save_overview
from nstr3d.batch.run import Standing, run_batch
from nstr3d.batch.schema import Report
from nstr3d.batch.shapes import ShapeFile, find_shapes
from nstr3d.batch.store import Folder
from nstr3d.io import save_mesh
from nstr3d.io.lock import RUNS
from nstr3d.io.lockschema import Lock, read_lock

QUICK = {
    "cells": 4,
    "steps": 60,
    "pool": 8192,
    "samples": 500,
    "resolution": 16,
    "picture": 0,
    "device": "cpu",
}
REPORTED: dict[str, Any] = {
    "batch": {
        "status": "done",
        "error": None,
        "path": "a.ply",
        "key": "k",
        "config": "c",
        "stamp": "s",
        "attempts": 1,
        "seconds": 2.5,
        "peak_memory": 1000,
        "finished": "2026-01-01",
        "host": "here",
    },
    "input": {"faces": 12, "points": None, "warnings": ["One."]},
    "field": {"name": "nstr", "parameters": 7, "bytes": 8, "steps": 9},
    "mesh": {"faces": 13, "watertight": True},
    "seconds": {"fit": 1.5},
    "accuracy": dict.fromkeys(METRICS, 0.5),
    "points": {"mean": 0.25, "gap": 0.125},
    "colour": {"psnr": 36.5},
    "machine": {"versions": {"nstr3d": "1"}},
}
TEXTS = (3, [], {}, True)
NUMBERS = ("1", [], {}, math.nan, math.inf, -math.inf)
WHOLES = (*NUMBERS, -1, 1.5, 1 << 63, 10**40)


def entries(data: dict[str, Any], path: tuple = ()) -> list[tuple]:
    """The paths of all entries of a report."""
    return [
        place
        for key, value in data.items()
        for place in (
            [(*path, key)] + (entries(value, (*path, key)) if isinstance(value, dict) else [])
        )
    ]


def wrong_values(path: tuple) -> tuple[Any, ...]:
    name = path[-1]
    if len(path) == 1 or name == "versions":
        return (3, "x", [], [{}], True)
    if name == "status":
        return ("perfect", None, *TEXTS)
    if name == "warnings":
        return ("x", 3, [3], [None], {})
    if name in WHOLE or (path[0], name) in (("input", "faces"), ("input", "points")):
        return WHOLES
    if name in REAL or name in ("fit", "mean", "gap", "psnr"):
        return NUMBERS
    return TEXTS


def write(store: Folder, name: str, report: Any) -> None:
    store.write(f"{name}/{REPORT}", json.dumps(report).encode())


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in select(folder / CATALOGUE, ("id", "status", "error", "key"))}


# ------------------------------------------------------------------------------
# reports
def test_the_report_here_has_every_entry_that_a_row_shows() -> None:
    assert set(REPORTED) == set(Report.model_fields)
    row = row_of("a", REPORTED, "stamp")
    assert {name for name in COLUMNS if row[name] is None} == {"error", "input_points"}


@pytest.mark.parametrize("path", entries(REPORTED), ids=".".join)
def test_a_wrong_entry_of_a_report_costs_its_row_alone(path: tuple, tmp_path: Path) -> None:
    store = Folder(tmp_path)
    write(store, "good", REPORTED)
    values = wrong_values(path)
    for number, value in enumerate(values):
        write(store, f"bad{number}", replaced(REPORTED, path, value))
    with Catalogue(store) as catalogue:
        catalogue.sync()
        save_overview(store, catalogue)
        assert catalogue.known()["good"].key == "k"
    found = rows(tmp_path)
    assert found["good"]["status"] == "done"
    for number in range(len(values)):
        row = found[f"bad{number}"]
        assert (row["status"], row["key"]) == ("failed", None), values[number]
        assert path == ("batch",) or ".".join(path) in row["error"], row["error"]
        assert "report.json" in row["error"]


FOREIGN: dict[str, bytes] = {
    "cut short": b'{"batch": ',
    "no text": b"\xff\xfe\x00",
    "empty": b"",
    "a list": b"[1, 2]",
    "a number": b"3",
    "of another program": b'{"version": 4, "results": []}',
    "deep": b'{"batch": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long": b'{"batch": {"status": "done"}, "more": "' + b"x" * LARGEST_REPORT + b'"}',
}


def test_foreign_reports_cost_their_rows_alone_and_are_fitted_anew(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    write(store, "good", REPORTED)
    for name, data in FOREIGN.items():
        store.write(f"{name}/{REPORT}", data)
    no_text = os.fsdecode(b"\xff")
    write(store, no_text, REPORTED)
    write(store, "no text within", replaced(REPORTED, ("batch", "path"), "\udcff.ply"))
    (tmp_path / "locked").mkdir()
    with Catalogue(store) as catalogue:
        catalogue.sync()
        save_overview(store, catalogue)
        done = {name for name, known in catalogue.known().items() if known.status == "done"}
        assert done == {"good", "\\udcff", "no text within"}
        for name in FOREIGN:
            assert catalogue.known()[name].config == ""  # so that a run fits the shape
    for name in FOREIGN:
        assert "report.json" in rows(tmp_path)[name]["error"]
        task = Task(ShapeFile(name, "x.ply", ""), str(tmp_path), ShapeOptions(), Rules())
        assert _renew_report(store, task, "key") is None


def test_rows_of_another_program_are_shown_as_failed(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    write(store, "good", REPORTED)
    with Catalogue(store) as catalogue:
        catalogue.sync()
        for number, (name, *_) in enumerate(SHOWN):
            write(store, f"bad{number}", REPORTED)
            catalogue.sync()
            value = sqlite3.Binary(b"\xff") if name in REAL else "many"
            update = f"UPDATE shapes SET {name} = ? WHERE id = 'bad{number}'"
            catalogue.connection.execute(update, (value,))
            catalogue.connection.commit()
        save_overview(store, catalogue)
        catalogue.known()
    page = store.read(OVERVIEW).decode()
    assert page.count('class="bad">failed: its row of the catalogue: ') == len(SHOWN)
    assert page.count("</td><td>done</td>") == 1


# ------------------------------------------------------------------------------
# locks
LOCKED = {"host": "elsewhere", "pid": 7, "born": "1", "shard": [1, 1], "beat": 0}
UNLOCKED: dict[str, tuple[Any, ...]] = {
    "host": (3, None, []),
    "pid": (0, -1, 1 << 31, 10**30, "7", None, 1.5),
    "born": (3, [], {}),
    "shard": ([], [1], [1, 1, 1], [0, 1], [2, 1], [1, 0], ["1", "1"], 3, {}),
    "beat": (-1, "0", None, []),
    "space": (3, []),
    "began": ("0", []),
    "ticket": (3, None),
    "holds": (3, "yes", None),
}


@pytest.mark.parametrize("entry", UNLOCKED)
def test_a_wrong_lock_is_no_lock(entry: str, tmp_path: Path) -> None:
    assert UNLOCKED.keys() == set(Lock.model_fields)
    store = Folder(tmp_path)
    for number, value in enumerate(UNLOCKED[entry]):
        data = json.dumps(LOCKED | {entry: value}).encode()
        with pytest.raises(ValueError, match=f"the lock.* '?{entry}"):
            read_lock(data)
        store.write(f"{RUNS}/{number}.json", data)
    if Lock.model_fields[entry].is_required():
        without = {name: value for name, value in LOCKED.items() if name != entry}
        store.write(f"{RUNS}/less.json", json.dumps(without).encode())
    for name, data in {"list": b"[]", "text": b"x", "deep": b"[" * 9999, "none": b""}.items():
        store.write(f"{RUNS}/{name}.json", data)
    store.write(f"{RUNS}/note.txt", b"a file of someone else")
    with working_on(store, (1, 1), silence=60.0):
        assert len(store.names(RUNS)) == 2  # the run's own record and the note
    assert store.names(RUNS) == ["note.txt"]
    assert tuple(read_lock(json.dumps(LOCKED).encode())["shard"]) == (1, 1)


# ------------------------------------------------------------------------------
# ids
LONG = "/".join(["x" * 100] * 11)
IDS = [
    *sorted(RESERVED),
    "a/report.json",
    "Report.JSON/a",
    "../x",
    "a//b",
    ".a",
    "a\\b",
    "a\nb",
    "/a",
]
IDS += ["x" * (LONGEST + 1), LONG]


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_cannot_be_one_is_a_row_that_fails(name: str, tmp_path: Path) -> None:
    assert "id " in fault_of_id(name)
    listed = tmp_path / "list.csv"
    listed.write_text(f'id,path\ngood,a.obj\n"{name}",b.obj\nlast,c.obj\n')
    shapes = find_shapes(str(listed))
    assert {shape.id for shape in shapes if not shape.fault} == {"good", "last"}
    (bad,) = (shape for shape in shapes if shape.fault)
    assert fault_of_id(bad.id) == ""
    assert bad.fault.startswith(f"{listed}, row 2: the id ")
    assert bad.fault.endswith(".")
    made = id_of_path(name)
    assert stays_inside(made)
    assert "\\" in made or fault_of_id(made) == ""  # an escape sequence has a backslash


def test_ids_of_paths_stay_apart_and_usual_ones_stay() -> None:
    for usual in ("a.ply", "chair/mesh.ply", "render.png", "x/y z.obj"):
        assert id_of_path(usual) == usual
        assert fault_of_id(usual) == ""
    assert id_of_path("log.txt") == "_log.txt"
    assert len({id_of_path(f"{LONG}/{number}") for number in range(9)}) == 9
    assert len(id_of_path(LONG).encode()) <= LONGEST_ID


def test_other_rows_that_make_no_sense_cost_themselves(tmp_path: Path) -> None:
    long = "x" * 200_000  # longer than a field of CSV may be
    text = f"id,path\ngood,a.obj\n,{long}\n,nothing://x/y.obj\nn,a\0b.obj\nshort\nlast,c.obj\n"
    text += "good,other.obj\ngood/render.png,d.obj\n"
    (tmp_path / "list.csv").write_text(text)
    shapes = find_shapes(str(tmp_path / "list.csv"))
    faults = [shape.fault for shape in shapes if shape.fault]
    assert {shape.id for shape in shapes if not shape.fault} == {"good", "n", "last"}
    assert len(faults) == 4
    for reason in ("row 2: field larger", "row 3: nothing://", "same id good", "file of the shape"):
        assert sum(reason in fault for fault in faults) == 1, reason
    assert len({shape.id for shape in shapes}) == len(shapes)


def test_a_run_with_bad_rows_and_a_foreign_report_fits_what_is_good(tmp_path: Path) -> None:
    save_mesh(tmp_path / "a.ply", good_shape(0))
    out = tmp_path / "out"
    store = Folder(out)
    for name, data in FOREIGN.items():
        store.write(f"{name}/{REPORT}", data)
    store.write(f"good/{REPORT}", FOREIGN["of another program"])
    store.write(f"{RUNS}/x.json", b'{"shard": 3}')
    listed = tmp_path / "list.csv"
    listed.write_text("id,path\ngood,a.ply\nindex.html,a.ply\ncatalog.sqlite,a.ply\n../up,a.ply\n")
    job = BatchJob(str(listed), str(out), changed(ShapeOptions(), **QUICK), workers=1)
    standing = run_batch(job)
    assert (standing.total, standing.fitted, standing.failed) == (4, 1, 3)
    found = rows(out)
    assert found["good"]["status"] == "done"
    bad = [row for name, row in found.items() if name.startswith("refused~")]
    assert len(bad) == 3
    assert all("list.csv, row " in row["error"] for row in bad)
    assert not (tmp_path / "up").exists()
    assert (out / OVERVIEW).is_file()
    assert (out / CATALOGUE).is_file()
    assert run_batch(job) == Standing(total=4, skipped=4, failed_before=3, refused=3)
    assert Dataset(out).ids == ("good",)


def test_a_catalogue_cannot_lead_a_reader_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    names = "../up", "/up", "a/../../up", ""
    with Catalogue(Folder(tmp_path / "out")) as catalogue, catalogue.connection:
        for name in names:
            catalogue.connection.execute(
                "INSERT INTO shapes (id, status) VALUES (?, 'done')", (name,)
            )
    dataset = Dataset(tmp_path / "out")
    assert set(dataset.ids) == set(names)
    for name in names:
        with pytest.raises(ValueError, match=rf"catalog\.sqlite has the id '{name}', which is no"):
            dataset[name]


@pytest.mark.parametrize(
    "where",
    [
        "1); DELETE FROM shapes; --",
        "1) UNION SELECT 1; DROP TABLE shapes; --",
        "id IN (DELETE FROM shapes RETURNING id)",
        "(SELECT writefile('x', 'y'))",
        "(SELECT load_extension('x'))",
        "1 ATTACH 'other.sqlite' AS other",
    ],
)
def test_a_condition_reads_and_never_writes(where: str, tmp_path: Path) -> None:
    store = Folder(tmp_path)
    write(store, "a", REPORTED)
    with Catalogue(store) as catalogue:
        catalogue.sync()
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(ValueError, match="not a valid SQL condition"):
            catalogue.ids(where)
        assert catalogue.ids("status = 'done'") == {"a"}
    assert sorted(path.name for path in tmp_path.iterdir()) == before
