"""`Queries`, the questions that every signed distance answers. `nstr3d.surface` has the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from nstr3d.sdf.above import above
from nstr3d.sdf.answers import ClosestPoints, Contacts, Crossings, Curvatures, RayHits, Solid
from nstr3d.types import Box, PointCloud, Polylines

if TYPE_CHECKING:
    from nstr3d.sdf.signed import Sdf

Points = TypeVar("Points", np.ndarray, Tensor)
TOLERANCE = 3e-5  # of the diagonal of the bounds: below 1e-4 of the unit box of a fit


class Queries:
    """Questions about the solid and its surface, in world units.

    Points are numpy arrays or torch tensors ``(n, 3)``, and answers are of the same kind, type and
    device; inside, all is computed in float64. Every question raises TypeError for objects of
    another kind, and ValueError for another shape, numbers that are not finite, and numbers out of
    range. ``resolution`` is the number of cells along the longest side of the bounds by which the
    surface is found. Parts thinner than a cell may be missed.
    """

    def contains(self, points: Points) -> Points:
        """Whether each of ``points (n, 3)`` is in the solid or on its surface: bool ``(n,)``."""
        return above("surface.closest").contains(self, points)

    def closest_points(self, points: Points, tolerance: float = TOLERANCE) -> ClosestPoints[Points]:
        """The surface point closest to each of ``points (n, 3)``, and how far it is off.

        Newton's method follows the gradient. A point that it does not bring on to the surface, or
        by a way longer than its distance, or in several steps across the normal, starts again from
        the nearest point of a coarse mesh of the surface. Every residual is at most ``tolerance``
        diagonals of the bounds. How much closer another surface point may be depends on the
        distance: nothing for an exact one, and for a fitted one about its error (docs/queries.md).
        Between surfaces, on the medial axis, it is one of the closest points. Torch points that
        require a gradient get the derivative of the closest point, and the parameters of a field
        theirs. Raises ValueError if the surface is empty.
        """
        return above("surface.closest").closest_points(self, points, tolerance)

    def raycast(
        self, origins: Points, directions: Points, tolerance: float = 1e-5
    ) -> RayHits[Points]:
        """The first crossing of each ray from ``origins (n, 3)`` along ``directions (n, 3)``, of
        any length but zero, with the surface.

        A ray that starts in the solid crosses where it leaves. Distances are in world units,
        accurate to ``tolerance`` diagonals of the bounds. A ray that is nowhere in the solid by
        more than the accuracy may be a miss. So may parts within a thousandth of the diagonal of a
        surface along which the ray runs, and others if ``lipschitz`` is too small. Torch rays that
        require a gradient get that of distances and points. Raises ValueError for a direction of
        length zero.
        """
        return above("surface.rays").raycast(self, origins, directions, tolerance)

    def crossings(
        self, origins: Points, directions: Points, tolerance: float = 1e-5
    ) -> Crossings[Points]:
        """All crossings of each ray with the surface, with the accuracy and the errors of
        `raycast`."""
        return above("surface.rays").crossings(self, origins, directions, tolerance)

    def thickness(self, points: Points, tolerance: float = 1e-5) -> Points:
        """The thickness ``(n,)`` of the solid below ``points (n, 3)`` of its surface: how far the
        ray along the inward normal runs in the solid.

        The closest surface point stands in for a point beside the surface. The accuracy is
        ``tolerance`` diagonals of the bounds. Raises ValueError if the surface is empty.
        """
        return above("surface.rays").thickness(self, points, tolerance)

    def contacts(
        self,
        other: Sdf,
        pose: Any = None,
        margin: float = 0.0,
        most: int = 64,
        resolution: int = 64,
    ) -> Contacts:
        """Where this solid and ``other``, moved by the rigid motion ``pose (4, 4)``, touch.

        A contact is a point of one surface whose signed distance to the other solid is a local
        minimum along the surface, or one of a flat minimum: at most ``most`` points, spread over
        it. Those up to ``margin`` apart have a negative depth. Depths are distances to the closest
        point, accurate to 1e-6 diagonals of the bounds for exact distances. There are none if the
        solids do not touch. `nstr3d.surface.contact.Body` keeps what many poses have in common.
        Raises ValueError for a pose that is no rigid motion.
        """
        return above("surface.contact").contacts(self, other, pose, margin, most, resolution)

    def solid(self, resolution: int = 128) -> Solid:
        """Volume, area, centroid and inertia at once, each from the same surface, with estimates
        of the errors of volume and area.

        Faces of the surface's mesh are split in four on to the surface, and the measures of both
        meshes are extrapolated. On smooth surfaces the error falls with the fourth power of the
        cell; a sphere is exact to 1e-7 at 128 cells. Sharp edges are cut off within a cell:
        the errors of the volume then fall with the square of the cell, those of the area with the
        cell. An empty solid has the volume 0.
        """
        return above("surface.solid").measure_solid(self, resolution)

    def volume(self, resolution: int = 128) -> float:
        """The volume of the solid; see `solid` for the error."""
        return self.solid(resolution).volume

    def area(self, resolution: int = 128) -> float:
        """The area of the surface; see `solid` for the error."""
        return self.solid(resolution).area

    def centroid(self, resolution: int = 128) -> np.ndarray:
        """The centroid ``(3,)`` of the solid; see `solid` for the error. Raises ValueError if the
        solid is empty."""
        centroid = self.solid(resolution).centroid
        if centroid is None:
            raise ValueError("the solid is empty, so it has no centroid")
        return centroid

    def inertia(self, resolution: int = 128) -> np.ndarray:
        """The inertia ``(3, 3)`` of the solid with density 1 about its centroid; see `solid` for
        the error. It is zero for an empty solid."""
        return self.solid(resolution).inertia

    def curvatures(self, points: Points, step: float = 1e-3) -> Curvatures[Points]:
        """Mean and Gaussian curvature of the level set through each of ``points (n, 3)``.

        Both are central differences of the unit normals over ``step`` diagonals of the bounds. On a
        smooth closed form the relative error is about the square of ``step`` over the radius of
        curvature; a fitted field has the curvature of its splines, which ripple. Where the gradient
        vanishes or turns at an edge, the curvature has no meaning.
        """
        return above("surface.curvature").curvatures(self, points, step)

    def sample_surface(self, count: int, seed: int = 0, resolution: int = 128) -> PointCloud:
        """``count`` points of the surface, even by area, with unit outward normals.

        Their distances from the surface are those of `closest_points`. The same seed gives the same
        points. Raises ValueError if the surface is empty.
        """
        return above("surface.sample").sample_points(self, count, seed, resolution)

    def slice(
        self, origin: Sequence[float], normal: Sequence[float], resolution: int = 256
    ) -> Polylines:
        """The contours of the solid on the plane through ``origin`` across ``normal``: closed
        polylines in world units, each with its first point once more at its end.

        Seen from the side to which the normal points, the solid is on the left. Points are on the
        surface to 1e-5 diagonals of the bounds; between them lie up to ``resolution``-th parts of
        the plane. There are none if the plane misses the solid.
        """
        return above("surface.sections").slice_contours(self, origin, normal, resolution)

    def enclose(self, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Proven lower and upper bounds ``(n,)`` of the signed distance over the boxes from
        ``lower (n, 3)`` to ``upper (n, 3)``.

        Those of a fit hold in exact arithmetic and for evaluation in the field's own precision,
        those of others for evaluation in float64. For a fit with quadratic levels, their gap beyond
        the range of the distance falls with the square of the box. Raises UnprovenError for a
        signed distance of which nothing is proven: that of a mesh, of a baseline, or of a function
        that is not of nstr3d.
        """
        return above("surface.bounds").enclose(self, lower, upper)

    def proven_bounds(self, resolution: int = 128) -> Box:
        """A box that all of the surface within the padded ``bounds`` is in, by proof, at most about
        a cell larger on each side than the smallest. Raises UnprovenError as `enclose` does, and
        ValueError if the surface is empty."""
        return above("surface.certified").proven_bounds(self, resolution)

    def proven_volume(self, resolution: int = 128) -> tuple[float, float]:
        """Bounds of the volume of the solid within the padded ``bounds``, by proof. Their gap is
        the volume of the cells that may hold surface. Raises UnprovenError as `enclose` does."""
        return above("surface.certified").proven_volume(self, resolution)

    def proven_apart(self, other: Sdf, resolution: int = 128) -> bool:
        """Whether it is proven that this solid and ``other`` have no point in common, within the
        ``bounds`` of both. False says that it is not proven: they may touch, or be closer than
        about a cell. Raises UnprovenError as `enclose` does."""
        return above("surface.certified").proven_apart(self, other, resolution)

    def proven_gap(self, other: Sdf, resolution: int = 128) -> float:
        """A lower bound of the distance between this solid and ``other``, by proof, in world units,
        within the ``bounds`` of both; 0 if it is not proven that they are apart, and inf if one of
        them is proven to be empty. It falls short of the distance by a small part of a cell, or by
        more where much of both surfaces is about equally near. Raises UnprovenError as `enclose`
        does."""
        return above("surface.gap").proven_gap(self, other, resolution)

    def tight_bounds(self, resolution: int = 128) -> Box:
        """The axis-aligned box that the surface fills, to about 1e-5 of its diagonal. It is not
        certified: parts thinner than a cell may lie outside. Raises ValueError if the surface is
        empty."""
        return above("surface.solid").tight_bounds(self, resolution)
