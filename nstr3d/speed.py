"""How fast fields train and answer, surfaces are extracted and pictures traced; and how soon a field is as good as another.

What is compared is timed turn by turn, so that whatever else the machine does hits all alike, and the least time counts.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.extract import extract
from nstr3d.fields.base import Field
from nstr3d.fit import FitConfig, fit_steps
from nstr3d.graphs import CapturedStep
from nstr3d.kernels.interpolate import plain_torch
from nstr3d.losses import sdf_objective
from nstr3d.presets import FIELDS
from nstr3d.sdf import CHUNK, Sdf
from nstr3d.trace import EmptySpace, sphere_trace
from nstr3d.types import Camera, Mesh, Samples

PLAIN = ", plain torch"  # after the name of a field that is to do without fused kernels
NAMES = (*FIELDS, "nstr" + PLAIN, "ngp" + PLAIN)
TURNS, TURN = 5, 0.25  # turns of everything that is compared, and their seconds


@dataclass(frozen=True)
class Rate:
    """Seconds of a training step with a batch, and points per second of training and of inference."""

    name: str
    threads: int
    step: float
    training: float
    inference: float


def rates(
    near: Mesh, pool: Samples, params: int, threads: Sequence[int], names: Sequence[str] = NAMES, batch: int = 8192
) -> list[Rate]:
    """Every field of ``names`` on every number of threads, on the device of ``pool``."""
    device, before = pool.points.device, torch.get_num_threads()
    runners = {name: _Runner(name, near, pool, params, batch) for name in names}
    least: dict[tuple[str, int], list[float]] = {(name, count): [np.inf, np.inf] for name in names for count in threads}
    try:
        for _ in range(TURNS):
            for (name, count), found in least.items():
                torch.set_num_threads(count)
                with plain_torch() if name.endswith(PLAIN) else nullcontext():
                    for index, call in enumerate((runners[name].train, runners[name].infer)):
                        found[index] = min(found[index], _least(call, device))
    finally:
        torch.set_num_threads(before)
    size = min(CHUNK, len(pool))
    return [Rate(name, count, step, batch / step, size / query) for (name, count), (step, query) in least.items()]


class _Runner:
    """A field and what is timed of it."""

    def __init__(self, name: str, near: Mesh, pool: Samples, params: int, batch: int) -> None:
        device, config = pool.points.device, FIELDS[name.removesuffix(PLAIN)](params, near)
        self.field: Field = config.build(3, 1, near).to(device)
        self.points = pool.points[:CHUNK]
        if device.type == "cuda" and not name.endswith(PLAIN):
            part = Samples(pool.points[:batch], pool.values[:batch])
            captured = CapturedStep(self.field, sdf_objective(), part)
            self.steps: Iterator[Any] = iter(lambda: captured.step(part, 1.0), None)
        else:
            training = FitConfig(steps=1 << 30, batch=batch, pool=len(pool))
            self.steps = fit_steps(self.field, pool, sdf_objective(), training)

    def train(self) -> None:
        next(self.steps)

    def infer(self) -> None:
        with torch.no_grad():
            self.field(self.points)


def _least(call: Callable[[], None], device: torch.device) -> float:
    least, until, count = np.inf, time.perf_counter() + TURN, 0
    while count < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        least, count = min(least, time.perf_counter() - started), count + 1
    return least


def extraction(sdf: Sdf, resolutions: Sequence[int], repeats: int = 2) -> list[dict[str, float]]:
    """For each resolution: seconds, distances evaluated, faces, and megabytes that the process grew by at most."""
    rows = []
    for resolution in resolutions:
        before, seconds = _peak(), np.inf
        for _ in range(repeats):
            started = time.perf_counter()
            found = extract(sdf, resolution)
            seconds = min(seconds, time.perf_counter() - started)
        row = {"resolution": resolution, "seconds": seconds, "evaluations": found.evaluations, "faces": len(found.mesh.faces)}
        rows.append(row | {"megabytes": _peak() - before})
    return rows


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def dense(sdf: Sdf, resolution: int, march: Callable[[np.ndarray], object]) -> dict[str, float]:
    """Seconds of evaluating every node of a grid of ``resolution`` cells to an axis, and of ``march`` on it."""
    box, axis = sdf.bounds.scaled(1.06), torch.linspace(0, 1, resolution + 1)
    lower, extent = torch.tensor(box.lower, dtype=torch.float32), torch.tensor(box.extent, dtype=torch.float32)
    values = np.empty((resolution + 1,) * 3, np.float32)
    started = time.perf_counter()
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        for index, x in enumerate(axis):
            points = torch.cat([x.expand(len(plane), 1), plane], dim=1) * extent + lower
            values[index] = sdf(points).numpy().reshape(values.shape[1:])
    evaluated = time.perf_counter() - started
    march(values)
    return {"resolution": resolution, "evaluate": evaluated, "march": time.perf_counter() - started - evaluated}


def tracing(sdf: Sdf, size: int, repeats: int = 3) -> dict[str, float]:
    """Seconds of tracing ``size`` squared rays and of the normals where they hit, and distances evaluated a ray; plain, without
    longer steps and without skipping empty space, too."""
    camera = Camera.around(sdf.bounds, width=size, height=size)
    rays, seconds, slopes = camera.rays(), np.inf, np.inf
    for _ in range(repeats):
        started = time.perf_counter()
        hits = sphere_trace(sdf, rays, footprint=camera.pixel / 4, empty=EmptySpace.of(sdf))
        seconds, started = min(seconds, time.perf_counter() - started), time.perf_counter()
        sdf.normals(hits.points[hits.mask])
        slopes = min(slopes, time.perf_counter() - started)
    started = time.perf_counter()
    plain = sphere_trace(sdf, rays, relaxation=1.0)
    found = {"size": size, "seconds": seconds, "normals": slopes, "steps": float(hits.steps.float().mean())}
    return found | {"plain seconds": time.perf_counter() - started, "plain steps": float(plain.steps.float().mean())}


def time_to_quality(track: Any, params: int, rival: str, steps: int, ladder: Sequence[int]) -> Mapping[str, float]:
    """Seconds that ``rival`` in plain torch takes for ``steps`` and the error near the surface that it reaches; then ours, for
    the first number of steps in ``ladder`` after which our field, its rates annealed by then, is at least as good."""
    pool = track.pool(FitConfig())

    def run(name: str, training: FitConfig) -> tuple[float, float]:
        field = FIELDS[name](params, track.near).build(3, 1, track.near)
        field(pool.points[: training.batch]).sum().backward()  # compiles, off the clock
        field.zero_grad(set_to_none=True)
        *_, last = fit_steps(field, pool, sdf_objective(), training)
        return last.seconds, track.measure(field)["near"]

    with plain_torch():
        seconds, error = run(rival, FitConfig(steps=steps))
    found = {"rival seconds": seconds, "rival near": error}
    for count in ladder:
        ours, near = run("nstr", replace(FitConfig(), steps=count, warmup=min(50, count // 4)))
        if near <= error:
            return found | {"steps": count, "seconds": ours, "near": near}
    return found
