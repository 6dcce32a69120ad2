"""`Algebra`, the operations that make a signed distance of others. `nstr3d.geometry.shapes` has
the functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nstr3d.sdf.above import above
from nstr3d.types import expect

if TYPE_CHECKING:
    from nstr3d.sdf.signed import Sdf

COMBINATORS, MOTIONS = "geometry.shapes.combinators", "geometry.shapes.motions"


class Algebra:
    """Combinations and motions, evaluated when they are asked.

    They carry bounds and Lipschitz bounds. Lengths are in world units. All raise TypeError for
    objects of another kind, and ValueError for numbers out of range.
    """

    def __or__(self, other: Any) -> Sdf:
        return self.union(other) if isinstance(other, Algebra) else NotImplemented

    def __and__(self, other: Any) -> Sdf:
        return self.intersection(other) if isinstance(other, Algebra) else NotImplemented

    def __sub__(self, other: Any) -> Sdf:
        return self.difference(other) if isinstance(other, Algebra) else NotImplemented

    def union(self, *others: Any, radius: float = 0.0) -> Sdf:
        """This solid and all ``others``. With a ``radius`` creases are filled where two distances
        differ by less than it; the solid grows there by up to a quarter of it."""
        make = above(COMBINATORS)
        _check_radius(radius)
        return make.smooth_union(self, *others, k=radius) if radius else make.union(self, *others)

    def intersection(self, *others: Any, radius: float = 0.0) -> Sdf:
        """What this solid has in common with all ``others``; with a ``radius``, edges between them
        are rounded. It may be empty."""
        make = above(COMBINATORS)
        _check_radius(radius)
        if radius:
            return make.smooth_intersection(self, *others, k=radius)
        return make.intersection(self, *others)

    def difference(self, *others: Any, radius: float = 0.0) -> Sdf:
        """This solid without all ``others``; with a ``radius``, edges between them are rounded."""
        make = above(COMBINATORS)
        _check_radius(radius)
        if radius:
            return make.smooth_difference(self, *others, k=radius)
        return make.difference(self, *others)

    def offset(self, distance: float) -> Sdf:
        """The solid grown by ``distance``, or shrunk by a negative one: the level set of the signed
        distance at this value."""
        return above(COMBINATORS).offset(self, distance)

    def shell(self, thickness: float) -> Sdf:
        """The wall of this ``thickness`` inside the surface: a hollow solid."""
        return above(COMBINATORS).shell(self, thickness)

    def blend(self, other: Any, share: float) -> Sdf:
        """The mean of both distances, with weight ``share``, from 0 to 1, for ``other``."""
        return above(COMBINATORS).blend(self, other, share)

    def translate(self, offset: Sequence[float]) -> Sdf:
        """The solid moved by ``offset (3,)``."""
        return above(MOTIONS).translate(self, offset)

    def rotate(self, axis: Sequence[float], degrees: float) -> Sdf:
        """The solid turned by ``degrees`` about ``axis (3,)`` through the origin, by the right-hand
        rule."""
        return above(MOTIONS).rotate(self, axis, degrees)

    def scale(self, factor: float | Sequence[float]) -> Sdf:
        """The solid scaled about the origin by ``factor``. With three factors, one for each axis,
        the distance becomes a lower bound of the distance."""
        return above(MOTIONS).scale(self, factor)

    def repeat(self, period: Sequence[float], counts: Sequence[int]) -> Sdf:
        """Copies of the solid in rows: ``counts (3,)`` of them along each axis, ``period (3,)``
        apart. The first copy is the solid itself."""
        return above(MOTIONS).repeat(self, period, counts)


def _check_radius(radius: Any) -> None:
    """Raises TypeError or ValueError unless ``radius`` is a length, or 0."""
    expect(radius, (int, float, np.number), "radius")
    if not 0 <= radius < math.inf:
        raise ValueError(f"radius must be at least 0 and finite, not {radius}")
