"""Samplers of training points. A sampler has ``draw(count, generator) -> Samples``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.types import Lattice, Mesh, Samples, expect


class Sampler(Protocol):
    """Anything that draws training data."""

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        """``count`` samples in random order, float32 on the CPU."""
        ...


@dataclass(frozen=True)
class SurfaceBand:
    """Signed distances of a mesh in the unit box, at points on, near and around its surface.

    The fraction ``surface`` of the points is on the surface. The fraction ``near`` is moved off it
    by a Gaussian of standard deviation ``band``, and the fraction ``around`` by a Gaussian of
    standard deviation ``halo``. The fraction ``ridges`` is uniform in [-1, 1]^3 and then moved away
    from the surface by a random part of its distance, which takes many of them to the ridges of the
    distance: coarse cells round these off. The other points are uniform. ``distance`` is the signed
    distance of ``mesh``. The fraction ``sloped`` of all samples, but at most the near samples, has
    the gradient of the distance, which ``distance`` returns with the nearest point.
    The halo is as wide as the cells of the finest level: without it, the far corners of these cells
    see too few samples, and the field can cross zero there, off the surface. Raises ValueError if a
    fraction is out of range.
    """

    mesh: Mesh
    distance: MeshDistance
    surface: float = 0.19
    near: float = 0.47
    around: float = 0.14
    band: float = 0.01
    halo: float = 0.05
    sloped: float = 0.25
    ridges: float = 0.06

    def __post_init__(self):
        expect(self.mesh, Mesh, "mesh")
        if not callable(self.distance):
            raise TypeError(
                f"distance must be a function of points, not {type(self.distance).__name__}."
            )
        if not 0 <= self.sloped <= 1:
            raise ValueError(
                f"The share of samples with a gradient must be from 0 to 1, not {self.sloped}."
            )
        fractions = (self.surface, self.near, self.around, self.ridges)
        if min(fractions) < 0 or sum(fractions) > 1:
            raise ValueError(
                f"The shares {fractions} of samples on, near and around the surface and at ridges "
                "must not be negative, and their sum must not exceed 1."
            )

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        on, near, around = (
            round(count * fraction) for fraction in (self.surface, self.near, self.around)
        )
        surface, _ = sample_surface(self.mesh, on + near + around, generator)
        generator.shuffle(surface)
        surface[on:] += (
            generator.standard_normal((near + around, 3))
            * np.repeat([self.band, self.halo], [near, around])[:, None]
        )
        volume = generator.uniform(-1, 1, (count - len(surface), 3))
        points = np.concatenate([surface.clip(-1, 1), volume])
        distance, slope = self.distance.value_and_gradient(points[on:])
        if ridges := round(count * self.ridges):
            away = distance[-ridges:, None] * slope[-ridges:]
            moved = points[-ridges:] + generator.uniform(0, 1, (ridges, 1)) * away
            points[-ridges:] = moved.clip(-1, 1)
            distance[-ridges:] = self.distance(points[-ridges:])
        values, gradients = np.zeros((count, 1)), np.zeros((count, 3))
        values[on:, 0] = distance
        sloped = min(round(count * self.sloped), near)
        gradients[on : on + sloped] = slope[:sloped]
        order = generator.permutation(count)
        points, values, gradients = (
            torch.from_numpy(each[order].astype(np.float32)) for each in (points, values, gradients)
        )
        return Samples(points, values, gradients if sloped else None)


@dataclass(frozen=True)
class Raster:
    """Samples of an image or a sound, ``values (*shape, c)`` at the points of a lattice.

    They are drawn uniformly and with repetition where ``known (*shape)`` is true (everywhere if
    None). Raises ValueError if the mask does not fit, no value is known, or a known value is not
    finite.
    """

    values: np.ndarray
    known: np.ndarray | None = None

    def __post_init__(self):
        expect(self.values, np.ndarray, "values")
        if self.values.ndim < 2 or self.values.size == 0:
            raise ValueError(f"values must have the shape (*shape, c), not {self.values.shape}.")
        if self.known is not None and (
            self.known.shape != self.values.shape[:-1] or self.known.dtype != bool
        ):
            raise ValueError(
                f"The mask must be bool of the samples' shape {self.values.shape[:-1]}, not "
                f"{self.known.dtype} of shape {self.known.shape}."
            )
        if self.known is not None and not self.known.any():
            raise ValueError("The mask hides every sample, so there is nothing to fit.")
        if not np.isfinite(self.values if self.known is None else self.values[self.known]).all():
            raise ValueError(
                "The samples hold values that are not finite; replace them, or mask them out."
            )

    @property
    def lattice(self) -> Lattice:
        """The lattice of the samples."""
        return Lattice(self.values.shape[:-1])

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        if self.known is None:
            index = generator.integers(0, self.lattice.size, count)
        else:
            index = generator.choice(np.flatnonzero(self.known), count)
        values = self.values.reshape(-1, self.values.shape[-1])[index]
        points = self.lattice.points(index)
        return Samples(
            torch.from_numpy(points.astype(np.float32)), torch.from_numpy(values.astype(np.float32))
        )
