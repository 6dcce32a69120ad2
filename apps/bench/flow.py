"""Measure errors of the local frequency where its closed form is known:
``python apps/bench/flow.py --out assets/results``.

The signals are a fit of assets/ripple.obj, whose ripples' frequency rises by a factor of four, and
gratings and a chirp. The fit's frequency is read along its streamlines as apps/flow.py reads it;
gratings and chirp get the analysis that apps/flow.py applies to pictures and sounds. The time of
1,000 streamlines of 200 steps is measured too. Writes flow.md to --out.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from nstr3d.bench.commits import find_commit
from nstr3d.cli import command as cli
from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.waves import PhaseWaves
from nstr3d.geometry.shapes.ripples import Chirp, drifting_ripple
from nstr3d.io import load_lines
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.flow import FlowJob, run_flow
from nstr3d.jobs.flowoptions import READ, SAMPLES
from nstr3d.jobs.flowshape import surface_grid
from nstr3d.model.checkpoint import load
from nstr3d.spectrum.analysis import AnalysisConfig, analyse
from nstr3d.spectrum.flow import StreamConfig, streamlines
from nstr3d.spectrum.reading import LocalSpectrum, difference
from nstr3d.spectrum.relief import across
from nstr3d.types import Box

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Benchmark:
    """Measure errors of the local frequency where its closed form is known; write flow.md."""

    out: Path = Path("out/flow_benchmark")
    """Folder of flow.md."""
    model: Path = Path("out/flow_benchmark/ripple/model.safetensors")
    """Fit of assets/ripple.obj; made if it does not exist."""
    steps: int = 2500
    """Training steps of that fit."""
    size: int = 768
    """Pixels per side of flow.png, which is written beside the fit."""
    samples: int = SAMPLES
    """Number of points on the fit's surface that are analysed."""
    read: int = READ
    """Number of these points where waves are read."""
    lines: int = 1000
    """Number of streamlines that are timed."""
    gratings: tuple[float, ...] = (9.0, 15.0, 20.0, 30.0, 48.0, 60.0, 90.0)
    """Frequencies of the gratings, in radians per unit."""


def ripple(options: Benchmark) -> Iterator[str]:
    """Table rows of the fitted ball: the frequency along its streamlines, and that of the model's
    own phase waves, both against the relief's. Raises ValueError if the fit fails."""
    if not options.model.exists():
        words = [
            "fit",
            str(ROOT / "assets" / "ripple.obj"),
            "--steps",
            str(options.steps),
            "--out",
            str(options.model.parent),
        ]
        if cli.main(words) != 0:
            raise ValueError(
                f"The fit of ripple.obj in {options.model.parent} failed; see the error above."
            )
    out, shape = options.model.parent / "flow", drifting_ripple()
    run_flow(
        FlowJob(
            options.model,
            out,
            size=options.size,
            samples=options.samples,
            read=options.read,
            overwrite=True,
        )
    )
    lines, _ = load_lines(out / "lines.ply")
    assert lines.values is not None
    points = torch.from_numpy(lines.points).float()
    ends = lines.segments
    central = torch.zeros_like(points).index_add(
        0, torch.from_numpy(ends[:, 0]), points[ends[:, 1]] - points[ends[:, 0]]
    )
    # The sum of both segments at a point is a central difference.
    central.index_add_(0, torch.from_numpy(ends[:, 1]), points[ends[:, 1]] - points[ends[:, 0]])
    normals = torch.nn.functional.normalize(points, dim=1)
    true = across(shape.frequency(points), normals)
    estimate = (
        torch.nn.functional.normalize(across(central, normals), dim=1)
        * torch.from_numpy(lines.values).float()[:, None]
    )
    yield row(f"ripples of a fit, along {len(lines)} lines", *difference(estimate, true))
    middle = points[:, 0].abs() < 0.75
    yield row("the same, without the poles", *difference(estimate[middle], true[middle]))
    model = load(options.model)
    few = torch.from_numpy(model.frame.to_unit(lines.points[middle.numpy()][::8])).float()
    for name, frequencies in phases(model.field, few):
        error = difference(
            across(frequencies / model.frame.scale, normals[middle][::8]), true[middle][::8]
        )
        yield row(f"the model's phase waves, weighted by {name}", *error)


