"""What a fit shows while it runs: stages and a bar in the terminal, and a live page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nstr3d.cli.view import serve
from nstr3d.jobs.messages import with_flags
from nstr3d.jobs.results import COMPRESSED, MODEL
from nstr3d.jobs.stages import Listener
from nstr3d.model.checkpoint import load
from nstr3d.training.fit import REPORT_EVERY, Fit, FitConfig, Progress
from nstr3d.view.live import LivePage


@contextmanager
def watched(wanted: bool, port: int) -> Iterator[Watch]:
    """Gives what shows a fit on a live page at ``port`` if ``wanted``, and closes that page."""
    watch = Watch(LivePage(port=port) if wanted else None)
    try:
        yield watch
    finally:
        if watch.live is not None:
            watch.live.close()


@dataclass(frozen=True)
class Watch:
    """The live page of a fit; ``live`` is None if the user did not ask for a page."""

    live: LivePage | None

    def listener(self, display: Display) -> Listener:
        """The listener that tells the page and ``display``."""
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
        """Shows the finished model in the folder ``out`` until Ctrl-C, if there is a page."""
        if self.live is not None:
            compressed = not (out / MODEL).exists()
            serve(self.live.finished(load(out / (COMPRESSED if compressed else MODEL))))


class Display:
    """Shows stages and a progress bar on stderr if it is a terminal, and warnings always."""

    def __init__(self, training: FitConfig):
        self.training = training
        self.bar: tqdm | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stage(self, name: str) -> None:
        """Names the stage that begins."""
        self.close()
        if sys.stderr.isatty() and name != "fit":
            print(f"{name} ...", file=sys.stderr)

    def step(self, progress: Progress) -> None:
        """Shows the progress of training as a bar."""
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
        """Prints a warning."""
        print(f"warning: {with_flags(message)}", file=sys.stderr)

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
