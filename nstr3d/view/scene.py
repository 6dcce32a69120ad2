"""The objects that viewers show: surfaces of models and meshes, lines on them, and the distance
from one surface to another as colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.paint import NearestPaint
from nstr3d.render.colours import colour_map
from nstr3d.sdf import Sdf, from_field
from nstr3d.surface.extract import extract_mesh
from nstr3d.system import one_line
from nstr3d.training.fit import Fit, lipschitz_estimate
from nstr3d.types import Box, Mesh, Polylines

LIFT = 0.002  # distance, in diagonals, by which lines are raised off their surface
NEAR = 0.02  # a point of a line within this many diagonals of the surface lies on the surface
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
SAMPLES = 1 << 14  # points at which the Lipschitz bound is estimated


def literal(text: str) -> str:
    """Markdown that shows ``text``, such as the name of a file, letter by letter, so that a name
    can neither load a picture nor run a program on the page."""
    return PUNCTUATION.sub(r"\\\1", one_line(text))


@dataclass(frozen=True)
class Shape:
    """A surface to show, in world units. ``fit`` is the model of the surface, if there is one, and
    ``paint`` the colours of a mesh, if it has any."""

    name: str
    mesh: Mesh
    fit: Fit | None = None
    paint: NearestPaint | None = None

    def sdf(self) -> Sdf:
        """The signed distance of the surface in world units."""
        if self.fit is not None:
            return self.fit.sdf()
        sdf = MeshDistance(self.mesh).sdf()
        return sdf if self.paint is None else replace(sdf, paint=self.paint.colour)

    def colours(self, mesh: Mesh) -> np.ndarray | None:
        """Display RGB ``(v, 3)`` of the vertices of ``mesh``, a level set of the model; None if
        there is no model with colours."""
        if self.fit is None or self.fit.colour_field is None:
            return None
        return self.fit.sdf().colour(mesh.vertices)


@dataclass(frozen=True)
class Curves:
    """Lines to show in world units, with ``colours (n, 3)`` in [0, 1] of their points."""

    name: str
    lines: Polylines
    colours: np.ndarray


class Muted(Field):
    """An NSTR field in which the features of the levels with the indices ``silent`` are 0."""

    def __init__(self, field: Nstr, silent: Collection[int]):
        super().__init__()
        self.field, self.silent = field, frozenset(silent)
        self.in_dim, self.out_dim = field.in_dim, field.out_dim

    def forward(self, points: Tensor) -> Tensor:
        levels = self.field.spectra
        nothing = (
            points[:, :1] * 0
        )  # depends on the points, so that a gradient exists even if all levels are silent
        features = [
            nothing.expand(-1, level.config.features) if index in self.silent else level(points)
            for index, level in enumerate(levels)
        ]
        return self.field.decoder(torch.cat(features, dim=1))

    def rates(self) -> list[dict]:
        return self.field.rates()


def levels_of(fit: Fit) -> list[str]:
    """The names of a model's spectrum levels, which give the cells, plain channels and waves. Empty
    for a field that is not an NSTR field."""
    if not isinstance(fit.field, Nstr):
        return []
    configs = [level.config for level in fit.field.spectra]
    waves = [f", {config.waves.count} waves" if config.waves else "" for config in configs]
    return [
        f"{config.resolution}³: {config.plain} plain{wave}" for config, wave in zip(configs, waves)
    ]


def muted(fit: Fit, silent: Collection[int]) -> Sdf:
    """The signed distance of a model without the levels with the indices ``silent``. Its Lipschitz
    bound is estimated at random points."""
    if not silent or not isinstance(fit.field, Nstr):
        return fit.sdf()
    field = Muted(fit.field, silent)
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(SAMPLES, 3, generator=generator) * 2 - 1
    return from_field(field, fit.frame, fit.bounds, lipschitz_estimate(field, points))


def surface(sdf: Sdf, resolution: int, level: float = 0.0) -> Mesh | None:
    """The level set of ``sdf`` at ``level`` (world units) as a mesh, or None if `extract_mesh`
    raises ValueError, for example because no surface closes within the bounds."""
    try:
        return extract_mesh(sdf, resolution, level)
    except ValueError:
        return None


def error_colours(
    mesh: Mesh, distance: Callable[[np.ndarray], np.ndarray], limit: float | None = None
) -> tuple[np.ndarray, float]:
    """Colours ``(v, 3)`` in [0, 1] of the distance of each vertex of ``mesh`` from another surface.

    ``distance`` is the signed distance of the other surface, and its absolute value is coloured
    from dark violet for 0 to yellow for ``limit`` and above. By default, ``limit`` is the 99%
    quantile. The function also returns the limit.
    """
    error = np.abs(distance(mesh.vertices))
    limit = float(np.quantile(error, 0.99)) if limit is None else limit
    return colour_map(torch.from_numpy(error / max(limit, 1e-300))).numpy(), limit


def lifted(curves: Curves, sdf: Sdf) -> Curves:
    """``curves`` whose points on the surface of ``sdf`` are raised by `LIFT` along the normals, so
    that the surface does not hide the curves."""
    points, size = curves.lines.points, sdf.bounds.diagonal
    near = np.abs(sdf(points)) < NEAR * size
    raised = points.copy()
    raised[near] += LIFT * size * sdf.normals(points[near])
    return replace(curves, lines=replace(curves.lines, points=raised))


def joint_box(boxes: Sequence[Box]) -> Box:
    """The smallest box that contains all ``boxes``."""
    lower, upper = (
        np.min([box.lower for box in boxes], axis=0),
        np.max([box.upper for box in boxes], axis=0),
    )
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))


def box_of(points: np.ndarray) -> Box:
    """The axis-aligned bounding box of ``points (n, 3)``."""
    return Box(tuple(points.min(axis=0).tolist()), tuple(points.max(axis=0).tolist()))
