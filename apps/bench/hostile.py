"""Read mutated files for as long as you like: ``python apps/bench/hostile.py --minutes 30``.

Files of every format are mutated by numbers from --first on, and a worker reads each as the program
would. In models, entries of the header and tensors are replaced too, in files without a checksum.
The page counts those refused with one sentence, those accepted, and faults: tracebacks, hangs of
more than 20 s, processes that died, memory beyond twice that of the valid file and 200 MB, and
files that were left. Writes hostile.md to --out, and keeps the files at fault there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.io.atomic import atomic_path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """Read mutated files of every format and count what comes of them."""

    minutes: float = 1.0
    """How long to go on."""
    first: int = 0
    """The number of the first mutation; the same numbers give the same files."""
    out: Path = ROOT / "out" / "hostile"
    """Folder of hostile.md and of the files at fault."""


def measure(options: Options) -> None:
    """Reads mutated files and writes the page. Raises ValueError if there was a fault."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hostile.attack import attack, table  # pyright: ignore[reportMissingImports]
    from hostile.memory import memory_table  # pyright: ignore[reportMissingImports]
    from hostile.seeds import write_seeds  # pyright: ignore[reportMissingImports]

    commit, seeds = find_commit(ROOT), write_seeds(options.out / "seeds")
    outcomes = attack(seeds, options.out / "files", count(options.first), 60 * options.minutes)
    head = (
        "# Mutated files\n\n`python apps/bench/hostile.py`: what became of mutations of small "
        f"valid files, numbers from {options.first}, {options.minutes:g} minutes, commit "
        f"{commit}. Of a model with the word entries, an entry of the header or a "
        "tensor was replaced, and the file has no checksum. Accepted models have the weights of "
        "the original. A file is at fault if it takes more than twice the memory of the valid one "
        "and 200 MB; the last column is the most that one took.\n\n"
    )
    text = (
        f"{head}{table(outcomes)}\n## Memory while a model is loaded\n\nThe rise of the peak of a "
        f"process.\n\n{memory_table(options.out / 'memory')}"
    )
    with atomic_path(options.out / "hostile.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    faults = [fault for outcome in outcomes.values() for fault in outcome.faults]
    if faults:
        raise ValueError(f"{len(faults)} file(s) at fault in {options.out}/files: {faults[0]}")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: measure(tyro.cli(Options, prog="hostile.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
