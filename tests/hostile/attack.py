"""Mutates files, has a worker read them, and counts the outcomes."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hostile.mutate import mutated

PATIENCE = 20.0  # seconds after which a file counts as one that hangs
START = 120.0  # seconds for the worker to import what it needs
ROOT = Path(__file__).resolve().parents[2]
FINE = ("refused", "accepted")


@dataclass
class Outcome:
    """The ``counts`` of the outcomes of a format's files, and the ``faults``: name and reason."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Reader:
    """A worker process. It is started anew after a file that ended it or that took too long."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def read(self, path: Path, original: Path) -> tuple[str, str]:
        """The outcome of reading ``path``, and the reason."""
        process = self.process or self._begin()
        assert process.stdin
        try:
            process.stdin.write(json.dumps([str(path), str(original)]) + "\n")
            process.stdin.flush()
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            self.close()
            return "hang", f"more than {PATIENCE:.0f} s"
        except BrokenPipeError:
            line = ""
        if not line:
            self.close()
            return "crash", "the process died"
        said = json.loads(line)
        return said["outcome"], said["error"]

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
    outcomes = {seed.name: Outcome() for seed in seeds}
    folder.mkdir(parents=True, exist_ok=True)
    contents = {seed: seed.read_bytes() for seed in seeds}
    reader, end = Reader(), time.monotonic() + seconds
    try:
        for number in numbers:
            for seed, data in contents.items():
                if time.monotonic() > end:
                    return outcomes
                path = folder / f"{seed.stem}-{number}{seed.suffix}"
                path.write_bytes(mutated(data, number))
                before = set(folder.iterdir())
                kind, reason = reader.read(path, seed)
                extra = set(folder.iterdir()) - before
                if extra:
                    kind, reason = "left files", ", ".join(each.name for each in extra)
                outcomes[seed.name].counts[kind] += 1
                if kind in FINE:
                    path.unlink()
                else:
                    outcomes[seed.name].faults.append(f"{path.name}: {kind}: {reason}")
    finally:
        reader.close()
    return outcomes


def table(outcomes: dict[str, Outcome]) -> str:
    """The counts as a table in Markdown."""
    kinds = ("refused", "accepted", "fault", "hang", "crash", "memory", "left files")
    lines = ["| file | tried | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for name, outcome in outcomes.items():
        counts = [outcome.counts[kind] for kind in kinds]
        lines.append(f"| {name} | {sum(counts):,} | " + " | ".join(f"{n:,}" for n in counts) + " |")
    return "\n".join(lines) + "\n"
