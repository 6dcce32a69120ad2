"""Draw the streamlines of a model's local frequency: ``python apps/flow.py model.safetensors``;
``--help`` lists the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from nstr3d.cli.guard import guarded
from nstr3d.cli.words import Options, parse
from nstr3d.jobs.flow import FlowJob, run_flow
from nstr3d.jobs.stages import Listener


@dataclass(frozen=True)
class Flow:
    """Follow the local frequency of a fitted model; write a picture, streamlines, coloured segments
    and a report."""

    job: Options[FlowJob]


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: _flow(parse(Flow, "flow.py", args).job))


def _flow(job: FlowJob) -> None:
    shown = sys.stderr.isatty()
    outcome = run_flow(
        job, Listener(stage=lambda name: print(f"{name} ...", file=sys.stderr) if shown else None)
    )
    frequency = outcome.report["local_frequency"]
    print(
        "local frequency {p5:.3g} .. {p95:.3g}, median {median:.3g}".format(**frequency),
        outcome.report["unit"],
    )
    print(
        f"analysis spectrum explains {outcome.report['analysis']['explained']:.1%} of the "
        "detail's energy"
    )
    print("wrote " + ", ".join(str(path) for path in outcome.files))


if __name__ == "__main__":
    sys.exit(main())
