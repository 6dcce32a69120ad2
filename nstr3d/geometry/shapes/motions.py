"""Motions of shapes: translation, rotation, scaling, and copies in rows.

They preserve the two guarantees of `nstr3d.geometry.shapes.primitives`, on the Lipschitz bound and
on the distance outside the bounds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.shapes.vectors import (
    Vector,
    box_about,
    hull,
    like,
    require_positive,
    vector,
)
from nstr3d.sdf import Sdf
from nstr3d.sdf.recipe import recorded
from nstr3d.types import Box, expect

Map = Callable[[Tensor], Tensor]
Both = Callable[[Tensor], tuple[Tensor, Tensor]]
MOST_COPIES = 64  # copies of a shape that are evaluated at a point


@recorded
def translate(shape: Sdf, offset: Vector) -> Sdf:
    """``shape`` moved by ``offset``, in world units.

    Raises ``ValueError`` unless ``offset`` is three finite numbers.
    """
    expect(shape, Sdf, "shape")
    shift = vector("offset", offset)
    return _placed(
        shape, lambda points: points - like(shift, points), lambda slope: slope, 1.0,
        _moved(shape.bounds, shift),
    )  # fmt: skip


@recorded
def rotate(shape: Sdf, axis: Vector, degrees: float) -> Sdf:
    """``shape`` rotated by ``degrees`` about ``axis`` through the origin.

    The rotation follows the right-hand rule: it is counter-clockwise for a viewer towards whom the
    axis points. The bounds are the axis-aligned box of the rotated bounds. Raises ``ValueError`` if
    the axis is zero or not three finite numbers, or the angle is not finite.
    """
    expect(shape, Sdf, "shape")
    matrix = rotation(axis, degrees)
    rows, columns = (tuple(map(tuple, each.tolist())) for each in (matrix, matrix.T))
    half = np.abs(matrix) @ (shape.bounds.extent / 2)
    bounds = box_about(tuple((matrix @ shape.bounds.centre).tolist()), tuple(half.tolist()))
    # Points are rows, so a product with the matrix on the right applies the inverse rotation.
    return _placed(
        shape, lambda points: points @ like(rows, points),
        lambda slope: slope @ like(columns, slope), 1.0, bounds,
    )  # fmt: skip


def rotation(axis: Vector, degrees: float) -> np.ndarray:
    """The matrix ``(3, 3)`` of a rotation by ``degrees`` about ``axis``; see `rotate`."""
    from scipy.spatial.transform import Rotation

    expect(degrees, (int, float, np.number), "degrees")
    along = np.asarray(vector("axis", axis))
    if not along.any():
        raise ValueError("axis must not be the zero vector")
    if not math.isfinite(degrees):
        raise ValueError(f"degrees must be finite, not {degrees}")
    along = along / np.abs(along).max()  # so that squares of tiny components do not vanish
    turn = math.radians(degrees) * along / np.linalg.norm(along)
    return Rotation.from_rotvec(turn).as_matrix()


def moved(shape: Sdf, pose: np.ndarray) -> Sdf:
    """``shape`` moved by the rigid motion ``pose (4, 4)``: a rotation, then a translation."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(pose[:3, :3]).as_rotvec()
    angle = float(np.linalg.norm(turn))
    turned = rotate(shape, tuple(turn.tolist()), math.degrees(angle)) if angle else shape
    return translate(turned, tuple(pose[:3, 3].tolist()))