def phases(field: Field, at: Tensor) -> Iterator[tuple[str, Tensor]]:
    """For several weights of the waves: the weight's name and the local frequency ``(n, 3)`` of the
    field's own phase waves at ``at (n, 3)``, in the unit box. g is the decoder's derivative with
    respect to a wave's feature."""
    assert isinstance(field, Nstr)
    frequency, amplitude = (part.detach() for part in field.local_frequency(at))
    features = (
        torch.cat([level(at) for level in field.spectra], dim=1).detach().requires_grad_(True)
    )
    slopes = torch.autograd.grad(field.decoder(features).sum(), features)[0].split(
        [c.config.features for c in field.spectra], 1
    )
    waves = [
        s[:, c.config.plain :]
        for s, c in zip(slopes, field.spectra)
        if isinstance(c.config.waves, PhaseWaves)
    ]
    effect = torch.cat(waves, dim=1) * amplitude
    for name, power in (
        ("A^2", amplitude.square()),
        ("abs A", amplitude.abs()),
        ("(g A)^2", effect.square()),
    ):
        yield name, LocalSpectrum(frequency, power).vector


def signals(gratings: Sequence[float]) -> Iterator[str]:
    """Table rows of ``gratings`` (radians per unit) in pictures of 96 x 96 samples, and of a chirp
    whose frequency rises by a factor of ten, both away from the ends."""
    axis = (torch.arange(96) + 0.5) / 48 - 1
    x = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    inner = x[(x.abs() < 0.8).all(dim=1)][::17]
    for size in gratings:
        errors = []
        for angle in (0.0, 0.6):
            omega = size * torch.tensor([math.cos(angle), math.sin(angle)])
            grating = torch.sin(x @ omega + 0.4)[:, None]
            estimate = analyse(
                x, grating, AnalysisConfig(100.0, octaves=4, degree=0, iterations=12)
            )
            errors.append(difference(estimate.frequency(inner), omega.expand_as(inner)))
        yield row(
            f"grating of {size:g} radians per unit", *(torch.cat(parts) for parts in zip(*errors))
        )
    line, drift = (
        ((torch.arange(8000) + 0.5) / 4000 - 1)[:, None],
        Chirp(-1, 1, 40 * math.pi, 400 * math.pi),
    )
    sound = torch.sin(drift.phase(line.double())).float()
    estimate = analyse(line, sound, AnalysisConfig(480 * math.pi, octaves=4, degree=0))
    inner = line[line[:, 0].abs() < 0.9]
    yield row(
        "chirp over a factor of ten",
        difference(estimate.frequency(inner), drift.frequency(inner))[0],
    )


def row(name: str, error: Tensor, angle: Tensor | None = None) -> str:
    """A row of the table: the median and the 95th percentile of the relative ``error (n,)``, and
    the median of ``angle (n,)`` in degrees."""
    turned = "" if angle is None else f"{float(angle.median()):.2f}"
    middle, high = float(error.median()), np.quantile(error.numpy(), 0.95)
    return f"| {name} | {middle:.2%} | {high:.2%} | {turned} |"


def timed(options: Benchmark) -> str:
    """A sentence with the seconds of ``options.lines`` streamlines of 200 steps on the fitted ball.
    The time to sample the field on a grid is excluded."""
    model = load(options.model)
    places, _ = load_lines(options.model.parent / "flow" / "lines.ply")
    points = torch.from_numpy(model.frame.to_unit(places.points)).float()
    vectors = across(
        torch.tensor([[20.0, 0.0, 0.0]]).expand_as(points),
        torch.nn.functional.normalize(points, dim=1),
    )
    box = Box((-1.0,) * 3, (1.0,) * 3)
    grid, back = surface_grid(model.field, points, vectors, box)
    seeds = points[
        torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[: options.lines]
    ]
    config, seconds = StreamConfig(4.0, 0.02, 2e-3, 200, both=False), []
    for _ in range(4):  # the first run compiles
        started = time.perf_counter()
        count = len(streamlines(grid, seeds, box, config, signed=False, project=back).lines.points)
        seconds.append(time.perf_counter() - started)
    what = f"{len(seeds):,} streamlines of 200 steps on the surface ({count:,} points)"
    return f"{what}: {min(seconds[1:]):.2f} s"


def run(options: Benchmark) -> None:
    """Measures, prints and writes flow.md."""
    options.out.mkdir(parents=True, exist_ok=True)
    head = [
        "| signal | frequency, median error | 95% below | direction, median degrees |",
        "|---|---|---|---|",
    ]
    table = "\n".join([*head, *ripple(options), *signals(options.gratings)])
    about = (
        f"The fit took {load(options.model).steps:,} steps. "
        f"{torch.get_num_threads()} threads, commit {find_commit(ROOT)}."
    )
    text = f"{table}\n\n{timed(options)}.\n{about}\n"
    print(text)
    with atomic_path(options.out / "flow.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return cli.guarded(lambda: run(tyro.cli(Benchmark, prog="flow.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
