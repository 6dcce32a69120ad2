"""Combinators of shapes: union, intersection, difference, displacement, offset, shell and blend.

Every combinator preserves the two guarantees of `nstr3d.geometry.shapes.primitives`, on the
Lipschitz bound and on the distance outside the bounds. The parts may be fitted fields too; then
the guarantees hold as far as they hold for the field. Where the sign of the result depends on the
signs of the parts alone, the lower bounds of the parts (`Sdf.bound`) make that of the result. Other
surfaces lie where the parts' distances are not zero, and bounds would put them elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.shapes.vectors import grown, hull, require_moderate, require_positive
from nstr3d.sdf import Sdf
from nstr3d.sdf.recipe import recorded
from nstr3d.types import Box, expect

GREY = 0.8  # display value of parts without colours beside coloured ones
Relief = Callable[[Tensor], Tensor]
Combine = Callable[[Sequence[Tensor]], Tensor]


@recorded
def union(*parts: Sdf) -> Sdf:
    """The union of ``parts``: the smallest of their distances.

    It is exact outside where the parts are exact. Raises ``ValueError`` without parts.
    """
    _require_parts("union", parts)
    bounds = hull([part.bounds for part in parts])
    return combined(parts, _fold(torch.minimum), bounds, by_sign=True)


@recorded
def intersection(*parts: Sdf) -> Sdf:
    """The intersection of ``parts``: the largest of their distances.

    It is exact inside where the parts are exact. The bounds are the box of smallest volume among
    the parts' boxes. The overlap of the boxes would break the guarantee on the bounds, because
    beyond its corners the distance grows too slowly. Parts that do not overlap have an empty
    intersection: its distance is positive everywhere. Raises ``ValueError`` without parts.
    """
    _require_parts("intersection", parts)
    return combined(parts, _fold(torch.maximum), _smallest(parts), by_sign=True)


@recorded
def difference(whole: Sdf, *cuts: Sdf) -> Sdf:
    """The points of ``whole`` that are in none of the ``cuts``.

    Raises ``ValueError`` without cuts.
    """
    _require_parts("difference", cuts)

    def carve(a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, -b)

    return combined((whole, *cuts), _fold(carve), whole.bounds, by_sign=True)


@recorded
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

    def merge(a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b) - fillet(a - b, k)

    bounds = grown(hull([part.bounds for part in parts]), k / 4 * (len(parts) - 1))
    return combined(parts, _fold(merge), bounds)


@recorded
def smooth_intersection(*parts: Sdf, k: float) -> Sdf:
    """The intersection with rounded edges: the smooth maximum, folded from left to right.

    The surface moves only inwards, by at most ``k / 4`` for each fold, and only where distances
    differ by less than ``k`` (world units). Raises ``ValueError`` without parts, or if ``k`` is not
    positive and finite.
    """
    _require_parts("smooth_intersection", parts)
    require_positive(k=k)

    def meet(a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b) + fillet(a - b, k)

    return combined(parts, _fold(meet), _smallest(parts))


@recorded
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
        return torch.maximum(a, -b) + fillet(a + b, k)

    return combined((whole, *cuts), _fold(carve), whole.bounds)


@recorded
def offset(shape: Sdf, distance: float) -> Sdf:
    """``shape`` grown by ``distance`` (world units), or shrunk by a negative one.

    It is the level set of the signed distance at this value. Raises TypeError if it is no number,
    and ValueError if it is not finite.
    """
    expect(shape, Sdf, "shape")
    expect(distance, (int, float, np.number), "the distance of an offset")
    require_moderate("the distance of an offset", distance)
    by = float(distance)

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = shape.value_and_gradient(points)
        return value - by, slope

    def below(points: Tensor) -> Tensor:
        return shape.bound(points) - by

    # A lower bound of the distance would put the level sets outside too far out.
    bounded = shape.below is not None and by <= 0
    return Sdf(
        lambda points: shape.distance(points) - by,
        grown(shape.bounds, max(by, 0.0)),
        shape.lipschitz,
        None if shape.both is None else both,
        below if bounded else None,
        paint=joint_paint([shape]),
    )


@recorded
def shell(shape: Sdf, thickness: float) -> Sdf:
    """The wall of ``thickness`` (world units) inside the surface of ``shape``.

    Where the distance is only a bound, the wall is thicker. Raises ``ValueError`` if the thickness
    is not positive and finite.
    """
    expect(shape, Sdf, "shape")
    require_positive(thickness=thickness)
    half = thickness / 2
    return combined((shape,), lambda values: (values[0] + half).abs() - half, shape.bounds)


@recorded
def blend(first: Sdf, second: Sdf, share: float) -> Sdf:
    """The mean of two distances: ``(1 - share) first + share second``.

    Raises ``ValueError`` unless ``share`` is from 0 to 1.
    """
    _require_parts("blend", (first, second))
    expect(share, (int, float, np.number), "share")
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}")
    keep, take = 1 - float(share), float(share)
    bounds = hull([first.bounds, second.bounds])
    lipschitz = keep * first.lipschitz + take * second.lipschitz
    mean: Combine = lambda values: keep * values[0] + take * values[1]  # noqa: E731
    return combined((first, second), mean, bounds, lipschitz)


def displace(shape: Sdf, relief: Relief, amplitude: float, lipschitz: float) -> Sdf:
    """``shape`` with an oscillating relief: its surface moves outwards by ``amplitude * relief``.

    ``relief`` maps points ``(n, 3)`` to ``(n,)`` in [-1, 1]; ``lipschitz`` is its largest slope per
    world unit. ``amplitude`` is in world units. The Lipschitz bound of the result is that of the
    shape plus ``amplitude * lipschitz``. Raises ``ValueError`` if either number is not positive and
    finite.
    """
    require_positive(amplitude=amplitude, lipschitz=lipschitz)

    def distance(points: Tensor) -> Tensor:
        return shape.distance(points) - amplitude * relief(points)

    steepest = shape.lipschitz + amplitude * lipschitz
    return Sdf(distance, grown(shape.bounds, amplitude), steepest, paint=joint_paint([shape]))


def combined(
    parts: Sequence[Sdf],
    combine: Combine,
    bounds: Box,
    lipschitz: float | None = None,
    by_sign: bool = False,
) -> Sdf:
    """The signed distance that ``combine`` makes of the distances of ``parts``, point by point.

    The Lipschitz bound is by default the largest of the parts'. If a part has its gradient in
    closed form, so has the result, by the chain rule. ``by_sign`` says that the sign of the result
    depends on the signs of the parts alone, so that the bounds of the parts make a bound.
    """

    def distance(points: Tensor) -> Tensor:
        return combine([part.distance(points) for part in parts])

    def below(points: Tensor) -> Tensor:
        return combine([part.bound(points) for part in parts])

    def both(points: Tensor) -> tuple[Tensor, Tensor]:
        answers = [part.value_and_gradient(points) for part in parts]
        with torch.enable_grad():
            values = [value.detach().requires_grad_(True) for value, _ in answers]
            total = combine(values)
            shares = torch.autograd.grad(total.sum(), values)
        slopes = (share[:, None] * slope for share, (_, slope) in zip(shares, answers))
        return total.detach(), functools.reduce(torch.add, slopes)

    closed = any(part.both is not None for part in parts)
    steepest = max(part.lipschitz for part in parts) if lipschitz is None else lipschitz
    bounded = by_sign and any(part.below is not None for part in parts)
    return Sdf(
        distance,
        bounds,
        steepest,
        both if closed else None,
        below if bounded else None,
        paint=joint_paint(parts),
    )


def joint_paint(parts: Sequence[Sdf]) -> Callable[[Tensor], Tensor] | None:
    """The ``paint`` of a combination: at each point that of the part whose surface is nearest,
    grey if this part has no colours. None if no part has."""
    if all(part.paint is None for part in parts):
        return None

    def colour(points: Tensor) -> Tensor:
        nearest = torch.stack([part.distance(points).abs() for part in parts]).argmin(dim=0)
        result = points.new_full((len(points), 3), GREY)
        for index, part in enumerate(parts):
            own = nearest == index
            if part.paint is not None and own.any():
                result[own] = part.colour(points[own]).to(result)
        return result

    return colour


def _require_parts(name: str, parts: Sequence[Any]) -> None:
    if not parts:
        raise ValueError(f"{name} needs at least one shape to combine")
    for part in parts:
        expect(part, Sdf, f"a part of {name}")


def _fold(combine: Callable[[Tensor, Tensor], Tensor]) -> Combine:
    return lambda values: functools.reduce(combine, values)


def fillet(gap: Tensor, k: float) -> Tensor:
    """How far the quadratic blend moves a distance where two distances are ``gap`` apart."""
    return (k - gap.abs()).clamp_min(0).square() / (4 * k)


def _smallest(parts: Sequence[Sdf]) -> Box:
    return min((part.bounds for part in parts), key=lambda box: float(box.extent.prod()))
