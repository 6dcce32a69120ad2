"""Kill runs at random moments and let runs race: ``python apps/bench/crash.py --kills 200``.

A process that has fitted once is forked for each run, so that a run takes a fraction of a second.
After each kill the folder must show the old set of results or the new one, whole. The next run,
with --resume where there is a checkpoint, must give the bits of a run that was not killed, and
leave no other file. Of runs that start on one output at once, one publishes and the others say so.
Writes crash.md to --out. Needs os.fork.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.geometry.shapes.primitives import sphere
from nstr3d.io import save_image, save_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.options import Extraction, Output, Training
from nstr3d.jobs.results import MESH, MODEL, checkpoints
from nstr3d.jobs.signal import SignalJob, run_signal
from nstr3d.jobs.walk import REPORT
from nstr3d.surface.extract import extract_mesh

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that this script can import apps

from apps.bench.crash_runs import MINE, Tally, ended, forked, kill_batch, results

ROOT = Path(__file__).resolve().parents[2]
HOW = Training(preset="fast", params=6000, steps=12, pool=4096, device="cpu")
WHAT = Extraction(resolution=12, samples=200, picture=0)
EXACT = (MODEL, MESH, "image.png")  # files that equal runs write with equal bits
KINDS = ("fit", "points", "image", "batch")


@dataclass(frozen=True)
class Options:
    """Kill runs at random moments, and let runs race for one output."""

    kills: int = 200
    """Number of runs that are killed."""
    races: int = 100
    """Number of outputs for which two or four runs race."""
    seed: int = 0
    """Seed of the moments."""
    only: tuple[Literal["fit", "points", "image", "batch"], ...] = KINDS
    """The kinds of jobs; of batch, a process that replaces the results of a shape over and over."""
    out: Path = ROOT / "out" / "crash"
    """Folder of crash.md and of the folders at fault."""


@dataclass(frozen=True)
class Kind:
    """A kind of job: its name, how it runs, and the job with a seed into a folder."""

    name: str
    run: Callable[[Any], Any]
    job: Callable[[Path, int], Any]


def kinds(folder: Path) -> list[Kind]:
    """The kinds of jobs, with small inputs in ``folder``."""
    mesh, points, picture = (folder / name for name in ("in.ply", "points.xyz", "in.png"))
    ball = extract_mesh(sphere(), 12)
    save_mesh(mesh, ball)
    np.savetxt(points, np.hstack([ball.vertices, ball.vertices]))
    save_image(picture, np.random.default_rng(0).random((24, 20, 3)))

    def surface(make: type, path: Path) -> Callable[[Path, int], Any]:
        output = Output(checkpoint_seconds=0.0)
        return lambda out, seed: make(path, replace(HOW, seed=seed), WHAT, replace(output, out=out))

    return [
        Kind("fit", run, surface(MeshJob, mesh)),
        Kind("points", run_points, surface(PointsJob, points)),
        Kind(
            "image",
            run_signal,
            lambda out, seed: SignalJob(picture, out, params=300, seed=seed, noise=0.01),
        ),
    ]


def exact(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those of ``files`` that equal runs write with equal bits; of a model the weights, since its
    header says how long training took."""
    same = {name: data for name, data in files.items() if name in EXACT}
    if MODEL in same:
        header = int.from_bytes(same[MODEL][:8], "little")
        same[MODEL] = same[MODEL][8 + header :]
    return same


def set_shown(folder: Path, sets: dict[str, dict[str, bytes]]) -> str:
    """Which of ``sets`` a folder shows, whole and with its report; "none" for no results, and
    "part" for anything else."""
    files = results(folder)
    if REPORT not in files:
        return "none" if not files.keys() & {MESH, "image.png", "render.png"} else "part"
    report = json.loads(files[REPORT])
    for name, expected in sets.items():
        same = exact(files) == exact(expected) and set(report["files"]) == set(expected)
        if (
            same
            and set(expected) <= files.keys()
            and report["seed"] == json.loads(expected[REPORT])["seed"]
        ):
            return name
    return "part"


def allowing(job: Any, overwrite: bool, resume: bool = False) -> Any:
    """The job with the options overwrite and resume."""
    if isinstance(job, SignalJob):
        return replace(job, overwrite=overwrite)
    return replace(job, output=replace(job.output, overwrite=overwrite, resume=resume))


