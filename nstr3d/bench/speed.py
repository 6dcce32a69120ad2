"""The speed of training, inference, isosurface extraction and sphere tracing.

`time_to_quality` measures the time that a field takes to reach another field's error. Things that
are compared are timed in turns, so that other load on the machine affects all of them equally. The
results are medians over the turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.bench.options import TURN, TURNS
from nstr3d.fields.base import Field
from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.kernels.step.adam import AdamW
from nstr3d.render.camera import Camera
from nstr3d.sdf import CHUNK, Sdf
from nstr3d.surface.emptyspace import EmptySpace
from nstr3d.surface.extract import extract
from nstr3d.surface.trace import sphere_trace
from nstr3d.system import peak_memory
from nstr3d.training.fit import FitConfig, fit_steps
from nstr3d.training.graphs import CapturedSteps
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import FIELDS
from nstr3d.types import Mesh, Samples

PLAIN = ", plain torch"  # suffix of the name of a field that runs without fused kernels
NAMES = (*FIELDS, "nstr" + PLAIN, "ngp" + PLAIN)


@dataclass(frozen=True)
class Rate:
    """The speed of a field on a number of threads.

    ``step`` is in seconds per training step; ``training`` and ``inference`` are in points per
    second.
    """

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
    """The speed of each field in ``names`` on each number of ``threads``, on ``pool``'s device.

    ``params`` is the parameter budget of a field and ``batch`` the number of samples per training
    step. Speeds are medians over ``turns`` turns of ``turn`` seconds.
    """
    device, before = pool.points.device, torch.get_num_threads()
    runners = {name: _Runner(name, near, pool, params, batch) for name in names}
    times: dict[tuple[str, int], list[tuple[float, float]]] = {
        (name, count): [] for name in names for count in threads
    }
    try:
        for _ in range(turns):
            for (name, count), result in times.items():
                torch.set_num_threads(count)
                with plain_torch() if name.endswith(PLAIN) else nullcontext():
                    result.append(
                        (
                            _median_seconds(runners[name].train, device, turn),
                            _median_seconds(runners[name].infer, device, turn),
                        )
                    )
    finally:
        torch.set_num_threads(before)
    size, medians = (
        min(CHUNK, len(pool)),
        {key: np.median(result, axis=0).tolist() for key, result in times.items()},
    )
    return [
        Rate(name, count, step, batch / step, size / query)
        for (name, count), (step, query) in medians.items()
    ]


class _Runner:
    """A field, with the calls that are timed: a training step and an evaluation."""

    def __init__(self, name: str, near: Mesh, pool: Samples, params: int, batch: int) -> None:
        config = FIELDS[name.removesuffix(PLAIN)](params, near)
        self.field: Field = config.build(3, 1, near).to(pool.points.device)
        self.points = pool.points[:CHUNK]
        training = FitConfig(steps=1 << 30, batch=batch, pool=len(pool))
        self.steps = fit_steps(self.field, pool, SdfObjective(), training)

    def train(self) -> None:
        next(self.steps)

    def infer(self) -> None:
        with torch.no_grad():
            self.field(self.points)


def together(
    near: Mesh, pool: Samples, params: int, counts: Sequence[int], batch: int = 8192
) -> list[dict[str, float]]:
    """The seconds of a training step per field when ``counts`` fields train at once on a GPU.

    For each count in ``counts``, a row with ``fields``, the count, and ``seconds``, the median time
    of a step of all fields divided by their count. ``pool`` must be on the GPU.
    """
    samples, device = Samples(pool.points[:batch], pool.values[:batch]), pool.points.device
    captured, times = {}, {count: [] for count in counts}
    for count in counts:
        fields = [FIELDS["nstr"](params, near).build(3, 1, near).to(device) for _ in range(count)]
        optimizer = AdamW([group for field in fields for group in field.rates()], FitConfig.betas)
        captured[count] = CapturedSteps(fields, SdfObjective(), [samples] * count, optimizer)
    for _ in range(TURNS):
        for count, steps in captured.items():
            times[count].append(
                _median_seconds(
                    lambda steps=steps, count=count: steps.step([samples] * count), device
                )
                / count
            )
    return [
        {"fields": count, "seconds": float(np.median(result))} for count, result in times.items()
    ]


def _median_seconds(call: Callable[[], None], device: torch.device, turn: float = TURN) -> float:
    """The median seconds of ``call`` over the calls that fit in ``turn`` seconds.

    The first call, which finds cold caches, is discarded; at least three calls count.
    """
    times, until = [], time.perf_counter() + turn
    while len(times) < 4 or time.perf_counter() < until:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))


def extraction(sdf: Sdf, resolutions: Sequence[int], repeats: int = 5) -> list[dict[str, float]]:
    """The speed of isosurface extraction at each of ``resolutions`` (cells per axis).

    A row holds the ``resolution``, the median ``seconds`` of ``repeats`` extractions, which take
    turns with the other resolutions, the ``evaluations`` of the signed distance, and the ``faces``.
    """
    times: dict[int, list[float]] = {resolution: [] for resolution in resolutions}
    rows = {}
    for _ in range(repeats):
        for resolution, seconds in times.items():
            started = time.perf_counter()
            result = extract(sdf, resolution)
            seconds.append(time.perf_counter() - started)
            rows[resolution] = {"evaluations": result.evaluations, "faces": len(result.mesh.faces)}
    return [
        {"resolution": each, "seconds": float(np.median(times[each]))} | rows[each]
        for each in resolutions
    ]


def memory(sdf: Sdf, resolution: int) -> dict[str, float]:
    """The mebibytes (2^20 bytes) that an extraction adds to this process's peak memory.

    Call it first in a fresh process, because earlier work may have raised the peak. A small
    extraction runs before, to load what every extraction needs. Raises OSError if the system does
    not report the peak memory of a process.
    """
    extract(sdf, 32)
    before = peak_memory()
    result = extract(sdf, resolution)
    after = peak_memory()
    if before is None or after is None:
        raise OSError("This system does not report the peak memory of a process; use Linux.")
    return {
        "resolution": resolution,
        "faces": len(result.mesh.faces),
        "megabytes": (after - before) / (1 << 20),
    }


def dense(sdf: Sdf, resolution: int, march: Callable[[np.ndarray], object]) -> dict[str, float]:
    """Seconds of evaluating every node of a dense grid, and of ``march`` on the values.

    The grid has ``resolution`` cells per axis; ``march`` gets ``(resolution + 1,) * 3`` float32
    values.
    """
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
    """The speed of sphere tracing a picture of ``size`` by ``size`` rays.

    ``seconds`` is the median time of tracing over ``repeats``, with the preparation of the empty
    space; ``normals`` is that of the normals at the hits, and ``steps`` the mean number of
    evaluations per ray. "plain seconds" and "plain steps" are those of plain sphere tracing, timed
    in turn with it: without over-relaxed steps, without a footprint and without skipping empty
    space.
    """
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
    medians = np.median(times, axis=0).tolist()
    return {"size": size, **dict(zip(("seconds", "normals", "plain seconds"), medians)), **steps}


def time_to_quality(
    track: Any, params: int, rival: str, steps: int, ladder: Sequence[int]
) -> Mapping[str, float]:
    """The time that nstr takes to reach the error near the surface of the field ``rival``.

    ``rival`` trains in plain torch for ``steps`` steps; its seconds and error are "rival seconds"
    and "rival near". nstr trains anew, with annealed rates, for each number of steps in ``ladder``
    until its error is at most that of ``rival``; its "steps", "seconds" and "near" are missing if
    no number of steps is enough. ``params`` is the parameter budget of both fields.
    """
    pool = track.pool(FitConfig())

    def run(name: str, training: FitConfig) -> tuple[float, float]:
        field = FIELDS[name](params, track.near).build(3, 1, track.near)
        field(pool.points[: training.batch]).sum().backward()  # compiles, untimed
        field.zero_grad(set_to_none=True)
        *_, last = fit_steps(field, pool, SdfObjective(), training)
        return last.seconds, track.measure(field)["near"]

    with plain_torch():
        seconds, error = run(rival, FitConfig(steps=steps, batch=8192, settle=None))
    result = {"rival seconds": seconds, "rival near": error}
    for count in ladder:
        ours, near = run("nstr", replace(FitConfig(), steps=count, warmup=min(50, count // 4)))
        if near <= error:
            return result | {"steps": count, "seconds": ours, "near": near}
    return result
