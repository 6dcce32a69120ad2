"""`Dataset`: the fitted shapes of a folder or URL, for whoever wants to learn from them."""

from __future__ import annotations

import os
import tempfile
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
from nstr3d.batch.store import Folder, open_store
from nstr3d.fields.base import Field
from nstr3d.fields.level import Level
from nstr3d.model.checkpoint import load
from nstr3d.model.tags import encode_config
from nstr3d.system import Message
from nstr3d.training.fit import Fit
from nstr3d.types import Frame

MODEL = "model.safetensors"
PROJECTIONS = 4  # Newton steps that take a point to the surface


class Dataset:
    """The models of a data set that ``nstr3d batch`` wrote to ``out``, a folder or a URL, by id,
    loaded when asked for.

    ``where`` is an SQL condition on the catalogue's columns, such as ``"chamfer < 0.001"``. Raises
    FileNotFoundError where there is no data set, ValueError for a condition that is none.
    """

    def __init__(self, out: str | os.PathLike[str], where: str = ""):
        self.store = open_store(os.fspath(out))
        if CATALOGUE not in self.store.names(""):
            raise FileNotFoundError(
                f"{self.store.url} is no data set: it has no {CATALOGUE}; make one with nstr3d "
                "batch."
            )
        condition = f"status = 'done' AND ({where})" if where else "status = 'done'"
        with self._at_hand(CATALOGUE) as path:
            self.ids: tuple[str, ...] = tuple(row["id"] for row in select(path, ("id",), condition))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Fit:
        """The model of the shape with this id. Raises KeyError for another."""
        if name not in self.ids:
            raise KeyError(name)
        with self._at_hand(f"{name}/{MODEL}") as path:
            return load(path)

    def __iter__(self) -> Iterator[tuple[str, Fit]]:
        """Ids and models, one after the other."""
        return ((name, self[name]) for name in self.ids)

    def stack(self, ids: Sequence[str]) -> Stack:
        """The models of ``ids`` as one callable. Raises ValueError unless they have the same
        architecture."""
        fits = [self[name] for name in ids]
        if len({_architecture(fit.field) for fit in fits}) != 1:
            raise ValueError(
                Message(
                    "Only fields of the same architecture stack; Dataset.stacks sorts them, and a "
                    "fit with <cells> gives every shape the same."
                )
            )
        return Stack(
            tuple(ids), tuple(fit.frame for fit in fits), *_stacked([fit.field for fit in fits])
        )

    def stacks(self, size: int) -> Iterator[Stack]:
        """All models, in stacks of the same architecture of at most ``size``."""
        waiting: dict[str, list[str]] = {}
        for name, fit in self:
            alike = waiting.setdefault(_architecture(fit.field), [])
            alike.append(name)
            if len(alike) == size:
                yield self.stack(alike)
                alike.clear()
        yield from (self.stack(alike) for alike in waiting.values() if alike)

    def samples(
        self, count: int, seed: int = 0, near: float = 0.5, band: float = 0.01
    ) -> ShapeSamples:
        """For a torch DataLoader: each item is one shape, with ``count`` points and what its field
        says there."""
        return ShapeSamples(self, count, seed, near, band)

    @contextmanager
    def _at_hand(self, name: str) -> Iterator[Path]:
        """A file of the data set as a local one."""
        if isinstance(self.store, Folder):
            yield self.store.path / name
            return
        with tempfile.TemporaryDirectory(prefix="nstr3d-") as folder:
            path = Path(folder) / "file"
            self.store.get(name, path)
            yield path


@dataclass(frozen=True)
class Stack:
    """Fields of the same architecture, with their ``ids`` and ``frames``, as one function of points
    in their unit boxes."""

    ids: tuple[str, ...]
    frames: tuple[Frame, ...]
    field: Field
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def __call__(self, points: Tensor) -> Tensor:
        """Values ``(shapes, n, out_dim)`` at ``points (n, d)``, the same for all, or ``(shapes, n,
        d)``."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], at: Tensor) -> Tensor:
            return functional_call(self.field, (parameters, buffers), (at,))

        each = torch.vmap(one, (0, 0, 0 if points.ndim == 3 else None))
        return each(self.parameters, self.buffers, points)


class ShapeSamples(torch.utils.data.Dataset):
    """Item i: ``points (count, 3)`` float32 in the unit box, the ``distances (count,)`` that the
    field of shape i has there, in units of that box, and the ``index`` i.

    The share ``near`` of the points lies off the surface by a Gaussian of standard deviation
    ``band``, the rest anywhere. They depend on the seed, the epoch (`set_epoch`) and i alone: the
    same in any order and with any number of workers.
    """

    def __init__(self, dataset: Dataset, count: int, seed: int, near: float, band: float):
        if count < 1 or not 0 <= near <= 1 or not band >= 0:
            raise ValueError(
                f"samples need count >= 1, near in [0, 1] and band >= 0, not {count}, {near} and "
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
        """Other points from now on; call it before the loader's next round."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        field = self.dataset[self.dataset.ids[index]].field
        generator = np.random.default_rng([self.seed, self.epoch, index])
        points = torch.from_numpy(generator.uniform(-1, 1, (self.count, 3)).astype(np.float32))
        close = round(self.near * self.count)
        for _ in range(PROJECTIONS):
            points[:close] = _nearer(field, points[:close])
        points[:close] += torch.from_numpy(
            (self.band * generator.standard_normal((close, 3))).astype(np.float32)
        )
        points = points.clamp(-1, 1)
        return {
            "points": points,
            "distances": _value(field, points)[:, 0],
            "index": torch.tensor(index),
        }


def _nearer(field: Field, points: Tensor) -> Tensor:
    """``points`` after a Newton step along the gradient towards the zero set."""
    slope = gradient(field, points)
    step = _value(field, points) * slope / slope.square().sum(dim=1, keepdim=True).clamp_min(0.1)
    return (points - step).clamp(-1, 1)


def _value(field: Field, points: Tensor) -> Tensor:
    """The field's values as when differentiated: the fused kernels' threads would not survive the
    fork that makes a loader's workers."""
    with torch.enable_grad():
        return field(points.detach().requires_grad_()).detach()


def _architecture(field: Field) -> str:
    return f"{encode_config(field.config)} {field.in_dim} {field.out_dim}"


def _stacked(fields: Sequence[Field]) -> tuple[Field, dict[str, Tensor], dict[str, Tensor]]:
    """One of the fields, and the parameters and buffers of all; sparse tables get unused rows up to
    the longest."""
    levels = [
        [module for module in field.modules() if isinstance(module, Level)] for field in fields
    ]
    for alike in zip(*levels):
        longest = max(len(level.table) for level in alike)
        for level in alike:
            extra = level.table.new_zeros(longest - len(level.table), level.table.shape[1])
            level.table = nn.Parameter(torch.cat([level.table.detach(), extra]))
    parameters, buffers = stack_module_state(list(fields))  # type: ignore[arg-type]
    return fields[0], parameters, buffers
