"""Analytic shapes: closed-form signed distances for oracles, demos and sculpting, and what combines
them.

Every function returns an `Sdf` in world units, negative inside, whose distance takes points ``(n,
3)`` of any float dtype on any device and is differentiable in both modes. Axes of revolution point
along +y. Sizes are plain floats in world units; a size that is not positive and finite raises
``ValueError``.

Two promises hold for every shape here and are kept by every combinator: the Lipschitz bound is
valid in all of space, and outside ``bounds`` the distance is at least the distance to ``bounds``,
so an offset by ``e`` stays within bounds grown by ``e``. "Exact" means the Euclidean distance
everywhere; the others, divided by their Lipschitz bound, never exceed it. Formulas for sphere, box,
torus, capsule and cylinder follow Hart, "Sphere tracing" (1996), and Quilez, "3D distance
functions".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.types import Box

Vector = Sequence[float]
Relief = Callable[[Tensor], Tensor]

# Newton steps for the closest point on an ellipsoid: 1e-10 of its size for radii in ratios up to
# 100.
ELLIPSOID_STEPS = 12


# ------------------------------------------------------------------------------
# shapes


def sphere(radius: float = 1.0, centre: Vector = (0.0, 0.0, 0.0)) -> Sdf:
    """A ball of ``radius`` about ``centre``; exact."""
    require_positive(radius=radius)
    middle = _vector("centre", centre)

    def distance(points: Tensor) -> Tensor:
        return _length(points - _like(middle, points)) - radius

    return Sdf(distance, _box_about(middle, (radius,) * 3))


def torus(major: float = 1.0, minor: float = 0.4) -> Sdf:
    """A ring about the y axis: tube radius ``minor`` around a circle of radius ``major``; exact.

    Raises ``ValueError`` unless ``minor < major``: a tube that meets itself has no closed form.
    """
    require_positive(major=major, minor=minor)
    if minor >= major:
        raise ValueError(
            f"torus minor radius {minor} must be smaller than its major radius {major}"
        )

    def distance(points: Tensor) -> Tensor:
        return _length(torch.stack([_radius_about_y(points) - major, points[:, 1]], dim=-1)) - minor

    return Sdf(distance, _box_about((0.0,) * 3, (major + minor, minor, major + minor)))


def box(half_extents: Vector = (1.0, 1.0, 1.0)) -> Sdf:
    """A box about the origin with the given half edge lengths; exact."""
    half = _vector("half_extents", half_extents)
    require_positive(half_extents=min(half))

    def distance(points: Tensor) -> Tensor:
        return _corner_distance(points.abs() - _like(half, points))

    return Sdf(distance, _box_about((0.0,) * 3, half))


def rounded_box(half_extents: Vector, radius: float) -> Sdf:
    """A box whose edges and corners are rounded to ``radius``; ``half_extents`` includes the
    rounding. Exact."""
    half = _vector("half_extents", half_extents)
    require_positive(half_extents=min(half), radius=radius)
    if radius >= min(half):
        raise ValueError(
            f"rounding radius {radius} must be smaller than the smallest half extent {min(half)}"
        )
    core = box([h - radius for h in half])
    return Sdf(lambda points: core.distance(points) - radius, _box_about((0.0,) * 3, half))


def thin_plate(size: float = 2.0, thickness: float = 0.02) -> Sdf:
    """A square plate in the xz plane, ``size`` wide and ``thickness`` high; exact."""
    return box((size / 2, thickness / 2, size / 2))


def capsule(a: Vector, b: Vector, radius: float) -> Sdf:
    """All points within ``radius`` of the segment from ``a`` to ``b``; exact. Raises ``ValueError``
    where ``a`` equals ``b``."""
    start, end = _vector("a", a), _vector("b", b)
    require_positive(radius=radius)
    axis = np.subtract(end, start)
    if not axis.any():
        raise ValueError(f"capsule ends coincide at {start}: use a sphere")
    shrink = tuple((axis / (axis @ axis)).tolist())

    def distance(points: Tensor) -> Tensor:
        offset = points - _like(start, points)
        along = (offset * _like(shrink, points)).sum(dim=-1, keepdim=True).clamp(0, 1)
        return _length(offset - along * _like(tuple(axis.tolist()), points)) - radius

    ends = [_box_about(middle, (radius,) * 3) for middle in (start, end)]
    return Sdf(distance, _hull(ends))


def cylinder(radius: float = 1.0, half_height: float = 1.0) -> Sdf:
    """A capped cylinder about the y axis, from ``-half_height`` to ``half_height``; exact."""
    require_positive(radius=radius, half_height=half_height)

    def distance(points: Tensor) -> Tensor:
        beyond = torch.stack(
            [_radius_about_y(points) - radius, points[:, 1].abs() - half_height], dim=-1
        )
        return _corner_distance(beyond)

    return Sdf(distance, _box_about((0.0,) * 3, (radius, half_height, radius)))


def ellipsoid(radii: Vector) -> Sdf:
    """An ellipsoid about the origin with three semi-axes ``radii``; exact to rounding, Lipschitz 1.

    The closest point is ``r^2 p / (t + r^2)`` with ``t`` the largest root of ``sum (r p / (t +
    r^2))^2 = 1`` (Eberly, "Distance from a point to an ellipse, an ellipsoid, or a hyperellipsoid",
    2013). The left side is convex and decreasing, and the start is left of the root with a value of
    at most 3, so Newton's method climbs to the root without a safeguard.
    """
    semi = _vector("radii", radii)
    require_positive(radii=min(semi))
    shortest = min(semi)

    def distance(points: Tensor) -> Tensor:
        # Coordinates come first, (3, n), and are added by hand: a sum over an axis of three costs
        # several times as much.
        axes = _like(semi, points)[:, None]
        # Roots are sought in s = t + shortest^2: t itself cancels near the middle of a flat
        # ellipsoid.
        excess = axes.square() - shortest * shortest
        # Off the symmetry planes by a rounding error, so that the closest point stays defined on
        # the medial disc.
        scaled = axes * points.T.abs().clamp_min(shortest * 8 * torch.finfo(points.dtype).eps)
        s = (scaled - excess).amax(dim=0)
        for _ in range(ELLIPSOID_STEPS):
            inverse = (s + excess).reciprocal()
            x, y, z = (scaled * inverse).square()
            u, v, w = inverse
            s = s + (x + y + z - 1) / (2 * (x * u + y * v + z * w))
        normal = scaled / axes / (s + excess)
        return (s - shortest * shortest) * torch.linalg.vector_norm(normal, dim=0)

    return Sdf(distance, _box_about((0.0,) * 3, semi))


def shells(outer: float = 1.0, cavity: float = 0.8, inner: float = 0.5) -> Sdf:
    """Nested surfaces: a ball of radius ``outer`` with a spherical ``cavity`` in which a ball of
    radius ``inner`` floats; exact.

    Raises ``ValueError`` unless ``inner < cavity < outer``.
    """
    require_positive(outer=outer, cavity=cavity, inner=inner)
    if not inner < cavity < outer:
        raise ValueError(f"shells need inner < cavity < outer, not {inner}, {cavity}, {outer}")
    return union(difference(sphere(outer), sphere(cavity)), sphere(inner))


def gyroid_slab(
    period: float = 1.2, thickness: float = 0.2, radius: float = 1.0, rim: float = 0.15
) -> Sdf:
    """A gyroid sheet inside a ball of ``radius``, where they meet rounded as by `smooth_difference`
    with ``k = rim``.

    A bound with Lipschitz 1: ``sin x cos y + sin y cos z + sin z cos x`` has a gradient of at most
    sqrt(3) (Cauchy-Schwarz on each component) and is divided by it. On the sheet's middle the
    gradient lies between sqrt(2) and sqrt(3), so a thin wall is between ``thickness`` and 1.22
    times that.
    """
    require_positive(period=period, thickness=thickness, radius=radius, rim=rim)
    omega = 2 * math.pi / period

    def emptiness(points: Tensor) -> Tensor:
        sine, cosine = torch.sin(omega * points), torch.cos(omega * points)
        height = (sine * cosine.roll(-1, dims=-1)).sum(dim=-1)
        return thickness / 2 - height.abs() / (omega * math.sqrt(3))

    ball = sphere(radius)
    return smooth_difference(ball, Sdf(emptiness, ball.bounds), k=rim)


def bracket() -> Sdf:
    """A machined part with sharp edges, 2 x 1.5 x 1: a base with two bolt holes, an upright wall, a
    boss bored through.

    A bound with Lipschitz 1. All planes lie at multiples of 0.05, so a grid can follow them.
    """
    base = translate(box((1.0, 0.1, 0.5)), (0.0, -0.65, 0.0))
    wall = translate(box((1.0, 0.65, 0.1)), (0.0, 0.1, -0.4))
    boss = translate(rotate(cylinder(0.45, 0.2), (1.0, 0.0, 0.0), 90.0), (0.0, 0.15, -0.1))
    bore = translate(rotate(cylinder(0.27, 1.0), (1.0, 0.0, 0.0), 90.0), (0.0, 0.15, 0.0))
    holes = [translate(cylinder(0.2, 1.0), (x, -0.65, 0.1)) for x in (-0.65, 0.65)]
    return difference(union(base, wall, boss), bore, *holes)


# ------------------------------------------------------------------------------
# combinators


def union(*parts: Sdf) -> Sdf:
    """What is in any of the ``parts``: the smallest distance, exact outside where the parts are."""
    _require_parts("union", parts)
    return Sdf(
        _fold(torch.minimum, parts), _hull([part.bounds for part in parts]), _steepest(parts)
    )


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

    bounds = _grown(_hull([part.bounds for part in parts]), k / 4 * (len(parts) - 1))
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

    return Sdf(distance, _grown(shape.bounds, amplitude), shape.lipschitz + amplitude * lipschitz)


def translate(shape: Sdf, offset: Vector) -> Sdf:
    """``shape`` moved by ``offset``."""
    shift = _vector("offset", offset)
    bounds = Box(
        *(
            tuple(np.add(corner, shift).tolist())
            for corner in (shape.bounds.lower, shape.bounds.upper)
        )
    )
    return replace(
        shape, distance=lambda points: shape.distance(points - _like(shift, points)), bounds=bounds
    )


def rotate(shape: Sdf, axis: Vector, degrees: float) -> Sdf:
    """``shape`` turned about ``axis`` through the origin, counter-clockwise seen against the axis;
    bounds grow to fit."""
    from scipy.spatial.transform import Rotation

    along = np.asarray(_vector("axis", axis))
    if not along.any():
        raise ValueError("axis must not be the zero vector")
    turn = math.radians(degrees) * along / np.linalg.norm(along)
    matrix = Rotation.from_rotvec(turn).as_matrix()
    rows = tuple(map(tuple, matrix.tolist()))
    half = np.abs(matrix) @ (shape.bounds.extent / 2)
    bounds = _box_about(tuple((matrix @ shape.bounds.centre).tolist()), tuple(half.tolist()))
    # Points are rows, so multiplying by the matrix on the right turns them back.
    return replace(
        shape, distance=lambda points: shape.distance(points @ _like(rows, points)), bounds=bounds
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


# ------------------------------------------------------------------------------
# helpers


def require_positive(**sizes: float) -> None:
    """Raises ValueError naming the first of ``sizes`` that is not positive and finite."""
    for name, size in sizes.items():
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"{name} must be positive and finite, not {size}")


def _require_parts(name: str, parts: Sequence[Sdf]) -> None:
    if not parts:
        raise ValueError(f"{name} needs at least one shape to combine")


def _vector(name: str, values: Vector) -> tuple[float, float, float]:
    numbers = tuple(float(v) for v in values)
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be three finite numbers, not {numbers}")
    return numbers


def _like(values: Sequence[float] | Sequence[Sequence[float]], points: Tensor) -> Tensor:
    return torch.tensor(values, dtype=points.dtype, device=points.device)


def _length(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1)


def _radius_about_y(points: Tensor) -> Tensor:
    return _length(points[:, ::2])


def _corner_distance(beyond: Tensor) -> Tensor:
    """Signed distance to the corner region ``beyond <= 0``: straight to a face inside, around the
    corner outside."""
    return _length(beyond.clamp_min(0)) + beyond.amax(dim=-1).clamp_max(0)


def _fold(
    combine: Callable[[Tensor, Tensor], Tensor], parts: Sequence[Sdf]
) -> Callable[[Tensor], Tensor]:
    return lambda points: functools.reduce(combine, (part.distance(points) for part in parts))


def _steepest(parts: Sequence[Sdf]) -> float:
    return max(part.lipschitz for part in parts)


def _box_about(middle: Vector, half: Vector) -> Box:
    return Box(tuple(np.subtract(middle, half).tolist()), tuple(np.add(middle, half).tolist()))


def _hull(boxes: Sequence[Box]) -> Box:
    lower, upper = (
        np.min([b.lower for b in boxes], axis=0),
        np.max([b.upper for b in boxes], axis=0),
    )
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))


def _grown(bounds: Box, margin: float) -> Box:
    return Box(
        tuple(np.subtract(bounds.lower, margin).tolist()),
        tuple(np.add(bounds.upper, margin).tolist()),
    )
