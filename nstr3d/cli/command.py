"""The command line: ``nstr3d fit mesh.obj``. Prints and parses so that the library need not."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from nstr3d.cli.batch import Batch, fit_batch
from nstr3d.cli.export import Export, export_model
from nstr3d.cli.kinds import names_signal
from nstr3d.cli.render import Render, render_model
from nstr3d.cli.tables import points_table, signal_table, table
from nstr3d.cli.view import View, serve, view
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.mesh import MODEL, MeshJob, run
from nstr3d.jobs.messages import memory_errors, sentence, with_flags
from nstr3d.jobs.signal import SignalJob, run_signal
from nstr3d.jobs.stages import Interrupted, Listener
from nstr3d.model.checkpoint import load
from nstr3d.training.fit import REPORT_EVERY, Fit, FitConfig, Progress
from nstr3d.view.browser import LivePage

IMPORT_SECONDS = time.process_time()  # since the process began: almost all of it is imports


@dataclass(frozen=True)
class FitMesh:
    """Fit a neural signed distance field to a mesh; write model, mesh, picture and report."""

    mesh: tyro.conf.Positional[Path]
    """Any mesh file that trimesh reads: OBJ, PLY, STL, OFF, GLB, GLTF ..."""
    out: Path | None = None
    """Folder for the results; out/<name of the mesh>/ by default."""
    preset: Literal["fast", "standard", "fine"] = "standard"
    """How much to spend: about 100k, 100k and 400k parameters, and more training with each."""
    params: int | None = None
    """Budget of learned parameters; the field sizes itself to it."""
    seconds: float | None = None
    """Train for this long instead of the preset's number of steps."""
    steps: int | None = None
    """Train for this many steps instead of the preset's."""
    resolution: int = 512
    """Cells of the extraction grid along the longest side."""
    pool: int | None = None
    """Samples to train on; the preset's by default."""
    samples: int | None = None
    """Points to measure accuracy with; 100,000 by default."""
    picture: int = 512
    """Pixels to a side of the two views in the picture; 0 for none."""
    field: Literal["nstr", "grid", "ngp", "siren", "fourier"] = "nstr"
    """The kind of field: ours, the same without waves, or a baseline (Instant-NGP, SIREN, Fourier
    features)."""
    transport: float = 0.0
    """Weight of the transport loss; 0 leaves the transport network out."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    threads: int | None = None
    """CPU threads; as many as torch chooses by default."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Replace results that are already there."""
    resume: bool = False
    """Go on from the checkpoint of an interrupted run with the same options."""
    start: Path | None = None
    """Start from the model.safetensors of a nearby shape, which takes fewer --steps; the field is
    as large as that model's."""
    view: bool = False
    """Watch the fit on a page in the browser, and go on looking when it is done; pip install
    nstr3d[viewer]."""
    port: int = 8080
    """Port of that page, on this machine; 0 takes any that is free."""


@dataclass(frozen=True)
class FitPoints(FitMesh):
    """Fit a neural signed distance field to a point cloud; write model, mesh, picture and
    report."""

    mesh: tyro.conf.Positional[Path]
    """Points with or without normals: PLY, PCD, XYZ and other text of 3 or 6 columns, NPY, NPZ, or
    LAS with laspy."""
    normals: Literal["given", "estimate", "none"] = "given"
    """Use the file's normals where it has them, or estimate all anew; with none a field trained on
    the points alone tells which way is out, slower and less often right than the winding number,
    which tells it otherwise."""
    smooth: float | None = None
    """Standard deviation of the points' noise, in their units; estimated by default. 0 follows the
    points closely."""
    trim: float | None = None
    """Remove surface farther from every point than this many typical spacings, as open scans want
    it; 4 suits most."""
    reference: Path | None = None
    """A mesh to measure the result against."""
    keep_outliers: bool = False
    """Keep points that lie far from all others."""


