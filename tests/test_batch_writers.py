"""Several runs write to one data set, runs die while they replace results, and catalogues of other
programs: no row is lost, and no report stands beside another model."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from contextlib import suppress
from pathlib import Path
from queue import Empty

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from programs import needs_parts
from shards import names, report, write_shard

from nstr3d.batch import catalogue as catalogues
from nstr3d.batch import lock
from nstr3d.batch.attempt import Task, publish
from nstr3d.batch.catalogue import CATALOGUE, REPORT, Catalogue, select
from nstr3d.batch.job import Rules
from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.shapes import ShapeFile
from nstr3d.batch.store import Bucket, open_store, replace_files

URL = "memory://writers/set"


@pytest.fixture(autouse=True)
def memory():
    yield
    fsspec.filesystem("memory").store.clear()


def ids_of(url: str, place: Path) -> set[str]:
    """The ids in the catalogue that is in the store now, read by way of the file ``place``."""
    try:
        place.write_bytes(open_store(url).read(CATALOGUE))
    except FileNotFoundError:
        return set()
    return {row["id"] for row in select(place, ("id",))}


@needs_parts("s3")
@pytest.mark.parametrize("writers", [2, 4])
def test_of_shards_that_write_to_one_object_store_none_loses_a_row_of_another(
    writers: int, object_store: str, tmp_path: Path
) -> None:
    url, copy = f"{object_store}/of {writers}", tmp_path / CATALOGUE
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shards", "s3fs"])
    begin, uploaded = context.Barrier(writers), context.Queue()
    arguments = [(url, shard, begin, uploaded) for shard in range(writers)]
    processes = [context.Process(target=write_shard, args=each) for each in arguments]
    rows = {name for shard in range(writers) for name in names(shard)}
    published: set[str] = set()
    for process in processes:
        process.start()
    while published != rows:
        with suppress(Empty):
            published.add(uploaded.get(timeout=0.05))
        # Each row that an upload had is in every later catalogue.
        assert published - ids_of(url, copy) == set()
        assert {process.exitcode for process in processes} <= {None, 0}
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * writers
    assert ids_of(url, copy) == rows
    assert open_store(f"{url}/{lock.UPLOADS}").names(".runs") == []


@needs_parts("s3")
def test_a_bucket_that_does_not_exist_costs_one_sentence_and_is_not_made(object_store) -> None:
    store = open_store("s3://none-such/set")
    with (
        pytest.raises(OSError, match="s3://none-such/set cannot be written to"),
        lock.working_on(store, (1, 1)),
    ):
        pass
    with pytest.raises(FileNotFoundError):
        store.fs.ls("none-such", refresh=True)


class Slow(MemoryFileSystem):
    """Files that can be read while they are written, as behind sftp://."""

    protocol = "slow"

    def put_file(self, source, path, **_):
        with self.open(path, "wb") as file:
            for byte in Path(source).read_bytes():
                assert seen_in(self, path) in (None, b"old!")
                assert all(name == "a[1]*.bin" for name in open_store("slow://set").names(""))
                file.write(bytes([byte]))

    def pipe_file(self, path, value, **_):
        with self.open(path, "wb") as file:
            for byte in value:
                assert seen_in(self, path) in (None, b"old!")
                file.write(bytes([byte]))


def seen_in(fs: Slow, path: str) -> bytes | None:
    """What a reader of the file finds while ``path`` is written."""
    target = f"{path.rpartition('/')[0]}/a[1]*.bin"
    return fs.cat_file(target) if fs.exists(target) else None


@pytest.mark.parametrize("renames", [True, False])
def test_a_reader_sees_whole_files_where_files_are_no_objects(tmp_path, monkeypatch, renames):
    moved = []
    if renames:  # a file system with a rename of its own that replaces nothing
        monkeypatch.setattr(Slow, "mv", lambda self, old, new: moved.append(move(self, old, new)))
    fsspec.register_implementation("slow", Slow, clobber=True)
    store, name = open_store("slow://set"), "a[1]*.bin"
    store.write(name, b"old!")
    (tmp_path / "new").write_bytes(b"new")
    store.put(tmp_path / "new", name)
    assert store.read(name) == b"new"
    assert store.names("") == [name]
    assert [path.rpartition("/")[2] for path in store.fs.find(store.root)] == [name]
    assert len(moved) == 2 * renames


def move(fs: Slow, old: str, new: str) -> None:
    if fs.exists(new):
        raise FileExistsError(new)
    fs.cp_file(old, new)
    fs.rm_file(old)


def test_a_file_that_could_not_be_written_leaves_nothing(monkeypatch) -> None:
    store = open_store(URL)

    def full(self, path, value, **_):
        MemoryFileSystem.open(self, path, "wb").write(value[:2])
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", full)
        with pytest.raises(OSError, match="no space left"):
            store.write("report.json", b"{}...")
    assert store.fs.find(store.root) == []


def test_the_catalogue_of_an_earlier_version_gets_its_new_columns(tmp_path) -> None:
    store = open_store(str(tmp_path))
    store.write(f"a/{REPORT}", json.dumps(report("a")).encode())
    with Catalogue(store) as rows:
        rows.sync()
    with sqlite3.connect(tmp_path / CATALOGUE) as connection:
        for column in ("chamfer", "points_gap"):
            connection.execute(f"ALTER TABLE shapes DROP COLUMN {column}")
        connection.execute("UPDATE shapes SET status = 'failed'")
    with Catalogue(store) as rows:
        rows.sync()
        assert rows.known()["a"].status == "done"  # the report was read again
    assert select(tmp_path / CATALOGUE, catalogues.COLUMNS)[0]["chamfer"] is None


