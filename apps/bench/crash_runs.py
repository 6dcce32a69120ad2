"""Processes to be killed and the kinds of runs that they do, for ``crash.py``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.batch.options import ShapeOptions
from nstr3d.cli.batch import Batch, fit_batch
from nstr3d.cli.command import guarded
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.io import save_image, save_mesh
from nstr3d.io.fileset import WORK
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Output, Training
from nstr3d.jobs.results import MESH, MODEL, checkpoints
from nstr3d.jobs.signal import SignalJob, run_signal
from nstr3d.jobs.walk import REPORT
from nstr3d.surface.extract import extract_mesh

MINE = "mine.txt"  # a file of the user's in every folder
PATIENCE = 600.0  # seconds after which a run counts as one that hangs
HOW = Training(preset="fast", cells=6, steps=20, pool=4096, device="cpu")
WHAT = Extraction(resolution=12, samples=200, picture=0)
SHAPES = ("a.ply", "b.ply")  # of a data set
EXACT = (MODEL, MESH, "image.png")  # files that equal runs write with equal bits


@dataclass
class Tally:
    """What became of the runs of a row of the table."""

    runs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def forked(work: Callable[[], Any], log: Path | None = None, scratch: Path | None = None) -> int:
    """The process number of a child that runs ``work``; its exit status is that of the command.
    ``log`` gets its words; ``scratch`` is its folder for temporary files."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        text = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(text, 1)
        os.dup2(text, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        if scratch is not None:
            import tempfile

            tempfile.tempdir = str(scratch)
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
    kill(child)
    return None


def kill(child: int) -> bool:
    """Kills a child; whether it was still running."""
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def wait_for(child: int, reached: Callable[[], bool]) -> None:
    """Returns as soon as ``reached`` says so or the child has ended; who calls waits for it."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not reached() and os.waitid(os.P_PID, child, options) is None:
        time.sleep(0.0005)


@dataclass(frozen=True)
class Kind:
    """A kind of run: its ``name``, ``run``, which does a job, and ``make``, which makes the job
    with a seed into a folder. ``parts`` are the folders below it that change on their own."""

    name: str
    run: Callable[[Any], Any]
    make: Callable[[Path, int], Any]
    parts: tuple[str, ...] = ("",)

    def clock(self, child: int) -> float:
        """Seconds of processor time that a child has taken, or with 0 all that have ended, so that
        a busy machine does not shift the moments; of a data set, whose worker computes, the
        time."""
        if self.name == "batch":
            return time.monotonic()
        if child:
            return time.clock_gettime((~child << 3) | 2)  # the clock of a process (Linux)
        spent = os.times()
        return spent.children_user + spent.children_system

    def staged(self, out: Path) -> bool:
        """Whether a set of results in ``out`` is about to change."""
        return any((out / part / WORK).exists() for part in self.parts)

    def shown(self, out: Path, sets: dict[str, dict[str, bytes]]) -> str:
        """Which of ``sets`` a folder shows, whole and with its report: its name, "none" for no
        results, "some" if parts differ, and "damage" for anything else."""
        files = results(out)
        each = {
            _set_shown(_below(files, part), {name: _below(all, part) for name, all in sets.items()})
            for part in self.parts
        }
        return "damage" if "damage" in each else each.pop() if len(each) == 1 else "some"

    def allowing(self, job: Any, overwrite: bool, resume: bool = False) -> Any:
        """The job with the options overwrite and resume; a data set has neither."""
        if isinstance(job, Batch):
            return job
        if isinstance(job, SignalJob):
            return replace(job, overwrite=overwrite)
        return replace(job, output=replace(job.output, overwrite=overwrite, resume=resume))

    def again(self, job: Any, out: Path, shown: str, overwrite: bool) -> Any:
        """The job that a user runs after a kill: it goes on from a checkpoint if there is one,
        unless the results were already published."""
        surface = not isinstance(job, Batch | SignalJob)
        if surface and shown != "new" and checkpoints(out):
            return self.allowing(job, overwrite=False, resume=True)
        return self.allowing(job, overwrite or shown == "new" or bool(results(out)))


def kinds(folder: Path, names: tuple[str, ...]) -> list[Kind]:
    """The kinds of runs with these names, with small inputs in ``folder``."""
    mesh, points, picture = (folder / name for name in ("in.ply", "points.xyz", "in.png"))
    ball = extract_mesh(sphere(), 6)
    save_mesh(mesh, ball)
    np.savetxt(points, np.hstack([ball.vertices, ball.vertices]))
    save_image(picture, np.random.default_rng(0).random((24, 20, 3)))
    (folder / "shapes").mkdir()
    for name in SHAPES:
        save_mesh(folder / "shapes" / name, ball)

    def surface(job: type, path: Path) -> Callable[[Path, int], Any]:
        output = Output(checkpoint_seconds=0.0)
        return lambda out, seed: job(path, replace(HOW, seed=seed), WHAT, replace(output, out=out))

    def signals(out: Path, seed: int) -> SignalJob:
        return SignalJob(picture, out, params=300, seed=seed, noise=0.01)

    def dataset(out: Path, seed: int) -> Batch:
        how = ShapeOptions(replace(HOW, seed=seed, steps=8), WHAT)
        return Batch(str(folder / "shapes"), str(out), how, workers=1)

    every = (
        Kind("fit", run, surface(MeshJob, mesh)),
        Kind("points", run_points, surface(PointsJob, points)),
        Kind("image", run_signal, signals),
        Kind("batch", fit_batch, dataset, SHAPES),
    )
    return [kind for kind in every if kind.name in names]


def results(out: Path) -> dict[str, bytes]:
    """The visible files of a folder and of the folders below, but the user's and those of a run
    that goes on; not links to files that a set lacks."""
    names = (name for name in _names(out) if not _is_hidden(name) and (out / name).exists())
    return {name: (out / name).read_bytes() for name in names}


def left(out: Path, expected: set[str]) -> set[str]:
    """The files in a folder, hidden ones too, that are neither ``expected`` nor the user's, and
    hidden folders."""
    return set(_names(out)) - expected - {MINE}


def exact(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of ``files`` that equal runs write with equal bits; of a model the weights, since its
    header says how long training took."""
    same = {name: data for name, data in files.items() if name.rpartition("/")[2] in EXACT}
    for name, data in same.items():
        if name.rpartition("/")[2] == MODEL:
            same[name] = data[8 + int.from_bytes(data[:8], "little") :]
    return same


def _names(out: Path) -> Iterator[str]:
    """Files, links and hidden folders below ``out``, as paths relative to it."""
    for path in out.rglob("*"):
        if path.name != MINE and (path.name.startswith(".") or not path.is_dir()):
            yield path.relative_to(out).as_posix()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _below(files: dict[str, bytes], part: str) -> dict[str, bytes]:
    """The files directly in the folder ``part``, by their names in it."""
    start = part and part + "/"
    below = {name[len(start) :]: data for name, data in files.items() if name.startswith(start)}
    return {name: data for name, data in below.items() if "/" not in name}


def _set_shown(files: dict[str, bytes], sets: dict[str, dict[str, bytes]]) -> str:
    if REPORT not in files:
        return "damage" if files.keys() & {MESH, "image.png", "render.png"} else "none"
    report = json.loads(files[REPORT])
    for name, expected in sets.items():
        same = exact(files) == exact(expected) and set(expected) <= files.keys()
        listed = set(report.get("files", expected)) == set(expected)
        if same and listed and report["seed"] == json.loads(expected[REPORT])["seed"]:
            return name
    return "damage"
