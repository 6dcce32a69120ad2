"""Processes to be killed, what they leave, and a trial of the results of a shape of a data set; for
``crash.py``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nstr3d.batch.attempt import Rules, Task, publish
from nstr3d.batch.options import ShapeOptions
from nstr3d.batch.shapes import ShapeFile
from nstr3d.batch.store import open_store
from nstr3d.cli.command import guarded
from nstr3d.jobs.results import MODEL
from nstr3d.jobs.walk import REPORT

MINE = "mine.txt"  # a file of the user's in every folder
PATIENCE = 300.0  # seconds after which a run counts as one that hangs


@dataclass
class Tally:
    """What became of the runs of a row of the table."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def forked(work: Callable[[], Any], log: Path | None = None) -> int:
    """The process number of a child that runs ``work``; its exit status is that of the command."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        text = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(text, 1)
        os.dup2(text, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        code = guarded(lambda: work() and None)
    finally:
        os._exit(code)


def ended(child: int, seconds: float = PATIENCE) -> int | None:
    """The exit status of a child; None if it still runs after ``seconds`` and was killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def results(folder: Path) -> dict[str, bytes]:
    """The visible files of a folder, but the user's."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != MINE)
    return {path.name: path.read_bytes() for path in files}


def publishing(out: Path, label: str, size: int = 300_000) -> None:
    """Replaces the results of the shape s in the data set ``out`` by files that hold ``label``."""
    task = Task(ShapeFile("s", "s.ply", ""), str(out), ShapeOptions(), Rules(), replaces=True)
    scratch = out.with_name(f"{out.name}-{label}")
    if not scratch.exists():
        (scratch / "out").mkdir(parents=True)
        for name in (f"out/{MODEL}", "out/render.png", "log.txt"):
            (scratch / name).write_text(label * size)
    report = {"input": {}, "batch": {"status": "done", "error": label}}
    publish(open_store(str(out)), task, scratch, report)


def kill_batch(out: Path, seconds: float, tally: Tally) -> None:
    """Kills a process that replaces the results of a shape, and looks at them."""
    for label in ("old", "new"):
        publishing(out, label)

    def work() -> None:
        for _ in range(1000):  # it is killed long before
            publishing(out, "old")
            publishing(out, "new")

    child = forked(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    files = results(out / "s")
    label = json.loads(files[REPORT])["batch"]["error"]
    tally.runs += 1
    tally.counts["killed"] += 1
    tally.counts[f"{label} set"] += 1
    others = {name: data for name, data in files.items() if name != REPORT}
    if len(others) != 3 or any(data[:3] != label.encode() for data in others.values()):
        tally.faults.append(f"{out.name}: a report beside other files")
        return
    publishing(out, "new")
    if {path.name for path in (out / "s").iterdir()} != {*others, REPORT}:
        tally.faults.append(f"{out.name}: left {sorted(os.listdir(out / 's'))}")
        return
    tally.counts["whole"] += 1
    for folder in (out, *(out.with_name(f"{out.name}-{label}") for label in ("old", "new"))):
        shutil.rmtree(folder)
