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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.fields.level import nodes_fixed
from nstr3d.io.atomic import atomic_path
from nstr3d.sdf import Sdf, placed, world_bound
from nstr3d.system import check_memory
from nstr3d.training.fit import Fit
from nstr3d.types import Box

PADDING = 0.03  # margin on every side of a grid, per longest side of the bounds
SHELL = 2.0  # spacings from the surface within which a grid holds colours
FINEST = 1024  # largest number of cells along the longest side of a grid: 4 GB
OPSET = 18  # version of the ONNX operators, from 2022
ORIGIN = "origin"  # name of the optional input of ONNX models far from the origin
SHADE = 0.02  # greatest difference of a colour, which single precision of the points may cause
AGREEMENT = 1e-5  # largest difference between ONNX and torch, in diagonals of the bounds


@dataclass(frozen=True)
class DistanceGrid:
    """Signed distances ``(x, y, z)`` float32 in world units. Entry (i, j, k) is the distance at the
    world point ``origin + spacing * (i, j, k)``.

    ``colour (x, y, z, 3)``, display RGB uint8, is the colour of the closest surface point where
    that is within `SHELL` spacings, and zero elsewhere; None for a shape without colours.
    """

    distance: np.ndarray
    origin: np.ndarray
    spacing: float
    colour: np.ndarray | None = None


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
    subject = f"A grid of {' x '.join(f'{count + 1:,}' for count in cells)} distances"
    check_memory(6.0 * np.prod(cells + 1.0), subject, "choose fewer cells.")
    x, y, z = (start + spacing * np.arange(count + 1) for start, count in zip(origin, cells))
    slab = np.stack(np.meshgrid(x[:1], y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.empty((len(x), len(y), len(z)), np.float32)
    for i in range(len(x)):
        slab[:, 0] = x[i]
        distance[i] = sdf(slab).reshape(len(y), len(z))
        on_slab(i + 1, len(x))
    if sdf.paint is None:
        return DistanceGrid(distance, origin, spacing)
    near = np.argwhere(np.abs(distance) <= SHELL * spacing)
    colour = np.zeros((*distance.shape, 3), np.uint8)
    colour[tuple(near.T)] = np.round(255 * sdf.colour(origin + spacing * near))
    return DistanceGrid(distance, origin, spacing, colour)


def save_grid(path: str | os.PathLike[str], grid: DistanceGrid) -> None:
    """Writes NPZ arrays ``distance (x, y, z)``, ``origin (3,)`` and ``spacing ()``, and ``colour
    (x, y, z, 3)`` if there are colours, atomically."""
    arrays: dict[str, Any] = {"distance": grid.distance, "origin": grid.origin}
    arrays |= {"spacing": np.float64(grid.spacing)}
    arrays |= {} if grid.colour is None else {"colour": grid.colour}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def onnx_origin(fit: Fit) -> tuple[float, ...] | None:
    """The origin that an ONNX model of ``fit`` needs for precise points; None if it needs none.

    World coordinates in single precision are rounded. Far from the world's origin, as in map
    coordinates, the steps exceed AGREEMENT of the diagonal. Points relative to the middle of the
    bounds are then precise.
    """
    step = coordinate_step(fit.bounds)
    return tuple(fit.bounds.centre.tolist()) if step > AGREEMENT * fit.bounds.diagonal / 4 else None


def coordinate_step(bounds: Box) -> float:
    """The largest step of single precision between coordinates in ``bounds`` scaled by 1.5."""
    box = bounds.scaled(1.5)
    return float(np.spacing(np.abs([box.lower, box.upper]).max().astype(np.float32)))


def save_onnx(path: str | os.PathLike[str], fit: Fit) -> None:
    """Writes the signed distance as an ONNX model, atomically.

    The model maps ``points (n, 3)`` float32 in world units to ``distance (n,)`` float32 in world
    units. Where `onnx_origin` is not None, it has a second, optional input: ``origin (3,)`` float64
    is added to the points in double precision and is 0 by default. Points relative to the origin
    are precise; world points alone are as precise as float32 can hold them.

    With a field of colours there is a second output, ``colour (n, 3)``: display RGB in [0, 1] at
    the points, of use for points on the surface. It is the field's value there, not that of the
    closest surface point, which a graph cannot find.

    Outside the unit box of the fit the model gives `nstr3d.sdf.world_bound`, a lower bound of the
    distance, because a graph without derivatives cannot give more.

    Its metadata hold ``bounds``, ``lipschitz`` and ``origin`` as JSON; ``origin`` is null, or the
    origin to use. Before the file is published, onnxruntime evaluates it at random points. Raises
    ModuleNotFoundError without the extra ``export``, and ValueError if the results differ from the
    field in double precision by more than 1e-5 of the diagonal.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"ONNX files need {name}: pip install 'nstr3d[export]'")
    origin = onnx_origin(fit)
    length = torch.export.Dim("n", min=1)
    points = torch.zeros(7, 3)  # torch would export a length of 1 as a constant
    zero = torch.zeros(3, dtype=torch.float64)
    with _quiet(), torch.no_grad(), nodes_fixed():
        for field in (fit.field, fit.colour_field):
            if field is not None:
                field(points)  # makes the index of the nodes, which ONNX cannot
        program = torch.onnx.export(
            _Distance(fit).eval(),
            (points,) if origin is None else (points, zero),
            dynamo=True,
            opset_version=OPSET,
            input_names=["points"] if origin is None else ["points", ORIGIN],
            output_names=["distance"] if fit.colour_field is None else ["distance", "colour"],
            dynamic_shapes={"points": {0: length}} | ({} if origin is None else {ORIGIN: None}),
            verbose=False,
        )
        assert program is not None
        about = {
            "bounds": json.dumps(asdict(fit.bounds)),
            "lipschitz": json.dumps(fit.lipschitz),
            "origin": json.dumps(origin),
            "producer": "nstr3d",
        }
        program.model.metadata_props.update(about)
        if origin is not None:
            _make_optional(program.model.graph, zero.numpy())
        with atomic_path(path) as temporary:
            program.save(temporary)
            _compare(temporary, fit, origin)


class _Distance(nn.Module):
    """The distance of a fit, and its colours if it has any."""

    def __init__(self, fit: Fit):
        super().__init__()
        self.field, self.frame, self.colours = fit.field, fit.frame, fit.colour_field

    def forward(
        self, points: Tensor, origin: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        world = points if origin is None else points.double() + origin
        distance = world_bound(self.field, self.frame, world).to(points.dtype)
        if self.colours is None:
            return distance
        inside = placed(self.frame, world)[1].to(points.dtype)
        return distance, self.colours(inside).clamp(0, 1)


def _make_optional(graph: Any, value: np.ndarray) -> None:
    """Gives the input ORIGIN of an ONNX ``graph`` the default ``value``."""
    from onnxscript import ir

    (origin,) = [each for each in graph.inputs if each.name == ORIGIN]
    origin.const_value = ir.tensor(value, name=ORIGIN)
    graph.initializers[ORIGIN] = origin


def _compare(path: Path, fit: Fit, origin: tuple[float, ...] | None) -> None:
    """Raises ValueError if the ONNX model at ``path`` differs from the distance of ``fit`` by
    more than `AGREEMENT` at random points in the bounds scaled by 1.5.

    The field is evaluated at the points in double precision, before the model's input rounds them.
    Only world points without an ``origin`` are rounded first, where the model has one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # onnxruntime warns about every input with a default
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    box = fit.bounds.scaled(1.5)
    points = np.random.default_rng(0).uniform(box.lower, box.upper, (1000, 3))
    checks = [(points, {"points": points})]
    if origin is not None:
        rounded = points.astype(np.float32).astype(np.float64)
        placed = {"points": points - origin, ORIGIN: np.array(origin)}
        checks = [(points, placed), (rounded, {"points": rounded})]
    for at, inputs in checks:
        for count in (len(at), 1):
            single = inputs | {"points": inputs["points"][:count].astype(np.float32)}
            distances, *colours = session.run(None, single)
            with torch.no_grad():
                expected = fit.sdf().bound(torch.from_numpy(at[:count])).cpu().numpy()
            deviation = float(np.abs(np.asarray(distances) - expected).max())
            if not deviation <= AGREEMENT * fit.bounds.diagonal:
                raise ValueError(
                    f"The ONNX model differs from the field by up to {deviation:.3g}; this version "
                    "of torch exports it wrongly."
                )
            if colours:
                _compare_colours(np.asarray(colours[0]), fit, at[:count])


def _compare_colours(got: np.ndarray, fit: Fit, points: np.ndarray) -> None:
    """Raises ValueError if the colours ``got (n, 3)`` are not those of the field at ``points``."""
    near = np.abs(fit.frame.to_unit(points)).max(axis=1) <= 1
    paint = fit.sdf().paint
    assert paint is not None
    with torch.no_grad():
        expected = paint(torch.from_numpy(points[near])).cpu().numpy()
    deviation = float(np.abs(got[near] - expected).max(initial=0))
    if not deviation <= SHADE:
        raise ValueError(
            f"The ONNX model's colours differ from the field's by up to {deviation:.3g}; this "
            "version of torch exports them wrongly."
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
