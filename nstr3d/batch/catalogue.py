"""The catalogue of a data set: one row per shape in ``catalog.sqlite``.

SQL, pandas and DuckDB can read it. The ``report.json`` of each shape is authoritative; the
catalogue is rebuilt from the reports. `Catalogue.sync` makes the rows agree with the reports in the
store and reads only the reports that changed. SQLite's transactions and primary key keep rows whole
and unique when processes die or share a catalogue.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nstr3d.batch.lock import uploading
from nstr3d.batch.store import Folder, Store
from nstr3d.io.scratch import scratch_folder

CATALOGUE, REPORT = "catalog.sqlite", "report.json"
LARGEST_REPORT = 1 << 22  # bytes; a report has some thousand
WAIT = 60.0  # seconds to wait for another process's transaction
PATIENCE = 60.0  # seconds that a condition may take
STEPS = 10_000  # instructions of the database between two looks at the clock
# Columns have the units of report.json: lengths in bounding box diagonals or in units of the unit
# box, angles in degrees.
BATCH = (
    *("status", "error", "path", "key", "config", "stamp", "attempts", "seconds"),
    *("peak_memory", "finished", "host"),
)
METRICS = (
    "distance_error_near",
    "distance_error_surface",
    "distance_error_volume",
    *("normal_error_field", "normal_error_mesh"),
    *("iou_volume", "iou_near", "chamfer", "hausdorff", "f_score"),
)
REAL = {"seconds", "fit_seconds", "points_mean", "points_gap", "colour_psnr", *METRICS}
WHOLE = {
    "attempts",
    "peak_memory",
    "parameters",
    "bytes",
    "steps",
    "input_faces",
    "input_points",
    "faces",
    "watertight",
}
COLUMNS = (
    *(
        "id",
        *BATCH,
        "warnings",
        "nstr3d",
        "field",
        "parameters",
        "bytes",
        "steps",
        "fit_seconds",
        "input_faces",
        "input_points",
    ),
    *("faces", "watertight", *METRICS, "points_mean", "points_gap", "colour_psnr", "report"),
)
# Columns of the first version: a table without them is another program's.
FIRST = "id", *BATCH, "report"


def _type_of(column: str) -> str:
    return "REAL" if column in REAL else "INTEGER" if column in WHOLE else "TEXT"


CREATE = "CREATE TABLE IF NOT EXISTS shapes ({}, PRIMARY KEY (id)) WITHOUT ROWID".format(
    ", ".join(f"{name} {_type_of(name)}" for name in COLUMNS)
)
UPSERT = (
    f"INSERT OR REPLACE INTO shapes ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
)


@dataclass(frozen=True)
class Known:
    """The columns of a shape's row that decide whether the shape is fitted again."""

    status: str
    key: str
    config: str
    stamp: str