class Bench:
    """The sets of results of runs that nobody disturbs, and trials against them."""

    def __init__(self, folder: Path, seed: int, only: Sequence[str]):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.random = folder, np.random.default_rng(seed)
        self.kinds = [kind for kind in kinds(folder) if kind.name in only]
        self.sets: dict[str, dict[str, dict[str, bytes]]] = {}
        self.seconds: dict[str, float] = {}
        for kind in self.kinds:
            kind.run(kind.job(folder / f"{kind.name}-warm", 2))  # compiles what is compiled
            sets = {}
            for number, name in enumerate(("old", "new")):
                out, started = folder / f"{kind.name}-{name}", time.monotonic()
                assert ended(forked(partial(kind.run, kind.job(out, number)))) == 0, out
                self.seconds[kind.name] = time.monotonic() - started
                sets[name] = results(out)
            assert exact(sets["old"]) != exact(sets["new"])
            self.sets[kind.name] = sets

    def begin(self, kind: Kind, number: int, overwrite: bool) -> Path:
        """A folder for a trial, which holds the old set if that is to be replaced."""
        out = self.folder / f"{kind.name}-{number}"
        out.mkdir()
        (out / MINE).write_text("mine")
        for name, data in self.sets[kind.name]["old"].items() if overwrite else ():
            (out / name).write_bytes(data)
        return out

    def kill(self, kind: Kind, number: int, overwrite: bool, tally: Tally) -> None:
        """Kills a run at a random moment, looks at the folder, and runs the job again."""
        out, sets = self.begin(kind, number, overwrite), self.sets[kind.name]
        job, log = kind.job(out, 1), out.with_suffix(".txt")
        child = forked(lambda: kind.run(allowing(job, overwrite)), log)
        time.sleep(float(self.random.uniform(0, 1.1 * self.seconds[kind.name])))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        tally.runs += 1
        tally.counts["killed"] += os.WIFSIGNALED(status)
        shown = set_shown(out, sets)
        tally.counts[f"{shown} set"] += 1
        if shown not in (("old", "new") if overwrite else ("none", "new")):
            tally.faults.append(f"{out.name}: after the kill it shows {shown}")
        resume = not isinstance(job, SignalJob) and bool(checkpoints(out))
        resume &= shown != "new"  # the run was killed after it had published
        tally.counts["resumed"] += resume
        again = allowing(
            job, not resume and (overwrite or shown == "new" or bool(results(out))), resume
        )
        self._check_end(kind, out, ended(forked(lambda: kind.run(again), log)), tally)

    def race(self, kind: Kind, number: int, writers: int, overwrite: bool, tally: Tally) -> None:
        """Lets ``writers`` runs of one job start at once."""
        out = self.begin(kind, number, overwrite)
        job, log = allowing(kind.job(out, 1), overwrite), out.with_suffix(".txt")
        moment = time.monotonic() + 0.05

        def start() -> None:
            time.sleep(max(0.0, moment - time.monotonic()))
            kind.run(job)

        codes = [ended(child) for child in [forked(start, log) for _ in range(writers)]]
        tally.runs += 1
        won, refused = codes.count(0), codes.count(1)
        tally.counts["won"] += won
        tally.counts["refused"] += refused
        said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
        # Who starts after another has ended finds its results, and with overwrite replaces them.
        if not won or won + refused != writers or (won > 1 and not overwrite):
            tally.faults.append(f"{out.name}: exit codes {codes}")
        if len(said) != refused or any(
            "written by" not in one and "holds" not in one for one in said
        ):
            tally.faults.append(f"{out.name}: {refused} refused, said {said}")
        self._check_end(kind, out, 0, tally)

    def _check_end(self, kind: Kind, out: Path, code: int | None, tally: Tally) -> None:
        """Notes a fault unless ``out`` holds the new set and the user's file and nothing else."""
        sets = self.sets[kind.name]
        names = {path.name for path in out.iterdir()}
        if code != 0:
            tally.faults.append(f"{out.name}: the next run ended with {code}")
        elif set_shown(out, sets) != "new":
            tally.faults.append(f"{out.name}: the next run left {set_shown(out, sets)}")
        elif names != {*sets["new"], MINE}:
            tally.faults.append(f"{out.name}: left {sorted(names - {*sets['new'], MINE})}")
        else:
            tally.counts["whole"] += 1
            shutil.rmtree(out)
            out.with_suffix(".txt").unlink(missing_ok=True)


def measure(options: Options) -> dict[str, Tally]:
    """The tallies of killed runs and of races, in turn over all kinds."""
    torch.set_num_threads(1)
    kills, races, tallies = options.kills, options.races, dict[str, Tally]()
    bench = Bench(options.out / "runs", options.seed, options.only)
    ways = [(kind, overwrite) for overwrite in (False, True) for kind in bench.kinds]
    for number in range(kills if ways else 0):
        kind, overwrite = ways[number % len(ways)]
        row = f"kill {kind.name}{' --overwrite' if overwrite else ''}"
        bench.kill(kind, number, overwrite, tallies.setdefault(row, Tally()))
    for number in range(kills if "batch" in options.only else 0):
        out = options.out / "runs" / f"batch-{number}"
        seconds = float(bench.random.uniform(0, 0.05))
        kill_batch(out, seconds, tallies.setdefault("kill batch, as it publishes", Tally()))
    for number in range(races if ways else 0):
        kind, overwrite = ways[number % len(ways)]
        writers = 2 + 2 * (number // len(ways) % 2)
        row = f"{writers} runs of {kind.name}{' --overwrite' if overwrite else ''}"
        bench.race(kind, kills + number, writers, overwrite, tallies.setdefault(row, Tally()))
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The tallies as a table in Markdown."""
    names = "killed", "none set", "old set", "new set", "resumed", "won", "refused", "whole"
    heads = "what", "runs", *names, "faults"
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for what, tally in sorted(tallies.items()):
        counts = (tally.runs, *(tally.counts[name] for name in names), len(tally.faults))
        lines.append(f"| {what} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines) + "\n"


def write(options: Options) -> None:
    """Runs the trials and writes the page. Raises ValueError if there was a fault."""
    commit, tallies = find_commit(ROOT), measure(options)
    head = (
        "# Kills and races\n\n"
        f"`python apps/bench/crash.py --kills {options.kills} --races {options.races} --seed "
        f"{options.seed} --only {' '.join(options.only)}`, commit {commit}. "
        "Runs were killed (SIGKILL) at random "
        "moments, then the folder showed no set of results, the old one or the new one, whole. "
        "The next run, resumed where a checkpoint was, gave the bits of a run that was not killed "
        "and left no other file (whole). Of racing runs one won, the others said so; with "
        "--overwrite a run that started after another had ended may win too.\n\n"
    )
    with atomic_path(options.out / "crash.md") as temporary:
        temporary.write_text(head + table(tallies), encoding="utf-8")
    print(head + table(tallies))
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    if faults:
        raise ValueError(f"{len(faults)} fault(s); the first is {faults[0]}, of {options.out}.")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: write(tyro.cli(Options, prog="crash.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