@dataclass(frozen=True)
class FitSignal:
    """Fit a field to an image or a sound; write model, reconstruction, comparison picture and
    report."""

    signal: tyro.conf.Positional[Path]
    """Any picture that Pillow reads (PNG, JPEG, TIFF, WebP ...) or sound that libsndfile reads
    (WAV, FLAC, OGG, MP3 ...)."""
    out: Path | None = None
    """Folder for the results; out/<name of the file>/ by default."""
    params: int | None = None
    """Budget of stored parameters, positions included."""
    bpp: float | None = None
    """The budget as bits per pixel, or per moment of a sound, 32 to a parameter; 16, or 8 per
    channel, by default."""
    bytes: int | None = None
    """The budget as the size of the model's file, quantised and entropy coded."""
    field: Literal["cosines", "nstr", "ngp", "siren", "fourier"] = "cosines"
    """The kind of field: ours in closed form, ours trained, or a trained baseline."""
    scale: int = 1
    """Reconstruct at this many times the resolution."""
    transport: float = 0.0
    """Weight of the transport loss, for --field nstr; 0 leaves the transport network out."""
    mask: Path | None = None
    """A picture (or sound) of the same size: only where it is white (or not zero) is the input
    known; the rest is filled in."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise to add before the fit, full scale being 1; the report
    compares with the input."""
    seconds: float | None = None
    """Train for this long; for trained fields."""
    steps: int | None = None
    """Train for this many steps, 2000 by default; for trained fields."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    threads: int | None = None
    """CPU threads; as many as torch chooses by default."""
    seed: int = 0
    """Seed of everything random."""
    overwrite: bool = False
    """Replace results that are already there."""


def main(args: Sequence[str] | None = None) -> int:
    """``nstr3d COMMAND ...``; returns the exit code. What ``fit`` takes depends on the kind of
    file."""
    words = list(sys.argv[1:] if args is None else args)
    signal = words[:1] == ["fit"] and names_signal(words[1:], FitMesh, FitSignal)
    fitting = {"fit": FitSignal if signal else FitMesh, "points": FitPoints, "batch": Batch}
    commands = fitting | {"render": Render, "view": View, "export": Export}
    action = {FitMesh: fit_mesh, FitSignal: fit_signal, FitPoints: fit_points, Batch: fit_batch}
    action |= {Render: render_model, View: view, Export: export_model}

    def command() -> None:
        options = tyro.extras.subcommand_cli_from_dict(commands, prog="nstr3d", args=words)
        action[type(options)](options)

    return guarded(command)


def guarded(command: Callable[[], None]) -> int:
    """Runs ``command``; an expected failure becomes one line on stderr and a non-zero exit code."""
    try:
        with _terminated_like_interrupted(), memory_errors():
            command()
    except Interrupted as stop:
        print(sentence(stop, flags=True), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    except MemoryError:
        print(
            "error: out of memory; use a smaller mesh, --resolution or --params.", file=sys.stderr
        )
        return 1
    except (ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        print(f"error: {sentence(error, flags=True)}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt like Ctrl-C, so that a job that is told to end cleans up
    too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fit_mesh(options: FitMesh) -> None:
    """Fits one mesh as ``options`` say, showing progress and a table."""
    job = _mesh_job(options)
    with _Display(job.training) as display, _watched(options) as watch:
        outcome = run(job, watch.listener(display))
        display.close()
        print(table(outcome))
        watch.serve(job.out)


def fit_points(options: FitPoints) -> None:
    """Fits one point cloud as ``options`` say, showing progress and a table."""
    job = PointsJob(
        surface=_mesh_job(options),
        estimate_normals=options.normals != "given",
        carried_signs=options.normals == "none",
        smooth=options.smooth,
        trim=options.trim,
        reference=options.reference,
        keep_outliers=options.keep_outliers,
    )
    with _Display(job.surface.training) as display, _watched(options) as watch:
        outcome = run_points(job, watch.listener(display))
        display.close()
        print(points_table(outcome))
        watch.serve(job.surface.out)


def _mesh_job(options: FitMesh) -> MeshJob:
    _use_threads(options.threads)
    return MeshJob(
        path=options.mesh,
        out=options.out or Path("out") / options.mesh.stem,
        preset=options.preset,
        params=options.params,
        seconds=options.seconds,
        steps=options.steps,
        resolution=options.resolution,
        pool=options.pool,
        samples=options.samples,
        picture=options.picture,
        field=options.field,
        transport=options.transport,
        device=options.device,
        seed=options.seed,
        overwrite=options.overwrite,
        resume=options.resume,
        start=options.start,
        import_seconds=IMPORT_SECONDS,
    )


def fit_signal(options: FitSignal) -> None:
    """Fits one image or sound as ``options`` say, showing progress and a table."""
    _use_threads(options.threads)
    job = SignalJob(
        path=options.signal,
        out=options.out or Path("out") / options.signal.stem,
        params=options.params,
        bpp=options.bpp,
        bytes=options.bytes,
        field=options.field,
        scale=options.scale,
        transport=options.transport,
        mask=options.mask,
        noise=options.noise,
        seconds=options.seconds,
        steps=options.steps,
        device=options.device,
        seed=options.seed,
        overwrite=options.overwrite,
        import_seconds=IMPORT_SECONDS,
    )
    with _Display(job.training) as display:
        outcome = run_signal(job, Listener(display.stage, display.step, display.warn))
    print(signal_table(outcome))


def _use_threads(threads: int | None) -> None:
    if threads is None:
        return
    available = os.cpu_count() or 1
    if not 1 <= threads <= available:
        raise ValueError(f"--threads is 1 to {available} on this machine, not {threads}.")
    torch.set_num_threads(threads)


@contextmanager
def _watched(options: FitMesh) -> Iterator[_Watch]:
    watch = _Watch(LivePage(port=options.port) if options.view else None)
    try:
        yield watch
    finally:
        if watch.live is not None:
            watch.live.close()


@dataclass(frozen=True)
class _Watch:
    """A fit's live page, where one was asked for."""

    live: LivePage | None

    def listener(self, display: _Display) -> Listener:
        live = self.live
        if live is None:
            return Listener(display.stage, display.step, display.warn)

        def started(result: Fit) -> None:
            live.started(result)
            print(f"look at {live.page.url if live.page else ''}", flush=True)

        def step(progress: Progress) -> None:
            live.step(progress)
            display.step(progress)

        return Listener(display.stage, step, display.warn, started)

    def serve(self, out: Path) -> None:
        if self.live is not None:
            serve(self.live.finished(load(out / MODEL)))


class _Display:
    """Stages and a progress bar on stderr, silent where stderr is no terminal; warnings always."""

    def __init__(self, training: FitConfig):
        self.training = training
        self.bar: tqdm | None = None

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stage(self, name: str) -> None:
        self.close()
        if sys.stderr.isatty() and name != "fit":
            print(f"{name} ...", file=sys.stderr)

    def step(self, progress: Progress) -> None:
        if self.bar is None:
            timed = self.training.seconds is not None
            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
            total = 1.0 if timed else self.training.steps
            start = (
                progress.done if timed else progress.step
            )  # a resumed run's pace is that of its own steps
            self.bar = tqdm(
                total=total,
                initial=start,
                desc="fit",
                disable=not sys.stderr.isatty(),
                bar_format=form,
            )
        if progress.step % REPORT_EVERY == 0 or progress.done >= 1:
            rate = progress.step * self.training.batch / max(progress.seconds, 1e-9)
            self.bar.n = progress.done if self.training.seconds is not None else progress.step
            self.bar.set_postfix_str(f"loss {progress.loss:.4f}, {rate / 1e6:.2f}M points/s")

    def warn(self, message: str) -> None:
        print(f"warning: {with_flags(message)}", file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
