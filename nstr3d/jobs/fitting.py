"""The training of a job's field.

Training starts from a new field, from the model of a similar shape or from a checkpoint. It saves a
checkpoint at intervals, and a signal to stop ends it between two steps.
"""

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
from nstr3d.jobs.options import SurfaceJob, Training
from nstr3d.jobs.publishing import writing_to
from nstr3d.jobs.results import Unfinished, checkpoints, place_unfinished
from nstr3d.jobs.stages import Interrupted, stop_on_signal
from nstr3d.jobs.walk import Run
from nstr3d.model.checkpoint import load, load_training, save
from nstr3d.model.tags import TAG, encode_config
from nstr3d.system import package_version
from nstr3d.training.fit import Fit, FitConfig, Progress, draw_pool, fit, training_state
from nstr3d.training.losses import SdfObjective, TransportPenalty
from nstr3d.training.sampling import SurfaceBand
from nstr3d.training.state import check_state
from nstr3d.types import Frame, Mesh, Samples

AGREEMENT = 1 << 14  # samples on which the two placements of a start model are compared
LEAST_DEPTH = 1e-6  # unit box; a mesh whose deepest sample is less deep counts as flat


@dataclass(frozen=True)
class Placed:
    """A closed ``mesh`` in world units and ``unit``, the same mesh in the unit box.

    ``frame`` maps the unit box to the world. ``vicinity`` selects the lattice nodes near the mesh
    that a field stores.
    """

    mesh: Mesh
    unit: Mesh
    frame: Frame
    vicinity: Vicinity


@dataclass(frozen=True)
class Beginning:
    """What training begins with.

    ``identity`` is the run's (`identity_of`). A resumed run has the unfinished fit ``resumed`` and
    the training ``state``, both from its checkpoint. A run with a new field has the field's config
    ``template``. A run that starts from another model has neither: ``resumed`` and ``template`` are
    None and ``state`` is empty. The run's checkpoint and its best model go to ``place``.
    """

    place: Unfinished
    identity: dict[str, Any]
    resumed: Fit | None
    state: dict[str, Tensor]
    template: Any


def begin(
    job: SurfaceJob, placed: Placed, identity: dict[str, Any], device: torch.device
) -> Beginning:
    """Reads the checkpoint of a resumed run, or sizes a new field.

    Raises ValueError if the checkpoint belongs to another run or is a finished model, or if the
    parameter budget is too small.
    """
    if job.output.resume:
        path, unfinished, state = _resume(job, identity, device)
        return Beginning(place_unfinished(job, path), identity, unfinished, state, None)
    template = None if job.start else job.training.architecture(placed.vicinity)
    return Beginning(place_unfinished(job), identity, None, {}, template)


def draw_samples(unit: Mesh, distance: MeshDistance, config: FitConfig) -> Samples:
    """The samples of ``distance``, the signed distance to ``unit``, that a field is fitted to.

    ``unit`` is a mesh in the unit box. Raises ValueError if no sample is deeper inside than
    LEAST_DEPTH.
    """
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
    """The field before training: that of the checkpoint, that of the start model or a new one.

    Raises ValueError if the start model is not an NSTR field of a surface.
    """
    if begun.resumed is not None:
        field = begun.resumed.field
    elif job.start is not None:
        field = _carried_over(job.start, placed, pool, device)
    else:
        return new_field(job.training, begun.template, placed.vicinity, device)
    return _compiled(field)


def new_field(training: Training, template: Any, vicinity: Vicinity, device: torch.device) -> Field:
    """The field of the config ``template`` with weights that the seed of ``training`` decides."""
    generator = torch.Generator().manual_seed(training.seed)
    return _compiled(template.build(3, 1, near=vicinity, generator=generator).to(device))


def _compiled(field: Field) -> Field:
    """``field`` after its first call, which compiles or loads the fused kernels.

    That cost does not grow with the number of steps, so it is kept out of the time of the fit.
    """
    device = next(field.parameters()).device
    field(torch.zeros(1, 3, device=device)).sum().backward()
    field.zero_grad()
    return field


def objective_of(training: Training) -> SdfObjective:
    """The loss that the options ``training`` ask for."""
    weight = training.transport
    return SdfObjective(
        transport=TransportPenalty(weight) if weight else None,
        gradient_weight=training.gradient_weight,
    )


