"""The stages of every job and their order: read, prepare, sample, fit, extract, measure, publish.

A `Run` announces and times the stages, keeps warnings and turns a failed measurement into a null
with a reason. `walk` ends a stopped run and publishes the files; `nstr3d.jobs.stages` has its
tools.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nstr3d.io import save_json
from nstr3d.jobs.messages import sentence
from nstr3d.jobs.stages import Clock, Interrupted, Listener, Outcome, publish, tidy

REPORT = "report.json"
T = TypeVar("T")


class Run:
    """The state of a job in progress: its ``listener``, the ``clock`` of its stages, its
    ``warnings``, and the reasons of the measurements that ``failed``."""

    def __init__(self, listener: Listener | None = None):
        self.listener, self.clock = listener or Listener(), Clock()
        self.warnings: list[str] = []
        self.failed: dict[str, str] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announces and times a stage."""
        self.listener.stage(name)
        with self.clock(name):
            yield

    def warn(self, messages: Iterable[str]) -> None:
        """Passes the messages to the listener, and keeps them for the report."""
        for message in messages:
            self.warnings.append(message)
            self.listener.warn(message)

    def measure(self, name: str, function: Callable[[], T]) -> T | None:
        """The result of ``function``, or None if it raises an exception.

        The reason is then in the report under ``<name>_failed``, and the listener is warned.
        `Interrupted` is passed on.
        """
        try:
            return function()
        except Interrupted:
            raise
        except Exception as error:  # a failed measurement must not lose the finished fit
            reason = f"{type(error).__name__}: {sentence(error)}"
            self.failed[f"{name}_failed"] = reason
            self.listener.warn(f"{name} could not be measured ({reason}).")
            return None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage by name, and their ``total`` since the run began."""
        return self.clock.seconds | {"total": self.clock.total}


class Stages(ABC):
    """The work of a job in each stage.

    A stage keeps on ``self`` what later stages need, so that it is computed once. ``names`` are the
    files that the job writes if nothing fails, in the order in which the outcome lists them.
    """

    names: tuple[str, ...]

    def __init__(self, run: Run, folder: Path, checkpoint: Path | None = None):
        self.run, self.folder, self.checkpoint = run, folder, checkpoint

    @abstractmethod
    def read(self) -> None:
        """Reads the input."""

    @abstractmethod
    def prepare(self) -> None:
        """Turns the input into something that can be sampled."""

    @abstractmethod
    def sample(self) -> None:
        """Draws the samples that the field is fitted to."""

    @abstractmethod
    def fit(self) -> None:
        """Fits the field."""

    @abstractmethod
    def extract(self) -> None:
        """Computes the user's results from the field."""

    @abstractmethod
    def measure(self) -> None:
        """Measures the results, by `Run.measure`."""

    @abstractmethod
    def publish(self, folder: Path) -> dict[str, Any]:
        """Writes all files except the report into ``folder``; returns the report."""


def walk(stages: Stages) -> Outcome:
    """Runs a job's stages in order and publishes its files, which appear together at the end.

    A finished job deletes its checkpoint, and deletes those of its files from an earlier run that
    it could not make again. A job that fails or is stopped publishes nothing; what training has
    saved by then, a checkpoint or a model, stays.
    """
    run = stages.run
    with tidy(stages.folder, stages.checkpoint) as published:
        stages.read()
        stages.prepare()
        stages.sample()
        stages.fit()
        stages.extract()
        stages.measure()
        run.listener.stage("write")
        with publish(stages.folder, published) as folder:
            report = stages.publish(folder) | run.failed
            save_json(folder / REPORT, report)
            written = {path.name for path in folder.iterdir()}
        for name in set(stages.names) - written:
            (stages.folder / name).unlink(missing_ok=True)
        if stages.checkpoint is not None:
            stages.checkpoint.unlink(missing_ok=True)
    return Outcome(report, tuple(stages.folder / name for name in stages.names if name in written))
