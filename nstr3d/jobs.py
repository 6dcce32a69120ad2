"""One mesh file in; a model, a mesh, a picture and a report out: the whole main job, with its options, files and errors."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
import resource
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.checkpoint import encode_config, load_training, save
from nstr3d.extract import Extraction, extract
from nstr3d.fields.nstr import Nstr, TransportConfig
from nstr3d.fit import Fit, FitConfig, Progress, draw_pool, fit, training_state
from nstr3d.geometry.distance import MeshDistance
from nstr3d.geometry.holes import Closing, close_holes
from nstr3d.geometry.repair import RepairReport, repair, structure
from nstr3d.geometry.surface import normalise
from nstr3d.io import load_mesh, save_image, save_json, save_mesh
from nstr3d.losses import TransportPenalty, sdf_objective
from nstr3d.metrics import Accuracy, score
from nstr3d.presets import FIELDS, PRESETS
from nstr3d.render import RenderConfig, render, side_by_side
from nstr3d.sampling import SurfaceBand
from nstr3d.sdf import Sdf
from nstr3d.types import Camera, Frame, Mesh

MODEL, MESH, PICTURE, REPORT, CHECKPOINT = "model.safetensors", "mesh.ply", "render.png", "report.json", "checkpoint.safetensors"
CHECKPOINT_SECONDS = 20.0
SIZES = (1e-30, 1e30)  # beyond, squares and cubes of lengths leave double precision
RESOLUTIONS = (8, 4096)  # at the upper end, a surface of about 90 million faces
LEAST_DEPTH = 1e-6  # in the unit box: what encloses less is flat
LARGEST_SEED = 2**32 - 1  # the random generators take seeds derived from it


class Interrupted(Exception):
    """The user stopped the job; the message says what was kept."""


@dataclass(frozen=True)
class MeshJob:
    """What to fit and how; see the command line's help for each option. ``picture`` is the pixels to a side of each view.

    Raises ValueError for options out of range.
    """

    path: Path
    out: Path
    preset: str = "standard"
    params: int | None = None
    seconds: float | None = None
    steps: int | None = None
    resolution: int = 512
    field: str = "nstr"
    transport: float = 0.0
    device: str = "auto"
    seed: int = 0
    overwrite: bool = False
    resume: bool = False
    import_seconds: float | None = None
    picture: int = 512

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(f"--preset is one of {', '.join(PRESETS)}, not {self.preset}.")
        for name in ("params", "seconds", "steps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} must be positive and finite, not {value}.")
        if not RESOLUTIONS[0] <= self.resolution <= RESOLUTIONS[1]:
            raise ValueError(f"--resolution is {RESOLUTIONS[0]} to {RESOLUTIONS[1]} cells, not {self.resolution}.")
        if self.field not in FIELDS:
            raise ValueError(f"--field is one of {', '.join(FIELDS)}, not {self.field}.")
        if self.transport and self.field not in ("nstr", "grid"):
            raise ValueError(f"--transport needs a local spectrum, which --field {self.field} has not; use --field nstr.")
        if not 0 <= self.transport < math.inf:
            raise ValueError(f"--transport must be finite and not negative, not {self.transport}.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"--seed is 0 to {LARGEST_SEED}, not {self.seed}.")

    @property
    def training(self) -> FitConfig:
        """The preset's training with this job's changes."""
        changes = {"seed": self.seed, "seconds": self.seconds} | ({"steps": self.steps} if self.steps else {})
        return replace(PRESETS[self.preset].training, **changes)


@dataclass(frozen=True)
class Outcome:
    """A finished job: its report (what `report.json` holds) and the files written."""

    report: dict[str, Any]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Listener:
    """Where a job says what it is doing: ``stage`` names the next stage, ``step`` follows training, ``warn`` is for the user."""

    stage: Callable[[str], None] = lambda name: None
    step: Callable[[Progress], None] = lambda progress: None
    warn: Callable[[str], None] = lambda message: None


def run(job: MeshJob, listener: Listener | None = None) -> Outcome:
    """Does the job. All files appear together at the end or not at all; only a checkpoint, which --resume goes on from, may be
    left by a run that failed or was stopped.

    Raises ValueError, OSError or FloatingPointError with one sentence for the user, and `Interrupted` after a Ctrl-C.
    """
    listener, clock = listener or Listener(), _Clock()
    device = pick_device(job.device)
    _check_output(job)
    with _tidy(job.out):
        listener.stage("load")
        with clock("load"):
            original = load_mesh(job.path)
            _check_size(original)
            whole, repairs = repair(original)
            mesh, closing = close_holes(whole)
            unit, frame = normalise(mesh)
        warnings = _warnings(repairs, closing, mesh.bounds.diagonal)
        for warning in warnings:
            listener.warn(warning)
        listener.stage("fit")
        result = _fit(job, unit, frame, mesh, device, clock, listener)

        sdf, distance = result.sdf(), MeshDistance(mesh)
        listener.stage("extract")
        with clock("extract"):
            extraction = _extract(sdf, job.resolution)
        listener.stage("render")
        with clock("render"):
            picture = _picture(result, distance, mesh, job.picture)
        listener.stage("score")
        with clock("score"):
            accuracy = score(sdf, extraction.mesh, mesh, distance, frame, np.random.default_rng([job.seed, 1]))
        listener.stage("write")
        with _publish(job.out) as folder:
            save(folder / MODEL, result)
            save_mesh(folder / MESH, extraction.mesh)
            save_image(folder / PICTURE, picture)
            size = (folder / MODEL).stat().st_size
            report = _report(job, original, repairs, closing, result, size, extraction.mesh, accuracy, clock, warnings)
            save_json(folder / REPORT, report)
        (job.out / CHECKPOINT).unlink(missing_ok=True)
    return Outcome(report, tuple(job.out / name for name in (MODEL, MESH, PICTURE, REPORT)))


def pick_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here. Raises ValueError where it is not to be had."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is one of auto, cpu, cuda, not {name}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this torch finds no CUDA device; use --device cpu, or install a CUDA build of torch.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _fit(job: MeshJob, unit: Mesh, frame: Frame, mesh: Mesh, device: torch.device, clock: _Clock, listener: Listener) -> Fit:
    """The fitted field, from scratch or from the checkpoint of the same job."""
    config, identity = job.training, _identity(job)
    resumed, state = _resume(job, identity, device) if job.resume else (None, {})
    with clock("build"):
        if resumed is not None:
            field = resumed.field
        else:
            template = FIELDS[job.field](job.params or PRESETS[job.preset].params, unit)
            if job.transport:
                template = replace(template, transport=TransportConfig())
            field = template.build(3, 1, near=unit, generator=torch.Generator().manual_seed(job.seed)).to(device)
        # The first call compiles or loads the fused kernels: not a part of the fit that grows with it.
        field(torch.zeros(1, 3, device=device)).sum().backward()
        field.zero_grad()
    with clock("sample"):
        sampler = SurfaceBand(unit, MeshDistance(unit))
        pool = draw_pool(sampler, config)
    if float(pool.values.min()) > -LEAST_DEPTH:
        raise ValueError("The mesh encloses no volume, so nothing is inside; a signed distance needs a solid, not a flat sheet.")
    objective = sdf_objective(transport=TransportPenalty(job.transport) if job.transport else None)
    unfinished = Fit(field, frame, mesh.bounds, 1.0, provenance=identity)
    with _stop_on_signal() as stopped:
        saver = _Saver(job.out / CHECKPOINT, unfinished, stopped, listener)
        with clock("fit"):
            result = fit(field, pool, objective, config, frame, mesh.bounds, saver.step, state or None)
        result = replace(result, provenance=identity)
        if resumed is not None and not result.steps:  # it had been stopped after its last step
            result = replace(result, steps=resumed.steps, seconds=resumed.seconds)
        if result.interrupted:
            with _writing_to(job.out):
                save(job.out / MODEL, result)
            kept = f"the best model so far is in {job.out / MODEL}; go on with --resume"
            raise Interrupted(f"Stopped after {result.steps} steps: {kept}.")
    if stopped.is_set():  # too late for a step to see it
        raise KeyboardInterrupt
    return result


class _Saver:
    """Passes training's steps on, checkpoints now and then, and stops training between two steps when asked to."""

    def __init__(self, path: Path, unfinished: Fit, stopped: threading.Event, listener: Listener):
        self.path, self.unfinished, self.stopped, self.listener = path, unfinished, stopped, listener
        self.saved = time.perf_counter()

    def step(self, progress: Progress) -> None:
        try:
            self.listener.step(progress)
            if self.stopped.is_set():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            self.save(progress)
            raise
        if time.perf_counter() - self.saved > CHECKPOINT_SECONDS:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        current = replace(self.unfinished, steps=progress.step, seconds=progress.seconds, interrupted=True)
        with _writing_to(self.path.parent):
            save(self.path, current, training_state(progress))
        self.saved = time.perf_counter()


@contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Ctrl-C or SIGTERM set the event, so that work can stop where it is safe to; a second one stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def request(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise Interrupted("Stopped at once.")  # `fit` would take a KeyboardInterrupt for the first
        stopped.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resume(job: MeshJob, identity: dict[str, Any], device: torch.device) -> tuple[Fit, dict[str, Tensor]]:
    path = job.out / CHECKPOINT
    unfinished, state = load_training(path, device)
    if not {"step", "seconds"} <= state.keys():
        raise ValueError(f"{path} is a finished model, not a checkpoint, so there is nothing to resume; run without --resume.")
    differing = [name for name, value in identity.items() if unfinished.provenance.get(name) != value]
    if differing:
        raise ValueError(f"{path} belongs to another run: {', '.join(differing)} differ; use the same options and input.")
    return unfinished, state


def _identity(job: MeshJob) -> dict[str, Any]:
    """What must agree for a run to be the same run; kept as the model's provenance."""
    training = encode_config(job.training)
    del training["class"]
    return {
        "input": job.path.name,
        "sha256": hashlib.sha256(job.path.read_bytes()).hexdigest(),
        "preset": job.preset,
        "params": job.params,
        "field": job.field,
        "transport": job.transport,
        **training,
        "nstr3d": _version("nstr3d"),
    }


def _check_output(job: MeshJob) -> None:
    """Refuses, before any work, to write where it may not or cannot. Makes nothing: that can wait for something to write."""
    nearest = next(folder for folder in (job.out, *job.out.absolute().parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is not a folder; choose another --out.")
    if job.resume and not (job.out / CHECKPOINT).exists():
        raise FileNotFoundError(f"{job.out / CHECKPOINT} does not exist, so there is nothing to resume; run without --resume.")
    for name in (MODEL, MESH, PICTURE, REPORT, CHECKPOINT):
        if (job.out / name).is_dir():
            raise IsADirectoryError(f"{job.out / name} is a folder where a file is to be written; choose another --out.")
    expected = {MODEL, CHECKPOINT} if job.resume else set()
    present = [name for name in (MODEL, MESH, PICTURE, REPORT, CHECKPOINT) if (job.out / name).exists()]
    if not job.overwrite and not expected.issuperset(present):
        going_on = "--resume to go on from the checkpoint, " if CHECKPOINT in present and not job.resume else ""
        raise FileExistsError(f"{job.out} already holds {', '.join(present)}; pass {going_on}--overwrite or another --out.")
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(f"{nearest} cannot be written to ({error.strerror}); choose another --out.") from error


def _check_size(mesh: Mesh) -> None:
    """Refuses a mesh whose measures could not be computed; one without size is left to `repair`."""
    limits = f"sizes from {SIZES[0]} to {SIZES[1]} units work, so scale it"
    reach = float(np.abs(mesh.vertices).max())
    if reach > SIZES[1]:
        raise ValueError(f"The mesh reaches out to {reach:.1e}; {limits} down.")
    size = float(mesh.bounds.extent.max())
    if 0 < size < SIZES[0]:
        raise ValueError(f"The mesh is only {size:.1e} long; {limits} up.")


@contextmanager
def _tidy(out: Path) -> Iterator[None]:
    """Turns a stop into `Interrupted`, and removes the folders made for ``out`` where nothing was put into them."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except KeyboardInterrupt:
        kept = (
            f"{out / CHECKPOINT} is there to go on from with --resume" if (out / CHECKPOINT).exists() else "nothing was written"
        )
        raise Interrupted(f"Stopped; {kept}.") from None
    finally:
        for folder in made:
            with suppress(OSError):  # it holds something, or was never made
                folder.rmdir()


def _extract(sdf: Sdf, resolution: int) -> Extraction:
    """The neural surface; a field that was trained too briefly may have none, or none that closes within the bounds."""
    try:
        return extract(sdf, resolution)
    except ValueError as error:
        raise ValueError("The field has no closed surface yet; train for more --steps or --seconds.") from error


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    """Makes the folder ``out``, and lets a disk that fails while it is written to say so in one sentence."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"{out} could not be written to ({reason}); make room there or choose another --out.") from error


@contextmanager
def _publish(out: Path) -> Iterator[Path]:
    """A folder to write into, whose files move to ``out`` together when the block succeeds and vanish when it fails."""
    with _writing_to(out):
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
        try:
            yield folder
            with _stop_on_signal():  # a stop between two moves would leave half of them
                for path in sorted(folder.iterdir()):
                    os.replace(path, out / path.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _picture(result: Fit, distance: MeshDistance, mesh: Mesh, size: int) -> np.ndarray:
    """The input mesh left, the neural surface right, sphere traced alike, ``size`` pixels to a side each."""
    camera = Camera.around(mesh.bounds, width=size, height=size)
    config = RenderConfig()
    return side_by_side([render(sdf, camera, config) for sdf in (distance.sdf(), result.sdf())])


def _warnings(repairs: RepairReport, closing: Closing, diagonal: float) -> list[str]:
    found = []
    if not repairs.watertight:
        edges = f"{repairs.boundary_edges} boundary and {repairs.branching_edges} branching edges"
        caps = f"{closing.holes} holes, up to {closing.widest / diagonal:.1%} of the diagonal wide, were closed with caps"
        meaning = "negative means inside the closed surface, where its winding number exceeds 1/2"
        found.append(f"The surface is not watertight ({edges}): {caps}, and {meaning}.")
    if repairs.one_sided:
        found.append(f"{repairs.one_sided} component(s) cannot be oriented, so inside means little near them.")
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
    clock: _Clock,
    warnings: list[str],
) -> dict[str, Any]:
    components, watertight = structure(extracted)
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
        "field": {
            "name": job.field,
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
            "resolution": job.resolution,
        },
        "seconds": clock.seconds | {"total": clock.total, "import": job.import_seconds},
        "accuracy": dataclasses.asdict(accuracy),
        "transport": _transport(job, result),
        "machine": _machine(result),
        "seed": job.seed,
    }


def _transport(job: MeshJob, result: Fit) -> dict[str, Any]:
    """Whether the transport loss was on and what F leaves unexplained of |grad S|, over pool points; null without an F."""
    field = result.field
    if not isinstance(field, Nstr) or field.transport is None:
        return {"loss": False, "weight": 0.0, "residual": None}
    generator = torch.Generator().manual_seed(job.seed)
    device = next(field.parameters()).device
    points = (torch.rand(1 << 14, field.in_dim, generator=generator) * 2 - 1).to(device)
    with torch.no_grad():
        residual = float(field.transport_residual(points))
    return {"loss": True, "weight": job.transport, "residual": residual, "points": len(points)}


def _machine(result: Fit) -> dict[str, Any]:
    packages = ("nstr3d", "torch", "numpy", "libigl", "numba")
    return {
        "device": str(next(result.field.parameters()).device),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class _Clock:
    """Seconds spent in each named stage."""

    def __init__(self):
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    @property
    def total(self) -> float:
        return time.perf_counter() - self.started