@recorded
def scale(shape: Sdf, factor: float | Sequence[float]) -> Sdf:
    """``shape`` scaled about the origin by ``factor``, one number or one for each axis.

    One factor keeps an exact distance exact. With three different ones, the distance is a lower
    bound of the distance: that of ``shape``, times the smallest factor, and outside the bounds at
    least the distance to them. The Lipschitz bound stays the same, or is 1 if it was less. Raises
    ``ValueError`` if a factor is not positive and finite.
    """
    expect(shape, Sdf, "shape")
    even = isinstance(factor, (int, float, np.number))
    factors = vector("factor", [factor] * 3 if even else factor)  # type: ignore[list-item]
    require_positive(factor=min(factors))
    bounds = Box(
        *(
            tuple(np.multiply(corner, factors).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    least = min(factors)
    placed = _placed(
        shape, lambda points: points / like(factors, points),
        lambda slope: slope / like(factors, slope), least, bounds,
    )  # fmt: skip
    return placed if max(factors) == least else _walled(placed)


@recorded
def repeat(shape: Sdf, period: Vector, counts: Sequence[int]) -> Sdf:
    """Copies of ``shape`` in rows: ``counts`` of them along each axis, ``period`` apart.

    The first copy is the shape itself; others follow in the positive directions. The distance is
    that of the union of all copies, but only those near a point are evaluated: up to two along an
    axis where the copies' boxes do not overlap. Raises ``ValueError`` if a period is not positive
    and finite, a count is below 1, or the copies overlap so far that more than 64 would be
    evaluated.
    """
    expect(shape, Sdf, "shape")
    steps, numbers = vector("period", period), _counts(counts)
    require_positive(period=min(steps))
    reaches = reach(shape, steps, numbers)
    if math.prod(reaches) > MOST_COPIES:
        raise ValueError(
            f"the copies overlap so far that {math.prod(reaches):,} would be evaluated at a point, "
            f"and {MOST_COPIES} may be; give a longer period or smaller counts"
        )
    near = list(itertools.product(*map(range, reaches)))
    centre = shape.bounds.centre.tolist()

    def into(points: Tensor) -> list[Tensor]:
        """The points in the frames of the copies that may be nearest."""
        cell = ((points - like(centre, points)) / like(steps, points)).floor()
        first = cell - like([reach // 2 - 1 for reach in reaches], points)
        last = like([float(number - reach) for number, reach in zip(numbers, reaches)], points)
        first = torch.minimum(first, last).clamp_min(0)
        return [points - (first + like(each, points)) * like(steps, points) for each in near]

    def least(function: Map) -> Map:
        return lambda points: torch.stack([function(each) for each in into(points)]).amin(dim=0)

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = zip(*(shape.value_and_gradient(each) for each in into(points)))
        value, which = torch.stack(values).min(dim=0)
        return value, torch.stack(slopes)[which, torch.arange(len(points), device=which.device)]

    def paint(points: Tensor) -> Tensor:
        copies = into(points)
        which = torch.stack([shape.distance(each).abs() for each in copies]).argmin(dim=0)
        return shape.paint(torch.stack(copies)[which, torch.arange(len(points))])  # type: ignore[misc]

    far = tuple((number - 1) * step for number, step in zip(numbers, steps))
    bounds = hull([shape.bounds, _moved(shape.bounds, far)])
    return _through(shape, least, both, bounds, None if shape.paint is None else paint)


def _counts(counts: Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(counts) if isinstance(counts, (Sequence, np.ndarray)) else (counts,)
    if len(numbers) != 3 or not all(
        isinstance(number, (int, np.integer)) and 1 <= number <= 1 << 20 for number in numbers
    ):
        raise ValueError(f"counts must be three whole numbers from 1 to {1 << 20}, not {numbers}")
    return tuple(int(number) for number in numbers)


def reach(shape: Sdf, period: Sequence[float], counts: Sequence[int]) -> list[int]:
    """How many consecutive copies along each axis hold the one nearest to a point.

    The copies on the two sides of a point are nearer than all others if their boxes are at most a
    period long.
    """
    sides = zip(shape.bounds.extent.tolist(), period, counts)
    return [
        min(count, 2 * math.ceil(min((extent / step + 1) / 2, count)))
        for extent, step, count in sides
    ]


def _placed(shape: Sdf, into: Map, back: Map, factor: float, bounds: Box) -> Sdf:
    """``shape`` in another place: ``into`` maps points to its own frame, ``back`` maps gradients
    from there, and distances are multiplied by ``factor``."""

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = shape.value_and_gradient(into(points))
        return value * factor, back(slope) * factor

    def placed(function: Map) -> Map:
        return lambda points: function(into(points)) * factor

    own = shape.paint
    paint = None if own is None else lambda points: own(into(points))
    return _through(shape, placed, both, bounds, paint)


def _through(
    shape: Sdf, made: Callable[[Map], Map], both: Both, bounds: Box, paint: Map | None = None
) -> Sdf:
    """A signed distance with the Lipschitz bound of ``shape`` and the ``paint``: ``made`` turns
    the functions of ``shape`` into its own. ``both`` counts where ``shape`` has its gradient in
    closed form."""
    return Sdf(
        made(shape.distance),
        bounds,
        shape.lipschitz,
        None if shape.both is None else both,
        None if shape.below is None else made(shape.below),
        paint=paint,
    )


def _walled(shape: Sdf) -> Sdf:
    """``shape`` whose distance outside its bounds is at least that to the bounds."""
    middle, half = shape.bounds.centre.tolist(), (shape.bounds.extent / 2).tolist()

    def beyond(points: Tensor) -> Tensor:
        away = points - like(middle, points)
        return away.sign() * (away.abs() - like(half, points)).clamp_min(0)

    def distance(points: Tensor) -> Tensor:
        value, gap = shape.bound(points), beyond(points)
        outside = (gap != 0).any(dim=1)
        wall = torch.linalg.vector_norm(torch.where(outside[:, None], gap, 1.0), dim=1)
        return torch.where(outside, torch.maximum(value, wall), value)

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        (value, slope), gap = shape.bound_and_gradient(points), beyond(points)
        wall = torch.linalg.vector_norm(gap, dim=1)
        walled = (wall > 0) & (wall > value)
        steep = gap / wall.clamp_min(torch.finfo(wall.dtype).tiny)[:, None]
        return torch.where(walled, wall, value), torch.where(walled[:, None], steep, slope)

    return Sdf(
        distance,
        shape.bounds,
        max(shape.lipschitz, 1.0),
        None if shape.both is None else both,
    )


def _moved(box: Box, shift: Vector) -> Box:
    lower, upper = (np.add(corner, shift) for corner in (box.lower, box.upper))
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))
