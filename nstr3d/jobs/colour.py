"""The colours of a shape: a second field on its frame, trained on coloured points."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import NstrConfig
from nstr3d.geometry.cloud.shades import between
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.paint import sample_paint
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.io.paint import Paint
from nstr3d.jobs.colouroptions import Colours
from nstr3d.jobs.fitting import Placed
from nstr3d.jobs.messages import Message
from nstr3d.jobs.options import Training
from nstr3d.sdf import Sdf
from nstr3d.signals.ratios import psnr
from nstr3d.training.detail import suited_colours
from nstr3d.training.fit import fit
from nstr3d.training.losses import ValueObjective
from nstr3d.training.presets import COLOUR_STEPS, PRESETS, sized_colours
from nstr3d.types import Mesh, PointCloud, Samples

HELD_OUT = 50_000  # surface samples that are measured and not trained on, at most a tenth
DRAWN = COLOUR_STEPS.pool + HELD_OUT
FEWEST = 100  # coloured points on the surface, with which a field can be trained
AWAY = 0.01  # sides of the box; paint that is farther from the fitted surface is not on it
POOR = 20.0  # dB; a worse ratio is told
SPARSE = 30_000  # scattered points, of which fewer are learnt by heart, and not between them
FILLERS = 100_000  # interpolated samples that are added to them, a quarter of all
HIDDEN = 0.02  # share of the paint that may be off the fitted surface without a warning


@dataclass(frozen=True)
class Coloured:
    """The trained ``field`` of colours, with what the report says of it, and whether training was
    ``interrupted``.

    ``held_out`` are coloured world points ``(n, 3)`` and their display RGB ``(n, 3)``. ``away`` is
    the share of the coloured points that are not on the fitted surface.
    """

    field: Field
    source: str
    held_out: tuple[np.ndarray, np.ndarray]
    away: float
    samples: int
    seconds: float
    interrupted: bool

    def describe(self, sdf: Sdf) -> dict[str, Any]:
        """The report's entry for the fitted shape ``sdf`` with its colours. The ratio ``psnr`` in
        dB is of the colours at the points of the fitted surface that are closest to the held out
        ones, None if they are equal."""
        points, wanted = self.held_out
        ratio = psnr(sdf.colour(points), wanted, 1.0)
        return {
            "source": self.source,
            "parameters": self.field.parameter_count,
            "psnr": ratio if math.isfinite(ratio) else None,
            "away": self.away,
            "samples": self.samples,
            "seconds": self.seconds,
        }


def unknown_warnings(cloud: PointCloud) -> list[str]:
    """A warning if some points of ``cloud`` have colours and others do not."""
    if cloud.colours is None:
        return []
    unknown = int((~np.isfinite(cloud.colours.sum(axis=1))).sum())
    if not unknown:
        return []
    return [f"{unknown:,} of {len(cloud.points):,} points have no finite colour; others stand in."]


def poor_warnings(about: Mapping[str, Any] | None) -> list[str]:
    """A warning if the report's entry ``about`` colours says that they are far from the input's."""
    ratio = None if about is None else about["psnr"]
    if ratio is None or ratio >= POOR:
        return []
    text = "The colours are {:.1f} dB from those of the input only; allow more <colour_params>."
    return [Message(text, ratio)]


def away_warnings(coloured: Coloured) -> list[str]:
    """A warning if part of the paint is not on the fitted surface."""
    if coloured.away <= HIDDEN:
        return []
    return [
        f"{coloured.away:.0%} of the coloured surface is not on the fitted one, such as parts "
        "inside or parts that were left out, and gives no colours."
    ]


@dataclass(frozen=True)
class Shades:
    """World ``points (n, 3)`` on or near a surface, their display ``colours (n, 3)``, and a few
    words on where the colours were. ``scattered`` points are all there is of the colours; others
    were drawn from a painted surface."""

    points: np.ndarray
    colours: np.ndarray
    source: str
    scattered: bool = False

    @staticmethod
    def of_paint(paint: Paint, seed: int) -> Shades:
        """Samples of a painted surface."""
        generator = np.random.default_rng([seed, 5])
        return Shades(*sample_paint(paint, DRAWN, generator), paint.source)

    @staticmethod
    def of_cloud(cloud: PointCloud, seed: int) -> Shades | None:
        """The points of a cloud whose colours are known, at most as many as are used; None if
        there are none, or all have one grey."""
        if cloud.colours is None:
            return None
        known = np.isfinite(cloud.points).all(axis=1) & np.isfinite(cloud.colours).all(axis=1)
        which = np.random.default_rng([seed, 5]).permutation(np.flatnonzero(known))[:DRAWN]
        if not len(which) or np.ptp(cloud.colours[which]) < 1 / 255:
            return None
        return Shades(cloud.points[which], cloud.colours[which], "points", scattered=True)


def fit_colours(
    shades: Shades,
    placed: Placed,
    distance: MeshDistance,
    options: Colours,
    training: Training,
    device: torch.device,
    thickness: float = 0.0,
) -> Coloured:
    """Trains a field of colours on the ``shades`` that lie on the fitted surface ``placed``, to
    which ``distance`` is measured in the unit box. ``thickness``, in world units, is that of open
    surfaces that became sheets: both of their sides have the colours of the middle.

    Raises ValueError if hardly any of them is on the surface or the budget is too small.
    """
    started, seed, half = time.perf_counter(), training.seed, thickness / 2 / placed.frame.scale
    if len(shades.points) < FEWEST:
        raise ValueError(f"{len(shades.points)} points have colours; {FEWEST} are needed")
    unit = placed.frame.to_unit(shades.points)
    far, _, closest = distance.nearest(unit)
    on = np.flatnonzero(far < 2 * AWAY + half)
    if len(on) < FEWEST:
        raise ValueError("hardly any of the coloured points is on the fitted surface")
    points, colours, places = shades.points[on], shades.colours[on], closest[on]
    held = min(HELD_OUT, len(on) // 10)
    known, trained_on = places[held:], colours[held:]
    if half:
        known = np.concatenate([known, 2 * unit[on][held:] - known])
        trained_on = np.concatenate([trained_on, trained_on])
    size = _sized(options, training, placed, known, trained_on)
    count = len(known)
    if shades.scattered and count < SPARSE:
        known, trained_on = _filled(known, trained_on, distance.mesh, seed)
    pool = Samples(*(torch.tensor(each, dtype=torch.float32) for each in (known, trained_on)))
    generator = torch.Generator().manual_seed(seed)
    field = size.build(3, 3, near=placed.vicinity, generator=generator).to(device)
    config = replace(COLOUR_STEPS, seed=seed, batch=min(COLOUR_STEPS.batch, len(pool)))
    trained = fit(field, pool, ValueObjective(), config)
    return Coloured(
        trained.field,
        shades.source,
        (points[:held], colours[:held]),
        1 - len(on) / len(far),
        count,
        time.perf_counter() - started,
        trained.interrupted,
    )


def _sized(
    options: Colours, training: Training, placed: Placed, points: np.ndarray, colours: np.ndarray
) -> NstrConfig:
    """The field of as many parameters as ``options`` ask for, or as the detail asks for."""
    if options.colour_params:
        return sized_colours(options.colour_params, placed.vicinity)
    most = training.params or PRESETS[training.preset].params
    return suited_colours(most, placed.vicinity, points, colours)


def _filled(
    points: np.ndarray, colours: np.ndarray, surface: Mesh, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Repeated ``points (n, 3)`` with their ``colours``, and, a quarter of all, places of the
    ``surface`` between them with interpolated colours."""
    places, _ = sample_surface(surface, FILLERS, np.random.default_rng([seed, 6]))
    times = math.ceil(3 * FILLERS / len(points))
    return (
        np.concatenate([*[points] * times, places]),
        np.concatenate([*[colours] * times, between(points, colours, places)]),
    )
