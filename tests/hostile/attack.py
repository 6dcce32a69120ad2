"""Mutates files, has a worker read them, and counts the outcomes."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hostile.mutate import hostile_models, mutated

PATIENCE = 20.0  # seconds after which a file counts as one that hangs
START = 120.0  # seconds for the worker to import what it needs
ROOT = Path(__file__).resolve().parents[2]
FINE = ("refused", "accepted")


@dataclass
class Outcome:
    """The ``counts`` of the outcomes of a format's files, the ``faults``: name and reason, and the
    most bytes by which the memory of the worker rose."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    most: int = 0


@dataclass(frozen=True)
class Target:
    """A valid file, and ``mutate``, which gives the mutation of a number."""

    name: str
    seed: Path
    mutate: Callable[[int], bytes]


def targets(seeds: list[Path]) -> list[Target]:
    """Bytes of every file of ``seeds`` are mutated, and the entries of models besides."""
    found = []
    for seed in seeds:
        data = seed.read_bytes()
        found.append(Target(seed.name, seed, lambda number, data=data: mutated(data, number)))
        if seed.suffix == ".safetensors":
            found.append(Target(f"{seed.name}, entries", seed, hostile_models(seed)))
    return found


class Reader:
    """A worker process. It is started anew after a file that ended it or that took too long."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def read(self, path: Path, original: Path) -> tuple[str, str, int]:
        """The outcome of reading ``path``, the reason, and the rise of the memory in bytes."""
        process = self.process or self._begin()
        assert process.stdin
        try:
            process.stdin.write(json.dumps([str(path), str(original)]) + "\n")
            process.stdin.flush()
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            self.close()
            return "hang", f"more than {PATIENCE:.0f} s", 0
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            return "crash", "the process died", 0
        said = json.loads(line)
        return said["outcome"], said["error"], said["rise"]

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.thread.join()
            with self.process:  # closes the pipes
                self.process.wait()
        self.process = None

    def _begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from hostile.worker import main; main()"]
        paths = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]; "
        command[2] = paths + command[2]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        self.process, self.lines = process, queue.Queue()
        self.thread = threading.Thread(target=_forward, args=(process, self.lines), daemon=True)
        self.thread.start()
        assert self.lines.get(timeout=START).strip() == '"ready"'
        return process


def _forward(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Passes the lines of a process on; an empty one says that it has ended."""
    assert process.stdout
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def attack(seeds: list[Path], folder: Path, numbers: Iterator[int], seconds: float) -> dict:
    """Reads mutations of each file of ``seeds`` in turn, as long as there are ``numbers`` and
    ``seconds``. Returns the `Outcome` of each name. Files at fault are kept in ``folder``."""
    aims = targets(seeds)
    outcomes = {aim.name: Outcome() for aim in aims}
    folder.mkdir(parents=True, exist_ok=True)
    reader, end = Reader(), time.monotonic() + seconds
    try:
        for number in numbers:
            for place, aim in enumerate(aims):
                if time.monotonic() > end:
                    return outcomes
                path = folder / f"{aim.seed.stem}-{place}-{number}{aim.seed.suffix}"
                path.write_bytes(aim.mutate(number))
                before, outcome = set(folder.iterdir()), outcomes[aim.name]
                kind, reason, rise = reader.read(path, aim.seed)
                extra = set(folder.iterdir()) - before
                if extra:
                    kind, reason = "left files", ", ".join(each.name for each in extra)
                outcome.counts[kind] += 1
                outcome.most = max(outcome.most, rise)
                if kind in FINE:
                    path.unlink()
                else:
                    outcome.faults.append(f"{path.name}: {kind}: {reason}")
    finally:
        reader.close()
    return outcomes


def table(outcomes: dict[str, Outcome]) -> str:
    """The counts as a table in Markdown, with the sums."""
    kinds = ("refused", "accepted", "fault", "hang", "crash", "memory", "left files")
    heads = ("file", "tried", *kinds, "most MB")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, outcome in outcomes.items():
        lines.append(_row(name, [outcome.counts[kind] for kind in kinds], outcome.most))
    sums = [sum(each.counts[kind] for each in outcomes.values()) for kind in kinds]
    lines.append(_row("all", sums, max(each.most for each in outcomes.values())))
    return "\n".join(lines) + "\n"


def _row(name: str, counts: list[int], most: int) -> str:
    numbers = " | ".join(f"{count:,}" for count in (sum(counts), *counts))
    return f"| {name} | {numbers} | {most / 1e6:.0f} |"
