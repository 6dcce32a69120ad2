"""Fair races between fields: the same samples, budget and seconds, turn by turn on the same machine.

A race trains every contender on one shape. They take turns of a fraction of a second, so that whatever else the machine does
hits all alike, and the clock of each stands while the others work. Learning rates follow each contender's own clock, so all
end annealed. Data, compilation and measuring are not on the clock.
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nstr3d.checkpoint import save
from nstr3d.extract import extract_mesh
from nstr3d.fields.base import Field
from nstr3d.fit import Fit, FitConfig, Progress, draw_pool, fit_steps, lipschitz_estimate
from nstr3d.geometry.distance import MeshDistance
from nstr3d.geometry.holes import close_holes
from nstr3d.geometry.repair import repair
from nstr3d.geometry.surface import face_normals, normalise, sample_surface
from nstr3d.io import atomic_path, load_mesh
from nstr3d.losses import Objective, sdf_objective
from nstr3d.metrics import BAND, TAU, compare_surfaces, iou, mean_abs_error, mean_angle
from nstr3d.sampling import SurfaceBand
from nstr3d.types import Frame, Mesh

TURN = 0.3  # seconds of training before it is the next contender's turn
MARKS = (0.05, 0.1, 0.2, 0.4, 0.7)  # shares of a contender's training after which it is measured, besides the end
TESTS = 50_000  # points of each kind that a field is measured at
RESOLUTION = 256  # of the mesh that is extracted at the end


@dataclass(frozen=True)
class Contender:
    """A field, how it is sized, and how it is trained: ``config(params, unit mesh)`` makes the field's config."""

    name: str
    config: Callable[[int, Mesh], Any]
    objective: Objective = field(default_factory=sdf_objective)
    training: FitConfig = field(default_factory=FitConfig)


@dataclass(frozen=True)
class Track:
    """A shape in the unit box with training data and test data, the same for all contenders.

    ``near``, ``volume`` and ``surface`` are points ``(TESTS, 3)``; the first two come with distances, the last with normals.
    """

    name: str
    mesh: Mesh
    distance: MeshDistance
    sampler: SurfaceBand
    near: tuple[np.ndarray, np.ndarray]
    volume: tuple[np.ndarray, np.ndarray]
    surface: tuple[np.ndarray, np.ndarray]

    @staticmethod
    def of(path: Path) -> Track:
        """The shape in a mesh file, repaired and closed as a fit would; test points come from seed 1 whatever the race's."""
        mesh, _ = normalise(close_holes(repair(load_mesh(path))[0])[0])
        distance, generator = MeshDistance(mesh), np.random.default_rng(1)
        surface, faces = sample_surface(mesh, TESTS, generator)
        near = surface + BAND * generator.standard_normal((TESTS, 3))
        volume = generator.uniform(-1, 1, (TESTS, 3))
        normals = face_normals(mesh)[faces]
        sampler = SurfaceBand(mesh, distance)
        return Track(path.stem, mesh, distance, sampler, (near, distance(near)), (volume, distance(volume)), (surface, normals))


@dataclass(frozen=True)
class Row:
    """A field at a moment of a race. Errors and their bands are in units of the unit box; Chamfer and Hausdorff, of the mesh
    extracted at the end, in diagonals; normals in degrees. ``limit`` is what ended the race: seconds or steps."""

    commit: str
    device: str
    threads: int
    shape: str
    field: str
    budget: int
    limit: str
    seed: int
    done: float
    parameters: int
    bytes: int
    steps: int
    seconds: float
    near: float
    surface: float
    volume: float
    normals: float
    iou_near: float
    iou_volume: float
    chamfer: float | None = None
    hausdorff: float | None = None
    f_score: float | None = None

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What a finished race need not run again for."""
        return self.shape, self.field, self.budget, self.limit, self.seed


def race(
    contenders: Sequence[Contender],
    track: Track,
    params: int,
    seed: int,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    commit: str = "",
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Trains all contenders for ``seconds`` or ``steps`` each; their rows in the order they were measured.

    Raises ValueError unless exactly one of the two is given.
    """
    if (seconds is None) == (steps is None):
        raise ValueError("A race is over after seconds or after steps: give exactly one of them.")
    limit = f"{seconds:g} s" if seconds is not None else f"{steps} steps"
    length = {"seconds": seconds} if seconds is not None else {"steps": steps, "seconds": None}
    pool = draw_pool(track.sampler, FitConfig(seed=seed))
    runners = []
    for contender in contenders:
        module = contender.config(params, track.mesh).build(3, 1, track.mesh, torch.Generator().manual_seed(seed))
        training = replace(contender.training, seed=seed, **length)
        module(pool.points[: training.batch]).sum().backward()  # compiles, off the clock
        runners.append(_Runner(contender.name, module, fit_steps(module, pool, contender.objective, training)))
    place = {"commit": commit, "device": "cpu", "threads": torch.get_num_threads(), "shape": track.name}
    place |= {"budget": params, "limit": limit, "seed": seed}
    rows = []
    while runners:
        for runner in tuple(runners):
            for moment in runner.turn():
                rows.append(_row(runner, moment, track, place))
                on_row(rows[-1])
            if runner.finished:
                runners.remove(runner)
    return rows


