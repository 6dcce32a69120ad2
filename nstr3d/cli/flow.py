"""The command ``nstr3d flow``, which reads a model's spectrum."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from nstr3d.cli.words import Options
from nstr3d.jobs.flowoptions import FlowJob
from nstr3d.jobs.stages import Listener


@dataclass(frozen=True)
class Flow:
    """Follow the local frequency of a fitted model; write a picture, streamlines, coloured segments
    and a report."""

    job: Options[FlowJob]


def draw_flow(options: Flow) -> None:
    """Reads a model as ``options`` say, showing stages and a few figures."""
    from nstr3d.jobs.flow import run_flow

    shown = sys.stderr.isatty()
    outcome = run_flow(
        options.job,
        Listener(stage=lambda name: print(f"{name} ...", file=sys.stderr) if shown else None),
    )
    report = outcome.report
    middle = "local frequency {p5:.3g} .. {p95:.3g}, median {median:.3g}"
    print(middle.format(**report["local_frequency"]), report["unit"])
    explained = report["analysis"]["explained"]
    print(f"analysis spectrum explains {explained:.1%} of the detail's energy")
    print("wrote " + ", ".join(str(path) for path in outcome.files))
