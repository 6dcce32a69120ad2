"""The commands ``nstr3d fit`` and ``nstr3d points``, which fit one file and show progress and a
table. What fits is imported when the options are parsed, so that help needs no torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tyro

from nstr3d.cli.words import PORTS, Options
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import MeshJob, PointsJob, SurfaceJob
from nstr3d.jobs.ranges import check_range
from nstr3d.jobs.signaloptions import SignalJob
from nstr3d.jobs.stages import Listener, Outcome


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
    """Fit a neural signed distance field to a mesh; write model, mesh, picture and report.

    Images and sounds are fitted too, with options of their own: nstr3d fit photo.png --help lists
    those. Points without faces are fitted by nstr3d points.
    """

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


def fit_mesh(options: FitMesh) -> None:
    """Fits one mesh as ``options`` say, showing progress and a table."""
    from nstr3d.cli.tables import table
    from nstr3d.jobs.mesh import run

    _fit_surface(run, options.job, options.screen, table)


def fit_points(options: FitPoints) -> None:
    """Fits one point cloud as ``options`` say, showing progress and a table."""
    from nstr3d.cli.tables import points_table
    from nstr3d.jobs.cloud import run_points

    _fit_surface(run_points, options.job, options.screen, points_table)


def _fit_surface(
    work: Callable[[Any, Listener, float], Outcome],
    job: SurfaceJob,
    screen: LiveScreen,
    tabulate: Callable[[Outcome], str],
) -> None:
    from nstr3d.cli.progress import Display, watched

    imports = time.process_time()  # since the process began, nearly all for imports
    _use_threads(screen.threads)
    with Display(job.training.config) as display, watched(screen.view, screen.port) as watch:
        outcome = work(job, watch.listener(display), imports)
        display.close()
        print(tabulate(outcome))
        watch.serve(job.folder)


def fit_signal(options: FitSignal) -> None:
    """Fits one image or sound as ``options`` say, showing progress and a table."""
    from nstr3d.cli.progress import Display
    from nstr3d.cli.tables import signal_table
    from nstr3d.jobs.signal import run_signal

    imports = time.process_time()
    _use_threads(options.screen.threads)
    with Display(options.job.training) as display:
        listener = Listener(display.stage, display.step, display.warn)
        outcome = run_signal(options.job, listener, imports)
    print(signal_table(outcome))


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