class Catalogue:
    """The rows of the data set in ``store``, to read and to update; a context manager.

    If the store is not local, the catalogue works on a local copy, which `publish` uploads. Raises
    OSError, with one sentence, if the database cannot be used.
    """

    def __init__(self, store: Store):
        self.store = store
        self.copy: Path | None = None
        with ExitStack() as scratch:
            self.connection = self._open(store, scratch)
            self._scratch = scratch.pop_all()

    def _open(self, store: Store, scratch: ExitStack) -> sqlite3.Connection:
        if isinstance(store, Folder):
            self.path = store.path / CATALOGUE
        else:
            self.copy = scratch.enter_context(scratch_folder())
            self.path = self.copy / CATALOGUE
            if CATALOGUE in store.names(""):
                store.get(CATALOGUE, self.path)
        self.place = f"{store.url}/{CATALOGUE}"
        if os.path.lexists(self.path) and not self.path.is_file():
            raise OSError(f"{self.place} is no file; move it away, and run the same command again.")
        with _usable(self.place):
            connection = scratch.enter_context(closing(sqlite3.connect(self.path, timeout=WAIT)))
            with connection:
                connection.execute(CREATE)
                _adopt(connection, self.place)
        return connection

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *error: object) -> None:
        self._scratch.close()

    def sync(self) -> None:
        """Makes the rows agree with the reports in the store.

        Rows of new or changed reports are written, rows without a report are deleted.
        """
        # The rows are read first: another run may add one after the reports are listed.
        stored = dict(self.connection.execute("SELECT id, report FROM shapes"))
        end = "/" + REPORT
        there = {
            _text(name[: -len(end)]): (name, stamp)
            for name, stamp in self.store.stamps()
            if name.endswith(end)
        }
        with self.connection:
            self.connection.executemany(
                "DELETE FROM shapes WHERE id = ?",
                [(name,) for name in stored.keys() - there.keys()],
            )
            for name, (file, stamp) in there.items():
                if stored.get(name) != stamp:
                    self._insert(name, self._report(file), stamp)

    def add(self, name: str, report: Mapping[str, Any]) -> None:
        """Adds or replaces the row of a shape whose ``report`` has just been written."""
        with self.connection:
            self._insert(name, report, self.store.stamp(f"{name}/{REPORT}"))

    def known(self) -> dict[str, Known]:
        """The `Known` columns of every row, by the shape's id; a NULL becomes an empty string."""
        with _usable(self.place):
            rows = self.connection.execute("SELECT id, status, key, config, stamp FROM shapes")
            return {name: Known(*(str(value or "") for value in values)) for name, *values in rows}

    def ids(self, where: str) -> set[str]:
        """The ids of the rows that satisfy the SQL condition ``where``.

        Raises ValueError if ``where`` is not a valid condition.
        """
        return {row["id"] for row in select(self.path, ("id",), where)}

    def counts(self) -> dict[str, int]:
        """The number of rows by status, ordered by status."""
        query = "SELECT status, count(*) FROM shapes GROUP BY status ORDER BY status"
        with _usable(self.place):
            return dict(self.connection.execute(query))

    def publish(self) -> None:
        """Uploads the local copy of the catalogue if the store is not local.

        First it gets the rows of other runs that write to the store. One run at a time does so,
        hence an upload has all rows that an earlier one had. Raises OSError as `uploading` does.
        """
        if self.copy is None:
            return
        with uploading(self.store):
            self.sync()
            self.store.put(self.path, CATALOGUE)

    def _report(self, file: str) -> dict[str, Any]:
        """The report in ``file``, or one of a failed shape: it is fitted again."""
        try:
            return read_report(self.store, file)
        except ValueError as error:  # edited by hand, truncated or of another program
            return _failed(str(error))
        except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
            return _failed(f"its report.json cannot be read ({error.strerror or error})")

    def _insert(self, name: str, report: Mapping[str, Any], stamp: str) -> None:
        row = row_of(name, report, stamp)
        self.connection.execute(UPSERT, tuple(row[column] for column in COLUMNS))


def _adopt(connection: sqlite3.Connection, place: str) -> None:
    """Adds the columns that the catalogue of an earlier version lacks; `Catalogue.sync` fills them.

    Raises OSError for a database whose ``shapes`` is not the table of a catalogue.
    """
    query = "SELECT type, name FROM sqlite_master WHERE tbl_name = 'shapes'"
    kinds = dict(connection.execute(query).fetchall())
    held = {row[1] for row in connection.execute("PRAGMA table_info(shapes)")}
    foreign = [name for name in FIRST if name not in held]
    if foreign or "view" in kinds or "trigger" in kinds:
        fault = f"lacks the column {foreign[0]}" if foreign else "is a view or has a trigger"
        raise OSError(
            f"{place} is not a catalogue of nstr3d: its table shapes {fault}; move it away, and "
            "the next run makes one from the reports."
        )
    missing = [name for name in COLUMNS if name not in held]
    for name in missing:
        connection.execute(f"ALTER TABLE shapes ADD COLUMN {name} {_type_of(name)}")
    if missing:
        connection.execute("UPDATE shapes SET report = NULL")  # no report has been read yet


