"""Fit a neural surface to points: ``python apps/fit_points.py scan.ply``; ``--help`` lists the
options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nstr3d.cli.fit import FitPoints, fit_points
from nstr3d.cli.guard import guarded
from nstr3d.cli.words import parse


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: fit_points(parse(FitPoints, "fit_points.py", args)))


if __name__ == "__main__":
    sys.exit(main())
