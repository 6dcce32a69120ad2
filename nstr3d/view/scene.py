"""What viewers show: surfaces of models and meshes, lines on them, and how far one surface is from
another, as colours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.render.colours import colour_map
from nstr3d.sdf import Sdf, from_field
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit, lipschitz_estimate
from nstr3d.types import Box, Mesh, Polylines

LIFT = 0.002  # diagonals by which lines are raised off the surface that they are drawn on
NEAR = 0.02  # diagonals from the surface within which a point of a line belongs to it
SAMPLES = 1 << 14


@dataclass(frozen=True)
class Shape:
    """A surface to look at; ``fit`` where it is of a model."""

    name: str
    mesh: Mesh
    fit: Fit | None = None

    def sdf(self) -> Sdf:
        """Its signed distance in world units."""
        return MeshDistance(self.mesh).sdf() if self.fit is None else self.fit.sdf()


@dataclass(frozen=True)
class Curves:
    """Lines to look at, with ``colours (n, 3)`` in [0, 1] of their points."""

    name: str
    lines: Polylines
    colours: np.ndarray


class Muted(Field):
    """An NSTR field whose ``silent`` levels (indices) say nothing: their features are 0, and the
    decoder goes on without them."""

    def __init__(self, field: Nstr, silent: Collection[int]):
        super().__init__()
        self.field, self.silent = field, frozenset(silent)
        self.in_dim, self.out_dim = field.in_dim, field.out_dim

    def forward(self, points: Tensor) -> Tensor:
        levels = self.field.spectra
        nothing = (
            points[:, :1] * 0
        )  # of the points, so that there is a gradient where all levels are silent
        features = [
            nothing.expand(-1, level.config.features) if index in self.silent else level(points)
            for index, level in enumerate(levels)
        ]
        return self.field.decoder(torch.cat(features, dim=1))

    def rates(self) -> list[dict]:
        return self.field.rates()


def levels_of(fit: Fit) -> list[str]:
    """The names of a model's spectrum levels: cells, channels and waves of each; none for another
    kind of field."""
    if not isinstance(fit.field, Nstr):
        return []
    configs = [level.config for level in fit.field.spectra]
    waves = [f", {config.waves.count} waves" if config.waves else "" for config in configs]
    return [
        f"{config.resolution}³: {config.plain} plain{wave}" for config, wave in zip(configs, waves)
    ]


def muted(fit: Fit, silent: Collection[int]) -> Sdf:
    """The signed distance of a model without its ``silent`` levels; its Lipschitz bound is
    estimated anew."""
    if not silent or not isinstance(fit.field, Nstr):
        return fit.sdf()
    field = Muted(fit.field, silent)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(SAMPLES, 3, generator=generator) * 2 - 1
    return from_field(field, fit.frame, fit.bounds, lipschitz_estimate(field, points))


def surface(sdf: Sdf, resolution: int, level: float = 0.0) -> Mesh | None:
    """The level set as a mesh, or None where there is none that closes within the bounds."""
    try:
        return extract_mesh(sdf, resolution, level)
    except ValueError:
        return None


def error_colours(
    mesh: Mesh, distance: Callable[[np.ndarray], np.ndarray], limit: float | None = None
) -> tuple[np.ndarray, float]:
    """How far each vertex of ``mesh`` is from a surface, whose signed ``distance`` is given, as
    colours ``(v, 3)``: from dark violet for 0 to yellow for ``limit`` and beyond (by default what
    99% stay below), which is returned too."""
    error = np.abs(distance(mesh.vertices))
    limit = float(np.quantile(error, 0.99)) if limit is None else limit
    return colour_map(torch.from_numpy(error / max(limit, 1e-300))).numpy(), limit


def lifted(curves: Curves, sdf: Sdf) -> Curves:
    """``curves`` with the points that lie on the surface of ``sdf`` raised off it a little, so that
    it does not hide them."""
    points, size = curves.lines.points, sdf.bounds.diagonal
    near = np.abs(sdf(points)) < NEAR * size
    raised = points.copy()
    raised[near] += LIFT * size * sdf.normals(points[near])
    return replace(curves, lines=replace(curves.lines, points=raised))


def joint_box(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds all ``boxes``."""
    lower, upper = (
        np.min([box.lower for box in boxes], axis=0),
        np.max([box.upper for box in boxes], axis=0),
    )
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))


def box_of(points: np.ndarray) -> Box:
    """The bounds of ``points (n, 3)``."""
    return Box(tuple(points.min(axis=0).tolist()), tuple(points.max(axis=0).tolist()))
