"""Fits every shape of a data set.

`run_batch` selects the shapes to fit, runs an engine, reports progress and handles stop signals.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nstr3d.batch.attempt import Task
from nstr3d.batch.beside import is_current
from nstr3d.batch.catalogue import Catalogue, Known
from nstr3d.batch.engines import LocalEngine, RayEngine, local_slots
from nstr3d.batch.job import GIGABYTE, BatchJob
from nstr3d.batch.lock import working_on
from nstr3d.batch.overview import save_overview
from nstr3d.batch.shapes import ShapeFile, find_shapes, in_shard
from nstr3d.batch.slot import Cancelled
from nstr3d.batch.store import Folder, Store, is_local, local_path, open_store
from nstr3d.io.fileset import settle
from nstr3d.jobs.results import COMPRESSED, MODEL
from nstr3d.jobs.stages import Interrupted, stop_on_signal
from nstr3d.model.header import is_whole
from nstr3d.model.shapeheader import is_whole_shape
from nstr3d.system import count_processors

POLL = 0.5  # seconds between checks for a stop signal
REFRESH = 60.0  # seconds between updates of the overview and of a remote store's catalogue
Engine = LocalEngine | RayEngine


@dataclass
class Standing:
    """The progress of a run.

    Of ``total`` shapes, ``skipped`` were up to date, ``fitted`` were fitted by this run, ``failed``
    could not be fitted, and ``running`` are in progress. Of those skipped, ``failed_before`` could
    not be fitted by an earlier run. ``refused`` counts shapes that are never fitted, because of a
    fault of their row in the list or of their name. ``seconds`` is the time since fitting began.
    ``errors`` holds the id and the error of the first three failures. ``unread`` names the files of
    shapes that are in formats that are not read; they do not count as shapes.
    """

    total: int = 0
    skipped: int = 0
    fitted: int = 0
    failed: int = 0
    failed_before: int = 0
    refused: int = 0
    running: int = 0
    seconds: float = 0.0
    errors: list[tuple[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """The number of shapes that this run has fitted or failed to fit."""
        return self.fitted + self.failed

    @property
    def per_hour(self) -> float:
        """The number of shapes that end per hour at this run's average pace."""
        return 3600 * self.ended / max(self.seconds, 1e-9)


def run_batch(
    job: BatchJob, on_progress: Callable[[Standing], None] = lambda standing: None
) -> Standing:
    """Fits the shapes that are not up to date in the data set.

    With ``job.where``, the shapes whose rows satisfy that SQL condition are fitted instead. The
    catalogue and the overview are updated meanwhile. After a signal to stop (Ctrl-C, SIGTERM or
    SIGHUP) shapes in progress have ``job.grace`` seconds to end; a second signal stops them at
    once. If shapes remain, `Interrupted` is raised. A shape that fails gets a row that says why.
    Raises ValueError, OSError or ModuleNotFoundError if the run as a whole cannot continue.
    """
    job = _on_chosen_path(job)
    unread: list[str] = []
    shapes = find_shapes(job.source, job.out, unread)
    shapes = [shape for shape in shapes if in_shard(shape.id, *job.shard)]
    out = os.path.abspath(local_path(job.out)) if is_local(job.out) else job.out
    store = open_store(out)
    with working_on(store, job.shard), Catalogue(store) as catalogue:
        _settle_all(store, shapes)
        _write_catalogue(catalogue.sync)
        known = catalogue.known()
        lost = _lost(store, shapes, known)
        chosen = catalogue.ids(job.where) if job.where else None
        tasks = [
            task
            for shape in shapes
            if (task := _task(job, out, shape, known.get(shape.id), chosen, shape.id in lost))
        ]
        standing = Standing(
            total=len(shapes),
            skipped=len(shapes) - len(tasks),
            refused=sum(bool(shape.fault) for shape in shapes),
            unread=unread,
        )
        tried = {task.shape.id for task in tasks}
        standing.failed_before = sum(
            shape.id not in tried and shape.id in known and known[shape.id].status != "done"
            for shape in shapes
        )
        on_progress(standing)

        def refresh() -> None:
            _write_catalogue(catalogue.publish)
            save_overview(store, catalogue)

        try:
            if tasks:
                with stop_on_signal() as stopped:
                    _work(
                        _engine(job),
                        iter(tasks),
                        catalogue,
                        standing,
                        on_progress,
                        refresh,
                        stopped,
                        job.grace,
                    )
        finally:
            refresh()
    if standing.ended + standing.skipped < standing.total:
        remaining = standing.total - standing.ended - standing.skipped
        raise Interrupted(
            f"Stopped; {remaining} of {standing.total} shapes are left; run the same command again "
            "to fit them."
        )
    return standing


