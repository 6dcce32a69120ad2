"""What a data set costs: ``python apps/bench/batch.py``: speed-up, overhead, memory, faults,
restarts, the catalogue.

``--only scaling faults restart catalogue`` chooses; each part writes its figures to batch.json in
--out, and batch.md is made of all of them, with what a million shapes come to. Give it an idle
machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from nstr3d.batch.catalogue import CATALOGUE, COLUMNS, CREATE, UPSERT, row_of, select
from nstr3d.batch.options import ShapeOptions
from nstr3d.cli.command import guarded
from nstr3d.geometry.shapes import primitives
from nstr3d.io import save_json, save_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Training
from nstr3d.jobs.stages import machine, pick_device
from nstr3d.surface.extract import extract_mesh

ROOT = Path(__file__).resolve().parents[2]
Part = Literal["scaling", "faults", "restart", "catalogue"]
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
MILLION = 1_000_000
ROWS = 100_000
RESOLUTIONS = (30, 230)  # of the extracted shapes: files of 64 KB to 5 MB


@dataclass(frozen=True)
class Options:
    """Measure what fitting a data set costs."""

    out: Path = ROOT / "out" / "batch"
    """Folder for shapes, data sets and results."""
    only: tuple[Part, ...] = ("scaling", "faults", "restart", "catalogue")
    """Which parts to measure."""
    shapes: int = 200
    """Shapes of the run with faults, a tenth of them bad."""
    scaled: int = 8
    """Shapes of the runs that are compared for speed."""
    finished: int = 1000
    """Shapes of the run that is restarted."""
    fit: ShapeOptions = field(default_factory=lambda: ShapeOptions(Training("fast", device="cpu")))
    """How shapes are fitted."""


def write_shapes(folder: Path, count: int, bad: int = 0) -> None:
    """``count`` shapes, of which ``bad`` cannot be fitted: blobs, rings and boxes, 64 KB to 5 MB,
    the same each time."""
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
    """The command that fits ``shapes``."""
    values = vars(options.training) | vars(options.extraction)
    words = ["--device", "cpu", "--mesh" if options.mesh else "--no-mesh"]
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


def timed(command: Sequence[str]) -> float:
    """Seconds that ``command`` takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def scaling(options: Options) -> dict[str, Any]:
    """Bare fits one after the other, and the same shapes with one worker and with two; all on one
    thread per fit."""
    shapes = options.out / "scaled"
    write_shapes(shapes, options.scaled)
    bare = options.out / "bare"
    program = (
        "import sys; from pathlib import Path; from apps.bench.batch import bare; "
        f"bare({str(shapes)!r}, {str(bare)!r}, {json.dumps(vars(options.fit))!r})"
    )
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    processors = len(os.sched_getaffinity(0))
    pinned = (
        ["taskset", "-c", "0"] if processors > 1 else []
    )  # one processor, so that threads of libraries are alike
    before = processor_seconds()
    seconds = json.loads(
        subprocess.check_output([*pinned, sys.executable, "-c", program], env=environment)
    )
    bare_processor = (
        (processor_seconds() - before) * options.scaled / (options.scaled + 1)
    )  # one was a warming up
    found: dict[str, Any] = {
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
        found[f"workers {workers}"] = {
            "wall": wall,
            "shapes": sum(row["seconds"] for row in rows),
            "processor": processor_seconds() - before,
        }
        found["peak_memory"] = max(row["peak_memory"] for row in rows)
        found["bytes"] = float(
            np.mean([folder_bytes(out / path.name) for path in shapes.iterdir()])
        )
        found["objects"] = float(
            np.mean([len(list((out / path.name).iterdir())) for path in shapes.iterdir()])
        )
    return found


def processor_seconds() -> float:
    """Processor time of all processes that this one has started and that have ended: others
    lengthen it less than the clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare(shapes: str, out: str, options: str) -> None:
    """Fits every shape of a folder in this process and prints the seconds of each, the first but
    warming up."""
    chosen, seconds = ShapeOptions.from_dict(json.loads(options)), []
    paths = sorted(Path(shapes).iterdir())
    for path in [paths[0], *paths]:
        shutil.rmtree(out, ignore_errors=True)
        started = time.perf_counter()
        run(chosen.job(MeshJob, path, Path(out)))
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds[1:]))


def folder_bytes(folder: Path) -> int:
    """Bytes of a shape's files."""
    return sum(path.stat().st_size for path in folder.iterdir())


def faults(options: Options) -> dict[str, Any]:
    """An undisturbed run and one whose workers are killed and crashed, which is stopped, and killed
    itself, again and again."""
    shapes, calm, rough = (options.out / name for name in ("shapes", "calm", "rough"))
    write_shapes(shapes, options.shapes, options.shapes // 10)
    for out in (calm, rough):
        shutil.rmtree(out, ignore_errors=True)
    seconds = timed(batch(shapes, calm, options.fit))
    counts: dict[str, int] = {}
    starts, share = 0, max(1, options.shapes // 8)
    while True:
        starts += 1
        process = subprocess.Popen(
            batch(shapes, rough, options.fit), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with disturbed(process, rough, share if starts % 2 else 2 * share, starts <= 6, counts):
            code = process.wait()
        if code == 0:
            break
    return {
        "shapes": options.shapes,
        "seconds": seconds,
        "starts": starts,
        "faults": counts,
    } | repaired(options)


def repaired(options: Options) -> dict[str, Any]:
    """How many shapes the faults cost, and the catalogue once those are run again."""
    shapes, calm, rough = (options.out / name for name in ("shapes", "calm", "rough"))
    hit = "status IN ('crashed', 'killed')"
    lost = len(select(rough / CATALOGUE, ("id",), hit))
    if lost:
        timed(batch(shapes, rough, options.fit, "--where", hit))
    return {"lost": lost, "rows": len(constant(rough)), "same": constant(calm) == constant(rough)}


@contextlib.contextmanager
def disturbed(
    process: subprocess.Popen, out: Path, after: int, end: bool, counts: dict[str, int]
) -> Iterator[None]:
    """Kills and crashes workers of ``process`` now and then, and, if ``end``, it after so many more
    shapes."""
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
    """Shapes that have a report."""
    return sum("report.json" in files for _, _, files in os.walk(out))


def children(pid: int) -> list[int]:
    """Processes that process ``pid`` has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def constant(out: Path) -> list[dict[str, Any]]:
    """The catalogue without clocks, names of machines and counts of attempts."""
    return select(out / CATALOGUE, [name for name in COLUMNS if name not in VARYING])


def restart(options: Options) -> dict[str, Any]:
    """A finished run started again. Its shapes are tiny: what is measured does not look into
    them."""
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


def catalogue(options: Options) -> dict[str, Any]:
    """100,000 rows: opened and filtered, in a process of its own that counts no import; and bytes
    per row."""
    folder = options.out / "catalogue"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    example = next(iter(sorted((options.out / "workers-2").rglob("report.json"))), None)
    report = json.loads(example.read_text()) if example else {"batch": {"status": "done"}}
    generator = np.random.default_rng(0)
    with contextlib.closing(sqlite3.connect(folder / CATALOGUE)) as connection, connection:
        connection.execute(CREATE)
        for number in range(ROWS):
            row = row_of(
                f"class {number % 55}/{number:08d}.ply", report, "3593-1795552669875063343"
            )
            row |= {
                "distance_error_near": float(generator.exponential(2e-4)),
                "status": "failed" if number % 50 == 0 else "done",
            }
            connection.execute(UPSERT, tuple(row[name] for name in COLUMNS))
    started = time.perf_counter()
    rows = select(folder / CATALOGUE, COLUMNS, "status = 'done' AND distance_error_near > 5e-4")
    return {"rows": ROWS, "found": len(rows), "seconds": time.perf_counter() - started,
            "bytes": (folder / CATALOGUE).stat().st_size}  # fmt: skip


def page(found: dict[str, Any]) -> str:
    """batch.md: what was measured, and what a million shapes come to."""
    lines = [
        "# Data sets: what they cost",
        "",
        f"`python apps/bench/batch.py`; {found['machine']}.",
        "",
        "| what | measured |",
    ]
    lines.append("|---|---|")
    if scaled := found.get("scaling"):
        one, two = scaled["workers 1"], scaled["workers 2"]
        lines += [
            f"| {scaled['shapes']} shapes, bare fits one after the other | "
            f"{scaled['bare']:.1f} s |",
            f"| the same, one worker: shapes / with start and end | {one['shapes']:.1f} / "
            f"{one['wall']:.1f} s |",
            "| overhead of a shape over its bare fit | "
            f"{one['shapes'] / scaled['bare'] - 1:+.1%} |",
            f"| processor time, bare / one worker, with imports | {scaled['bare_processor']:.1f} "
            f"/ {one['processor']:.1f} s |",
            f"| the same, two workers | {two['wall']:.1f} s: {one['wall'] / two['wall']:.2f} "
            "times as fast |",
            f"| most memory of a worker | {scaled['peak_memory'] / 1e9:.2f} GB |",
        ]
    if rough := found.get("faults"):
        told = ", ".join(f"{count} x {name}" for name, count in rough["faults"].items())
        lines.append(
            f"| {rough['shapes']} shapes, {rough['shapes'] // 10} bad, {rough['starts']} starts; "
            f"{told} | {rough['rows']} rows, "
            f"{rough['lost']} shapes hit twice; with --where on those "
            f"{'the same' if rough['same'] else 'NOT the same'} "
            "as undisturbed |"
        )
    if again := found.get("restart"):
        lines.append(
            f"| a finished run of {again['shapes']:,} started again | {again['seconds']:.1f} s |"
        )
    if rows := found.get("catalogue"):
        lines.append(
            f"| a catalogue of {rows['rows']:,} rows opened, {rows['found']:,} found | "
            f"{rows['seconds']:.2f} s |"
        )
    if scaled and rows:
        seconds = scaled["workers 1"]["shapes"] / scaled["shapes"]
        lines += [
            *(
                "",
                "## A million shapes",
                "",
                "Per shape as above, times a million; nothing else is assumed.",
                "",
            ),
            *("| | a shape | a million |", "|---|---|---|"),
            f"| one processor | {seconds:.1f} s | {seconds * MILLION / 3600:,.0f} hours |",
            f"| files | {scaled['bytes'] / 1e3:,.0f} kB | {scaled['bytes'] * MILLION / 1e12:.2f} "
            "TB |",
            f"| objects | {scaled['objects']:.0f} | {scaled['objects']:.0f} million |",
            f"| catalogue | {rows['bytes'] / rows['rows']:,.0f} bytes | "
            f"{rows['bytes'] / rows['rows'] * MILLION / 1e9:.2f} GB |",
        ]
    return "\n".join([*lines, ""])


def measure(options: Options) -> None:
    """Measures the chosen parts, writing batch.json and batch.md after each."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "batch.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    about = machine(pick_device("cpu"))
    found["machine"] = (
        f"{len(os.sched_getaffinity(0))} processors, {about['platform']}, torch "
        f"{about['versions']['torch']}"
    )
    for part in options.only:
        found[part] = {
            "scaling": scaling,
            "faults": faults,
            "restart": restart,
            "catalogue": catalogue,
        }[part](options)
        save_json(path, found)
        with atomic_path(options.out / "batch.md") as temporary:
            temporary.write_text(page(found))
    print(page(found))


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: measure(tyro.cli(Options, prog="batch.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
