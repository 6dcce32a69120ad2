"""Surfaces for other programs: signed distances on a regular grid as NPZ, and fields as ONNX."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.io.atomic import atomic_path
from nstr3d.sdf import Sdf, world_distance
from nstr3d.training.fit import Fit
from nstr3d.types import Frame

PADDING = 0.03  # margin on every side of a grid, per longest side of the bounds
FINEST = 1024  # largest number of cells along the longest side of a grid: 4 GB
OPSET = 18  # version of the ONNX operators, from 2022
AGREEMENT = 1e-5  # largest difference between ONNX and torch, in diagonals of the bounds


@dataclass(frozen=True)
class DistanceGrid:
    """Signed distances ``(x, y, z)`` float32 in world units. Entry (i, j, k) is the distance at the
    world point ``origin + spacing * (i, j, k)``."""

    distance: np.ndarray
    origin: np.ndarray
    spacing: float


def sample_grid(
    sdf: Sdf, resolution: int, on_slab: Callable[[int, int], None] = lambda done, total: None
) -> DistanceGrid:
    """Distances at the nodes of a grid over the bounds of ``sdf`` with a margin of 3% on each side.

    Cells are cubes, ``resolution`` of them along the longest side. ``on_slab`` is called after
    each slab with the number of finished slabs and the number of all slabs. Raises ValueError for a
    resolution out of range.
    """
    if not 2 <= resolution <= FINEST:
        raise ValueError(
            f"A grid has 2 to {FINEST} cells along its longest side, not {resolution}."
        )
    extent = sdf.bounds.extent + 2 * PADDING * sdf.bounds.extent.max()
    spacing = float(extent.max()) / resolution
    cells = np.ceil(extent / spacing - 1e-6).astype(int)
    origin = sdf.bounds.centre - cells * spacing / 2
    x, y, z = (start + spacing * np.arange(count + 1) for start, count in zip(origin, cells))
    slab = np.stack(np.meshgrid(x[:1], y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.empty((len(x), len(y), len(z)), np.float32)
    for i in range(len(x)):
        slab[:, 0] = x[i]
        distance[i] = sdf(slab).reshape(len(y), len(z))
        on_slab(i + 1, len(x))
    return DistanceGrid(distance, origin, spacing)


def save_grid(path: str | os.PathLike[str], grid: DistanceGrid) -> None:
    """Writes NPZ arrays ``distance (x, y, z)``, ``origin (3,)`` and ``spacing ()``, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file, distance=grid.distance, origin=grid.origin, spacing=np.float64(grid.spacing)
        )


def save_onnx(path: str | os.PathLike[str], fit: Fit) -> None:
    """Writes the signed distance as an ONNX model, atomically.

    The model maps ``points (n, 3)`` float32 in world units to ``distance (n,)`` float32 in world
    units. Its metadata hold ``bounds`` and ``lipschitz`` as JSON. Before the file is published,
    onnxruntime evaluates it at random points. Raises ModuleNotFoundError without the extra
    ``export``, and ValueError if the results differ from torch by more than 1e-5 of the diagonal.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"ONNX files need {name}: pip install 'nstr3d[export]'")
    module = _Distance(fit.field, fit.frame).eval()
    length = torch.export.Dim("n", min=1)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (torch.zeros(7, 3),),  # torch would export a length of 1 as a constant
            dynamo=True,
            opset_version=OPSET,
            input_names=["points"],
            output_names=["distance"],
            dynamic_shapes=({0: length},),
            verbose=False,
        )
        assert program is not None
        about = {
            "bounds": json.dumps(asdict(fit.bounds)),
            "lipschitz": json.dumps(fit.lipschitz),
            "producer": "nstr3d",
        }
        program.model.metadata_props.update(about)
        with atomic_path(path) as temporary:
            program.save(temporary)
            _compare(temporary, fit)


class _Distance(nn.Module):
    def __init__(self, field: nn.Module, frame: Frame):
        super().__init__()
        self.field, self.frame = field, frame

    def forward(self, points: Tensor) -> Tensor:
        return world_distance(self.field, self.frame, points)


def _compare(path: Path, fit: Fit) -> None:
    """Raises ValueError if the ONNX model at ``path`` differs from the distance of ``fit`` by
    more than `AGREEMENT` at random points in the bounds scaled by 1.5."""
    import onnxruntime

    box = fit.bounds.scaled(1.5)
    points = np.random.default_rng(0).uniform(box.lower, box.upper, (1000, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (points, points[:1]):
        (distances,) = session.run(None, {"points": batch})
        deviation = float(np.abs(np.asarray(distances) - fit.sdf()(batch)).max())
        if not deviation <= AGREEMENT * fit.bounds.diagonal:
            raise ValueError(
                f"The ONNX model differs from the field by up to {deviation:.3g}; this version of "
                "torch exports it wrongly."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch's exporter, whose warnings and logs concern only its internals."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
