"""Frozen data types that all layers share, with no behaviour beyond arithmetic on themselves.

Shape ``(n, d)`` means ``n`` points in ``d`` dimensions. Geometry of files is numpy float64. The
input of a field is a torch tensor on the field's device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def expect(value: Any, kinds: Any, name: str) -> None:
    """Raises TypeError with one sentence if ``value``, which users know as ``name``, is not of one
    of the classes ``kinds``."""
    if not isinstance(value, kinds):
        known = kinds if isinstance(kinds, tuple) else (kinds,)
        words = " or ".join(kind.__name__ for kind in known)
        raise TypeError(f"{name} must be of the type {words}, not {type(value).__name__}.")


def _expect_rows(values: Any, name: str, numbers: str = "biuf") -> None:
    """Raises TypeError or ValueError if ``values`` is not an array ``(n, 3)`` whose numbers are of
    one of the kinds ``numbers`` of NumPy."""
    expect(values, np.ndarray, name)
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"{name} must have the shape (n, 3), not {values.shape}.")
    if values.dtype.kind not in numbers:
        kind = "whole numbers" if "f" not in numbers else "numbers"
        raise TypeError(f"{name} must be {kind}, not of the type {values.dtype}.")


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: ``vertices (v, 3)`` float64, and ``faces (f, 3)`` int64 whose vertices are
    in counter-clockwise order seen from outside. Raises TypeError for other objects than arrays of
    such numbers, and ValueError for another shape."""

    vertices: np.ndarray
    faces: np.ndarray

    def __post_init__(self):
        _expect_rows(self.vertices, "vertices")
        _expect_rows(self.faces, "faces", "iu")

    @property
    def bounds(self) -> Box:
        """The axis-aligned bounding box of the vertices that faces use."""
        named = np.zeros(len(self.vertices), bool)
        named[self.faces] = True
        used = self.vertices if named.all() else self.vertices[named]
        # Along a column, NumPy is six times as fast as over all of them.
        lower, upper = (tuple(float(end(axis)) for axis in used.T) for end in (np.min, np.max))
        return Box(lower, upper)

    @property
    def corners(self) -> np.ndarray:
        """The three vertices of each face ``(f, 3, 3)``."""
        return np.take(self.vertices, self.faces, axis=0)


@dataclass(frozen=True)
class PointCloud:
    """Points ``(n, 3)`` float64 and, if known, unit outward ``normals (n, 3)`` and display RGB
    ``colours (n, 3)`` in [0, 1], NaN where unknown.

    Raises TypeError for other objects than arrays of numbers, and ValueError for another shape.
    """

    points: np.ndarray
    normals: np.ndarray | None = None
    colours: np.ndarray | None = None

    def __post_init__(self):
        _expect_rows(self.points, "points")
        for name, rows in (("normals", self.normals), ("colours", self.colours)):
            if rows is not None:
                _expect_rows(rows, name)
                if len(rows) != len(self.points):
                    raise ValueError(f"{len(self.points)} points have {len(rows)} {name}.")


@dataclass(frozen=True)
class Polylines:
    """Polylines: line i is ``points[starts[i] : starts[i + 1]]``. ``points (n, d)`` is float64,
    ``starts (m + 1,)`` is int64, and ``values (n,)`` may hold a number for each point. Raises
    ValueError if the starts do not fit the points or the values do not have this shape."""

    points: np.ndarray
    starts: np.ndarray
    values: np.ndarray | None = None

    def __post_init__(self):
        whole = len(self.starts) > 0 and self.starts[0] == 0 and self.starts[-1] == len(self.points)
        if self.points.ndim != 2 or not whole or (np.diff(self.starts) < 0).any():
            raise ValueError(
                f"The starts of lines must rise from 0 to the point count, {len(self.points)}."
            )
        if self.values is not None and self.values.shape != (len(self.points),):
            raise ValueError(
                f"Lines of {len(self.points)} points need as many values, not {self.values.shape}."
            )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def segments(self) -> np.ndarray:
        """Indices ``(s, 2)`` of the two end points of each straight segment."""
        first = np.arange(max(len(self.points) - 1, 0))
        first = first[~np.isin(first + 1, self.starts[1:])]
        return np.stack([first, first + 1], axis=1)

    def along(self) -> np.ndarray:
        """Arc length ``(n,)`` of each point from the first point of its line."""
        steps = np.zeros(len(self.points))
        a, b = self.segments.T
        steps[b] = np.linalg.norm(self.points[b] - self.points[a], axis=1)
        total = np.cumsum(steps)
        sizes = np.diff(self.starts)
        return total - np.repeat(total[self.starts[:-1][sizes > 0]], sizes[sizes > 0])


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: its ``lower`` and ``upper`` corners, one float per axis."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def extent(self) -> np.ndarray:
        """Edge lengths ``(d,)``."""
        return np.subtract(self.upper, self.lower)

    @property
    def centre(self) -> np.ndarray:
        """The centre ``(d,)``."""
        return np.add(self.lower, self.upper) / 2

    @property
    def diagonal(self) -> float:
        """Length of the diagonal."""
        return float(np.linalg.norm(self.extent))

    def scaled(self, factor: float) -> Box:
        """The box scaled about its centre by ``factor``."""
        half = self.extent / 2 * factor
        return Box(tuple((self.centre - half).tolist()), tuple((self.centre + half).tolist()))


