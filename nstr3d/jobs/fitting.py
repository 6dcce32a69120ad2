"""The training of a job's field: from scratch, from the model of a nearby shape or from a
checkpoint, saved now and then, and stopped between two steps."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.fields.start.warm import warm_starts
from nstr3d.fields.vicinity import Vicinity
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob
from nstr3d.jobs.results import CHECKPOINT, MODEL
from nstr3d.jobs.stages import Interrupted, Listener, package_version, stop_on_signal, writing_to
from nstr3d.jobs.walk import Run
from nstr3d.model.checkpoint import load, load_training, save
from nstr3d.model.tags import TAG, encode_config
from nstr3d.training.fit import Fit, FitConfig, Progress, draw_pool, fit, training_state
from nstr3d.training.losses import TransportPenalty, sdf_objective
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Frame, Mesh, Samples

AGREEMENT = 1 << 14  # samples that say where a model to start from belongs
LEAST_DEPTH = 1e-6  # in the unit box: what encloses less is flat


@dataclass(frozen=True)
class Placed:
    """A closed ``mesh`` in world units, and ``unit``, the same in the unit box, which ``frame``
    leads back from. ``vicinity`` is where a field of it stores nodes."""

    mesh: Mesh
    unit: Mesh
    frame: Frame
    vicinity: Vicinity


@dataclass(frozen=True)
class Beginning:
    """What training begins with: the run's ``identity``, and the unfinished fit and the ``state``
    of a checkpoint, or the config of a new field, or neither where it starts from a model."""

    identity: dict[str, Any]
    resumed: Fit | None
    state: dict[str, Tensor]
    template: Any


def begin(
    job: SurfaceJob, placed: Placed, identity: dict[str, Any], device: torch.device
) -> Beginning:
    """Reads the checkpoint of a resumed run, or sizes a new field. Raises ValueError for a
    checkpoint of another run and for a budget that is too small."""
    if job.output.resume:
        return Beginning(identity, *_resume(job, identity, device), None)
    template = None if job.start else job.training.architecture(placed.vicinity)
    return Beginning(identity, None, {}, template)


def draw_samples(unit: Mesh, distance: MeshDistance, config: FitConfig) -> Samples:
    """What a field of ``unit``, whose ``distance`` it is, is fitted to. Raises ValueError where
    nothing is inside."""
    pool = draw_pool(SurfaceBand(unit, distance), config)
    if float(pool.values.min()) > -LEAST_DEPTH:
        raise ValueError(
            "The mesh encloses no volume, so nothing is inside; a signed distance needs a solid, "
            "not a flat sheet."
        )
    return pool


def build_field(
    job: SurfaceJob, placed: Placed, begun: Beginning, pool: Samples, device: torch.device
) -> Field:
    """The field that is to be trained, as it begins."""
    if begun.resumed is not None:
        field = begun.resumed.field
    elif job.start is not None:
        field = _carried_over(job.start, placed, pool, device)
    else:
        generator = torch.Generator().manual_seed(job.training.seed)
        field = begun.template.build(3, 1, near=placed.vicinity, generator=generator).to(device)
    # The first call compiles or loads the fused kernels: not a part of the fit that grows with it.
    field(torch.zeros(1, 3, device=device)).sum().backward()
    field.zero_grad()
    return field


def train(
    job: SurfaceJob, placed: Placed, begun: Beginning, field: Field, pool: Samples, run: Run
) -> Fit:
    """``field`` fitted to the samples. After a Ctrl-C it writes the model and raises
    `Interrupted`."""
    weight, resumed, bounds = job.training.transport, begun.resumed, placed.mesh.bounds
    objective = sdf_objective(
        transport=TransportPenalty(weight) if weight else None,
        gradient_weight=job.training.gradient_weight,
    )
    unfinished = Fit(field, placed.frame, bounds, 1.0, provenance=begun.identity)
    run.listener.fitting(unfinished)
    with stop_on_signal() as stopped:
        saver = _Saver(job, unfinished, stopped, run.listener)
        with run.clock("fit"):
            result = fit(
                field,
                pool,
                objective,
                job.training.config,
                placed.frame,
                bounds,
                saver.step,
                begun.state or None,
            )
        result = replace(result, provenance=begun.identity)
        if resumed is not None and not result.steps:  # it had been stopped after its last step
            result = replace(result, steps=resumed.steps, seconds=resumed.seconds)
        if result.interrupted:
            with writing_to(job.folder):
                save(job.folder / MODEL, result)
            kept = "Stopped after {} steps: the best model so far is in {}; go on with <resume>."
            raise Interrupted(Message(kept, result.steps, job.folder / MODEL))
    if stopped.is_set():  # too late for a step to see it
        raise KeyboardInterrupt
    return result


def identity_of(job: SurfaceJob, sha256: str | None = None) -> dict[str, Any]:
    """What must agree for a run to be the same run; kept as the model's provenance. The ``sha256``
    of the input is computed unless the caller knows it."""
    training, how = encode_config(job.training.config), job.training
    del training[TAG]
    return {
        "input": job.path.name,
        "sha256": sha256 or hashlib.sha256(job.path.read_bytes()).hexdigest(),
        "preset": how.preset,
        "params": how.params,
        "cells": how.cells,
        "field": how.field,
        "transport": how.transport,
        "gradient_weight": how.gradient_weight,
        **({"start": hashlib.sha256(job.start.read_bytes()).hexdigest()} if job.start else {}),
        **training,
        "nstr3d": package_version("nstr3d"),
    }


class _Saver:
    """Passes training's steps on, checkpoints now and then, and stops training between two steps
    when asked to."""

    def __init__(
        self,
        job: SurfaceJob,
        unfinished: Fit,
        stopped: threading.Event,
        listener: Listener,
    ):
        self.path, self.seconds = job.folder / CHECKPOINT, job.output.checkpoint_seconds
        self.unfinished, self.stopped, self.listener = unfinished, stopped, listener
        self.saved = time.perf_counter()

    def step(self, progress: Progress) -> None:
        try:
            self.listener.step(progress)
            if self.stopped.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.save(progress)
            raise
        if time.perf_counter() - self.saved > self.seconds:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        current = replace(
            self.unfinished, steps=progress.step, seconds=progress.seconds, interrupted=True
        )
        with writing_to(self.path.parent):
            save(self.path, current, training_state(progress))
        self.saved = time.perf_counter()


def _resume(
    job: SurfaceJob, identity: dict[str, Any], device: torch.device
) -> tuple[Fit, dict[str, Tensor]]:
    path = job.folder / CHECKPOINT
    unfinished, state = load_training(path, device)
    if not {"step", "seconds"} <= state.keys():
        raise ValueError(
            Message(
                "{} is a finished model, not a checkpoint, so there is nothing to resume; run "
                "without <resume>.",
                path,
            )
        )
    before = unfinished.provenance
    if one_sided := sorted(identity.keys() ^ before.keys()):
        raise ValueError(
            Message(
                "{} belongs to another run or another version of nstr3d: {} is not an option of "
                "both; use the same options and version, or <overwrite> to fit anew.",
                path,
                ", ".join(one_sided),
            )
        )
    differing = [name for name, value in identity.items() if before[name] != value]
    if differing:
        raise ValueError(
            f"{path} belongs to another run: {', '.join(differing)} differ; use the same options "
            "and input."
        )
    return unfinished, state


def _carried_over(path: Path, placed: Placed, pool: Samples, device: torch.device) -> Nstr:
    """The field of the model in ``path``, carried over to the shape ``placed``: where it is in the
    world, or box to box, whichever agrees better with the samples."""
    start, frame = load(path, device), placed.frame
    if not isinstance(start.field, Nstr) or (start.field.in_dim, start.field.out_dim) != (3, 1):
        raise ValueError(
            Message(
                "{} is no NSTR field of a surface, so there is nothing to start from; fit one with "
                "<field> nstr.",
                path,
            )
        )
    shift = (np.array(frame.centre) - start.frame.centre) / start.frame.scale
    moves = [(1.0, [0.0, 0.0, 0.0]), (frame.scale / start.frame.scale, shift.tolist())]
    fields = warm_starts(start.field, placed.vicinity, moves)
    points, values = pool.points[:AGREEMENT].to(device), pool.values[:AGREEMENT].to(device)
    with torch.no_grad():
        errors = [float((field(points) - values).abs().mean()) for field in fields]
    return fields[errors[1] < errors[0]]
