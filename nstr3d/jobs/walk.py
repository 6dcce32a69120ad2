"""The one walk of every job: read, prepare, sample, fit, extract, measure, publish. Progress, the
clock, warnings, failed measurements, stops and publishing are this module's business alone."""

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
    """A job under way: whom it tells, how long its stages took, what it warned of, and which of its
    measurements ``failed`` and why."""

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
        """Tells the listener, and keeps the messages for the report."""
        for message in messages:
            self.warnings.append(message)
            self.listener.warn(message)

    def measure(self, name: str, function: Callable[[], T]) -> T | None:
        """What ``function`` finds, or None where it fails: then the report says why under
        ``name``_failed. A stop is no failure."""
        try:
            return function()
        except Interrupted:
            raise
        except Exception as error:  # whatever is wrong with a measurement, the fit is finished
            reason = f"{type(error).__name__}: {sentence(error)}"
            self.failed[f"{name}_failed"] = reason
            self.listener.warn(f"{name} could not be measured ({reason}).")
            return None

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage, and in total."""
        return self.clock.seconds | {"total": self.clock.total}


class Stages(ABC):
    """What a job does in each stage. Each keeps what later ones need, so that it is made once.
    ``names`` are those of the files that it leaves where nothing fails, in the order in which they
    are named."""

    names: tuple[str, ...]

    def __init__(self, run: Run, folder: Path, checkpoint: Path | None = None):
        self.run, self.folder, self.checkpoint = run, folder, checkpoint

    @abstractmethod
    def read(self) -> None:
        """Reads the input."""

    @abstractmethod
    def prepare(self) -> None:
        """Makes of the input what can be sampled."""

    @abstractmethod
    def sample(self) -> None:
        """Draws what the field is fitted to."""

    @abstractmethod
    def fit(self) -> None:
        """Fits the field."""

    @abstractmethod
    def extract(self) -> None:
        """Makes of the field what the user gets."""

    @abstractmethod
    def measure(self) -> None:
        """Says how good it is, by `Run.measure`."""

    @abstractmethod
    def publish(self, folder: Path) -> dict[str, Any]:
        """Writes all files but the report into ``folder``; returns the report."""


def walk(stages: Stages) -> Outcome:
    """Does a job. All files appear together at the end or not at all; only the checkpoint may be
    left by a run that failed or was stopped, and goes when the job is done. A file that a former
    run left and this one could not make goes too."""
    run = stages.run
    with tidy(stages.folder, stages.checkpoint):
        stages.read()
        stages.prepare()
        stages.sample()
        stages.fit()
        stages.extract()
        stages.measure()
        run.listener.stage("write")
        with publish(stages.folder) as folder:
            report = stages.publish(folder) | run.failed
            save_json(folder / REPORT, report)
            written = {path.name for path in folder.iterdir()}
        for name in set(stages.names) - written:
            (stages.folder / name).unlink(missing_ok=True)
        if stages.checkpoint is not None:
            stages.checkpoint.unlink(missing_ok=True)
    return Outcome(report, tuple(stages.folder / name for name in stages.names if name in written))