def read_report(store: Store, file: str) -> dict[str, Any]:
    """The report in ``file`` of ``store``. Raises FileNotFoundError if there is none, and
    ValueError if it is too long, no JSON, or no report of a batch run."""
    from nstr3d.batch.schema import check_report

    data = store.read(file, LARGEST_REPORT + 1)
    if len(data) > LARGEST_REPORT:
        raise ValueError(f"its report.json is longer than {LARGEST_REPORT:,} bytes")
    try:
        report = json.loads(data)
        shown = _text(report)
    except (ValueError, RecursionError):
        raise ValueError("its report.json is not valid JSON") from None
    if not isinstance(report, dict) or not isinstance(report.get("batch"), dict):
        raise ValueError("its report.json was not written by a batch run")
    check_report(shown)
    return report


def _failed(reason: str) -> dict[str, Any]:
    return {"batch": {"status": "failed", "error": reason}}


def _text(data: Any) -> Any:
    """JSON ``data`` whose strings can be stored: bytes that are no text become escape sequences."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, list):
        return [_text(item) for item in data]
    return (
        {_text(key): _text(item) for key, item in data.items()} if isinstance(data, dict) else data
    )


@contextmanager
def _usable(place: str) -> Iterator[None]:
    """Turns an error of the database in the block into an OSError with one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(
            f"{place} could not be used as a catalogue ({error}). If another process writes to it, "
            "wait; if it is damaged, delete it, and the next run rebuilds it from the reports."
        ) from error


def row_of(name: str, report: Mapping[str, Any], stamp: str) -> dict[str, Any]:
    """The row, a value for each of `COLUMNS`, of the shape ``name`` with this report and stamp.

    Values that the report lacks, as after a failure, are None. A report with an entry of another
    type gives the row of a failed shape, whose error names the entry.
    """
    from nstr3d.batch.schema import check_report

    report = _text(dict(report))
    try:
        check_report(report)
    except ValueError as error:
        report = _failed(str(error))

    def part(key: str) -> dict[str, Any]:
        return report.get(key) or {}

    batch, source, mesh = part("batch"), part("input"), part("mesh")
    row = dict.fromkeys(COLUMNS) | {column: batch.get(column) for column in BATCH}
    row |= {column: part("accuracy").get(column) for column in METRICS}
    row |= {column: part("field").get(column) for column in ("parameters", "bytes", "steps")}
    return row | {
        "id": name,
        "warnings": " ".join(source.get("warnings") or []),
        "nstr3d": (part("machine").get("versions") or {}).get("nstr3d"),
        "field": part("field").get("name"),
        "fit_seconds": part("seconds").get("fit"),
        "input_faces": source.get("faces"),
        "input_points": source.get("points"),
        "faces": mesh.get("faces"),
        "watertight": mesh.get("watertight"),
        "points_mean": part("points").get("mean"),
        "points_gap": part("points").get("gap"),
        "colour_psnr": part("colour").get("psnr"),
        "report": stamp,
    }


def select(
    path: Path, columns: Sequence[str], where: str = "", order: str = "id", limit: int = -1
) -> list[dict[str, Any]]:
    """Reads ``columns`` of the rows that satisfy the SQL condition ``where``, in ``order``.

    At most ``limit`` rows are returned, all if it is negative. The catalogue at ``path`` is opened
    read only. Raises ValueError if ``where`` is not a valid condition or takes longer than
    `PATIENCE`, and OSError, with one sentence, if the database cannot be read.
    """
    parts = f"SELECT {', '.join(columns)} FROM shapes", f"ORDER BY {order} LIMIT {limit}"
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with _usable(str(path)), closing(sqlite3.connect(uri, uri=True, timeout=WAIT)) as connection:
        if not where:
            rows = connection.execute(" ".join(parts)).fetchall()
        else:
            deadline = time.monotonic() + PATIENCE
            connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
            try:
                rows = connection.execute(f" WHERE ({where}) ".join(parts)).fetchall()
            except (sqlite3.Error, sqlite3.Warning) as error:
                connection.set_progress_handler(None, STEPS)
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"The condition {where!r} takes longer than {PATIENCE:g} s; choose a "
                        "simpler one."
                    ) from error
                # If the same query fails without the condition, the condition is not the cause.
                connection.execute(" ".join(parts)).fetchall()
                raise ValueError(
                    f"{where!r} is not a valid SQL condition on the catalogue ({error}); columns: "
                    f"{', '.join(COLUMNS)}."
                ) from error
    return [dict(zip(columns, row)) for row in rows]
