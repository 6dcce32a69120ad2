"""Measure what a data set costs: ``python apps/bench/batch.py``.

The parts are the speed-up by workers, the overhead and the memory (``scaling``), killed workers and
runs (``faults``), the start of a finished run (``restart``), and the catalogue (``catalogue``).
``--only`` chooses parts. Each part writes its figures to batch.json in --out; batch.md is made of
all figures there and adds the costs of a million shapes. The figures need an otherwise idle
machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from nstr3d.batch.catalogue import CATALOGUE, COLUMNS, CREATE, UPSERT, row_of, select
from nstr3d.cli.command import guarded
from nstr3d.io import save_json
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.stages import machine

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that this script can import apps

from apps.bench.batch_runs import Options, faults, restart, scaling

MILLION = 1_000_000
ROWS = 100_000


def catalogue(options: Options) -> dict[str, Any]:
    """Writes a catalogue of `ROWS` rows, and measures its bytes and the seconds to open and filter
    it, imports excluded."""
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


def page(figures: dict[str, Any]) -> str:
    """batch.md: the measured figures, and the costs of a million shapes."""
    lines = [
        "# Data sets: what they cost",
        "",
        f"`python apps/bench/batch.py`; {figures['machine']}.",
        "",
        "| what | measured |",
    ]
    lines.append("|---|---|")
    if scaled := figures.get("scaling"):
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
    if rough := figures.get("faults"):
        faults_made = ", ".join(f"{count} x {name}" for name, count in rough["faults"].items())
        lines.append(
            f"| {rough['shapes']} shapes, {rough['shapes'] // 10} bad, {rough['starts']} starts; "
            f"{faults_made} | {rough['rows']} rows, "
            f"{rough['lost']} shapes hit twice; after these are fitted again with --where, "
            f"{'the same' if rough['same'] else 'NOT the same'} "
            "as an undisturbed run |"
        )
    if again := figures.get("restart"):
        lines.append(
            f"| a finished run of {again['shapes']:,} started again | {again['seconds']:.1f} s |"
        )
    if rows := figures.get("catalogue"):
        lines.append(
            f"| a catalogue of {rows['rows']:,} rows opened, {rows['found']:,} found | "
            f"{rows['seconds']:.2f} s |"
        )
    if scaled and rows:
        lines += _million(scaled, rows)
    return "\n".join([*lines, ""])


def _million(scaled: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """The costs of a million shapes."""
    seconds = scaled["workers 1"]["shapes"] / scaled["shapes"]
    return [
        *("", "## A million shapes", "", "The costs of a shape above, times a million.", ""),
        *("| | a shape | a million |", "|---|---|---|"),
        f"| one processor | {seconds:.1f} s | {seconds * MILLION / 3600:,.0f} hours |",
        f"| files | {scaled['bytes'] / 1e3:,.0f} kB | {scaled['bytes'] * MILLION / 1e12:.2f} TB |",
        f"| objects | {scaled['objects']:.0f} | {scaled['objects']:.0f} million |",
        f"| catalogue | {rows['bytes'] / rows['rows']:,.0f} bytes | "
        f"{rows['bytes'] / rows['rows'] * MILLION / 1e9:.2f} GB |",
    ]


def measure(options: Options) -> None:
    """Measures the parts ``options.only`` and writes batch.json and batch.md after each."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "batch.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    about = machine()
    figures["machine"] = (
        f"{len(os.sched_getaffinity(0))} processors, {about['platform']}, torch "
        f"{about['versions']['torch']}"
    )
    for part in options.only:
        figures[part] = {
            "scaling": scaling,
            "faults": faults,
            "restart": restart,
            "catalogue": catalogue,
        }[part](options)
        save_json(path, figures)
        with atomic_path(options.out / "batch.md") as temporary:
            temporary.write_text(page(figures))
    print(page(figures))


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: measure(tyro.cli(Options, prog="batch.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
