"""Runs of apps/fit_dataset.py on made-up shapes for apps/bench/batch.py: the speed-up by workers,
the overhead over bare fits, memory, faults and a restart."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nstr3d.batch.catalogue import CATALOGUE, COLUMNS, select
from nstr3d.batch.options import ShapeOptions
from nstr3d.geometry.shapes import primitives
from nstr3d.io import save_mesh
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Training
from nstr3d.surface.extract import extract_mesh

ROOT = Path(__file__).resolve().parents[2]
Part = Literal["scaling", "faults", "restart", "catalogue"]
# Columns of the catalogue that differ between two runs on the same shapes.
VARYING = {
    "stamp",
    "report",
    "seconds",
    "fit_seconds",
    "finished",
    "host",
    "attempts",
    "peak_memory",
    "bytes",
}
RESOLUTIONS = (30, 230)  # of the extracted shapes, whose files have 64 KB to 5 MB


@dataclass(frozen=True)
class Options:
    """Measure what fitting a data set costs."""

    out: Path = ROOT / "out" / "batch"
    """Folder for shapes, data sets and results."""
    only: tuple[Part, ...] = ("scaling", "faults", "restart", "catalogue")
    """Parts to measure."""
    shapes: int = 200
    """Shapes of the run with faults; a tenth of them cannot be fitted."""
    scaled: int = 8
    """Shapes of the runs whose seconds are compared."""
    finished: int = 1000
    """Shapes of the finished run that is started again."""
    fit: ShapeOptions = field(default_factory=lambda: ShapeOptions(Training("fast", device="cpu")))
    """How shapes are fitted."""


ENDED = (0, 1)  # exit codes of a run that has ended; 1 if there are bad shapes


def write_shapes(folder: Path, count: int, bad: int = 0) -> None:
    """Empties ``folder`` and writes ``count`` PLY files to it, the same in every call.

    Each shape is a ball blended with a torus, in a file of 64 KB to 5 MB. ``bad`` of the files
    cannot be fitted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(count - bad):
        ball = primitives.sphere(
            float(generator.uniform(0.4, 0.6)), tuple(generator.uniform(-0.3, 0.3, 3))
        )
        ring = primitives.torus(
            float(generator.uniform(0.6, 0.9)), float(generator.uniform(0.15, 0.3))
        )
        shape = primitives.smooth_union(ball, ring, k=0.1)
        low, high = np.log(RESOLUTIONS)
        save_mesh(
            folder / f"shape {number:04d}.ply",
            extract_mesh(shape, int(np.exp(generator.uniform(low, high)))),
        )
    good = sorted(folder.iterdir())
    for number in range(bad):
        data = good[number % len(good)].read_bytes() if good else b"ply\n"
        kinds = (
            b"",
            b"\x00junk" * 1000,
            data[: len(data) // 2],
            data.replace(b"element face", b"element fade"),
        )
        (folder / f"bad {number:04d}.ply").write_bytes(kinds[number % 4])


def batch(shapes: Path, out: Path, options: ShapeOptions, *more: str) -> list[str]:
    """The command that fits the shapes of the folder ``shapes`` into ``out``; ``more`` are further
    options."""
    values = vars(options.training) | vars(options.extraction)
    words = ["--device", "cpu", *(["--mesh"] if options.mesh else [])]
    for name in (
        "preset",
        "params",
        "cells",
        "steps",
        "pool",
        "resolution",
        "samples",
        "field",
        "seed",
        "picture",
    ):
        if (value := values[name]) is not None:
            words += [f"--{name}", str(value)]
    return [
        sys.executable,
        str(ROOT / "apps" / "fit_dataset.py"),
        str(shapes),
        "--out",
        str(out),
        *words,
        *more,
    ]


def timed(command: Sequence[str], codes: Sequence[int] = (0,)) -> float:
    """Runs ``command`` and returns its wall-clock seconds. Raises CalledProcessError if its exit
    code is none of ``codes``."""
    started = time.perf_counter()
    code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if code not in codes:
        raise subprocess.CalledProcessError(code, command)
    return time.perf_counter() - started


def scaling(options: Options) -> dict[str, Any]:
    """Times bare fits one after the other and runs of the same shapes with one and with two
    workers. Every fit has one thread."""
    shapes = options.out / "scaled"
    write_shapes(shapes, options.scaled)
    bare = options.out / "bare"
    program = bare_program(shapes, bare, options.fit)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    processors = len(os.sched_getaffinity(0))
    # On one processor the libraries start as many threads in a bare fit as in a worker.
    pinned = ["taskset", "-c", "0"] if processors > 1 else []
    before = processor_seconds()
    seconds = json.loads(
        subprocess.check_output([*pinned, sys.executable, "-c", program], env=environment)
    )
    # The process made one fit more, to warm up.
    bare_processor = (processor_seconds() - before) * options.scaled / (options.scaled + 1)
    figures: dict[str, Any] = {
        "shapes": options.scaled,
        "bare": sum(seconds),
        "bare_processor": bare_processor,
    }
    for workers in (1, 2):
        out = options.out / f"workers-{workers}"
        shutil.rmtree(out, ignore_errors=True)
        limits = pinned if workers == 1 else []
        before = processor_seconds()
        wall = timed([*limits, *batch(shapes, out, options.fit, "--workers", str(workers))])
        rows = select(out / CATALOGUE, ("seconds", "bytes", "peak_memory"), "status = 'done'")
        figures[f"workers {workers}"] = {
            "wall": wall,
            "shapes": sum(row["seconds"] for row in rows),
            "processor": processor_seconds() - before,
        }
        figures["peak_memory"] = max(row["peak_memory"] for row in rows)
        figures["bytes"] = float(
            np.mean([folder_bytes(out / path.name) for path in shapes.iterdir()])
        )
        figures["objects"] = float(
            np.mean([len(list((out / path.name).iterdir())) for path in shapes.iterdir()])
        )
    return figures


def processor_seconds() -> float:
    """Processor seconds of all ended child processes. Other processes of the machine lengthen them
    less than the wall-clock time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def bare_program(shapes: Path, out: Path, options: ShapeOptions) -> str:
    """The Python program of the process that calls `bare`."""
    words = str(shapes), str(out), json.dumps(asdict(options))
    return f"from apps.bench.batch_runs import bare; bare(*{words!r})"


def bare(shapes: str, out: str, options: str) -> None:
    """Fits every shape of the folder ``shapes`` in this process and prints the seconds of each as
    JSON. The first shape is fitted twice; its first fit is a warm-up and has no seconds."""
    chosen, seconds = ShapeOptions.from_dict(json.loads(options)), []
    paths = sorted(Path(shapes).iterdir())
    for path in [paths[0], *paths]:
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        run(chosen.job(MeshJob, path, Path(out)))
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds[1:]))


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a shape's folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def faults(options: Options) -> dict[str, Any]:
    """Compares an undisturbed run with a run whose workers are killed and crashed. The latter is
    itself stopped or killed in each of its first six starts, and started until it ends."""
    shapes, calm, rough = (options.out / name for name in ("shapes", "calm", "rough"))
    write_shapes(shapes, options.shapes, options.shapes // 10)
    for out in (calm, rough):
        shutil.rmtree(out, ignore_errors=True)
    seconds = timed(batch(shapes, calm, options.fit), ENDED)
    counts: dict[str, int] = {}
    starts, eighth = 0, max(1, options.shapes // 8)
    while True:
        starts += 1
        process = subprocess.Popen(
            batch(shapes, rough, options.fit), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with disturbed(process, rough, eighth if starts % 2 else 2 * eighth, starts <= 6, counts):
            code = process.wait()
        if code in ENDED:
            break
    return {
        "shapes": options.shapes,
        "seconds": seconds,
        "starts": starts,
        "faults": counts,
    } | repaired(options)


def repaired(options: Options) -> dict[str, Any]:
    """Counts the shapes whose workers died in every attempt (``lost``), fits them again, and
    compares the catalogue with the undisturbed run's."""
    shapes, calm, rough = (options.out / name for name in ("shapes", "calm", "rough"))
    hit = "status IN ('crashed', 'killed')"
    count = len(select(rough / CATALOGUE, ("id",), hit))
    if count:
        timed(batch(shapes, rough, options.fit, "--where", hit), ENDED)
    return {"lost": count, "rows": len(constant(rough)), "same": constant(calm) == constant(rough)}


@contextlib.contextmanager
def disturbed(
    process: subprocess.Popen, out: Path, after: int, end: bool, counts: dict[str, int]
) -> Iterator[None]:
    """Kills or crashes a worker of ``process`` every 10 seconds. If ``end``, stops or kills
    ``process`` itself once ``after`` more shapes have a report. ``counts`` counts the faults."""
    stop, dice = threading.Event(), random.Random(after)

    def work() -> None:
        before, last = finished(out), time.monotonic()
        while not stop.wait(0.2):
            if time.monotonic() - last > 10:
                last = time.monotonic()
                number = dice.choice((signal.SIGKILL, signal.SIGSEGV))
                for pid in children(process.pid)[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                        counts[f"worker {number.name}"] = counts.get(f"worker {number.name}", 0) + 1
            if end and finished(out) - before >= after:
                number = dice.choice((signal.SIGTERM, signal.SIGKILL))
                process.send_signal(number)
                counts[f"run {number.name}"] = counts.get(f"run {number.name}", 0) + 1
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finished(out: Path) -> int:
    """The number of shapes in ``out`` that have a report."""
    return sum("report.json" in files for _, _, files in os.walk(out))


def children(pid: int) -> list[int]:
    """The ids of the child processes of ``pid``."""
    pids = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            pids += [int(word) for word in task.read_text().split()]
    return pids


def constant(out: Path) -> list[dict[str, Any]]:
    """The rows of the catalogue without the columns that differ between runs: clocks, machine names
    and counts of attempts."""
    return select(out / CATALOGUE, [name for name in COLUMNS if name not in VARYING])


def restart(options: Options) -> dict[str, Any]:
    """Times the start of a finished run, the best of three. Its shapes are tiny, because such a
    start does not depend on their contents."""
    shapes, out = options.out / "tiny", options.out / "finished"
    write_shapes(shapes, 1)
    first = next(shapes.iterdir())
    for number in range(options.finished - 1):
        shutil.copy(first, shapes / f"copy {number:05d}.ply")
    quick = ShapeOptions(
        Training("fast", cells=4, steps=120, pool=8192, device="cpu"),
        Extraction(resolution=16, samples=1000, picture=0),
    )
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(
        batch(shapes, out, quick), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return {
        "shapes": options.finished,
        "seconds": min(timed(batch(shapes, out, quick)) for _ in range(3)),
    }
