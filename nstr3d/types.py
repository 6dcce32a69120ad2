"""Frozen data types that all layers share, with no behaviour beyond arithmetic on themselves.

Shape ``(n, d)`` means ``n`` points in ``d`` dimensions. Geometry of files is numpy float64. The
input of a field is a torch tensor on the field's device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MARGIN = 1.08  # size of the box that a camera's view holds, relative to the bounds


def expect(value: Any, kinds: type | tuple[type, ...], name: str) -> None:
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
        used = self.vertices[named]
        return Box(tuple(used.min(axis=0).tolist()), tuple(used.max(axis=0).tolist()))

    @property
    def corners(self) -> np.ndarray:
        """The three vertices of each face ``(f, 3, 3)``."""
        return np.take(self.vertices, self.faces, axis=0)


@dataclass(frozen=True)
class PointCloud:
    """Points ``(n, 3)`` float64 and, if known, unit outward ``normals (n, 3)``.

    Raises TypeError for other objects than arrays of numbers, and ValueError for another shape.
    """

    points: np.ndarray
    normals: np.ndarray | None = None

    def __post_init__(self):
        _expect_rows(self.points, "points")
        if self.normals is not None:
            _expect_rows(self.normals, "normals")
            if len(self.normals) != len(self.points):
                raise ValueError(f"{len(self.points)} points have {len(self.normals)} normals.")


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


def _upright(up: Up) -> np.ndarray:
    """The rotation ``(3, 3)`` that takes +y to the axis ``up``. Raises ValueError for another
    word."""
    if up not in get_args(Up):
        raise ValueError(f"up is one of {', '.join(get_args(Up))}, not {up}.")
    columns = {
        "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
        "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    }
    turn = np.array(columns[up[-1]], np.float64).T
    return turn * (-1, -1, 1) if up.startswith("-") else turn


@dataclass(frozen=True)
class Camera:
    """A camera at ``eye`` that looks at ``target``; ``up`` points upwards in the picture.

    ``fov`` is the vertical angle of view in degrees. With ``span``, the height of the view in world
    units, the camera is orthographic: rays are parallel and ``fov`` is ignored. Raises ValueError
    for a picture without pixels, an angle or span out of range, or an undefined view direction.
    """

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    fov: float = 35.0
    width: int = 512
    height: int = 512
    span: float | None = None

    def __post_init__(self):
        if min(self.width, self.height) < 1:
            raise ValueError(
                f"A picture needs at least 1 x 1 pixels, not {self.width} x {self.height}."
            )
        if not 0 < self.fov < 180:
            raise ValueError(
                f"A camera's angle of view must lie between 0 and 180 degrees, not at {self.fov}."
            )
        if self.span is not None and not 0 < self.span < math.inf:
            raise ValueError(
                f"An orthographic camera's span must be positive and finite, not {self.span}."
            )
        numbers = (*self.eye, *self.target, *self.up)
        forward = np.subtract(self.target, self.eye)
        lengths = np.linalg.norm(forward) * np.linalg.norm(self.up)
        if (
            not all(map(math.isfinite, numbers))
            or not np.linalg.norm(np.cross(forward, self.up)) > 1e-9 * lengths
        ):
            raise ValueError(
                "A camera needs a finite eye, target and up, a target that differs from the eye, "
                "and an up that is not parallel to the view; "
                f"not eye {self.eye}, target {self.target} and up {self.up}."
            )

    @staticmethod
    def around(
        bounds: Box,
        azimuth: float = 30.0,
        elevation: float = 15.0,
        fov: float = 35.0,
        width: int = 512,
        height: int = 512,
        orthographic: bool = False,
        up: Up = "y",
    ) -> Camera:
        """A camera that sees all of ``bounds``.

        ``azimuth`` turns about the axis ``up``, counter-clockwise from above, and ``elevation`` is
        the angle above the horizon, both in degrees. At 0 the camera looks along -z if y is up, and
        along +y if z is up, as the front views of most programs do.
        """
        a, e = math.radians(azimuth), math.radians(elevation)
        turn = _upright(up)
        outward = turn @ [math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)]
        right = turn @ [math.cos(a), 0.0, -math.sin(a)]
        over = np.cross(outward, right)
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        corners = signs * bounds.extent / 2 * MARGIN
        half = math.tan(math.radians(fov) / 2)
        offset = np.maximum(np.abs(corners @ right) * height / width, np.abs(corners @ over))
        if orthographic:
            distance, span = (
                float((corners @ outward).max()) + bounds.diagonal,
                2 * float(offset.max()),
            )
        else:
            # A corner c, at depth d - c.outward, is in view if offset <= depth * half.
            distance, span = float((offset / half + corners @ outward).max()), None
        x, y, z = (bounds.centre + outward * distance).tolist()
        tx, ty, tz = bounds.centre.tolist()
        # In a view straight from above or below, the axis is parallel to the view and cannot be up.
        above = tuple((turn[:, 1] if abs(math.cos(e)) > 1e-6 else over).tolist())
        return Camera(
            (x, y, z), (tx, ty, tz), above, fov=fov, width=width, height=height, span=span
        )

    def orbit(self, frames: int) -> tuple[Camera, ...]:
        """``frames`` cameras on a full circle about the axis ``up`` through the target, this camera
        first, counter-clockwise from above. Raises ValueError if ``frames`` is less than 1."""
        from scipy.spatial.transform import Rotation

        if frames < 1:
            raise ValueError(f"An orbit needs at least 1 frame, not {frames}.")
        axis = np.asarray(self.up, np.float64) / np.linalg.norm(self.up)
        away = np.subtract(self.eye, self.target)
        cameras = []
        for turn in 2 * math.pi * np.arange(frames) / frames:
            turned = Rotation.from_rotvec(turn * axis).apply(away)
            x, y, z = (turned + self.target).tolist()
            cameras.append(replace(self, eye=(x, y, z)))
        return tuple(cameras)

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors ``(3, 3)``: right and up in the picture, and from target to eye."""
        backward = np.subtract(self.eye, self.target)
        backward = backward / np.linalg.norm(backward)
        right = np.cross(self.up, backward)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward])

    @property
    def pixel(self) -> float:
        """Pixel size in world units at depth 1. An orthographic camera returns its constant pixel
        size divided by the distance from eye to target."""
        if self.span is not None:
            return (
                self.span / self.height / float(np.linalg.norm(np.subtract(self.target, self.eye)))
            )
        return 2 * math.tan(math.radians(self.fov) / 2) / self.height

    def rays(self, device: torch.device | str = "cpu") -> Rays:
        """One ray through each pixel centre, row by row from the top left: height * width rays."""
        import torch

        eye = np.asarray(self.eye, np.float64)
        right, above, backward = self.axes
        half = self.span / 2 if self.span is not None else math.tan(math.radians(self.fov) / 2)
        x = ((np.arange(self.width) + 0.5) / self.width * 2 - 1) * half * self.width / self.height
        y = (1 - (np.arange(self.height) + 0.5) / self.height * 2) * half
        plane = x[None, :, None] * right + y[:, None, None] * above
        if self.span is not None:
            origins = torch.tensor((eye + plane).reshape(-1, 3), device=device)
            return Rays(origins, torch.tensor(-backward, device=device).expand_as(origins))
        directions = plane - backward
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        flat = torch.tensor(directions.reshape(-1, 3), device=device)
        return Rays(torch.tensor(eye, device=device).expand_as(flat), flat)
