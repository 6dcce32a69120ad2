"""Kill runs at random moments and let runs race: ``python apps/bench/crash.py --kills 200``.

A process that has fitted once is forked for each run, so that a run takes a fraction of a second;
a data set starts its worker anew. Half of the kills come at a random moment of the run, half at one
while the run publishes. After each kill the folder must show the old set of results or the new one,
whole. The next run, with --resume where there is a checkpoint, must give the bits of a run that was
not killed, and leave no other file. Of runs that start on one output at once, one publishes and
the others say so. Writes crash.md to --out. Needs os.fork.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.io.atomic import atomic_path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # so that this script can import apps

from apps.bench.crash_runs import (
    MINE,
    Kind,
    Tally,
    ended,
    exact,
    forked,
    kill,
    kinds,
    left,
    results,
    wait_for,
)

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("fit", "points", "image", "batch")
WHAT = ("kill", "runs of")  # in the names of the rows
SAID = ("written by", "holds")  # in the sentence of a run that was refused


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
    """The kinds of runs. A data set is replaced by one with another seed."""
    out: Path = ROOT / "out" / "crash"
    """Folder of crash.md and of the folders at fault."""


class Bench:
    """The sets of results of runs that nobody disturbs, and trials against them."""

    def __init__(self, folder: Path, seed: int, only: tuple[str, ...]):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.random = folder, np.random.default_rng(seed)
        self.kinds = kinds(folder, only)
        self.sets: dict[str, dict[str, dict[str, bytes]]] = {}
        self.seconds: dict[str, float] = {}
        for kind in self.kinds:
            if kind.name != "batch":  # its worker is a new process
                kind.run(kind.make(folder / f"{kind.name}-warm", 2))  # compiles what is compiled
            sets = {}
            for number, name in enumerate(("old", "new")):
                out, started = folder / f"{kind.name}-{name}", kind.clock(0)
                job, log = kind.make(out, number), folder / f"{kind.name}-{name}.txt"
                if code := ended(forked(partial(kind.run, job), log)):
                    raise ValueError(f"The run into {out} ended with {code}; see {log}.")
                self.seconds[kind.name] = kind.clock(0) - started
                sets[name] = results(out)
            assert exact(sets["old"]) != exact(sets["new"])
            self.sets[kind.name] = sets

    def begin(self, kind: Kind, number: int, overwrite: bool) -> Path:
        """A folder for a trial, which holds the old set if that is to be replaced."""
        out = self.folder / f"{kind.name}-{number}"
        out.mkdir()
        out.with_suffix(".tmp").mkdir()
        (out / MINE).write_text("mine")
        for name, data in self.sets[kind.name]["old"].items() if overwrite else ():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(data)
        return out

    def kill(
        self, kind: Kind, number: int, overwrite: bool, publishing: bool, tally: Tally
    ) -> None:
        """Kills a run at a random moment, or ``publishing`` at one while it publishes, looks at
        the folder, and runs the job again."""
        out = self.begin(kind, number, overwrite)
        job, log, scratch = kind.make(out, 1), out.with_suffix(".txt"), out.with_suffix(".tmp")
        child = forked(lambda: kind.run(kind.allowing(job, overwrite)), log, scratch)
        if publishing:
            wait_for(child, lambda: kind.staged(out))
            time.sleep(0.3 * float(self.random.uniform(0, 1)) ** 2)
        else:
            moment = kind.clock(child) + self.random.uniform(0, self.seconds[kind.name])
            wait_for(child, lambda: kind.clock(child) >= moment)
        tally.runs += 1
        tally.counts["killed"] += kill(child)
        shown = kind.shown(out, self.sets[kind.name])
        tally.counts[shown] += 1
        fine = {"new", "old" if overwrite else "none"} | (
            {"some"} if len(kind.parts) > 1 else set()
        )
        if shown not in fine:
            tally.faults.append(f"{out.name}: after the kill it shows {shown}")
        again = kind.again(job, out, shown, overwrite)
        tally.counts["resumed"] += bool(getattr(getattr(again, "output", None), "resume", False))
        code = ended(forked(lambda: kind.run(again), log, scratch))
        self._check_end(kind, out, code, tally)

    def race(self, kind: Kind, number: int, writers: int, overwrite: bool, tally: Tally) -> None:
        """Lets ``writers`` runs of one job start at once."""
        out = self.begin(kind, number, overwrite)
        job, log = kind.allowing(kind.make(out, 1), overwrite), out.with_suffix(".txt")
        moment = time.monotonic() + 0.05

        def start() -> None:
            time.sleep(max(0.0, moment - time.monotonic()))
            kind.run(job)

        scratch = out.with_suffix(".tmp")
        codes = [ended(child) for child in [forked(start, log, scratch) for _ in range(writers)]]
        tally.runs += 1
        won, refused = codes.count(0), codes.count(1)
        tally.counts["won"] += won
        tally.counts["refused"] += refused
        said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
        # Who starts after another has ended finds its results, and with overwrite replaces them;
        # in a data set it finds nothing to do.
        late = overwrite or kind.name == "batch"
        if not won or won + refused != writers or (won > 1 and not late):
            tally.faults.append(f"{out.name}: exit codes {codes}")
        if len(said) != refused or not all(any(each in one for each in SAID) for one in said):
            tally.faults.append(f"{out.name}: {refused} refused, said {said}")
        self._check_end(kind, out, 0, tally)

    def _check_end(self, kind: Kind, out: Path, code: int | None, tally: Tally) -> None:
        """Notes a fault unless ``out`` holds the new set and the user's file and nothing else, and
        the folder of temporary files is empty."""
        sets, scratch = self.sets[kind.name], out.with_suffix(".tmp")
        others = left(out, set(sets["new"])) | {path.name for path in scratch.iterdir()}
        if code != 0:
            tally.faults.append(f"{out.name}: the next run ended with {code}")
        elif (shown := kind.shown(out, sets)) != "new":
            tally.faults.append(f"{out.name}: the next run left {shown}")
        elif others or set(results(out)) != set(sets["new"]):
            tally.faults.append(f"{out.name}: left {sorted(others)}")
        else:
            tally.counts["whole"] += 1
            for folder in (out, scratch):
                shutil.rmtree(folder)
            out.with_suffix(".txt").unlink(missing_ok=True)


def measure(options: Options) -> dict[str, Tally]:
    """The tallies of killed runs and of races, in turn over all kinds. The page is written after
    each, so that a run that is stopped leaves one."""
    torch.set_num_threads(1)
    tallies: dict[str, Tally] = {}
    bench, commit = Bench(options.out / "runs", options.seed, options.only), find_commit(ROOT)
    # Points take long, and data sets longer, whose worker imports torch: they have fewer turns.
    turns = {"fit": 3, "image": 3, "points": 2, "batch": 1}
    ways = [
        (kind, overwrite)
        for turn in range(3)
        for overwrite in (False, True)
        for kind in bench.kinds
        if turn < turns[kind.name]
    ]

    def row(kind: Kind, overwrite: bool, what: str) -> Tally:
        how = " over an old one" if kind.name == "batch" else " --overwrite"
        return tallies.setdefault(what.format(kind.name + how * overwrite), Tally())

    trials = [(number / options.kills, number, "kill") for number in range(options.kills)]
    trials += [(number / options.races, number, "race") for number in range(options.races)]
    for _, number, what in sorted(trials):
        kind, overwrite = ways[number % len(ways)]
        second = number // len(ways) % 2 == 1
        if what == "kill":
            tally = row(kind, overwrite, "kill {}, publishing" if second else "kill {}")
            bench.kill(kind, number, overwrite, second, tally)
        else:
            writers = 4 if second else 2
            tally = row(kind, overwrite, f"{writers} runs of {{}}")
            bench.race(kind, options.kills + number, writers, overwrite, tally)
        with atomic_path(options.out / "crash.md") as temporary:
            temporary.write_text(page(options, commit, tallies), encoding="utf-8")
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The tallies as a table in Markdown."""
    names = "killed", "none", "old", "some", "new", "resumed", "won", "refused", "whole"
    heads = "what", "runs", *names, "faults"
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for what, tally in sorted(tallies.items()):
        counts = (tally.runs, *(tally.counts[name] for name in names), len(tally.faults))
        lines.append(f"| {what} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines) + "\n"


def page(options: Options, commit: str, tallies: dict[str, Tally]) -> str:
    """The page on what was done so far."""
    runs = {what: sum(each.runs for name, each in tallies.items() if what in name) for what in WHAT}
    return (
        "# Kills and races\n\n"
        f"`python apps/bench/crash.py --kills {options.kills} --races {options.races} --seed "
        f"{options.seed} --only {' '.join(options.only)}`, commit {commit}: {runs['kill']} kills "
        f"and {runs['runs of']} races. "
        "Runs were killed (SIGKILL) at random moments, half of them while they published. Then the "
        "folder showed no set of results, the old one or the new one, whole; of the shapes of a "
        "data set some showed the new one. The next run, resumed where a checkpoint was, gave the "
        "bits of a run that was not killed and left no other file, also no temporary one (whole). "
        "Of racing runs one won, the others said so; with --overwrite and in data sets a run that "
        "started after another had ended may win too.\n\n"
    ) + table(tallies)


def write(options: Options) -> None:
    """Runs the trials and prints the page. Raises ValueError if there was a fault."""
    tallies = measure(options)
    print((options.out / "crash.md").read_text(encoding="utf-8"))
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    if faults:
        raise ValueError(f"{len(faults)} fault(s); the first is {faults[0]}, of {options.out}.")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: write(tyro.cli(Options, prog="crash.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