def _on_chosen_path(job: BatchJob) -> BatchJob:
    """``job`` with the path of computation chosen for all workers of this machine, which would
    disturb each other's measurements. The machines of a cluster choose for themselves."""
    training = job.options.training
    if job.address is not None or training.device == "cpu":
        return job
    from nstr3d.training.paths import gpu

    if gpu() is None:
        return job
    from nstr3d.training.choice import choose

    path = choose(training.device, training.compute_path).path
    training = replace(training, device=path.device.type, compute_path=path.name)
    return replace(job, options=replace(job.options, training=training))


def _settle_all(store: Store, shapes: Sequence[ShapeFile]) -> None:
    """Ends the changes of sets of results that a killed run has left between two states."""
    if isinstance(store, Folder):
        for shape in shapes:
            settle(store.path / shape.id)


def _lost(store: Store, shapes: Sequence[ShapeFile], known: dict[str, Known]) -> set[str]:
    """The ids of the shapes that have a row of a fit and no whole model: it is missing, or in a
    local folder cut short."""
    fitted = {each.id for each in shapes if each.id in known and known[each.id].status == "done"}
    if isinstance(store, Folder):
        return {name for name in fitted if not _has_model(store.path / name)}
    places = (name.rpartition("/") for name, _ in store.stamps())
    return fitted - {folder for folder, _, name in places if name in (MODEL, COMPRESSED)}


def _has_model(folder: Path) -> bool:
    """Whether a shape's local ``folder`` has a model that is not cut short."""
    return is_whole(folder / MODEL) or is_whole_shape(folder / COMPRESSED)


def _task(
    job: BatchJob,
    out: str,
    shape: ShapeFile,
    known: Known | None,
    chosen: set[str] | None,
    lost: bool,
) -> Task | None:
    """The task for a shape, None if there is nothing to do.

    ``known`` is the shape's row. ``chosen`` holds the ids that the job's SQL condition selects, or
    is None without a condition. The model of a shape that is ``lost`` is made anew.
    """
    if chosen is not None:
        return (
            Task(shape, out, job.options, job.rules, replaces=True) if shape.id in chosen else None
        )
    if known is None:
        return Task(shape, out, job.options, job.rules)
    if lost:
        return Task(shape, out, job.options, job.rules, replaces=True)
    if known.config == job.options.digest and is_current(known.stamp, shape.stamp, shape.place):
        return None
    return Task(shape, out, job.options, job.rules, known.key, replaces=True)


def _engine(job: BatchJob) -> Engine:
    if job.address is None:
        return LocalEngine(
            local_slots(job.workers, job.options.training.device, job.gpu_memory * GIGABYTE)
        )
    gpus = 0.0
    if job.options.training.device == "cuda":
        gpus = next(
            (
                slot.share
                for slot in local_slots(job.workers, "cuda", job.gpu_memory * GIGABYTE)
                if slot.device
            ),
            1.0,
        )
    return RayEngine(
        job.address, max(1, count_processors() // job.workers) if job.workers else 1, gpus
    )


def _work(
    engine: Engine,
    tasks: Iterator[Task],
    catalogue: Catalogue,
    standing: Standing,
    on_progress: Callable[[Standing], None],
    refresh: Callable[[], None],
    stopped: threading.Event,
    grace: float,
) -> None:
    """Keeps the engine busy until all tasks have ended or ``stopped`` is set.

    Once ``stopped`` is set, no task starts, and tasks in progress have ``grace`` seconds to end.
    """
    started = refreshed = time.monotonic()
    deadline, costs = math.inf, 0.0
    try:
        while time.monotonic() < deadline:
            while (
                not stopped.is_set()
                and standing.running < engine.capacity
                and (task := next(tasks, None))
            ):
                engine.submit(task)
                standing.running += 1
            if not standing.running:
                return
            if stopped.is_set() and deadline == math.inf:
                deadline = time.monotonic() + grace
            for result in engine.wait(POLL):
                standing.running -= 1
                _count(standing, result.task.shape.id, result.report["batch"])
                _write_catalogue(
                    lambda result=result: catalogue.add(result.task.shape.id, result.report)
                )
            now = time.monotonic()
            standing.seconds = now - started
            on_progress(standing)
            if now - refreshed > max(REFRESH, 100 * costs):  # refreshes take at most 1% of the time
                refresh()
                refreshed = time.monotonic()
                costs = refreshed - now
    except Cancelled:
        return
    finally:
        engine.close()


def _count(standing: Standing, name: str, batch: dict) -> None:
    if batch["status"] == "done":
        standing.fitted += 1
        return
    standing.failed += 1
    if len(standing.errors) < 3:
        standing.errors.append((name, batch["error"]))


def _write_catalogue(write: Callable[[], None]) -> None:
    """Calls ``write`` and turns an error of the database into an OSError with one sentence."""
    try:
        write()
    except sqlite3.Error as error:
        raise OSError(
            f"The catalogue cannot be written ({error}); the shapes' reports are complete, and the "
            "next run rebuilds the catalogue from them."
        ) from error
