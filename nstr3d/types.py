"""The nouns that every layer shares: frozen data, no behaviour beyond arithmetic on themselves.

Shapes are written ``(n, d)``: ``n`` points in ``d`` dimensions. Geometry that comes from or goes to
files is numpy float64; whatever a field sees is a torch tensor on the field's device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

MARGIN = 1.08  # how much larger than the bounds a camera's view is


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: ``vertices (v, 3)`` float64, ``faces (f, 3)`` int64, counter-clockwise seen
    from outside."""

    vertices: np.ndarray
    faces: np.ndarray

    @property
    def bounds(self) -> Box:
        """The axis-aligned box of the vertices that faces use."""
        named = np.zeros(len(self.vertices), bool)
        named[self.faces] = True
        used = self.vertices[named]
        return Box(tuple(used.min(axis=0).tolist()), tuple(used.max(axis=0).tolist()))

    @property
    def corners(self) -> np.ndarray:
        """``(f, 3, 3)``: the three vertices of every face."""
        return self.vertices[self.faces]


@dataclass(frozen=True)
class PointCloud:
    """Points ``(n, 3)`` float64 and, where known, unit outward ``normals (n, 3)``."""

    points: np.ndarray
    normals: np.ndarray | None = None


@dataclass(frozen=True)
class Polylines:
    """Curves as points in a row: line i is ``points[starts[i] : starts[i + 1]]`` of ``points (n,
    d)`` float64, with ``starts (m + 1,)`` int64 and, where there is one, a number for each point,
    ``values (n,)``.

    Raises ValueError where the arrays do not fit each other.
    """

    points: np.ndarray
    starts: np.ndarray
    values: np.ndarray | None = None

    def __post_init__(self):
        whole = len(self.starts) > 0 and self.starts[0] == 0 and self.starts[-1] == len(self.points)
        if self.points.ndim != 2 or not whole or (np.diff(self.starts) < 0).any():
            raise ValueError(
                f"The starts of lines rise from 0 to the number of points, {len(self.points)}."
            )
        if self.values is not None and self.values.shape != (len(self.points),):
            raise ValueError(
                f"{len(self.points)} points of lines need as many values, not {self.values.shape}."
            )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def segments(self) -> np.ndarray:
        """The rows of the two ends of every straight piece ``(s, 2)``."""
        first = np.arange(max(len(self.points) - 1, 0))
        first = first[~np.isin(first + 1, self.starts[1:])]
        return np.stack([first, first + 1], axis=1)

    def along(self) -> np.ndarray:
        """Arc length ``(n,)`` from the first point of its line to each point."""
        steps = np.zeros(len(self.points))
        a, b = self.segments.T
        steps[b] = np.linalg.norm(self.points[b] - self.points[a], axis=1)
        total = np.cumsum(steps)
        sizes = np.diff(self.starts)
        return total - np.repeat(total[self.starts[:-1][sizes > 0]], sizes[sizes > 0])


