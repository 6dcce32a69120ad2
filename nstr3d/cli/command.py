"""The command ``nstr3d``: it parses options, runs jobs, and prints progress, tables and errors."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from nstr3d.cli.batch import Batch, fit_batch
from nstr3d.cli.check import Check, check
from nstr3d.cli.export import Export, export_model
from nstr3d.cli.render import Render, render_model
from nstr3d.cli.streams import lasting_streams, own_words
from nstr3d.cli.tables import points_table, signal_table, table
from nstr3d.cli.view import PORTS, View, serve, view
from nstr3d.cli.words import Options, Refused, names_signal, parse_command
from nstr3d.jobs.cloud import PointsJob, run_points
from nstr3d.jobs.mesh import MeshJob, run
from nstr3d.jobs.messages import memory_errors, sentence, with_flags
from nstr3d.jobs.options import SurfaceJob, check_range
from nstr3d.jobs.results import MODEL
from nstr3d.jobs.signal import SignalJob, run_signal
from nstr3d.jobs.stages import Interrupted, Listener, Outcome
from nstr3d.model.checkpoint import load
from nstr3d.system import Message, stop_signals
from nstr3d.training.fit import REPORT_EVERY, Fit, FitConfig, Progress
from nstr3d.view.live import LivePage

IMPORT_SECONDS = time.process_time()  # CPU time since the process began, nearly all for imports


@dataclass(frozen=True)
class Screen:
    """Options of a command besides those of its job."""

    threads: int | None = None
    """Number of CPU threads; torch's choice by default."""

    def __post_init__(self):
        processors = os.cpu_count() or 1
        if self.threads is not None and not 1 <= self.threads <= processors:
            text = "<threads> is 1 to {} on this machine, not {}."
            raise ValueError(Message(text, processors, self.threads))


@dataclass(frozen=True)
class LiveScreen(Screen):
    """Options of a command besides those of its job, with a page on which to watch the fit."""

    view: bool = False
    """Show the fit on a page in the browser, while it runs and after it has ended. Needs pip
    install nstr3d[viewer]."""
    port: int = 8080
    """Port of that page on this machine; 0 takes a free port."""

    def __post_init__(self):
        super().__post_init__()
        check_range(self, port=PORTS)


@dataclass(frozen=True)
class FitMesh:
    """Fit a neural signed distance field to a mesh; write model, mesh, picture and report."""

    job: Options[MeshJob]
    screen: tyro.conf.OmitArgPrefixes[LiveScreen] = field(default_factory=LiveScreen)


@dataclass(frozen=True)
class FitPoints:
    """Fit a neural signed distance field to a point cloud; write model, mesh, picture and
    report."""

    job: Options[PointsJob]
    screen: tyro.conf.OmitArgPrefixes[LiveScreen] = field(default_factory=LiveScreen)


@dataclass(frozen=True)
class FitSignal:
    """Fit a field to an image or a sound; write model, reconstruction, comparison picture and
    report."""

    job: Options[SignalJob]
    screen: tyro.conf.OmitArgPrefixes[Screen] = field(default_factory=Screen)


def main(args: Sequence[str] | None = None) -> int:
    """Runs ``nstr3d COMMAND ...`` and returns the exit code.

    ``args`` are the words after ``nstr3d``, by default those of the process. The options of ``fit``
    depend on the kind of file that it is to fit.
    """
    words = list(sys.argv[1:] if args is None else args)
    signal = words[:1] == ["fit"] and names_signal(words[1:], FitMesh, FitSignal)
    fitting = {"fit": FitSignal if signal else FitMesh, "points": FitPoints, "batch": Batch}
    commands = fitting | {"check": Check, "render": Render, "view": View, "export": Export}
    action = {FitMesh: fit_mesh, FitSignal: fit_signal, FitPoints: fit_points, Batch: fit_batch}
    action |= {Check: check, Render: render_model, View: view, Export: export_model}

    def command() -> None:
        options = parse_command(commands, "nstr3d", words)
        action[type(options)](options)

    return guarded(command)


def guarded(command: Callable[[], None]) -> int:
    """Runs ``command`` and returns the exit code.

    An expected failure prints one line on stderr and gives exit code 1; a stop gives 130. If the
    reader of stdout ends before the command does, as ``head``, the code says how the command
    itself went. Another failure to write to stdout gives 1.
    """
    with lasting_streams() as out, own_words():
        code = _exit_code(command)
        out.flush()
        if out.fault is None or isinstance(out.fault, BrokenPipeError):
            return code
        print(
            f"error: the standard output could not be written to ({sentence(out.fault)}); the "
            "files of the results are not concerned.",
            file=sys.stderr,
        )
        return code or 1


def _exit_code(command: Callable[[], None]) -> int:
    try:
        with _stopped_like_interrupted(), memory_errors():
            command()
    except Interrupted as stop:
        print(sentence(stop, flags=True), file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Stopped; files that were written before the stop are kept.", file=sys.stderr)
        return 130
    except MemoryError:
        print(
            "error: out of memory; use a smaller mesh, --resolution or --params.", file=sys.stderr
        )
        return 1
    except (Refused, ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        print(f"error: {sentence(error, flags=True)}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _stopped_like_interrupted() -> Iterator[None]:
    """In the block SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that a terminated
    job cleans up too. Outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in stop_signals() if number != signal.SIGINT]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit_mesh(options: FitMesh) -> None:
    """Fits one mesh as ``options`` say, showing progress and a table."""
    _fit_surface(run, options.job, options.screen, table)


def fit_points(options: FitPoints) -> None:
    """Fits one point cloud as ``options`` say, showing progress and a table."""
    _fit_surface(run_points, options.job, options.screen, points_table)


def _fit_surface(
    work: Callable[[Any, Listener, float], Outcome],
    job: SurfaceJob,
    screen: LiveScreen,
    tabulate: Callable[[Outcome], str],
) -> None:
    _use_threads(screen.threads)
    with _Display(job.training.config) as display, _watched(screen) as watch:
        outcome = work(job, watch.listener(display), IMPORT_SECONDS)
        display.close()
        print(tabulate(outcome))
        watch.serve(job.folder)


def fit_signal(options: FitSignal) -> None:
    """Fits one image or sound as ``options`` say, showing progress and a table."""
    _use_threads(options.screen.threads)
    with _Display(options.job.training) as display:
        listener = Listener(display.stage, display.step, display.warn)
        outcome = run_signal(options.job, listener, IMPORT_SECONDS)
    print(signal_table(outcome))


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def _watched(screen: LiveScreen) -> Iterator[_Watch]:
    watch = _Watch(LivePage(port=screen.port) if screen.view else None)
    try:
        yield watch
    finally:
        if watch.live is not None:
            watch.live.close()


@dataclass(frozen=True)
class _Watch:
    """The live page of a fit; ``live`` is None if the user did not ask for a page."""

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
    """Shows stages and a progress bar on stderr if it is a terminal, and warnings always."""

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
            )  # earlier steps of a resumed run do not count towards the pace
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
