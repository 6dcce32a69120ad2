"""The relief of a surface, and the local frequency of the relief from point to point.

The coarse shape is a polynomial fitted to the signed distance in a narrow band. Where the distance
is zero, the negative of the polynomial is the height of the surface over the coarse shape. This
height is the relief, a signal on the surface. Extended along smoothed normals, it is a signal in a
band, and an analysis spectrum is fitted to it. The spectrum's readings are first guesses for
`local_waves`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nstr3d.autodiff import gradient
from nstr3d.fields.base import Field
from nstr3d.spectrum.analysis import Analysis, AnalysisConfig, analyse, polynomial
from nstr3d.spectrum.localwave import LocalWaves, local_waves
from nstr3d.spectrum.reading import LocalSpectrum
from nstr3d.spectrum.sites import Sites

BAND = 0.1  # unit box: largest offset along each axis of the points that fit the coarse shape
DEGREE = 4  # of the coarse shape
NEIGHBOURS, ROUNDS = 32, 8  # of the smoothing of the normals
CHUNK = 1 << 12
CLEAR = 0.3  # least share of the relief under its window that a wave to be followed explains


@dataclass(frozen=True)
class Relief:
    """The relief of a surface at ``sites``, m places ``(m, 3)`` on it.

    ``heights (m, 1)`` are over the coarse shape, in units of the unit box. ``normals (m, 3)`` are
    the smoothed unit normals.
    """

    sites: Sites
    normals: Tensor
    heights: Tensor

    @property
    def points(self) -> Tensor:
        """The places ``(m, 3)`` of the sites."""
        return self.sites.places


@dataclass(frozen=True)
class ReliefWaves:
    """A relief, its ``analysis``, and the local ``spectrum`` and ``waves`` at ``points (n, 3)``.

    The points are the first n of the relief.
    """

    relief: Relief
    analysis: Analysis
    spectrum: LocalSpectrum
    waves: LocalWaves

    @property
    def points(self) -> Tensor:
        """The points ``(n, 3)`` at which the waves were read."""
        return self.relief.points[: len(self.waves.share)]

    @cached_property
    def sites(self) -> Sites:
        """The points with a search tree."""
        whole = len(self.points) == len(self.relief.sites)
        return self.relief.sites if whole else Sites(self.points)

    @property
    def clear(self) -> Tensor:
        """Where one wave explains enough of the relief to be followed, ``(n,)`` bool."""
        return (self.waves.share >= CLEAR) & (self.waves.amplitude > 0)


def surface_relief(field: Field, points: np.ndarray, generator: np.random.Generator) -> Relief:
    """The relief of the surface of ``field`` at ``points (m, 3)`` on it, in the unit box.

    ``generator`` draws the points of the band, to which the coarse shape is fitted.
    """
    places = torch.from_numpy(points.clip(-1, 1).astype(np.float32))
    near = (points + generator.uniform(-BAND, BAND, points.shape)).clip(-1, 1).astype(np.float32)
    band = torch.from_numpy(near)
    with torch.no_grad():
        distance, on = (
            torch.cat([field(part) for part in at.split(CHUNK)]) for at in (band, places)
        )
    slopes = torch.cat([gradient(field, part) for part in places.split(CHUNK)]).detach()
    normals = torch.nn.functional.normalize(slopes, dim=1)
    sites = Sites(places)
    return Relief(sites, smoothed(sites, normals), on - polynomial(band, distance, DEGREE)(places))


def smoothed(points: Tensor | Sites, normals: Tensor) -> Tensor:
    """Unit ``normals (m, 3)`` averaged repeatedly over the nearest of ``points (m, 3)``.

    Neighbours that face away do not count.
    """
    sites = Sites.of(points)
    near = torch.from_numpy(
        sites.tree.query(sites.places.numpy(), k=min(NEIGHBOURS, len(sites)))[1]
    ).reshape(len(sites), -1)
    for _ in range(ROUNDS):
        around = normals[near]
        facing = (around * normals[:, None]).sum(dim=2, keepdim=True) > 0
        normals = torch.nn.functional.normalize((around * facing).sum(dim=1), dim=1)
    return normals


def relief_waves(
    relief: Relief, config: AnalysisConfig, count: int, generator: np.random.Generator
) -> ReliefWaves:
    """Analyse the relief and read the waves at the first ``count`` of its points.

    ``generator`` draws the offsets along the normals. Raises ValueError if there is no relief,
    since the coarse shape represents the whole surface.
    """
    # The shell is as thick as a window of the finest level. A thinner shell cuts windows off, and a
    # thicker one leaves the grid's surface cells.
    shell = 0.75 * math.pi / config.highest * 4
    away = torch.from_numpy(
        generator.uniform(-shell, shell, (len(relief.points), 1)).astype(np.float32)
    )
    analysis = analyse((relief.points + away * relief.normals).clamp(-1, 1), relief.heights, config)
    at, normals = relief.points[:count], relief.normals[:count]
    parts = [analysis.spectrum(part) for part in at.split(CHUNK)]
    spectrum = LocalSpectrum(
        torch.cat([p.frequency for p in parts]), torch.cat([p.power for p in parts])
    )
    slowest = max(config.lowest, config.highest / 20)

    first = analysis.frequency(at)
    waves = local_waves(relief.sites, relief.heights, at, first, normals, slowest=slowest)
    return ReliefWaves(relief, analysis, spectrum, waves)


def spread(places: Tensor | Sites, vectors: Tensor, at: Tensor, count: int = 6) -> Tensor:
    """Interpolate a line field, known at ``places (m, d)``, at ``at (n, d)``.

    The result ``(n, d)`` is the mean of the nearest ``count`` vectors, turned towards the nearest
    one and weighted by inverse square distance. It is zero where the nearest vector is zero.
    """
    ranks = np.arange(1, min(count, len(places)) + 1)
    distance, near = Sites.of(places).tree.query(at.numpy(), k=ranks)
    weight = torch.from_numpy(1 / np.maximum(distance, 1e-6) ** 2).float()
    around = vectors[torch.from_numpy(near)]
    against = (around * around[:, :1]).sum(dim=2) < 0
    signed = torch.where(against, -weight, weight) * (around.square().sum(dim=2) > 0)
    mean = (signed[:, :, None] * around).sum(dim=1) / signed.abs().sum(
        dim=1, keepdim=True
    ).clamp_min(1e-30)
    return mean * (around[:, 0].square().sum(dim=1, keepdim=True) > 0)


def nearest(places: Tensor | Sites, at: Tensor) -> np.ndarray:
    """The indices ``(n,)`` of the ``places (m, d)`` that are nearest to ``at (n, d)``."""
    return np.asarray(Sites.of(places).tree.query(at.numpy())[1])


def across(vectors: Tensor, normals: Tensor) -> Tensor:
    """The part of ``vectors (n, d)`` perpendicular to the unit ``normals (n, d)``."""
    return vectors - (vectors * normals).sum(dim=1, keepdim=True) * normals
