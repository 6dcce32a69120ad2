"""Combinators of analytic shapes: union, intersection, difference, displacement and motions.

Every combinator keeps the two promises of `nstr3d.geometry.shapes.primitives`, on the Lipschitz
bound and on the distance outside the bounds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

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
    """What is in any of the ``parts``: the smallest distance, exact outside where the parts are."""
    _require_parts("union", parts)
    return Sdf(_fold(torch.minimum, parts), hull([part.bounds for part in parts]), _steepest(parts))


def intersection(*parts: Sdf) -> Sdf:
    """What is in all of the ``parts``: the largest distance, exact inside where the parts are.

    The bounds are the smallest of the parts' boxes (not their overlap, beyond whose corners the
    distance would grow too slowly). Raises ``ValueError`` where the boxes do not overlap, for then
    nothing is left.
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
    """What is in ``whole`` and in none of the ``cuts``."""
    _require_parts("difference", cuts)
    removed = _fold(torch.minimum, cuts)

    def distance(points: Tensor) -> Tensor:
        return torch.maximum(whole.distance(points), -removed(points))

    return Sdf(distance, whole.bounds, _steepest((whole, *cuts)))


def smooth_union(*parts: Sdf, k: float) -> Sdf:
    """The union with its creases filled: the quadratic smooth minimum (Quilez), folded from left to
    right.

    Two parts blend where their distances differ by less than ``k``, which adds at most ``k / 4``.
    The gradient is a convex combination of the parts' gradients, so the Lipschitz bound is the
    largest of theirs; the bounds grow by ``k / 4`` a fold.
    """
    _require_parts("smooth_union", parts)
    require_positive(k=k)

    def blend(a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b) - (k - (a - b).abs()).clamp_min(0).square() / (4 * k)

    bounds = grown(hull([part.bounds for part in parts]), k / 4 * (len(parts) - 1))
    return Sdf(_fold(blend, parts), bounds, _steepest(parts))


def smooth_difference(whole: Sdf, *cuts: Sdf, k: float) -> Sdf:
    """The difference with its rims rounded: the smooth maximum of ``whole`` and each cut's
    complement, from left to right.

    Like `smooth_union` it moves the surface only where two distances differ by less than ``k``, and
    only inwards.
    """
    _require_parts("smooth_difference", cuts)
    require_positive(k=k)

    def carve(a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, -b) + (k - (a + b).abs()).clamp_min(0).square() / (4 * k)

    return Sdf(_fold(carve, (whole, *cuts)), whole.bounds, _steepest((whole, *cuts)))


def displace(shape: Sdf, relief: Relief, amplitude: float, lipschitz: float) -> Sdf:
    """``shape`` with its surface moved outwards by ``amplitude * relief``: how a shape gets
    oscillating relief.

    ``relief`` maps points ``(n, 3)`` to ``(n,)`` in [-1, 1] and is as smooth as ``lipschitz``, its
    largest slope per world unit; the result's Lipschitz bound is the shape's plus ``amplitude *
    lipschitz``.
    """
    require_positive(amplitude=amplitude, lipschitz=lipschitz)

    def distance(points: Tensor) -> Tensor:
        return shape.distance(points) - amplitude * relief(points)

    return Sdf(distance, grown(shape.bounds, amplitude), shape.lipschitz + amplitude * lipschitz)


def translate(shape: Sdf, offset: Vector) -> Sdf:
    """``shape`` moved by ``offset``."""
    shift = vector("offset", offset)
    bounds = Box(
        *(
            tuple(np.add(corner, shift).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    return replace(
        shape, distance=lambda points: shape.distance(points - like(shift, points)), bounds=bounds
    )


def rotate(shape: Sdf, axis: Vector, degrees: float) -> Sdf:
    """``shape`` turned about ``axis`` through the origin, counter-clockwise seen against the axis;
    bounds grow to fit."""
    from scipy.spatial.transform import Rotation

    along = np.asarray(vector("axis", axis))
    if not along.any():
        raise ValueError("axis must not be the zero vector")
    turn = math.radians(degrees) * along / np.linalg.norm(along)
    matrix = Rotation.from_rotvec(turn).as_matrix()
    rows = tuple(map(tuple, matrix.tolist()))
    half = np.abs(matrix) @ (shape.bounds.extent / 2)
    bounds = box_about(tuple((matrix @ shape.bounds.centre).tolist()), tuple(half.tolist()))
    # Points are rows, so multiplying by the matrix on the right turns them back.
    return replace(
        shape, distance=lambda points: shape.distance(points @ like(rows, points)), bounds=bounds
    )


def scale(shape: Sdf, factor: float) -> Sdf:
    """``shape`` enlarged about the origin by ``factor`` in every direction; the Lipschitz bound
    stays."""
    require_positive(factor=factor)
    bounds = Box(
        *(
            tuple(np.multiply(corner, factor).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    return replace(
        shape, distance=lambda points: shape.distance(points / factor) * factor, bounds=bounds
    )


def _require_parts(name: str, parts: Sequence[Sdf]) -> None:
    if not parts:
        raise ValueError(f"{name} needs at least one shape to combine")


def _fold(
    combine: Callable[[Tensor, Tensor], Tensor], parts: Sequence[Sdf]
) -> Callable[[Tensor], Tensor]:
    return lambda points: functools.reduce(combine, (part.distance(points) for part in parts))


def _steepest(parts: Sequence[Sdf]) -> float:
    return max(part.lipschitz for part in parts)
