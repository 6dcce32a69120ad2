"""Fair races between fields: equal samples, parameter budgets and seconds on one machine.

A race trains every contender on one track: a signal to fit, with training data and measurements.
Contenders train in turns of a fraction of a second, so that other load on the machine affects all
of them equally. Each contender has its own clock, which stops while the others train. Learning
rates follow that clock, so every contender ends with annealed rates. A start in closed form is on
the clock; drawing data, compilation and measuring are not. A contender whose start leaves no time
for a step is measured as it started, and its row says so.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from nstr3d.bench.options import MARKS
from nstr3d.bench.roofline import machine_speed
from nstr3d.fields.base import Field
from nstr3d.io.atomic import atomic_path
from nstr3d.model.checkpoint import save
from nstr3d.system import Message
from nstr3d.training.fit import Fit, FitConfig, Progress, fit_steps
from nstr3d.training.losses import Objective, SdfObjective
from nstr3d.types import Box, Frame, Mesh, Samples

TURN = 0.3  # seconds of training in one turn
NO_STEP = "no time for a step"  # the note of a row whose contender only started

Training = Callable[[Field, Samples, Objective, FitConfig], Iterator[Progress]]


class Track(Protocol):
    """A signal to fit: a function from [-1, 1]^in_dim to out_dim values.

    ``near``, a mesh or points ``(n, in_dim)``, says where fields need detail.
    """

    @property
    def name(self) -> str: ...
    @property
    def in_dim(self) -> int: ...
    @property
    def out_dim(self) -> int: ...
    @property
    def near(self) -> Mesh | np.ndarray: ...

    def pool(self, config: FitConfig) -> Samples:
        """The training data, which only the track and ``config`` determine."""
        ...

    def measure(self, field: Field) -> dict[str, float]:
        """Measures of ``field`` by name, cheap enough to be taken several times per training."""
        ...

    def measure_end(self, field: Field) -> dict[str, float]:
        """Measures of ``field`` by name that are taken once, after training."""
        ...


@dataclass(frozen=True)
class Contender:
    """A kind of field with its size and its training.

    ``config(params, near)`` makes the config of a field for a budget of ``params`` parameters.
    ``steps(field, samples, objective, training)`` trains that field and yields the progress.
    """

    name: str
    config: Callable[[int, Any], Any]
    objective: Objective = field(default_factory=SdfObjective)
    training: FitConfig = field(default_factory=FitConfig)
    steps: Training = fit_steps


@dataclass(frozen=True)
class Row:
    """A field at one moment of a race.

    ``budget`` is the number of parameters allowed; ``limit`` is the length of the race in seconds
    or steps, as text (`limit_of`). ``done`` is the fraction of the training that was completed.
    ``bytes`` is the size of the field's file. ``measures`` are those of the track, by name.
    ``gemm`` and ``gather`` say how fast the machine is (`machine_speed`), NaN in rows of earlier
    versions. ``note`` says what was unusual.
    """

    commit: str
    device: str
    threads: int
    track: str
    field: str
    budget: int
    limit: str
    seed: int
    done: float
    parameters: int
    bytes: int
    steps: int
    seconds: float
    measures: Mapping[str, float]
    gemm: float = math.nan
    gather: float = math.nan
    note: str = ""

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """The columns that identify a run; a run whose key is on file need not be repeated."""
        return self.track, self.field, self.budget, self.limit, self.seed


def race(
    contenders: Sequence[Contender],
    track: Track,
    params: int,
    seed: int,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    marks: Sequence[float] = MARKS,
    pool: int = FitConfig.pool,
    commit: str = "",
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Trains each contender for ``seconds`` or for ``steps``, on ``pool`` samples of the track.

    Returns the rows, measured at the fractions ``marks`` of the training and at the end, in the
    order of measurement; ``on_row`` is called with each. ``params`` is the budget of every field.
    Raises ValueError unless exactly one of ``seconds`` and ``steps`` is given.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("A race has a length in seconds or in steps: give exactly one of them.")
    limit = limit_of(seconds, steps)
    length = {"seconds": seconds} if seconds is not None else {"steps": steps, "seconds": None}
    samples = track.pool(FitConfig(seed=seed, pool=pool))
    runners = []
    for contender in contenders:
        batch = min(contender.training.batch, len(samples))
        training = replace(contender.training, seed=seed, batch=batch, **length)
        once = replace(training, seconds=None, steps=1)
        trial = _built(contender, track, params, seed)
        next(contender.steps(trial, samples, contender.objective, once), None)  # compiles, untimed
        module = _built(contender, track, params, seed)
        steps_left = contender.steps(module, samples, contender.objective, training)
        runners.append(_Runner(contender.name, module, steps_left, marks))
    place = place_of(track, params, seed, limit, commit)
    rows = []
    while runners:
        for runner in tuple(runners):
            for moment in runner.turn():
                note = "" if moment.step else NO_STEP
                rows.append(row_of(runner.field, runner.name, moment, track, place, note))
                on_row(rows[-1])
            if runner.finished:
                runners.remove(runner)
    return rows


def _built(contender: Contender, track: Track, params: int, seed: int) -> Field:
    generator = torch.Generator().manual_seed(seed)
    config = contender.config(params, track.near)
    return config.build(track.in_dim, track.out_dim, track.near, generator)


def limit_of(seconds: float | None, steps: int | None) -> str:
    """The length of a race as text, such as "60 s" or "3000 steps"."""
    return f"{seconds:g} s" if seconds is not None else f"{steps} steps"


class _Runner:
    """A contender in training: ``steps`` trains ``field``; ``marks`` are still to be measured."""

    def __init__(self, name: str, field: Field, steps: Iterator[Progress], marks: Sequence[float]):
        self.name, self.field, self.steps = name, field, steps
        self.marks, self.finished, self.last, self.spent = list(marks), False, None, 0.0

    def turn(self) -> Iterator[Progress]:
        """Trains for one turn and yields the moments at which the field must be measured.

        Sets ``finished`` when the training has ended.
        """
        until = self.spent + TURN
        while self.spent < until:
            started = time.perf_counter()
            progress = next(self.steps, None)
            if progress is None:
                if self.last is None:
                    self.last = Progress(0, 1.0, time.perf_counter() - started, math.nan)
                break
            self.last, self.spent = progress, progress.seconds
            if progress.done >= 1:
                break
            if self.marks and progress.done >= self.marks[0]:
                yield replace(progress, done=self.marks.pop(0))
        else:
            return
        self.finished = True
        if self.last is not None:
            yield replace(self.last, done=1.0)


def row_of(
    field: Field,
    name: str,
    moment: Progress,
    track: Track,
    place: Mapping[str, Any],
    note: str = "",
) -> Row:
    """The row of a field, measured on ``track`` at ``moment`` of its training.

    ``place`` is the result of `place_of`.
    """
    measures = track.measure(field)
    if moment.done == 1:
        measures |= track.measure_end(field)
    parameters = getattr(
        field, "stored_parameters", field.parameter_count
    )  # these include the positions of a field that stores positions
    numbers = {
        "parameters": parameters,
        "bytes": _bytes(field),
        "steps": moment.step,
        "seconds": moment.seconds,
    }
    return Row(**place, field=name, done=moment.done, **numbers, measures=measures, note=note)


def place_of(track: Track, params: int, seed: int, limit: str, commit: str) -> dict[str, Any]:
    """The columns that are the same for all rows of a race: commit, machine, track and limits."""
    threads = torch.get_num_threads()
    machine = {"commit": commit, "device": "cpu", "threads": threads, **machine_speed(threads)}
    return machine | {"track": track.name, "budget": params, "limit": limit, "seed": seed}


def _bytes(field: Field) -> int:
    """The size of the field's file in bytes."""
    box = Box((-1.0,) * field.in_dim, (1.0,) * field.in_dim)
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "model.safetensors", Fit(field, Frame.identity(field.in_dim), box, 1.0))
        return (Path(folder) / "model.safetensors").stat().st_size


