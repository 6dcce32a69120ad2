"""Combinators of analytic shapes: union, intersection, difference, displacement and motions.

Every combinator preserves the two guarantees of `nstr3d.geometry.shapes.primitives`, on the
Lipschitz bound and on the distance outside the bounds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.shapes.vectors import (
    Vector,
    box_about,
    grown,
    hull,
    like,
    require_positive,
    vector,
)
from nstr3d.sdf import Sdf
from nstr3d.types import Box

Relief = Callable[[Tensor], Tensor]


def union(*parts: Sdf) -> Sdf:
    """The union of ``parts``: the smallest of their distances.

    It is exact outside where the parts are exact. Raises ``ValueError`` without parts.
    """
    _require_parts("union", parts)
    return Sdf(_fold(torch.minimum, parts), hull([part.bounds for part in parts]), _steepest(parts))


def intersection(*parts: Sdf) -> Sdf:
    """The intersection of ``parts``: the largest of their distances.

    It is exact inside where the parts are exact. The bounds are the box of smallest volume among
    the parts' boxes. The overlap of the boxes would break the guarantee on the bounds, because
    beyond its corners the distance grows too slowly. Raises ``ValueError`` without parts, or if the
    boxes do not overlap, because the intersection is then empty.
    """
    _require_parts("intersection", parts)
    boxes = [part.bounds for part in parts]
    lower, upper = (
        np.max([b.lower for b in boxes], axis=0),
        np.min([b.upper for b in boxes], axis=0),
    )
    if (lower > upper).any():
        raise ValueError("the intersection is empty: the bounds of its parts do not overlap")
    smallest = min(boxes, key=lambda b: float(b.extent.prod()))
    return Sdf(_fold(torch.maximum, parts), smallest, _steepest(parts))


def difference(whole: Sdf, *cuts: Sdf) -> Sdf:
    """The points of ``whole`` that are in none of the ``cuts``.

    Raises ``ValueError`` without cuts.
    """
    _require_parts("difference", cuts)
    removed = _fold(torch.minimum, cuts)

    def distance(points: Tensor) -> Tensor:
        return torch.maximum(whole.bound(points), -removed(points))

    return Sdf(distance, whole.bounds, _steepest((whole, *cuts)))


def smooth_union(*parts: Sdf, k: float) -> Sdf:
    """The union of ``parts`` with filled creases: the quadratic smooth minimum (Quilez).

    Parts are folded from left to right. Two parts blend where their distances differ by less than
    ``k`` (world units). The blend lowers the distance, and so extends the shape, by at most
    ``k / 4``. The gradient is a convex combination of the parts' gradients, so the Lipschitz bound
    is the largest of theirs. The bounds grow by ``k / 4`` for each fold. Raises ``ValueError``
    without parts, or if ``k`` is not positive and finite.
    """
    _require_parts("smooth_union", parts)
    require_positive(k=k)

    def blend(a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b) - (k - (a - b).abs()).clamp_min(0).square() / (4 * k)

    bounds = grown(hull([part.bounds for part in parts]), k / 4 * (len(parts) - 1))
    return Sdf(_fold(blend, parts), bounds, _steepest(parts))


def smooth_difference(whole: Sdf, *cuts: Sdf, k: float) -> Sdf:
    """The difference with rounded rims: the smooth maximum of ``whole`` and each cut's complement.

    The cuts are folded from left to right. The surface moves only inwards, and only where the
    distances to ``whole`` and to the complement of the cut differ by less than ``k`` (world units),
    as in `smooth_union`. Raises ``ValueError`` without cuts, or if ``k`` is not positive and
    finite.
    """
    _require_parts("smooth_difference", cuts)
    require_positive(k=k)

    def carve(a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, -b) + (k - (a + b).abs()).clamp_min(0).square() / (4 * k)

    return Sdf(_fold(carve, (whole, *cuts)), whole.bounds, _steepest((whole, *cuts)))


def displace(shape: Sdf, relief: Relief, amplitude: float, lipschitz: float) -> Sdf:
    """``shape`` with an oscillating relief: its surface moves outwards by ``amplitude * relief``.

    ``relief`` maps points ``(n, 3)`` to ``(n,)`` in [-1, 1]; ``lipschitz`` is its largest slope per
    world unit. ``amplitude`` is in world units. The Lipschitz bound of the result is that of the
    shape plus ``amplitude * lipschitz``. Raises ``ValueError`` if either number is not positive and
    finite.
    """
    require_positive(amplitude=amplitude, lipschitz=lipschitz)

    def distance(points: Tensor) -> Tensor:
        return shape.bound(points) - amplitude * relief(points)

    return Sdf(distance, grown(shape.bounds, amplitude), shape.lipschitz + amplitude * lipschitz)


def translate(shape: Sdf, offset: Vector) -> Sdf:
    """``shape`` moved by ``offset``, in world units.

    Raises ``ValueError`` unless ``offset`` is three finite numbers.
    """
    shift = vector("offset", offset)
    bounds = Box(
        *(
            tuple(np.add(corner, shift).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    return _moved(shape, lambda points: points - like(shift, points), bounds)


def rotate(shape: Sdf, axis: Vector, degrees: float) -> Sdf:
    """``shape`` rotated by ``degrees`` about ``axis`` through the origin.

    The rotation follows the right-hand rule: it is counter-clockwise for a viewer towards whom the
    axis points. The bounds are the axis-aligned box of the rotated bounds. Raises ``ValueError`` if
    the axis is zero or not three finite numbers.
    """
    from scipy.spatial.transform import Rotation

    along = np.asarray(vector("axis", axis))
    if not along.any():
        raise ValueError("axis must not be the zero vector")
    turn = math.radians(degrees) * along / np.linalg.norm(along)
    matrix = Rotation.from_rotvec(turn).as_matrix()
    rows = tuple(map(tuple, matrix.tolist()))
    half = np.abs(matrix) @ (shape.bounds.extent / 2)
    bounds = box_about(tuple((matrix @ shape.bounds.centre).tolist()), tuple(half.tolist()))
    # Points are rows, so a product with the matrix on the right applies the inverse rotation.
    return _moved(shape, lambda points: points @ like(rows, points), bounds)


def scale(shape: Sdf, factor: float) -> Sdf:
    """``shape`` scaled uniformly about the origin by ``factor``.

    The Lipschitz bound stays the same. Raises ``ValueError`` if ``factor`` is not positive and
    finite.
    """
    require_positive(factor=factor)
    bounds = Box(
        *(
            tuple(np.multiply(corner, factor).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    return _moved(shape, lambda points: points / factor, bounds, factor)


def _moved(shape: Sdf, back: Callable[[Tensor], Tensor], bounds: Box, factor: float = 1.0) -> Sdf:
    """``shape`` with the distances of the points ``back(p)``, times ``factor``. Autograd gives the
    gradient, which turns with the shape."""
    return Sdf(
        lambda points: shape.distance(back(points)) * factor,
        bounds,
        shape.lipschitz,
        below=lambda points: shape.bound(back(points)) * factor,
    )


def _require_parts(name: str, parts: Sequence[Sdf]) -> None:
    if not parts:
        raise ValueError(f"{name} needs at least one shape to combine")


def _fold(
    combine: Callable[[Tensor, Tensor], Tensor], parts: Sequence[Sdf]
) -> Callable[[Tensor], Tensor]:
    return lambda points: functools.reduce(combine, (part.bound(points) for part in parts))


def _steepest(parts: Sequence[Sdf]) -> float:
    return max(part.lipschitz for part in parts)
