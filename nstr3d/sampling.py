"""Samplers: where training points come from. A sampler has ``draw(count, generator) -> Samples``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from nstr3d.geometry.distance import MeshDistance
from nstr3d.geometry.surface import sample_surface
from nstr3d.types import Mesh, Samples


class Sampler(Protocol):
    """Anything that draws training data."""

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        """``count`` samples in random order, float32 on the CPU."""
        ...


@dataclass(frozen=True)
class SurfaceBand:
    """Signed distances of a mesh in the unit box: ``surface`` of the points on it, ``near`` of them moved off it by a Gaussian
    of standard deviation ``band``, the rest uniform in [-1, 1]^3.

    ``distance`` answers for ``mesh``; the shares are those of our trials.
    """

    mesh: Mesh
    distance: MeshDistance
    surface: float = 0.2
    near: float = 0.6
    band: float = 0.01

    def __post_init__(self):
        if min(self.surface, self.near) < 0 or self.surface + self.near > 1:
            raise ValueError(f"The shares surface {self.surface} and near {self.near} must be positive and sum to at most 1.")

    def draw(self, count: int, generator: np.random.Generator) -> Samples:
        on, near = round(count * self.surface), round(count * self.near)
        surface, _ = sample_surface(self.mesh, on + near, generator)
        generator.shuffle(surface)
        surface[on:] += self.band * generator.standard_normal((near, 3))
        volume = generator.uniform(-1, 1, (count - on - near, 3))
        points = np.concatenate([surface.clip(-1, 1), volume])
        values = np.concatenate([np.zeros(on), self.distance(points[on:])])
        order = generator.permutation(count)
        return Samples(
            torch.from_numpy(points[order].astype(np.float32)), torch.from_numpy(values[order, None].astype(np.float32))
        )
