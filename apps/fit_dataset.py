"""Fit every shape of a data set: ``python apps/fit_dataset.py SHAPES --out OUT``; ``--help`` lists
the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nstr3d.cli.batch import Batch, fit_batch
from nstr3d.cli.guard import guarded
from nstr3d.cli.words import parse


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: fit_batch(parse(Batch, "fit_dataset.py", args)))


if __name__ == "__main__":
    sys.exit(main())
