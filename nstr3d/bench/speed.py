"""How fast fields train and answer, surfaces are extracted and pictures traced; and how soon a
field is as good as another.

What is compared is timed turn by turn, so that whatever else the machine does hits all alike; the
median over the turns counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.kernels.step.adam import AdamW
from nstr3d.sdf import CHUNK, Sdf
from nstr3d.surface.extract import extract
from nstr3d.surface.trace import EmptySpace, sphere_trace
from nstr3d.system import peak_memory
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.graphs import CapturedSteps
from nstr3d.training.losses import sdf_objective
from nstr3d.training.presets import FIELDS
from nstr3d.types import Camera, Mesh, Samples

PLAIN = ", plain torch"  # after the name of a field that is to do without fused kernels
NAMES = (*FIELDS, "nstr" + PLAIN, "ngp" + PLAIN)
TURNS, TURN = 5, 0.25  # turns of everything that is compared, and their seconds


@dataclass(frozen=True)
class Rate:
    """Seconds of a training step with a batch, and points per second of training and of
    inference."""

    name: str
    threads: int
    step: float
    training: float
    inference: float


def rates(
    near: Mesh,
    pool: Samples,
    params: int,
    threads: Sequence[int],
    names: Sequence[str] = NAMES,
    batch: int = 8192,
    turns: int = TURNS,
    turn: float = TURN,
) -> list[Rate]:
    """Every field of ``names`` on every number of threads, on ``pool``'s device; medians of
    ``turns`` of ``turn`` seconds."""
    device, before = pool.points.device, torch.get_num_threads()
    runners = {name: _Runner(name, near, pool, params, batch) for name in names}
    times: dict[tuple[str, int], list[tuple[float, float]]] = {
        (name, count): [] for name in names for count in threads
    }
    try:
        for _ in range(turns):
            for (name, count), found in times.items():
                torch.set_num_threads(count)
                with plain_torch() if name.endswith(PLAIN) else nullcontext():
                    found.append(
                        (
                            _typical(runners[name].train, device, turn),
                            _typical(runners[name].infer, device, turn),
                        )
                    )
    finally:
        torch.set_num_threads(before)
    size, middle = (
        min(CHUNK, len(pool)),
        {key: np.median(found, axis=0).tolist() for key, found in times.items()},
    )
    return [
        Rate(name, count, step, batch / step, size / query)
        for (name, count), (step, query) in middle.items()
    ]


class _Runner:
    """A field and what is timed of it."""

    def __init__(self, name: str, near: Mesh, pool: Samples, params: int, batch: int) -> None:
        config = FIELDS[name.removesuffix(PLAIN)](params, near)
        self.field: Field = config.build(3, 1, near).to(pool.points.device)
        self.points = pool.points[:CHUNK]
        training = FitConfig(steps=1 << 30, batch=batch, pool=len(pool))
        self.steps = fit_steps(self.field, pool, sdf_objective(), training)

    def train(self) -> None:
        next(self.steps)

    def infer(self) -> None:
        with torch.no_grad():
            self.field(self.points)


def together(
    near: Mesh, pool: Samples, params: int, counts: Sequence[int], batch: int = 8192
) -> list[dict[str, float]]:
    """For each number of fields, the seconds a field of steps that train so many at once on the
    pool's GPU, turn by turn."""
    part, device = Samples(pool.points[:batch], pool.values[:batch]), pool.points.device
    captured, times = {}, {count: [] for count in counts}
    for count in counts:
        fields = [FIELDS["nstr"](params, near).build(3, 1, near).to(device) for _ in range(count)]
        optimizer = AdamW([group for field in fields for group in field.rates()], FitConfig.betas)
        captured[count] = CapturedSteps(fields, sdf_objective(), [part] * count, optimizer)
    for _ in range(TURNS):
        for count, steps in captured.items():
            times[count].append(
                _typical(lambda steps=steps, count=count: steps.step([part] * count), device)
                / count
            )
    return [{"fields": count, "seconds": float(np.median(found))} for count, found in times.items()]


