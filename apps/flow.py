"""See a model's spectrum: ``python apps/flow.py model.safetensors`` draws its streamlines;
``--help`` lists the options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from nstr3d.cli.command import guarded
from nstr3d.jobs.flow import READ, RESOLUTION, SAMPLES, FlowJob, run_flow
from nstr3d.jobs.stages import Listener


@dataclass(frozen=True)
class Flow:
    """Follow the local frequency of a fitted model; write a picture, streamlines, coloured segments
    and a report."""

    model: tyro.conf.Positional[Path]
    """A model that nstr3d saved: of a shape, an image or a sound."""
    out: Path | None = None
    """Folder for the results; flow/ beside the model by default."""
    seeds: int = 1500
    """Lines to try; those that come too near others are left out."""
    separation: float = 0.03
    """How far lines keep apart, where the longest side of the box is 2."""
    length: float = 0.6
    """How far a line is followed to each side, in the same units."""
    segments: int = 4
    """Regions of alike spectrum."""
    phases: bool = False
    """Read a shape's own phase waves instead of what its relief does; the report says how far they
    are apart."""
    highest: float | None = None
    """The highest frequency of that spectrum, in radians per box unit."""
    size: int = 768
    """Width and height of the picture of a shape."""
    resolution: int = RESOLUTION
    """Cells along the longest side of the surface of a shape."""
    samples: int = SAMPLES
    """Points of that surface that are analysed."""
    read: int = READ
    """Points among them where waves are read."""
    seed: int = 0
    """Seed of the lines' starts."""
    overwrite: bool = False
    """Replace results that are already there."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: _flow(tyro.cli(Flow, prog="flow.py", args=args)))


def _flow(options: Flow) -> None:
    values = {name: value for name, value in vars(options).items() if name not in ("model", "out")}
    job = FlowJob(path=options.model, out=options.out or options.model.parent / "flow", **values)
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