def measure(field: Field, track: Track) -> dict[str, float]:
    """How far ``field`` is from the shape at the track's test points."""
    sdf = Fit(field, Frame.identity(3), track.mesh.bounds, 1.0).sdf()
    (near, d_near), (volume, d_volume), (surface, normals) = track.near, track.volume, track.surface
    f_near, f_volume = sdf(near), sdf(volume)
    slope = np.concatenate([sdf.gradient(chunk) for chunk in np.array_split(surface, 8)])
    return {
        "near": mean_abs_error(f_near, d_near),
        "surface": mean_abs_error(sdf(surface), np.zeros(len(surface))),
        "volume": mean_abs_error(f_volume, d_volume),
        "normals": mean_angle(slope, normals),
        "iou_near": iou(f_near < 0, d_near < 0),
        "iou_volume": iou(f_volume < 0, d_volume < 0),
    }


class _Runner:
    """A contender under way."""

    def __init__(self, name: str, field: Field, steps: Iterator[Progress]):
        self.name, self.field, self.steps = name, field, steps
        self.marks, self.finished, self.last, self.spent = list(MARKS), False, None, 0.0

    def turn(self) -> Iterator[Progress]:
        """Trains for a turn; yields the moments at which the field is due to be measured."""
        until = self.spent + TURN
        while self.spent < until:
            progress = next(self.steps, None)
            if progress is None:
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


def _row(runner: _Runner, moment: Progress, track: Track, place: dict[str, Any]) -> Row:
    field = runner.field
    measured: dict[str, Any] = measure(field, track)
    if moment.done == 1:
        measured |= _mesh_measures(field, track)
    size = _bytes(field, track)
    numbers = {"parameters": field.parameter_count, "bytes": size, "steps": moment.step, "seconds": moment.seconds}
    return Row(**place, field=runner.name, done=moment.done, **numbers, **measured)


def _mesh_measures(field: Field, track: Track) -> dict[str, float]:
    """Chamfer and Hausdorff in diagonals and F-score of the extracted mesh; nothing where the field has no closed surface."""
    lipschitz = lipschitz_estimate(field, torch.from_numpy(track.near[0].astype(np.float32)))
    diagonal = track.mesh.bounds.diagonal
    try:
        mesh = extract_mesh(Fit(field, Frame.identity(3), track.mesh.bounds, lipschitz).sdf(), RESOLUTION)
    except ValueError:
        return {}
    found = compare_surfaces(mesh, track.mesh, track.distance, np.random.default_rng(2), TAU * diagonal, TESTS)
    return {"chamfer": found.chamfer / diagonal, "hausdorff": found.hausdorff / diagonal, "f_score": found.f_score}


def _bytes(field: Field, track: Track) -> int:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "model.safetensors", Fit(field, Frame.identity(3), track.mesh.bounds, 1.0))
        return (Path(folder) / "model.safetensors").stat().st_size


def read_rows(path: Path) -> list[Row]:
    """The rows in a CSV file of `write_rows`; none when there is no file. Raises ValueError for a file that is another's."""
    if not path.exists():
        return []
    kinds = {column.name: str(column.type) for column in dataclasses.fields(Row)}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if set(reader.fieldnames or ()) != set(kinds):
            raise ValueError(f"{path} has other columns than a benchmark's; name another --out or remove it.")
        return [Row(**{name: _parsed(text, kinds[name]) for name, text in line.items()}) for line in reader]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """All ``rows`` as a CSV file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [column.name for column in dataclasses.fields(Row)])
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in dataclasses.asdict(row).items()} for row in rows)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _parsed(text: str, kind: str) -> Any:
    if kind == "str":
        return text
    if kind == "int":
        return int(text)
    return float(text) if text else None
