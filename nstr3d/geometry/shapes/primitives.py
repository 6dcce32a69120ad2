"""Analytic shapes: closed-form signed distances for test oracles, demos and sculpting.

Every function returns an `Sdf` in world units, negative inside. Its distance takes points
``(n, 3)`` of any float dtype on any device and is differentiable in forward and reverse mode. Axes
of revolution point along +y. Sizes are floats in world units; every function raises ``ValueError``
if a size is not positive and finite.

Every shape here has two guarantees, and every combinator preserves them. The Lipschitz bound is
valid in all of space. Outside ``bounds`` the distance is at least the distance to ``bounds``, so
the surface offset by ``e`` stays within the bounds grown by ``e``.

"Exact" means that the value is the Euclidean distance everywhere. The magnitude of any other
shape's value, divided by its Lipschitz bound, never exceeds the Euclidean distance. Formulas for
sphere, box, torus, capsule and cylinder follow Hart, "Sphere tracing" (1996), and Quilez, "3D
distance functions".
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.shapes.combinators import (
    blend,
    difference,
    displace,
    intersection,
    offset,
    shell,
    smooth_difference,
    smooth_intersection,
    smooth_union,
    union,
)
from nstr3d.geometry.shapes.motions import repeat, rotate, scale, translate
from nstr3d.geometry.shapes.vectors import (
    Vector,
    box_about,
    hull,
    length,
    like,
    require_positive,
    vector,
)
from nstr3d.sdf import Sdf
from nstr3d.sdf.recipe import recorded

__all__ = [
    "blend",
    "box",
    "bracket",
    "capsule",
    "cylinder",
    "difference",
    "displace",
    "ellipsoid",
    "gyroid",
    "gyroid_slab",
    "intersection",
    "offset",
    "repeat",
    "rotate",
    "rounded_box",
    "scale",
    "shell",
    "shells",
    "smooth_difference",
    "smooth_intersection",
    "smooth_union",
    "sphere",
    "thin_plate",
    "torus",
    "translate",
    "union",
]  # includes the combinators, so that one import is enough for sculpting

# Newton steps for the closest point on an ellipsoid: the error is 1e-10 of its size for ratios of
# radii up to 100.
ELLIPSOID_STEPS = 12


@recorded
def sphere(radius: float = 1.0, centre: Vector = (0.0, 0.0, 0.0)) -> Sdf:
    """A ball of ``radius`` about ``centre``; exact."""
    require_positive(radius=radius)
    middle = vector("centre", centre)

    def distance(points: Tensor) -> Tensor:
        return length(points - like(middle, points)) - radius

    return Sdf(distance, box_about(middle, (radius,) * 3))


@recorded
def torus(major: float = 1.0, minor: float = 0.4) -> Sdf:
    """A tube of radius ``minor`` around a circle of radius ``major`` about the y axis; exact.

    Raises ``ValueError`` unless ``minor < major``: a tube that meets itself has no closed form.
    """
    require_positive(major=major, minor=minor)
    if minor >= major:
        raise ValueError(
            f"torus minor radius {minor} must be smaller than its major radius {major}"
        )

    def distance(points: Tensor) -> Tensor:
        return length(torch.stack([_radius_about_y(points) - major, points[:, 1]], dim=-1)) - minor

    return Sdf(distance, box_about((0.0,) * 3, (major + minor, minor, major + minor)))


@recorded
def box(half_extents: Vector = (1.0, 1.0, 1.0)) -> Sdf:
    """A box about the origin with the given half edge lengths; exact."""
    half = vector("half_extents", half_extents)
    require_positive(half_extents=min(half))

    def distance(points: Tensor) -> Tensor:
        return _corner_distance(points.abs() - like(half, points))

    return Sdf(distance, box_about((0.0,) * 3, half))


@recorded
def rounded_box(half_extents: Vector, radius: float) -> Sdf:
    """A box about the origin whose edges and corners are rounded to ``radius``; exact.

    ``half_extents`` includes the rounding. Raises ``ValueError`` unless ``radius`` is smaller than
    the smallest half extent.
    """
    half = vector("half_extents", half_extents)
    require_positive(half_extents=min(half), radius=radius)
    if radius >= min(half):
        raise ValueError(
            f"rounding radius {radius} must be smaller than the smallest half extent {min(half)}"
        )
    core = box([h - radius for h in half])
    return Sdf(lambda points: core.distance(points) - radius, box_about((0.0,) * 3, half))


@recorded
def thin_plate(size: float = 2.0, thickness: float = 0.02) -> Sdf:
    """A square plate in the xz plane, ``size`` wide and ``thickness`` high; exact."""
    return box((size / 2, thickness / 2, size / 2))


@recorded
def capsule(a: Vector, b: Vector, radius: float) -> Sdf:
    """All points within ``radius`` of the segment from ``a`` to ``b``; exact.

    Raises ``ValueError`` if ``a`` equals ``b``.
    """
    start, end = vector("a", a), vector("b", b)
    require_positive(radius=radius)
    axis = np.subtract(end, start)
    if not axis.any():
        raise ValueError(f"capsule ends coincide at {start}: use a sphere")
    shrink = tuple((axis / (axis @ axis)).tolist())

    def distance(points: Tensor) -> Tensor:
        offset = points - like(start, points)
        along = (offset * like(shrink, points)).sum(dim=-1, keepdim=True).clamp(0, 1)
        return length(offset - along * like(tuple(axis.tolist()), points)) - radius

    ends = [box_about(middle, (radius,) * 3) for middle in (start, end)]
    return Sdf(distance, hull(ends))


@recorded
def cylinder(radius: float = 1.0, half_height: float = 1.0) -> Sdf:
    """A capped cylinder about the y axis, from ``-half_height`` to ``half_height``; exact."""
    require_positive(radius=radius, half_height=half_height)

    def distance(points: Tensor) -> Tensor:
        beyond = torch.stack(
            [_radius_about_y(points) - radius, points[:, 1].abs() - half_height], dim=-1
        )
        return _corner_distance(beyond)

    return Sdf(distance, box_about((0.0,) * 3, (radius, half_height, radius)))


@recorded
def ellipsoid(radii: Vector) -> Sdf:
    """An ellipsoid about the origin with semi-axes ``radii``; exact to rounding.

    The closest point is ``r^2 p / (t + r^2)`` with ``t`` the largest root of
    ``sum (r p / (t + r^2))^2 = 1`` (Eberly, "Distance from a point to an ellipse, an ellipsoid, or
    a hyperellipsoid", 2013). The left side is convex and decreasing in ``t``. The start is left of
    the root, where the left side is at most 3, so Newton's method increases to the root without a
    safeguard. The Lipschitz bound is 1.
    """
    semi = vector("radii", radii)
    require_positive(radii=min(semi))
    shortest = min(semi)

    def distance(points: Tensor) -> Tensor:
        # Arrays are (3, n) and the three rows are added explicitly: a sum over an axis of length 3
        # costs several times as much.
        axes = like(semi, points)[:, None]
        # The unknown is s = t + shortest^2: with t, digits cancel near the middle of a flat
        # ellipsoid.
        excess = axes.square() - shortest * shortest
        # Points are kept off the symmetry planes by a rounding error, so that the closest point is
        # defined on the medial disc.
        scaled = axes * points.T.abs().clamp_min(shortest * 8 * torch.finfo(points.dtype).eps)
        s = (scaled - excess).amax(dim=0)
        for _ in range(ELLIPSOID_STEPS):
            inverse = (s + excess).reciprocal()
            x, y, z = (scaled * inverse).square()
            u, v, w = inverse
            s = s + (x + y + z - 1) / (2 * (x * u + y * v + z * w))
        normal = scaled / axes / (s + excess)
        return (s - shortest * shortest) * torch.linalg.vector_norm(normal, dim=0)

    return Sdf(distance, box_about((0.0,) * 3, semi))


@recorded
def shells(outer: float = 1.0, cavity: float = 0.8, inner: float = 0.5) -> Sdf:
    """Nested spheres: a ball with a spherical cavity in which a smaller ball floats; exact.

    The radii are ``outer``, ``cavity`` and ``inner``. Raises ``ValueError`` unless
    ``inner < cavity < outer``.
    """
    require_positive(outer=outer, cavity=cavity, inner=inner)
    if not inner < cavity < outer:
        raise ValueError(f"shells need inner < cavity < outer, not {inner}, {cavity}, {outer}")
    return union(difference(sphere(outer), sphere(cavity)), sphere(inner))


@recorded
def gyroid_slab(
    period: float = 1.2, thickness: float = 0.2, radius: float = 1.0, rim: float = 0.15
) -> Sdf:
    """A gyroid sheet of ``thickness`` inside a ball of ``radius``; a bound with Lipschitz bound 1.

    The gyroid repeats after ``period``. Where the sheet meets the ball, the edge is rounded as by
    `smooth_difference` with ``k = rim``. The function ``sin x cos y + sin y cos z + sin z cos x``
    has a gradient of at most sqrt(3) (Cauchy-Schwarz on each component) and is divided by it. On
    the middle of the sheet the gradient lies between sqrt(2) and sqrt(3), so a thin wall is between
    1 and 1.22 times ``thickness`` thick.
    """
    require_positive(period=period, thickness=thickness, radius=radius, rim=rim)
    ball, emptiness = sphere(radius), _sheet(period, thickness)
    hollow = Sdf(lambda points: -emptiness(points), ball.bounds)
    return smooth_difference(ball, hollow, k=rim)


@recorded
def gyroid(
    period: float = 1.0, thickness: float = 0.2, half_extents: Vector = (1.0, 1.0, 1.0)
) -> Sdf:
    """A gyroid sheet of ``thickness`` that fills a box about the origin; a bound with Lipschitz
    bound 1. It is the sheet of `gyroid_slab`: what prints inside a shell."""
    half = vector("half_extents", half_extents)
    require_positive(period=period, thickness=thickness, half_extents=min(half))
    room = box(half)
    return intersection(room, Sdf(_sheet(period, thickness), room.bounds))


def _sheet(period: float, thickness: float) -> Callable[[Tensor], Tensor]:
    """The distance bound of an endless gyroid sheet."""
    omega = 2 * math.pi / period

    def distance(points: Tensor) -> Tensor:
        sine, cosine = torch.sin(omega * points), torch.cos(omega * points)
        height = (sine * cosine.roll(-1, dims=-1)).sum(dim=-1)
        return height.abs() / (omega * math.sqrt(3)) - thickness / 2

    return distance


@recorded
def bracket() -> Sdf:
    """A machined part with sharp edges, 2 x 1.5 x 1 world units; a bound with Lipschitz bound 1.

    It is a base with two bolt holes, an upright wall, and a boss bored through. All planes lie at
    multiples of 0.05, so a lattice can align with them.
    """
    base = translate(box((1.0, 0.1, 0.5)), (0.0, -0.65, 0.0))
    wall = translate(box((1.0, 0.65, 0.1)), (0.0, 0.1, -0.4))
    boss = translate(rotate(cylinder(0.45, 0.2), (1.0, 0.0, 0.0), 90.0), (0.0, 0.15, -0.1))
    bore = translate(rotate(cylinder(0.27, 1.0), (1.0, 0.0, 0.0), 90.0), (0.0, 0.15, 0.0))
    holes = [translate(cylinder(0.2, 1.0), (x, -0.65, 0.1)) for x in (-0.65, 0.65)]
    return difference(union(base, wall, boss), bore, *holes)


def _radius_about_y(points: Tensor) -> Tensor:
    return length(points[:, ::2])


def _corner_distance(beyond: Tensor) -> Tensor:
    """Signed distance to the corner region ``beyond <= 0``.

    Inside it is the distance to the nearest face, outside the distance to the nearest face, edge or
    corner.
    """
    return length(beyond.clamp_min(0)) + beyond.amax(dim=-1).clamp_max(0)
