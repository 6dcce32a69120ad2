"""One mesh file in; a model, a mesh, a picture and a report out: the whole main job, with its
options, files and errors."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.nstr import Nstr
from nstr3d.fields.start.warm import warm_start
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import Closing, close_holes
from nstr3d.geometry.mesh.repair import RepairReport, repair, structure
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import load_mesh, save_image, save_json, save_mesh
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import SurfaceJob
from nstr3d.jobs.stages import (
    Clock,
    Interrupted,
    Listener,
    Outcome,
    check_output,
    machine,
    package_version,
    pick_device,
    publish,
    slowness,
    stop_on_signal,
    tidy,
    writing_to,
)
from nstr3d.model.checkpoint import load, load_training, save
from nstr3d.model.tags import TAG, encode_config
from nstr3d.render.traced import RenderConfig, render, side_by_side
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import Extraction, extract
from nstr3d.surface.metrics import Accuracy, score
from nstr3d.training.fit import Fit, Progress, draw_pool, fit, training_state
from nstr3d.training.losses import TransportPenalty, sdf_objective
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Camera, Frame, Mesh, Samples

MODEL, MESH, PICTURE, REPORT, CHECKPOINT = (
    "model.safetensors",
    "mesh.ply",
    "render.png",
    "report.json",
    "checkpoint.safetensors",
)
AGREEMENT = 1 << 14  # samples that say where a model to start from belongs
SIZES = (1e-30, 1e30)  # beyond, squares and cubes of lengths leave double precision
LEAST_DEPTH = 1e-6  # in the unit box: what encloses less is flat


@dataclass(frozen=True)
class MeshJob(SurfaceJob):
    """What to fit to a mesh, and how."""

    path: Path
    """Any mesh file that trimesh reads: OBJ, PLY, STL, OFF, GLB, GLTF ..."""


def run(
    job: MeshJob, listener: Listener | None = None, import_seconds: float | None = None
) -> Outcome:
    """Does the job. All files appear together at the end or not at all; only a checkpoint, which
    a resumed run goes on from, may be left by a run that failed or was stopped. The report gets the
    caller's ``import_seconds``.

    Raises ValueError, OSError or FloatingPointError with one sentence for the user, and
    `Interrupted` after a Ctrl-C.
    """
    listener, clock = listener or Listener(), Clock()
    device = pick_device(job.training.device)
    check_files(job)
    size = job.extraction.picture
    with tidy(job.folder, job.folder / CHECKPOINT):
        listener.stage("load")
        with clock("load"):
            original = load_mesh(job.path)
            check_size(original)
            whole, repairs = repair(original)
            mesh, closing = close_holes(whole)
            unit, frame = normalise(mesh)
        warnings = slowness() + _warnings(repairs, closing, mesh.bounds.diagonal)
        for warning in warnings:
            listener.warn(warning)
        listener.stage("fit")
        result = train(job, unit, frame, mesh, device, clock, listener)

        sdf, distance = result.sdf(), MeshDistance(mesh)
        listener.stage("extract")
        with clock("extract"):
            extraction = extract_surface(sdf, job.extraction.resolution)
        listener.stage("render")
        with clock("render"):
            picture = _picture(result, distance, mesh, size) if size else None
        listener.stage("score")
        with clock("score"):
            generator = np.random.default_rng([job.training.seed, 1])
            accuracy = score(
                sdf,
                extraction.mesh,
                mesh,
                distance,
                frame,
                generator,
                samples=job.extraction.scored,
            )
        listener.stage("write")
        with publish(job.folder) as folder:
            save(folder / MODEL, result)
            save_mesh(folder / MESH, extraction.mesh)
            if picture is not None:
                save_image(folder / PICTURE, picture)
            stored = (folder / MODEL).stat().st_size
            report = _report(
                job,
                original,
                repairs,
                closing,
                result,
                stored,
                extraction.mesh,
                accuracy,
                clock.seconds | {"total": clock.total, "import": import_seconds},
                warnings,
            )
            save_json(folder / REPORT, report)
        (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return Outcome(report, written_files(job))


def train(
    job: SurfaceJob,
    unit: Mesh,
    frame: Frame,
    mesh: Mesh,
    device: torch.device,
    clock: Clock,
    listener: Listener,
    options: Mapping[str, Any] | None = None,
) -> Fit:
    """The field fitted to ``mesh``, which ``frame`` takes to ``unit``, from scratch or from the
    checkpoint of the same job.

    ``options`` are those beyond the job's own that must agree for a checkpoint to be of the same
    run. Writes the model and raises `Interrupted` after a Ctrl-C; raises ValueError where nothing
    is inside ``mesh``.
    """
    config, identity = job.training.config, _identity(job) | dict(options or {})
    resumed, state = _resume(job, identity, device) if job.output.resume else (None, {})
    template = (
        None if resumed or job.start else job.training.architecture(unit)
    )  # before any work: a budget may be too small
    with clock("sample"):
        sampler = SurfaceBand(unit, MeshDistance(unit))
        pool = draw_pool(sampler, config)
    if float(pool.values.min()) > -LEAST_DEPTH:
        raise ValueError(
            "The mesh encloses no volume, so nothing is inside; a signed distance needs a solid, "
            "not a flat sheet."
        )
    with clock("build"):
        if resumed is not None:
            field = resumed.field
        elif job.start is not None:
            field = _started(job.start, unit, frame, pool, device)
        else:
            assert template is not None
            field = template.build(
                3, 1, near=unit, generator=torch.Generator().manual_seed(job.training.seed)
            ).to(device)
        # The first call compiles or loads the fused kernels: not a part of the fit that grows with
        # it.
        field(torch.zeros(1, 3, device=device)).sum().backward()
        field.zero_grad()
    weight = job.training.transport
    objective = sdf_objective(transport=TransportPenalty(weight) if weight else None)
    unfinished = Fit(field, frame, mesh.bounds, 1.0, provenance=identity)
    listener.fitting(unfinished)
    with stop_on_signal() as stopped:
        saver = _Saver(job, unfinished, stopped, listener)
        with clock("fit"):
            result = fit(
                field, pool, objective, config, frame, mesh.bounds, saver.step, state or None
            )
        result = replace(result, provenance=identity)
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


def _started(path: Path, unit: Mesh, frame: Frame, pool: Samples, device: torch.device) -> Nstr:
    """The field of the model in ``path``, carried over to the shape ``unit``, which ``frame``
    places: where it is in the world, or box to box, whichever agrees better with the samples."""
    start = load(path, device)
    if not isinstance(start.field, Nstr) or (start.field.in_dim, start.field.out_dim) != (3, 1):
        raise ValueError(
            Message(
                "{} is no NSTR field of a surface, so there is nothing to start from; fit one with "
                "<field> nstr.",
                path,
            )
        )
    shift = (np.array(frame.centre) - start.frame.centre) / start.frame.scale
    fields = [
        warm_start(start.field, unit),
        warm_start(start.field, unit, frame.scale / start.frame.scale, shift.tolist()),
    ]
    points, values = pool.points[:AGREEMENT].to(device), pool.values[:AGREEMENT].to(device)
    with torch.no_grad():
        errors = [float((field(points) - values).abs().mean()) for field in fields]
    return fields[errors[1] < errors[0]]


def _identity(job: SurfaceJob) -> dict[str, Any]:
    """What must agree for a run to be the same run; kept as the model's provenance."""
    training, how = encode_config(job.training.config), job.training
    del training[TAG]
    return {
        "input": job.path.name,
        "sha256": hashlib.sha256(job.path.read_bytes()).hexdigest(),
        "preset": how.preset,
        "params": how.params,
        "cells": how.cells,
        "field": how.field,
        "transport": how.transport,
        **({"start": hashlib.sha256(job.start.read_bytes()).hexdigest()} if job.start else {}),
        **training,
        "nstr3d": package_version("nstr3d"),
    }


