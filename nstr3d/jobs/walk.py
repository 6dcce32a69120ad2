"""The stages of every job and their order: read, prepare, sample, fit, extract, measure, publish.

A `Run` announces and times the stages, keeps warnings and turns a failed measurement into a null
with a reason. `walk` ends a stopped run and publishes the files; `nstr3d.jobs.stages` has its
tools.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from nstr3d.io import save_json
from nstr3d.jobs.messages import Message, sentence
from nstr3d.jobs.publishing import FILES, NAMES, REPORT, publish, writing_alone
from nstr3d.jobs.stages import Clock, Interrupted, Listener, Outcome

T = TypeVar("T")


class Run:
    """The state of a job in progress: its ``listener``, the ``clock`` of its stages, its
    ``warnings``, the reasons of the measurements that ``failed``, and the ``checkpoint`` from which
    a resumed run would go on, None if there is none of this run."""

    def __init__(self, listener: Listener | None = None):
        self.listener, self.clock = listener or Listener(), Clock()
        self.warnings: list[str] = []
        self.failed: dict[str, str] = {}
        self.checkpoint: Path | None = None

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

    def __init__(self, run: Run, folder: Path):
        self.run, self.folder = run, folder

    @property
    def owned(self) -> tuple[str, ...]:
        """The files of a former run that the new set replaces, whether it has them or not."""
        return self.names

    @abstractmethod
    def check(self, publishing: bool = False) -> None:
        """Raises OSError if the results cannot be written or would replace others without consent.

        It is called before any work, and with ``publishing`` before the results are published.
        """

    def computing(self) -> AbstractContextManager[None]:
        """The context of all stages, which chooses the kernels."""
        return nullcontext()

    def finish(self) -> None:  # noqa: B027 - most jobs keep nothing
        """Removes what was kept for a resumed run; called after the results were published."""

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

    One run at a time writes to the job's folder. The files of an earlier run stay until the new set
    is complete, which then replaces them at once. A job that fails or is stopped publishes nothing;
    what training has saved by then, a checkpoint or a model, stays.
    """
    run, out = stages.run, stages.folder
    alone = writing_alone(out, stages.owned, run.listener.warn)
    with tidy(stages) as published, alone as lock, stages.computing():
        stages.check()
        stages.read()
        stages.prepare()
        stages.sample()
        stages.fit()
        stages.extract()
        stages.measure()
        run.listener.stage("write")

        def check() -> None:
            stages.check(publishing=True)

        with publish(out, stages.owned, lock, check, published) as folder:
            report = stages.publish(folder) | run.failed
            written = {path.name for path in folder.iterdir()} | {REPORT}
            assert written <= NAMES, written - NAMES
            files = tuple(name for name in stages.names if name in written)
            report |= {FILES: list(files)}
            save_json(folder / REPORT, report)
        stages.finish()
    return Outcome(report, tuple(out / name for name in files))


@contextmanager
def tidy(stages: Stages) -> Iterator[threading.Event]:
    """Turns KeyboardInterrupt into `Interrupted`, and removes those folders created for the results
    that are empty at the end. Gives an event to be set once the results are published."""
    out = stages.folder
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    published = threading.Event()
    try:
        yield published
    except KeyboardInterrupt:
        if published.is_set():
            raise Interrupted(f"Stopped; the results are complete in {out}.") from None
        if stages.run.checkpoint is None:
            raise Interrupted("Stopped; nothing was written.") from None
        kept = "Stopped; the checkpoint is {}; go on with <resume>."
        raise Interrupted(Message(kept, stages.run.checkpoint)) from None
    finally:
        for folder in made:
            with suppress(OSError):  # the folder is not empty, or was never created
                folder.rmdir()