@dataclass(frozen=True)
class Frame:
    """The similarity from world to unit-box coordinates: ``unit = (world - centre) / scale``."""

    centre: tuple[float, ...]
    scale: float

    @staticmethod
    def identity(dim: int = 3) -> Frame:
        """The frame whose world and unit-box coordinates are equal."""
        return Frame((0.0,) * dim, 1.0)

    def to_unit(self, points: np.ndarray) -> np.ndarray:
        """World points ``(n, d)`` in unit-box coordinates, float64."""
        return (np.asarray(points, np.float64) - self.centre) / self.scale

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Unit-box points ``(n, d)`` in world coordinates, float64."""
        return np.asarray(points, np.float64) * self.scale + self.centre


@dataclass(frozen=True)
class Lattice:
    """Positions of the samples of an image, ``shape (height, width)``, or sound, ``(length,)``.

    World units are samples. Sample (i, j) is a unit cell with its value at the cell's centre,
    ``(i + 1/2, j + 1/2)``. The longest side spans [-1, 1] in the unit box, and the other sides are
    centred, so that cells stay square. Raises ValueError for an axis without samples.
    """

    shape: tuple[int, ...]

    def __post_init__(self):
        if not self.shape or min(self.shape) < 1:
            raise ValueError(
                f"A lattice needs at least one sample along every axis, not {self.shape}."
            )

    @property
    def bounds(self) -> Box:
        """The box from 0 to the number of samples along each axis."""
        return Box((0.0,) * len(self.shape), tuple(float(length) for length in self.shape))

    @property
    def frame(self) -> Frame:
        """The frame from samples to the unit box."""
        return Frame(tuple(length / 2 for length in self.shape), max(self.shape) / 2)

    @property
    def size(self) -> int:
        """The number of samples."""
        return math.prod(self.shape)

    def points(self, index: np.ndarray) -> np.ndarray:
        """Unit-box points ``(n, d)`` float64 of samples with row-major flat ``index (n,)``."""
        return self.frame.to_unit(np.stack(np.unravel_index(index, self.shape), axis=-1) + 0.5)


@dataclass(frozen=True)
class Samples:
    """Training data: ``points (n, d)`` in the unit box and target ``values (n, c)``. If c is 1,
    ``gradients (n, d)`` may hold target gradients; a row of zeros is an unknown gradient."""

    points: Tensor
    values: Tensor
    gradients: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points)

    def map(self, change: Callable[[Tensor], Tensor]) -> Samples:
        """Applies ``change`` to all tensors, for example a choice of rows or a device move."""
        return Samples(
            change(self.points),
            change(self.values),
            None if self.gradients is None else change(self.gradients),
        )


@dataclass(frozen=True)
class Rays:
    """Rays in world units: ``origins (n, 3)`` and unit ``directions (n, 3)``. Raises TypeError for
    other objects than torch tensors of floats, and ValueError for another shape."""

    origins: Tensor
    directions: Tensor

    def __post_init__(self):
        import torch

        expect(self.origins, torch.Tensor, "origins")
        expect(self.directions, torch.Tensor, "directions")
        shapes = tuple(self.origins.shape), tuple(self.directions.shape)
        if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][1] != 3:
            raise ValueError(
                f"origins and directions of rays must have one shape (n, 3), not {shapes[0]} and "
                f"{shapes[1]}."
            )
        if not (self.origins.is_floating_point() and self.directions.is_floating_point()):
            raise TypeError("origins and directions of rays must be tensors of floats.")


@dataclass(frozen=True)
class Hits:
    """Ray hits: ``mask (n,)`` bool, ``depth (n,)`` along the ray and ``points (n, 3)``, both inf on
    a miss, and ``steps (n,)``, the number of distance evaluations per ray."""

    mask: Tensor
    depth: Tensor
    points: Tensor
    steps: Tensor


Up = Literal["x", "y", "z", "-x", "-y", "-z"]


class UnprovenError(ValueError):
    """Raised where bounds are asked of a function of which nothing is proven."""
