"""The report of ``nstr3d bench device``: the paths of computation of this machine, the error and
the speed of each, and the path that fits take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nstr3d.io.atomic import save_json
from nstr3d.training.calibration import TOLERANCE, Trial
from nstr3d.training.choice import Choice, candidates, choose
from nstr3d.training.paths import ComputePath
from nstr3d.training.trials import trials_of


def run(options: argparse.Namespace) -> None:
    """Measures the paths that ``options`` allow, and prints the table and the choice. Raises
    ValueError like `choose`."""
    paths = candidates(options.device, options.path)
    trials = trials_of(paths, again=options.again)
    measured = dict(zip(paths, trials, strict=True))
    choice = choose(
        options.device, options.path, measured=lambda asked: [measured[each] for each in asked]
    )
    for warning in choice.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.out is not None:
        save_json(
            options.out, {"path": choice.describe(), "trials": [vars(each) for each in trials]}
        )
    print(table(paths, trials, choice))


def table(paths: Sequence[ComputePath], trials: Sequence[Trial], choice: Choice) -> str:
    """The trials of the ``paths`` as a table in markdown, and a sentence on the ``choice``."""
    lines = [
        "| path | computes by | error | training M samples/s | inference M points/s | |",
        "|---|---|---|---|---|---|",
    ]
    for path, trial in zip(paths, trials):
        cells = [
            path.name,
            path.means,
            "" if trial.error is None else f"{trial.error:.1e}",
            *("" if rate is None else f"{rate / 1e6:.3g}" for rate in _rates(trial)),
            "right" if trial.right else f"left out: {trial.fault}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Errors are relative to double precision; a right path has at most {TOLERANCE:.0e}.",
        f"Fits take the path {choice.path.name} on {choice.path.device}: {choice.why}.",
    ]
    return "\n".join(lines)


def _rates(trial: Trial) -> tuple[float | None, float | None]:
    return trial.training, trial.inference