def check_files(job: SurfaceJob) -> None:
    """Refuses, before any work, to write where it may not or cannot."""
    if job.start is not None and not job.start.is_file():
        raise FileNotFoundError(
            f"{job.start} does not exist, so there is nothing to start from; name a "
            "model.safetensors."
        )
    if job.output.resume and not (job.folder / CHECKPOINT).exists():
        raise FileNotFoundError(
            Message(
                "{} does not exist, so there is nothing to resume; run without <resume>.",
                job.folder / CHECKPOINT,
            )
        )
    expected = {MODEL, CHECKPOINT} if job.output.resume else set()
    going_on = (
        Message("<resume> to go on from the checkpoint, ")
        if not job.output.resume and (job.folder / CHECKPOINT).exists()
        else ""
    )
    check_output(
        job.folder,
        (MODEL, MESH, PICTURE, REPORT, CHECKPOINT),
        job.output.overwrite,
        expected,
        going_on,
    )


def check_size(mesh: Mesh) -> None:
    """Refuses a mesh whose measures could not be computed; one without size is left to `repair`."""
    limits = f"sizes from {SIZES[0]} to {SIZES[1]} units work, so scale it"
    reach = float(np.abs(mesh.vertices).max())
    if reach > SIZES[1]:
        raise ValueError(f"The mesh reaches out to {reach:.1e}; {limits} down.")
    size = float(mesh.bounds.extent.max())
    if 0 < size < SIZES[0]:
        raise ValueError(f"The mesh is only {size:.1e} long; {limits} up.")