def test_an_upload_that_another_run_keeps_waiting_says_so(monkeypatch) -> None:
    monkeypatch.setattr(lock, "UPLOAD", 0.01)
    monkeypatch.setattr(lock, "PAUSE", (0.001, 0.02))
    store = open_store(URL)
    with (
        lock.uploading(store),
        pytest.raises(OSError, match=r"gets the catalogue of process \d+ on .*; the next run re"),
        lock.uploading(store),
    ):
        pass


def test_a_row_that_is_added_while_reports_are_listed_stays(tmp_path, monkeypatch) -> None:
    store = open_store(str(tmp_path))
    store.write(f"a/{REPORT}", json.dumps(report("a")).encode())
    with Catalogue(store) as rows, Catalogue(store) as others:
        list_reports = type(store).stamps

        def listed(self):
            names = list(list_reports(self))
            store.write(f"b/{REPORT}", json.dumps(report("b")).encode())
            others.add("b", report("b"))
            return iter(names)

        monkeypatch.setattr(type(store), "stamps", listed)
        rows.sync()
        assert rows.known().keys() == {"a", "b"}


# ------------------------------------------------------------------------------
# a run that dies while it replaces the results of a shape


def refit(out: str, scratch: Path, label: str) -> tuple[Task, dict]:
    """A task that replaces results, with its files in ``scratch``, and its report."""
    shape = ShapeFile("s", "s.ply", "stamp")
    task = Task(shape, out, ShapeOptions(), Rules(), replaces=True)
    (scratch / "out").mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "render.png"):
        (scratch / "out" / name).write_text(f"{name} {label}")
    (scratch / "log.txt").write_text(label)
    return task, report(label)


def test_a_killed_refit_behind_a_url_leaves_a_report_that_asks_for_another(
    tmp_path: Path, monkeypatch
) -> None:
    store = open_store(URL)
    publish(store, *(lambda task, told: (task, tmp_path, told))(*refit(URL, tmp_path, "old")))
    task, told = refit(URL, tmp_path, "new")
    put = Bucket.put

    def dies(self, source, name):
        put(self, source, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            publish(store, task, tmp_path, told)
    assert store.read("s/model.safetensors") == b"model.safetensors new"
    with Catalogue(store) as rows:
        rows.sync()
        known = rows.known()["s"]
    assert known.status == "failed"
    assert known.key == known.config == ""  # so the next run fits it
    publish(store, task, tmp_path, told)
    assert json.loads(store.read(f"s/{REPORT}")) == told


def test_a_failed_replacement_in_a_folder_leaves_the_old_set(tmp_path: Path, monkeypatch) -> None:
    store = open_store(str(tmp_path / "out"))
    old = {"model": b"old", "report": b"old", "gone": b"old"}
    replace_files(store, "s", old, ())
    (tmp_path / "out/s/mine").write_bytes(b"mine")
    with pytest.raises(FileNotFoundError):
        replace_files(store, "s", {"model": b"new", "report": tmp_path / "absent"}, old)
    folder = tmp_path / "out" / "s"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old | {"mine": b"mine"}
    replace_files(store, "s", {"model": b"new", "report": b"new"}, old)
    new = {"model": b"new", "report": b"new", "mine": b"mine"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == new


# ------------------------------------------------------------------------------
# catalogues of other programs, and conditions


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ("CREATE TABLE shapes (id TEXT)", "is not a catalogue of nstr3d: its table shapes lac"),
        ("CREATE TABLE t (a); CREATE VIEW shapes AS SELECT * FROM t", "its table shapes lacks"),
        (
            f"{catalogues.CREATE}; CREATE TRIGGER x AFTER INSERT ON shapes BEGIN SELECT 1; END",
            "its table shapes is a view or has a trigger; move it away",
        ),
    ],
)  # fmt: skip
def test_a_foreign_catalogue_costs_one_sentence(statements, said, tmp_path: Path) -> None:
    path = tmp_path / CATALOGUE
    with sqlite3.connect(path) as connection:
        connection.executescript(statements)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(OSError, match=said), Catalogue(open_store(str(tmp_path))):
        pass
    assert path.read_bytes() == before


def test_what_is_no_database_or_no_file_costs_one_sentence(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    (tmp_path / CATALOGUE).write_bytes(b"PK\3\4" * 999)
    with pytest.raises(OSError, match="could not be used as a catalogue"), Catalogue(store):
        pass
    (tmp_path / CATALOGUE).unlink()
    (tmp_path / CATALOGUE).mkdir()
    with pytest.raises(OSError, match="is no file; move it away"), Catalogue(store):
        pass


def test_a_condition_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(catalogues, "PATIENCE", 0.05)
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    )
    with Catalogue(open_store(str(tmp_path))) as rows:
        rows.store.write(f"a/{REPORT}", json.dumps(report("a")).encode())
        rows.sync()
        with pytest.raises(ValueError, match=r"takes longer than 0\.05 s; choose a simpler one"):
            rows.ids(f"({endless}) > 0")
        assert rows.ids("status = 'done'") == {"a"}