@dataclass(frozen=True)
class Box:
    """An axis-aligned box: ``lower`` and ``upper`` corner, one float per axis."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @property
    def extent(self) -> np.ndarray:
        """Edge lengths ``(d,)``."""
        return np.subtract(self.upper, self.lower)

    @property
    def centre(self) -> np.ndarray:
        """The middle ``(d,)``."""
        return np.add(self.lower, self.upper) / 2

    @property
    def diagonal(self) -> float:
        """Length of the space diagonal."""
        return float(np.linalg.norm(self.extent))

    def scaled(self, factor: float) -> Box:
        """The box grown about its centre by ``factor``."""
        half = self.extent / 2 * factor
        return Box(tuple((self.centre - half).tolist()), tuple((self.centre + half).tolist()))


@dataclass(frozen=True)
class Frame:
    """The similarity that links world and unit box: ``unit = (world - centre) / scale``."""

    centre: tuple[float, ...]
    scale: float

    @staticmethod
    def identity(dim: int = 3) -> Frame:
        """The frame that changes nothing."""
        return Frame((0.0,) * dim, 1.0)

    def to_unit(self, points: np.ndarray) -> np.ndarray:
        """World points ``(n, d)`` in the unit box's coordinates."""
        return (np.asarray(points, np.float64) - self.centre) / self.scale

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Unit-box points ``(n, d)`` in world coordinates."""
        return np.asarray(points, np.float64) * self.scale + self.centre


@dataclass(frozen=True)
class Lattice:
    """The samples of an image or a sound, and where they are: the one place that knows.

    ``shape`` is that of the array: ``(height, width)`` or ``(length,)``. A sample is a cell of size
    1 with its value at the centre: sample (i, j) is at ``(i + 1/2, j + 1/2)`` in world units, which
    are samples counted along the array's axes. In the unit box the longest side spans [-1, 1] and
    the others are centred, so that cells stay square.
    """

    shape: tuple[int, ...]

    def __post_init__(self):
        if not self.shape or min(self.shape) < 1:
            raise ValueError(
                f"A lattice needs at least one sample along every axis, not {self.shape}."
            )

    @property
    def bounds(self) -> Box:
        """From 0 to the number of samples, along each axis."""
        return Box((0.0,) * len(self.shape), tuple(float(length) for length in self.shape))

    @property
    def frame(self) -> Frame:
        """Links samples and unit box."""
        return Frame(tuple(length / 2 for length in self.shape), max(self.shape) / 2)

    @property
    def size(self) -> int:
        """How many samples there are."""
        return math.prod(self.shape)

    def points(self, index: np.ndarray) -> np.ndarray:
        """Unit-box points ``(n, d)`` float64 of the samples with flat ``index (n,)``, last axis
        fastest."""
        return self.frame.to_unit(np.stack(np.unravel_index(index, self.shape), axis=-1) + 0.5)


@dataclass(frozen=True)
class Samples:
    """Training data: ``points (n, d)`` in the unit box and what the field should say there,
    ``values (n, c)``; where c is 1 also the ``gradients (n, d)`` of the value, rows of zeros where
    they are not known."""

    points: Tensor
    values: Tensor
    gradients: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points)

    def map(self, change: Callable[[Tensor], Tensor]) -> Samples:
        """The same change to all tensors: a choice of rows, a move to a device."""
        return Samples(
            change(self.points),
            change(self.values),
            None if self.gradients is None else change(self.gradients),
        )


@dataclass(frozen=True)
class Rays:
    """Rays in world units: ``origins (n, 3)`` and unit ``directions (n, 3)``."""

    origins: Tensor
    directions: Tensor


@dataclass(frozen=True)
class Hits:
    """Where rays meet a surface: ``mask (n,)`` bool, ``depth (n,)`` along the ray (inf on a miss),
    ``points (n, 3)``, and what it cost: ``steps (n,)`` distance evaluations per ray."""

    mask: Tensor
    depth: Tensor
    points: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Camera:
    """A camera: ``eye`` looks at ``target``, ``up`` is up in the picture, ``fov`` is the vertical
    angle in degrees.

    With ``span``, the height of the view in world units, it is orthographic: rays are parallel and
    ``fov`` plays no part. Raises ValueError for a picture without pixels, an angle or span out of
    range, and a direction of view that is not defined.
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
                f"A camera's angle of view lies between 0 and 180 degrees, not at {self.fov}."
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
                "A camera needs finite eye, target and up, its target away from its eye, and up "
                "not along the view; "
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
    ) -> Camera:
        """A camera that sees all of ``bounds``: azimuth about +y from +z, and elevation above the
        horizon, in degrees."""
        a, e = math.radians(azimuth), math.radians(elevation)
        outward = np.array([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
        right = np.array([math.cos(a), 0.0, -math.sin(a)])
        up = np.cross(outward, right)
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        corners = signs * bounds.extent / 2 * MARGIN
        half = math.tan(math.radians(fov) / 2)
        offset = np.maximum(np.abs(corners @ right) * height / width, np.abs(corners @ up))
        if orthographic:
            distance, span = (
                float((corners @ outward).max()) + bounds.diagonal,
                2 * float(offset.max()),
            )
        else:
            # A corner at depth d - c.outward is in view when its offset is at most that depth times
            # the half angle's tangent.
            distance, span = float((offset / half + corners @ outward).max()), None
        x, y, z = (bounds.centre + outward * distance).tolist()
        tx, ty, tz = bounds.centre.tolist()
        # Straight from above or below, +y is along the view: what the formula above has for up
        # there stays up.
        above = (0.0, 1.0, 0.0) if abs(math.cos(e)) > 1e-6 else tuple(up.tolist())
        return Camera(
            (x, y, z), (tx, ty, tz), above, fov=fov, width=width, height=height, span=span
        )

    def orbit(self, frames: int) -> tuple[Camera, ...]:
        """``frames`` cameras on a full circle about the axis ``up`` through the target, this one
        first, anticlockwise from above.

        Raises ValueError for less than one frame.
        """
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
        """Unit vectors ``(3, 3)`` to the right of the picture, up in it, and backwards from the
        target towards the eye."""
        backward = np.subtract(self.eye, self.target)
        backward = backward / np.linalg.norm(backward)
        right = np.cross(self.up, backward)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward])

    @property
    def pixel(self) -> float:
        """The size of a pixel at depth 1; for an orthographic camera, as if that of the target's
        depth shrank towards the eye."""
        if self.span is not None:
            return (
                self.span / self.height / float(np.linalg.norm(np.subtract(self.target, self.eye)))
            )
        return 2 * math.tan(math.radians(self.fov) / 2) / self.height

    def rays(self, device: torch.device | str = "cpu") -> Rays:
        """One ray through the centre of each pixel, row by row from the top left: ``(height *
        width, 3)``."""
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