_COLUMNS = {column.name: column for column in dataclasses.fields(Row) if column.name != "measures"}
# The columns that every file has; files of earlier versions lack those with a default.
_PLACES = [name for name, column in _COLUMNS.items() if column.default is dataclasses.MISSING]


def read_rows(path: Path) -> list[Row]:
    """The rows in a CSV file of `write_rows`; none if there is no file.

    Raises ValueError if the columns of the file are not those of a benchmark.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ())[: len(_PLACES)] != _PLACES:
            raise ValueError(
                Message(
                    "{} has other columns than a benchmark's; choose another <out> or remove it.",
                    path,
                )
            )
        return [_parsed(line) for line in reader]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes all ``rows`` to a CSV file atomically, with a column for each measure of any row."""
    rows = list(rows)
    measures = list(dict.fromkeys(name for row in rows for name in row.measures))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*_COLUMNS, *measures], restval="")
        writer.writeheader()
        writer.writerows(
            {name: _text(getattr(row, name)) for name in _COLUMNS}
            | {name: _text(value) for name, value in row.measures.items()}
            for row in rows
        )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _parsed(line: Mapping[str, str]) -> Row:
    kinds = {"str": str, "int": int, "float": float}
    place: dict[str, Any] = {
        name: kinds[str(column.type)](line[name])
        for name, column in _COLUMNS.items()
        if name in _PLACES or line.get(name)
    }
    measures = {name: float(text) for name, text in line.items() if name not in _COLUMNS and text}
    return Row(**place, measures=measures)
