"""Measure proven bounds over boxes: ``python apps/bench/bounds.py``.

Samples of random, trained and adversarial fields are compared with the bounds of the boxes that
hold them. The cells of a grid that the bounds leave undecided are compared with those that the
surface crosses, and certified extraction with the other. Writes bounds.md to --out.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.cli.command import guarded
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.io.atomic import atomic_path
from nstr3d.jobs.direct import fit_mesh
from nstr3d.model.checkpoint import load
from nstr3d.sdf import Sdf
from nstr3d.surface.bricks import Grid
from nstr3d.surface.certified import divide
from nstr3d.surface.extract import extract
from nstr3d.training.fit import Fit

ROOT = Path(__file__).resolve().parents[2]
PER_BOX = 1000  # samples of a box
FINER = 4  # samples along a cell that decide whether the surface crosses it


@dataclass(frozen=True)
class Options:
    """Measure violations of the bounds, undecided cells, and certified extraction."""

    model: Path | None = None
    """A model.safetensors; a fit of the bunny by default."""
    out: Path = Path("out/bounds")
    """Folder of bounds.md."""
    fields: int = 1000
    """Random fields whose samples are compared with their bounds."""
    boxes: int = 500
    """Boxes of each random field."""
    resolutions: tuple[int, ...] = (64, 128, 256, 512)
    """Cells of the grids along the longest side."""
    turns: int = 3
    """Measured turns of each extraction."""
    seed: int = 0
    """Seed of fields, boxes and samples."""


def random_field(random: np.random.Generator) -> Nstr:
    """A field of one to three levels of any kind, with coefficients of any size."""
    kinds = (None, PhaseWaves, ComplexWaves, AmplitudeWaves)
    levels = []
    for _ in range(random.integers(1, 4)):
        kind = kinds[random.integers(4)]
        waves = kind(int(random.integers(1, 9))) if kind else None
        plain = int(random.integers(0 if waves else 1, 9))
        cells, order = int(random.integers(2, 33)), int(random.integers(1, 3))
        levels.append(LevelConfig(cells, plain=plain, waves=waves, order=order, sparse=False))
    sharpness, hidden = float(np.exp(random.uniform(0, 6))), int(random.integers(4, 80))
    config = NstrConfig(tuple(levels), hidden=hidden, sharpness=sharpness)
    seed = int(random.integers(2**31))
    field = config.build(3, 1, None, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in field.parameters():
            size = float(np.exp(random.uniform(-3, 3)))
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        for level in field.spectra:  # a few coefficients far beyond the others
            rows = torch.randint(len(level.table), (5,), generator=generator)
            level.table[rows] *= float(np.exp(random.uniform(0, 4)))
    return field


def violations(field: Nstr, count: int, random: np.random.Generator) -> tuple[int, int, float]:
    """Samples beyond the bounds in float64 or in float32, the number of samples, and the median
    gap of the bounds over the range of the samples, for boxes of all sizes."""
    half = np.exp(random.uniform(np.log(1e-5), 0, (count, 1))) * random.random((count, 3))
    middle = random.uniform(-1, 1, (count, 3))
    low, high = ((middle + side * half).clip(-1, 1).astype(np.float32) for side in (-1, 1))
    ticks = np.stack([low, (low + high) / 2, high], axis=2)
    bounds = field.enclose(ticks)
    share = random.random((count, PER_BOX, 3), dtype=np.float32)
    share = np.where(random.random(share.shape, dtype=np.float32) < 0.2, share.round(), share)
    inner = (low[:, None] + share * (high - low)[:, None]).clip(low[:, None], high[:, None])
    flat = torch.from_numpy(inner.reshape(-1, 3))
    with torch.no_grad():
        single = field(flat).reshape(count, PER_BOX).numpy()
        exact = field.double()(flat.double()).reshape(count, PER_BOX).numpy()
    least, most = bounds[..., 0].min(axis=1)[:, None], bounds[..., 1].max(axis=1)[:, None]
    wrong = sum(int(((values < least) | (values > most)).sum()) for values in (single, exact))
    span = np.maximum(np.ptp(exact, axis=1), 1e-9 * np.abs(exact).max())
    return wrong, single.size, float(np.median((most - least)[:, 0] / span))


def crossing(sdf: Sdf, grid: Grid, cells: np.ndarray) -> int:
    """How many of the ``cells (n, 3)`` have samples on both sides of the surface."""
    steps = np.array(list(itertools.product(np.linspace(0, 1, FINER + 1), repeat=3)))
    count = 0
    for piece in np.array_split(cells, max(1, len(cells) // 4096)):
        points = grid.origin + (piece[:, None] + steps).reshape(-1, 3) * grid.cell
        inside = (sdf(points) < 0).reshape(len(piece), -1).sum(axis=1)
        count += int(((inside > 0) & (inside < len(steps))).sum())
    return count


def cell_rows(sdf: Sdf, options: Options) -> Iterator[str]:
    for resolution in options.resolutions:
        grid = Grid.over(sdf.bounds, resolution, 0.0)
        cells = divide(sdf, grid, 0.0).cells
        truth = crossing(sdf, grid, cells)
        seconds = {True: np.inf, False: np.inf}
        for _ in range(options.turns):
            for certified in seconds:
                started = time.process_time()
                found = extract(sdf, resolution, certified=certified)
                seconds[certified] = min(seconds[certified], time.process_time() - started)
                if certified:
                    proof = found.certificate
        assert proof is not None
        yield (
            f"| {resolution} | {len(cells):,} | {truth:,} | {len(cells) / truth:.2f} | "
            f"{proof.hidden:,} / {proof.unknown:,} | {seconds[True]:.2f} / {seconds[False]:.2f} | "
            f"{seconds[True] / seconds[False]:.2f} |"
        )


def run(options: Options) -> None:
    """Measures, prints and writes bounds.md."""
    torch.set_num_threads(1)
    random = np.random.default_rng(options.seed)
    fit: Fit = load(options.model) if options.model else fit_mesh(ROOT / "assets" / "bunny.obj")
    tries = [violations(random_field(random), options.boxes, random) for _ in range(options.fields)]
    wrong, count, gaps = (list(each) for each in zip(*tries))
    about = (
        f"`python apps/bench/bounds.py`: commit {find_commit(ROOT)}, seed {options.seed}. "
        f"{sum(wrong):,} of {sum(count):,} samples, in float32 and in float64, lie outside the "
        f"bounds of their boxes: {options.fields:,} random fields, each with {options.boxes} boxes "
        "of all sizes. The gap of the bounds is "
        f"{np.median(gaps):.2f} times the range of a box's samples in the median field."
    )
    grids = (
        f"A fit of {fit.field.parameter_count:,} parameters, one thread, processor time, best of "
        f"{options.turns} turns. Undecided: cells from which the bounds do not exclude the "
        f"surface. Crossed: cells with samples on both sides, {FINER + 1} along each edge. Hidden: "
        "cells that hold parts thinner than a cell. Unknown: cells that were cut four times "
        "without an answer."
    )
    head = "| resolution | undecided | crossed | ratio | hidden / unknown "
    head += "| certified / not, s | ratio |"
    lines = ["# Proven bounds over boxes", "", about, "", grids, "", head, "|---" * 7 + "|"]
    text = "\n".join([*lines, *cell_rows(fit.sdf(), options), ""])
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.out / "bounds.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: run(tyro.cli(Options, prog="bounds.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