def _typical(call: Callable[[], None], device: torch.device, turn: float = TURN) -> float:
    """The median seconds of ``call``, of as many as fit in ``turn`` seconds; the first, which finds
    everything cold, does not count."""
    times, until = [], time.perf_counter() + turn
    while len(times) < 4 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def extraction(sdf: Sdf, resolutions: Sequence[int], repeats: int = 5) -> list[dict[str, float]]:
    """For each resolution: median seconds of ``repeats`` in turn, distances evaluated, faces."""
    times: dict[int, list[float]] = {resolution: [] for resolution in resolutions}
    rows = {}
    for _ in range(repeats):
        for resolution, seconds in times.items():
            started = time.perf_counter()
            found = extract(sdf, resolution)
            seconds.append(time.perf_counter() - started)
            rows[resolution] = {"evaluations": found.evaluations, "faces": len(found.mesh.faces)}
    return [
        {"resolution": each, "seconds": float(np.median(times[each]))} | rows[each]
        for each in resolutions
    ]


def memory(sdf: Sdf, resolution: int) -> dict[str, float]:
    """Megabytes that an extraction adds to the most that this process ever held: of use as the
    first work of a fresh one.

    A small extraction before it loads what every one needs. Raises OSError where the system does
    not count.
    """
    extract(sdf, 32)
    before = peak_memory()
    found = extract(sdf, resolution)
    after = peak_memory()
    if before is None or after is None:
        raise OSError("This system does not say how much memory a process has had; use Linux.")
    return {
        "resolution": resolution,
        "faces": len(found.mesh.faces),
        "megabytes": (after - before) / (1 << 20),
    }


def dense(sdf: Sdf, resolution: int, march: Callable[[np.ndarray], object]) -> dict[str, float]:
    """Seconds of evaluating every node of a grid of ``resolution`` cells to an axis, and of
    ``march`` on it."""
    box, axis = sdf.bounds.scaled(1.06), torch.linspace(0, 1, resolution + 1)
    lower, extent = (
        torch.tensor(box.lower, dtype=torch.float32),
        torch.tensor(box.extent, dtype=torch.float32),
    )
    values = np.empty((resolution + 1,) * 3, np.float32)
    started = time.perf_counter()
    plane = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    with torch.no_grad():
        for index, x in enumerate(axis):
            points = torch.cat([x.expand(len(plane), 1), plane], dim=1) * extent + lower
            values[index] = sdf(points).numpy().reshape(values.shape[1:])
    evaluated = time.perf_counter() - started
    march(values)
    return {
        "resolution": resolution,
        "evaluate": evaluated,
        "march": time.perf_counter() - started - evaluated,
    }


def tracing(sdf: Sdf, size: int, repeats: int = 5) -> dict[str, float]:
    """Median seconds of tracing ``size`` squared rays and of the normals where they hit, and
    distances evaluated a ray; plain, without longer steps and without skipping empty space, too, in
    turn with it."""
    camera = Camera.around(sdf.bounds, width=size, height=size)
    rays, times, steps = camera.rays(), [], {}
    for _ in range(repeats):
        marks = [time.perf_counter()]
        hits = sphere_trace(sdf, rays, footprint=camera.pixel / 4, empty=EmptySpace.of(sdf))
        marks.append(time.perf_counter())
        sdf.normals(hits.points[hits.mask])
        marks.append(time.perf_counter())
        plain = sphere_trace(sdf, rays, relaxation=1.0)
        marks.append(time.perf_counter())
        times.append(np.diff(marks))
        steps = {
            "steps": float(hits.steps.float().mean()),
            "plain steps": float(plain.steps.float().mean()),
        }
    middle = np.median(times, axis=0).tolist()
    return {"size": size, **dict(zip(("seconds", "normals", "plain seconds"), middle)), **steps}


def time_to_quality(
    track: Any, params: int, rival: str, steps: int, ladder: Sequence[int]
) -> Mapping[str, float]:
    """Seconds that ``rival`` in plain torch takes for ``steps`` and the error near the surface that
    it reaches; then ours, for the first number of steps in ``ladder`` after which our field, its
    rates annealed by then, is at least as good."""
    pool = track.pool(FitConfig())

    def run(name: str, training: FitConfig) -> tuple[float, float]:
        field = FIELDS[name](params, track.near).build(3, 1, track.near)
        field(pool.points[: training.batch]).sum().backward()  # compiles, off the clock
        field.zero_grad(set_to_none=True)
        *_, last = fit_steps(field, pool, sdf_objective(), training)
        return last.seconds, track.measure(field)["near"]

    with plain_torch():
        seconds, error = run(rival, FitConfig(steps=steps, batch=8192, settle=None))
    found = {"rival seconds": seconds, "rival near": error}
    for count in ladder:
        ours, near = run("nstr", replace(FitConfig(), steps=count, warmup=min(50, count // 4)))
        if near <= error:
            return found | {"steps": count, "seconds": ours, "near": near}
    return found
