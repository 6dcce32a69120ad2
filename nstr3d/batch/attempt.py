"""Fits one shape in a worker process and publishes the result; every engine runs `attempt`.

A `Slot` keeps one worker process, which fits one shape after another. If the worker dies, hangs or
runs out of memory, the slot starts a new one, and the shape's row says what happened. Only the
process that owns the slot writes to the data set, so a worker that dies leaves no partial files
there.
"""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nstr3d.batch.catalogue import REPORT, read_report
from nstr3d.batch.job import Rules
from nstr3d.batch.options import LOG, ShapeOptions
from nstr3d.batch.shapes import ShapeFile
from nstr3d.batch.slot import Cancelled, Died, Slot
from nstr3d.batch.store import Folder, Store, open_store, replace_files
from nstr3d.io.scratch import scratch_folder
from nstr3d.jobs.publishing import FILES
from nstr3d.jobs.results import COMPRESSED, MESH, MODEL, PICTURE
from nstr3d.system import package_version

NOTHING = {"key": "", "beside": "", "report": {}, "peak_memory": None}  # of a worker that is gone


@dataclass(frozen=True)
class Task:
    """A shape to fit into the data set at ``out`` (a local path or a URL).

    The shape is not fitted again if its key equals ``known_key``, the key of the result that is
    already there. ``replaces`` says that files of an earlier fit may exist.
    """

    shape: ShapeFile
    out: str
    options: ShapeOptions
    rules: Rules
    known_key: str = ""
    replaces: bool = False


def attempt(task: Task, slot: Slot) -> dict[str, Any]:
    """Fits one shape, publishes its files, and returns its report.

    If the worker dies, the shape is tried again, up to ``task.rules.attempts`` times in all. If the
    shape's result is up to date, only its report is updated. Raises Cancelled if the slot was
    cancelled, and OSError if the data set cannot be written or no worker starts.
    """
    started, number = time.perf_counter(), 0
    while True:
        number += 1
        with scratch_folder() as scratch:
            answer = _ask(task, slot, scratch)
            if answer["status"] in ("killed", "crashed") and number < task.rules.attempts:
                continue
            store = open_store(task.out)
            if answer["status"] == "same":
                renewed = _renew_report(store, task, answer)
                if renewed is not None:
                    return renewed
                task, number = replace(task, known_key=""), 0
                continue
            report = _report(task, answer, number, time.perf_counter() - started)
            publish(store, task, scratch, report)
            return report


def report_loss(task: Task, reason: str) -> dict[str, Any]:
    """Publishes and returns the report of a shape whose machine was lost.

    ``reason`` becomes the report's error. Raises OSError if the data set cannot be written.
    """
    answer = {"status": "killed", "error": reason} | NOTHING
    report = _report(task, answer, task.rules.attempts, 0.0)
    with scratch_folder() as scratch:
        publish(open_store(task.out), task, scratch, report)
    return report


def publish(store: Store, task: Task, scratch: Path, report: Mapping[str, Any]) -> None:
    """Copies a shape's files from ``scratch`` into the data set, where they replace those of an
    earlier fit, if ``task.replaces``.

    In a local data set the files change at once. Behind a URL the report is written last, and while
    files of an earlier fit are replaced, the report says that the shape has failed and is to be
    fitted again, so that no report stands beside another model. Raises OSError, with one sentence,
    if the data set cannot be written.
    """
    done = report["batch"]["status"] == "done"
    wanted = {
        MODEL: done and not task.options.compressed,
        COMPRESSED: done and task.options.compressed,
        MESH: done and task.options.mesh,
        PICTURE: done and task.options.extraction.picture > 0,
        LOG: True,
    }
    sources = {LOG: scratch / LOG} | {
        name: scratch / "out" / name for name in (MODEL, COMPRESSED, MESH, PICTURE)
    }
    kept = [name for name, keep in wanted.items() if keep and sources[name].exists()]
    files: dict[str, Path | bytes] = {name: sources[name] for name in kept}
    files[REPORT] = _encoded(report)
    try:
        if task.replaces and not isinstance(store, Folder):
            store.write(f"{task.shape.id}/{REPORT}", _encoded(_unsettled(report)))
        replace_files(store, task.shape.id, files, wanted if task.replaces else ())
    except OSError as error:
        raise OSError(
            f"{store.url} could not be written to ({error.strerror or error}); make room there "
            "and run the same command again."
        ) from error


def _encoded(report: Mapping[str, Any]) -> bytes:
    return json.dumps(report, indent=2, allow_nan=False).encode()


def _unsettled(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a shape whose files are being replaced. A later run fits it again, because it
    has no key of a result and no config."""
    fault = "its files were being replaced when the run ended; run the same command again"
    changes = {"status": "failed", "error": fault, "key": "", "config": ""}
    return {"input": dict(report.get("input") or {}), "batch": dict(report["batch"]) | changes}


def _ask(task: Task, slot: Slot, scratch: Path) -> dict[str, Any]:
    """The worker's answer, or the answer that describes the shape's fault or the worker's timeout
    or death."""
    request = {
        "place": task.shape.place,
        "scratch": str(scratch),
        "known_key": task.known_key,
        "options": asdict(task.options),
        "memory": task.rules.memory,
    }
    if task.shape.fault:
        return NOTHING | {"status": "failed", "error": task.shape.fault}
    try:
        return slot.ask(request, task.rules.timeout)
    except TimeoutError:
        return NOTHING | {
            "status": "timeout",
            "error": f"it took longer than {task.rules.timeout:g} s{_last_stage(scratch)}",
        }
    except Died as death:
        if slot.cancelled.is_set():
            raise Cancelled from None
        return NOTHING | {
            "status": "killed" if death.killed else "crashed",
            "error": f"{death}{_last_stage(scratch)}",
        }


def _last_stage(scratch: Path) -> str:
    """A phrase with the last stage that the worker's log names, empty if it names none."""
    try:
        lines = (scratch / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    stages = [line for line in lines if line.isalpha()]
    return f", in the stage {stages[-1]}" if stages else ""


def _report(task: Task, answer: Mapping[str, Any], attempts: int, seconds: float) -> dict[str, Any]:
    report = dict(answer["report"]) or {
        "machine": {"versions": {"nstr3d": package_version("nstr3d")}}
    }
    report.pop(FILES, None)  # the data set need not keep all files of the job
    source = dict(report.get("input") or {}) | {"path": task.shape.place}
    return report | {
        "input": source,
        "batch": {
            "status": answer["status"],
            "error": answer["error"],
            "path": task.shape.place,
            "key": answer["key"],
            "config": task.options.digest,
            "stamp": task.shape.stamp + answer["beside"],
            "attempts": attempts,
            "seconds": seconds,
            "peak_memory": answer["peak_memory"],
            "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(),
        },
    }


def _renew_report(store: Store, task: Task, answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """Updates the existing report of a shape whose files have new stamps but the same content.

    The report also gets the current key, because an earlier version may have computed another one.
    Returns None if there is no such report any more; the shape has to be fitted then.
    """
    name = f"{task.shape.id}/{REPORT}"
    try:
        report = read_report(store, name)
    except (FileNotFoundError, ValueError):
        return None
    now = {
        "stamp": task.shape.stamp + answer["beside"],
        "path": task.shape.place,
        "key": answer["key"],
        "config": task.options.digest,
    }
    report["batch"] |= now
    store.write(name, _encoded(report))
    return report
