"""Race our fields against their controls and baselines: ``python apps/benchmark.py [FILE or FOLDER
...]``, which is ``nstr3d bench``; --help lists options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nstr3d.cli.bench import bench
from nstr3d.cli.guard import guarded


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    words = sys.argv[1:] if args is None else list(args)
    return guarded(lambda: bench(words, "benchmark.py"))


if __name__ == "__main__":
    sys.exit(main())
