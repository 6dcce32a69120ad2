"""The command ``nstr3d combine``, which joins, intersects or cuts models of shapes."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from nstr3d.cli.words import Options
from nstr3d.jobs.combineoptions import CombineJob
from nstr3d.jobs.stages import Listener


@dataclass(frozen=True)
class Combine:
    """Combine models of shapes into one; write model, mesh, picture and report."""

    job: Options[CombineJob]


def combine(options: Combine) -> None:
    """Combines models as ``options`` say, and prints a few figures."""
    from nstr3d.jobs.combine import run_combine

    shown = sys.stderr.isatty()
    outcome = run_combine(
        options.job,
        Listener(
            stage=lambda name: print(f"{name} ...", file=sys.stderr) if shown else None,
            warn=lambda message: print(f"warning: {message}", file=sys.stderr),
        ),
    )
    mesh = outcome.report["mesh"]
    closed = "watertight" if mesh["watertight"] else "not watertight"
    print(
        f"{outcome.report['input']['operation']} of {len(options.job.paths)} models: "
        f"{mesh['faces']:,} faces, {closed}, volume {mesh['volume']:.6g}, area {mesh['area']:.6g}"
    )
    print("wrote " + ", ".join(str(path) for path in outcome.files))
