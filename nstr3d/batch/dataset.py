"""`Dataset`: the fitted shapes in a folder or behind a URL, as training data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from nstr3d.autodiff import gradient
from nstr3d.batch.catalogue import CATALOGUE, select
from nstr3d.batch.ids import stays_inside
from nstr3d.batch.store import Folder, open_store
from nstr3d.fields.base import Field
from nstr3d.fields.closed.codedpyramid import CodedPyramid
from nstr3d.fields.level import Level
from nstr3d.io.scratch import scratch_folder
from nstr3d.jobs.results import COMPRESSED, MODEL
from nstr3d.model.checkpoint import load
from nstr3d.model.tags import encode_config
from nstr3d.system import Message
from nstr3d.training.fit import Fit
from nstr3d.types import Frame

PYRAMID = "pyramid"  # the name of the field of a compressed shape in the catalogue
PROJECTIONS = 4  # Newton steps that move a point to the surface


class Dataset:
    """The fitted models, by shape id, of a data set that ``nstr3d batch`` wrote to ``out``;
    ``models`` are the names of their files.

    ``out`` is a folder or a URL. A model is loaded each time it is accessed. ``where``, an SQL
    condition on the catalogue's columns such as ``"chamfer < 0.001"``, selects shapes. Raises
    FileNotFoundError if ``out`` holds no catalogue and ValueError if the condition is not valid.
    """

    def __init__(self, out: str | os.PathLike[str], where: str = ""):
        self.store = open_store(os.fspath(out))
        if CATALOGUE not in self.store.names(""):
            raise FileNotFoundError(
                f"{self.store.url} is not a data set: it has no {CATALOGUE}; make one with nstr3d "
                "batch."
            )
        condition = f"status = 'done' AND ({where})" if where else "status = 'done'"
        with self._local_file(CATALOGUE) as path:
            rows = select(path, ("id", "field"), condition)
        self.ids: tuple[str, ...] = tuple(row["id"] for row in rows)
        self.models = {row["id"]: COMPRESSED if row["field"] == PYRAMID else MODEL for row in rows}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Fit:
        """The model of the shape with the id ``name``. Raises KeyError for an unknown id, and
        ValueError for one that names no folder of the data set."""
        if name not in self.ids:
            raise KeyError(name)
        if not stays_inside(name):
            place = f"{self.store.url}/{CATALOGUE}"
            raise ValueError(f"{place} has the id {name!r}, which is no folder of the data set.")
        with self._local_file(f"{name}/{self.models[name]}") as path:
            return load(path)

    def __iter__(self) -> Iterator[tuple[str, Fit]]:
        """Pairs of id and model, in the order of ``ids``."""
        return ((name, self[name]) for name in self.ids)

    def stack(self, ids: Sequence[str]) -> Stack:
        """The models of ``ids`` as one callable.

        Raises ValueError if there are no ``ids`` or the architectures differ, and KeyError for an
        unknown id.
        """
        if not ids:
            raise ValueError("There are no models to stack; name at least one id.")
        fits = [self[name] for name in ids]
        stacked = [_plain(fit.field) for fit in fits]
        if len({_architecture(field) for field in stacked}) != 1:
            raise ValueError(
                Message(
                    "Only fields of the same architecture can be stacked; Dataset.stacks groups "
                    "them, and a fit with <cells> gives every shape the same architecture."
                )
            )
        return Stack(
            tuple(ids),
            tuple(fit.frame for fit in fits),
            *_stack_fields(stacked),
        )

    def stacks(self, size: int) -> Iterator[Stack]:
        """All models, in stacks of one architecture and at most ``size`` models each. Raises
        ValueError if ``size`` is less than 1."""
        if size < 1:
            raise ValueError(f"A stack holds at least 1 model, not {size}.")
        return self._stacks(size)

    def _stacks(self, size: int) -> Iterator[Stack]:
        waiting: dict[str, list[str]] = {}
        for name, fit in self:
            group = waiting.setdefault(_architecture(_plain(fit.field)), [])
            group.append(name)
            if len(group) == size:
                yield self.stack(group)
                group.clear()
        yield from (self.stack(group) for group in waiting.values() if group)

    def samples(
        self, count: int, seed: int = 0, near: float = 0.5, band: float = 0.01
    ) -> ShapeSamples:
        """A data set for a torch DataLoader: each item is one shape, sampled at ``count`` points.

        See `ShapeSamples` for the parameters. Raises ValueError if one is out of range.
        """
        return ShapeSamples(self, count, seed, near, band)

    @contextmanager
    def _local_file(self, name: str) -> Iterator[Path]:
        """The local path of a file of the data set; a file behind a URL is downloaded."""
        if isinstance(self.store, Folder):
            yield self.store.path / name
            return
        with scratch_folder() as folder:
            path = folder / "file"
            self.store.get(name, path)
            yield path


@dataclass(frozen=True)
class Stack:
    """Fields of one architecture as a single function of points in their unit boxes.

    ``ids`` and ``frames`` are those of the shapes. ``parameters`` and ``buffers`` hold the tensors
    of all fields, stacked along a first axis; ``field`` is the module that they are put into.
    """

    ids: tuple[str, ...]
    frames: tuple[Frame, ...]
    field: Field
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __call__(self, points: Tensor) -> Tensor:
        """Values ``(shapes, n, out_dim)`` at ``points``.

        ``points`` are ``(n, d)``, the same for all shapes, or ``(shapes, n, d)``.
        """

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], at: Tensor) -> Tensor:
            return functional_call(self.field, (parameters, buffers), (at,))

        evaluate = torch.vmap(one, (0, 0, 0 if points.ndim == 3 else None))
        return evaluate(self.parameters, self.buffers, points)


class ShapeSamples(torch.utils.data.Dataset):
    """Signed distances of the fitted fields at random points, one item per shape.

    Item i has ``points (count, 3)``, float32 in the unit box, the values ``distances (count,)`` of
    field i at these points, in units of that box, and the ``index`` i. The fraction ``near`` of the
    points is moved to the surface by Newton steps, then off it by a Gaussian of standard deviation
    ``band`` (in units of the unit box); the other points are uniform in the box. Points depend only
    on ``seed``, the epoch (`set_epoch`) and i, so the order of the items and the number of workers
    do not change them.

    Raises ValueError if ``count``, ``near`` or ``band`` is out of range.
    """

    def __init__(self, dataset: Dataset, count: int, seed: int, near: float, band: float):
        if count < 1 or not 0 <= near <= 1 or not band >= 0:
            raise ValueError(
                f"Samples need count >= 1, near in [0, 1] and band >= 0, not {count}, {near} and "
                f"{band}."
            )
        self.dataset, self.count, self.seed, self.near, self.band, self.epoch = (
            dataset,
            count,
            seed,
            near,
            band,
            0,
        )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the points of epoch ``epoch``; call it before each pass over the loader."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        field = self.dataset[self.dataset.ids[index]].field
        generator = np.random.default_rng([self.seed, self.epoch, index])
        points = torch.from_numpy(generator.uniform(-1, 1, (self.count, 3)).astype(np.float32))
        close = round(self.near * self.count)
        for _ in range(PROJECTIONS):
            points[:close] = _step_to_surface(field, points[:close])
        points[:close] += torch.from_numpy(
            (self.band * generator.standard_normal((close, 3))).astype(np.float32)
        )
        points = points.clamp(-1, 1)
        return {
            "points": points,
            "distances": _value(field, points)[:, 0],
            "index": torch.tensor(index),
        }


def _step_to_surface(field: Field, points: Tensor) -> Tensor:
    """``points (n, 3)`` after one Newton step along the gradient towards the zero level set."""
    slope = gradient(field, points)
    step = _value(field, points) * slope / slope.square().sum(dim=1, keepdim=True).clamp_min(0.1)
    return (points - step).clamp(-1, 1)


def _value(field: Field, points: Tensor) -> Tensor:
    """The field's values ``(n, out_dim)``, computed with gradients enabled, so in plain torch.

    The threads of the fused kernels would not survive the fork that starts a loader's workers.
    """
    with torch.enable_grad():
        return field(points.detach().requires_grad_()).detach()


def _plain(field: Field) -> Field:
    """``field``, or the grid of a compressed shape without its code."""
    return field.plain if isinstance(field, CodedPyramid) else field


def _architecture(field: Field) -> str:
    return f"{encode_config(field.config)} {field.in_dim} {field.out_dim}"


def _stack_fields(fields: Sequence[Field]) -> tuple[Field, dict[str, Tensor], dict[str, Tensor]]:
    """The first field, and the stacked parameters and buffers of all.

    Tables of sparse levels have different lengths, so each gets unused rows up to the longest.
    """
    levels = [
        [module for module in field.modules() if isinstance(module, Level)] for field in fields
    ]
    for group in zip(*levels):
        longest = max(len(level.table) for level in group)
        for level in group:
            extra = level.table.new_zeros(longest - len(level.table), level.table.shape[1])
            level.table = nn.Parameter(torch.cat([level.table.detach(), extra]))
    parameters, buffers = stack_module_state(list(fields))  # type: ignore[arg-type]
    return fields[0], parameters, buffers