def written_files(job: SurfaceJob) -> tuple[Path, ...]:
    """What a finished job leaves."""
    return tuple(
        job.folder / name
        for name in (MODEL, MESH, PICTURE, REPORT)
        if name != PICTURE or job.extraction.picture
    )


def extract_surface(sdf: Sdf, resolution: int) -> Extraction:
    """The neural surface; a field that was trained too briefly may have none, or none that closes
    within the bounds."""
    try:
        return extract(sdf, resolution)
    except ValueError as error:
        raise ValueError(
            Message("The field has no closed surface yet; train for more <steps> or <seconds>.")
        ) from error


def _picture(result: Fit, distance: MeshDistance, mesh: Mesh, size: int) -> np.ndarray:
    """The input mesh left, the neural surface right, sphere traced alike, ``size`` pixels to a side
    each."""
    camera = Camera.around(mesh.bounds, width=size, height=size)
    config = RenderConfig()
    return side_by_side([render(sdf, camera, config) for sdf in (distance.sdf(), result.sdf())])


def _warnings(repairs: RepairReport, closing: Closing, diagonal: float) -> list[str]:
    found = []
    if not repairs.watertight:
        edges = f"{repairs.boundary_edges} boundary and {repairs.branching_edges} branching edges"
        widest = f"{closing.widest / diagonal:.1%} of the diagonal"
        caps = f"{closing.holes} holes, up to {widest} wide, were closed with caps"
        meaning = "negative means inside the closed surface, where its winding number exceeds 1/2"
        found.append(f"The surface is not watertight ({edges}): {caps}, and {meaning}.")
    if repairs.one_sided:
        found.append(
            f"{repairs.one_sided} component(s) cannot be oriented, so inside means little near "
            "them."
        )
    return found


def _report(
    job: MeshJob,
    original: Mesh,
    repairs: RepairReport,
    closing: Closing,
    result: Fit,
    size: int,
    extracted: Mesh,
    accuracy: Accuracy,
    seconds: dict[str, float | None],
    warnings: list[str],
) -> dict[str, Any]:
    return {
        "input": {
            "path": str(job.path),
            "vertices": len(original.vertices),
            "faces": len(original.faces),
            "components": repairs.components,
            "watertight": repairs.watertight,
            "repairs": dataclasses.asdict(repairs) | {"closed": dataclasses.asdict(closing)},
            "warnings": warnings,
        },
        **describe(job, result, size, extracted),
        "seconds": seconds,
        "accuracy": dataclasses.asdict(accuracy),
        "transport": _transport(job, result),
        "machine": machine(next(result.field.parameters()).device),
        "seed": job.training.seed,
    }


def describe(job: SurfaceJob, result: Fit, size: int, extracted: Mesh) -> dict[str, Any]:
    """What a report says of the field, whose file has ``size`` bytes, and of the mesh ``extracted``
    from it."""
    components, watertight = structure(extracted)
    return {
        "field": {
            "name": job.training.field,
            "config": encode_config(result.field.config),
            "parameters": result.field.parameter_count,
            "bytes": size,
            "lipschitz": result.lipschitz,
            "steps": result.steps,
        },
        "mesh": {
            "vertices": len(extracted.vertices),
            "faces": len(extracted.faces),
            "components": components,
            "watertight": watertight,
            "resolution": job.extraction.resolution,
        },
    }


def _transport(job: SurfaceJob, result: Fit) -> dict[str, Any]:
    """Whether the transport loss was on and what F leaves unexplained of |grad S|, over pool
    points; null without an F."""
    field = result.field
    if not isinstance(field, Nstr) or field.transport is None:
        return {"loss": False, "weight": 0.0, "residual": None}
    generator = torch.Generator().manual_seed(job.training.seed)
    device = next(field.parameters()).device
    points = (torch.rand(1 << 14, field.in_dim, generator=generator) * 2 - 1).to(device)
    with torch.no_grad():
        residual = float(field.transport_residual(points))
    return {
        "loss": True,
        "weight": job.training.transport,
        "residual": residual,
        "points": len(points),
    }