def train(
    job: SurfaceJob, placed: Placed, begun: Beginning, field: Field, pool: Samples, run: Run
) -> Fit:
    """Trains ``field`` on the samples ``pool`` and returns the finished fit.

    A signal to stop ends training after the current step: the best model so far is written to
    ``begun.place``, and `Interrupted` is raised. A stop after the last step raises
    KeyboardInterrupt.
    """
    resumed, bounds = begun.resumed, placed.mesh.bounds
    objective = objective_of(job.training)
    unfinished = Fit(field, placed.frame, bounds, 1.0, provenance=begun.identity)
    run.listener.fitting(unfinished)
    with stop_on_signal() as stopped:
        saver = _Saver(
            begun.place.checkpoint, job.output.checkpoint_seconds, unfinished, stopped, run
        )
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
        if resumed is not None and not result.steps:  # the checkpoint is of the last step
            result = replace(result, steps=resumed.steps, seconds=resumed.seconds)
        if result.interrupted:
            path = begun.place.model
            with writing_to(path.parent):
                save(path, result)
            kept = "Stopped after {} steps: the best model so far is in {}; go on with <resume>."
            raise Interrupted(Message(kept, result.steps, path))
    if stopped.is_set():  # stopped after the last step
        raise KeyboardInterrupt
    return result


def identity_of(job: SurfaceJob, sha256: str | None = None) -> dict[str, Any]:
    """The properties that a run must share with a checkpoint's run to resume it.

    They are also the model's provenance. ``sha256`` is the hash of the input file; None computes
    it.
    """
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
    """Passes each step's progress to the listener of ``run``, saves the checkpoint ``path`` every
    ``seconds``, and stops training between two steps once ``stopped`` is set."""

    def __init__(
        self, path: Path, seconds: float, unfinished: Fit, stopped: threading.Event, run: Run
    ):
        self.path, self.seconds, self.run = path, seconds, run
        self.unfinished, self.stopped, self.listener = unfinished, stopped, run.listener
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
        self.saved, self.run.checkpoint = time.perf_counter(), self.path


def _resume(
    job: SurfaceJob, identity: dict[str, Any], device: torch.device
) -> tuple[Path, Fit, dict[str, Tensor]]:
    """The checkpoint of the run ``identity``, with its unfinished fit and its training state.

    Raises ValueError if no checkpoint in the job's folder is of this run; the error is on the first
    of `checkpoints`.
    """
    errors = []
    for path in checkpoints(job.folder):
        try:
            unfinished, state = load_training(path, device)
            _check_same(path, unfinished, state, identity)
        except ValueError as error:
            errors.append(error)
            continue
        return path, unfinished, state
    raise errors[0]


def _check_same(
    path: Path, unfinished: Fit, state: dict[str, Tensor], identity: dict[str, Any]
) -> None:
    """Raises ValueError if the file ``path``, with the fit ``unfinished`` and the training
    ``state``, is not a checkpoint of the run ``identity``."""
    if not {"step", "seconds"} <= state.keys():
        text = (
            "{} is a finished model, not a checkpoint, so there is nothing to resume; fit anew "
            "with <overwrite> instead of <resume>."
        )
        raise ValueError(Message(text, path))
    try:
        groups = unfinished.field.rates()
        check_state([parameter for group in groups for parameter in group["params"]], state)
        if (step := int(state["step"])) != unfinished.steps:
            raise ValueError(f"its step is {step} and that of its model {unfinished.steps}.")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    before = unfinished.provenance
    if one_sided := sorted(identity.keys() ^ before.keys()):
        text = (
            "{} belongs to another run or another version of nstr3d: {} is not an option of both; "
            "use the same options and version, or fit anew with <overwrite> instead of <resume>."
        )
        raise ValueError(Message(text, path, ", ".join(one_sided)))
    differing = [name for name, value in identity.items() if before[name] != value]
    if differing:
        text = (
            "{} belongs to another run: {} differ; use the same options and input, or fit anew "
            "with <overwrite> instead of <resume>."
        )
        raise ValueError(Message(text, path, ", ".join(differing)))


def _carried_over(path: Path, placed: Placed, pool: Samples, device: torch.device) -> Nstr:
    """The field of the model in ``path``, carried over to the shape ``placed``.

    Two placements are tried: the model's unit box on that of the shape, and the model where it is
    in the world. The one with the smaller mean absolute error on samples of ``pool`` is returned.
    """
    start, frame = load(path, device), placed.frame
    if not isinstance(start.field, Nstr) or (start.field.in_dim, start.field.out_dim) != (3, 1):
        raise ValueError(
            Message(
                "{} is not an NSTR field of a surface, so training cannot start from it; fit one "
                "with <field> nstr.",
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
