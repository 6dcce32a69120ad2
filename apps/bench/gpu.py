"""Measure everything that a GPU can do: ``python apps/bench/gpu.py``, at most eight minutes.

Compares the paths of computation with double precision on the hardware, and measures training,
inference, whole fits, extraction, tracing, small fits trained together, and the difference of a
picture from that of the CPU. Writes gpu.json and gpu.md to --out. Without a GPU it fails; --dry
runs the same on the CPU, at a tiny size, to test the script.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.bench.roofline import best, costs
from nstr3d.bench.speed import extraction, together
from nstr3d.cli.command import guarded
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import load_mesh
from nstr3d.io.atomic import atomic_path, save_json
from nstr3d.jobs.direct import fit_mesh
from nstr3d.kernels.step.adam import AdamW
from nstr3d.render.camera import Camera
from nstr3d.render.traced import measure as buffers
from nstr3d.render.traced import render
from nstr3d.sdf import Sdf
from nstr3d.system import one_line
from nstr3d.training.choice import candidates, choose
from nstr3d.training.fit import Fit, FitConfig, draw_pool
from nstr3d.training.losses import SdfObjective
from nstr3d.training.paths import ComputePath, describe_device, gpu
from nstr3d.training.presets import FIELDS
from nstr3d.training.sampling import SurfaceBand
from nstr3d.training.steps import training_steps
from nstr3d.training.trials import in_process, trials_of
from nstr3d.types import Samples

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = 480.0  # seconds; a part that would begin later is left out


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    budgets: tuple[int, ...] = (25_000, 100_000, 400_000)
    batches: tuple[int, ...] = (4096, 65_536)
    points: int = 1 << 20
    turn: float = 1.0
    presets: tuple[str, ...] = ("fast", "standard")
    steps: int | None = None
    resolutions: tuple[int, ...] = (512, 1024)
    frame: tuple[int, int] = (1920, 1080)
    together: tuple[int, ...] = (1, 8, 64)
    picture: int = 256


TINY = Sizes((8000,), (256,), 2000, 0.01, ("fast",), 60, (32,), (32, 18), (1,), 16)


@dataclass(frozen=True)
class Options:
    """Measure what a GPU can do."""

    mesh: Path = ROOT / "assets" / "bunny.obj"
    """Mesh that is fitted."""
    out: Path = Path("out/gpu")
    """Folder of gpu.json and gpu.md."""
    dry: bool = False
    """Run the same on the CPU at a tiny size, to test the script."""


class Measurement:
    """What the parts share: the paths, the training pool and the fitted surface."""

    def __init__(self, options: Options, sizes: Sizes, paths: Sequence[ComputePath]) -> None:
        self.options, self.sizes, self.paths = options, sizes, paths
        self.unit = normalise(load_mesh(options.mesh))[0]
        sampler = SurfaceBand(self.unit, MeshDistance(self.unit))
        size = max(sizes.batches)
        self.pool = draw_pool(sampler, FitConfig(pool=max(size, 4096), batch=size))
        self.fit: Fit | None = None

    def trials(self) -> list[dict[str, Any]]:
        """The paths against their twin in double precision."""
        measured = in_process if self.options.dry else trials_of
        return [asdict(trial) for trial in measured(self.paths)]

    def rates(self) -> list[dict[str, Any]]:
        """Samples per second of training and points per second of inference of each path, for each
        budget of parameters and size of batch, and the share of the roofline."""
        rows = []
        for path in self.paths:
            if path.fault() is None:
                top = _ceilings(path, 256 if self.options.dry else 4096)
                for params in self.sizes.budgets:
                    rows += [self._rate(path, params, batch, top) for batch in self.sizes.batches]
        return rows

    def _rate(
        self, path: ComputePath, params: int, size: int, top: tuple[float, float]
    ) -> dict[str, Any]:
        turn = self.sizes.turn
        with path.using():
            field = FIELDS["nstr"](params, self.unit).build(3, 1, self.unit).to(path.device)
            batch = self.pool.map(lambda tensor: tensor[:size].to(path.device))
            optimizer = AdamW(field.rates(), FitConfig.betas)
            step = training_steps(SdfObjective(), field, optimizer, batch)
            points = torch.rand(self.sizes.points, 3, device=path.device) * 2 - 1

            def infer() -> None:
                with torch.no_grad():
                    field(points)
                path.wait()

            def train() -> None:
                step(batch, 0.0)
                path.wait()

            train()
            seconds = best(train, turn) / size
            query = best(infer, turn) / len(points)
        part = costs(field, size).values()
        least = sum(max(each.operations / top[0], each.bytes / top[1]) for each in part)
        return {
            "path": path.name,
            "params": field.parameter_count,
            "batch": size,
            "training": 1 / seconds,
            "inference": 1 / query,
            "roofline": least / seconds,
        }

    def fits(self) -> list[dict[str, Any]]:
        """The seconds of whole fits on the path that is chosen."""
        device, rows = self.paths[0].device.type, []
        for preset in self.sizes.presets:
            started = time.perf_counter()
            options = {} if self.sizes.steps is None else {"steps": self.sizes.steps, "pool": 9000}
            self.fit = fit_mesh(
                self.options.mesh, preset=preset, device=device, progress=False, colour="off",
                **options,
            )  # fmt: skip
            rows.append(
                {
                    "preset": preset,
                    "training": self.fit.seconds,
                    "total": time.perf_counter() - started,
                }
            )
        return rows

    def extraction(self) -> list[dict[str, float]]:
        """The seconds of extractions."""
        with choose(self.paths[0].device.type).path.using():
            return extraction(self._sdf(), self.sizes.resolutions, repeats=1)

    def tracing(self) -> dict[str, Any]:
        """Frames per second of depth and normals, and of a shaded picture, of the size of a
        screen."""
        sdf, device = self._sdf(), self.paths[0].device
        width, height = self.sizes.frame
        camera = Camera.around(sdf.bounds, width=width, height=height)
        with choose(device.type).path.using():
            depth = best(lambda: (buffers(sdf, camera, device), None)[1], self.sizes.turn)
            shaded = best(lambda: (render(sdf, camera, device=device), None)[1], self.sizes.turn)
        return {"size": [width, height], "depth": 1 / depth, "shaded": 1 / shaded}

    def together(self) -> list[dict[str, float]]:
        """The seconds of a step of a field when many train at once. Needs CUDA."""
        device = self.paths[0].device
        if device.type != "cuda":
            return []
        pool = Samples(self.pool.points.to(device), self.pool.values.to(device))
        with self.paths[0].using():
            return together(self.unit, pool, 25_000, self.sizes.together, batch=4096)

    def picture(self) -> dict[str, float]:
        """The difference of a picture from that of the CPU, in [0, 1]."""
        sdf, size = self._sdf(), self.sizes.picture
        camera = Camera.around(sdf.bounds, width=size, height=size)
        with choose(self.paths[0].device.type).path.using():
            mine = render(sdf, camera, device=self.paths[0].device)
        assert self.fit is not None
        self.fit.field.to("cpu")
        difference = np.abs(mine - render(self.fit.sdf(), camera))
        self.fit.field.to(self.paths[0].device)
        return {"mean": float(difference.mean()), "p99": float(np.quantile(difference, 0.99))}

    def _sdf(self) -> Sdf:
        if self.fit is None:
            raise ValueError("there is no fit, because fits failed or were left out")
        return self.fit.sdf()


def _ceilings(path: ComputePath, size: int) -> tuple[float, float]:
    """Operations per second of a float32 matrix product, and bytes per second of a copy."""
    matrix = torch.rand(size, size, device=path.device)
    source, target = (torch.empty(size * size * 4, device=path.device) for _ in range(2))

    def timed(call: Callable[[], object]) -> float:
        return best(lambda: (call(), path.wait())[1], 0.2)

    product, copy = timed(lambda: matrix @ matrix), timed(lambda: target.copy_(source))
    return 2 * size**3 / product, 8 * len(source) / copy


def measure(options: Options) -> dict[str, Any]:
    """All figures. A part that fails, or that the time leaves out, is a sentence that says so.

    Raises ValueError on a machine without a GPU, unless the run is dry.
    """
    device = gpu()
    if device is None and not options.dry:
        raise ValueError("torch finds no GPU here, so there is nothing to measure; use --dry.")
    place = "cpu" if options.dry or device is None else device.type
    paths = candidates(place, "auto")
    started, sizes = time.perf_counter(), TINY if options.dry else Sizes()
    figures: dict[str, Any] = {
        "dry": options.dry,
        "commit": find_commit(ROOT),
        "device": describe_device(torch.device(place)),
        "torch": torch.__version__,
    }
    work = Measurement(options, sizes, paths)
    for name in ("trials", "rates", "fits", "extraction", "tracing", "together", "picture"):
        if time.perf_counter() - started > ALLOWED:
            figures[name] = "left out: the time was over"
            continue
        try:
            figures[name] = getattr(work, name)()
        except Exception as error:  # the other parts are measured all the same
            figures[name] = f"failed: {type(error).__name__}: {one_line(error)[:200]}"
    figures["seconds"] = time.perf_counter() - started
    return figures


def page(figures: dict[str, Any]) -> str:
    """The figures as a page in markdown."""
    about = figures["device"]
    lines = ["# On a GPU", ""]
    if figures["dry"]:
        lines += [
            "**Not measured**: a dry run on a CPU, at a tiny size. No figure is of a GPU.",
            "",
        ]
    lines += [
        f"{about['name']}, driver {about.get('driver')}, torch {figures['torch']}, commit "
        f"{figures['commit'] or 'unknown'}; {figures['seconds']:.0f} s in all. Errors are relative "
        "to double precision; speeds are per second."
    ]
    for name in ("trials", "rates", "fits", "extraction", "tracing", "together", "picture"):
        lines += ["", f"## {name.capitalize()}", "", *_table(figures[name])]
    return "\n".join(lines) + "\n"


def _table(part: Any) -> list[str]:
    if isinstance(part, str):
        return [f"Not measured: {part}."]
    rows = part if isinstance(part, list) else [part]
    if not rows:
        return ["Not measured: this device has no captured steps."]
    lines = [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
    return lines + [f"| {' | '.join(map(_cell, row.values()))} |" for row in rows]


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def run(options: Options) -> None:
    """Measures and writes the JSON and the page."""
    figures = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    save_json(options.out / "gpu.json", figures)
    text = page(figures)
    with atomic_path(options.out / "gpu.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit code."""
    return guarded(lambda: run(tyro.cli(Options, args=words, description=__doc__)))


if __name__ == "__main__":
    sys.exit(main())
