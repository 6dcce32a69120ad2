"""Fit a field to a sound: ``python apps/fit_audio.py sound.wav``; ``--help`` lists the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nstr3d.cli.fit import FitSignal, fit_signal
from nstr3d.cli.guard import guarded
from nstr3d.cli.words import parse


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: fit_signal(parse(FitSignal, "fit_audio.py", args)))


if __name__ == "__main__":
    sys.exit(main())
