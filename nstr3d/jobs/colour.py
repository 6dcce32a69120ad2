"""The colours of a shape: a second field on its frame, trained on its painted surface."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nstr3d.fields.base import Field
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.paint import sample_paint
from nstr3d.io.paint import Paint
from nstr3d.jobs.fitting import Placed
from nstr3d.jobs.options import Colours, Training
from nstr3d.sdf import Sdf
from nstr3d.signals.ratios import psnr
from nstr3d.training.fit import fit
from nstr3d.training.losses import ValueObjective
from nstr3d.training.presets import COLOUR_STEPS, sized_colours
from nstr3d.types import Samples

HELD_OUT = 50_000  # surface samples that are measured and not trained on
AWAY = 0.01  # sides of the box; paint that is farther from the fitted surface is not on it
HIDDEN = 0.02  # share of the paint that may be off the fitted surface without a warning


@dataclass(frozen=True)
class Coloured:
    """The trained ``field`` of colours, with what the report says of it.

    ``held_out`` are world points ``(n, 3)`` on the painted surface and their display RGB ``(n,
    3)``. ``away`` is the share of the paint that is not on the fitted surface.
    """

    field: Field
    source: str
    held_out: tuple[np.ndarray, np.ndarray]
    away: float
    samples: int
    seconds: float

    def describe(self, sdf: Sdf) -> dict[str, Any]:
        """The report's entry for the fitted shape ``sdf`` with its colours. The ratio ``psnr`` in
        dB is of the colours at the points of the fitted surface that are closest to the held out
        ones."""
        points, wanted = self.held_out
        return {
            "source": self.source,
            "parameters": self.field.parameter_count,
            "psnr": psnr(sdf.colours(points), wanted, 1.0),
            "away": self.away,
            "samples": self.samples,
            "seconds": self.seconds,
        }


def away_warnings(coloured: Coloured) -> list[str]:
    """A warning if part of the paint is not on the fitted surface."""
    if coloured.away <= HIDDEN:
        return []
    return [
        f"{coloured.away:.0%} of the coloured surface is not on the fitted one, such as parts "
        "inside or parts that were left out, and gives no colours."
    ]


def fit_colours(
    paint: Paint,
    placed: Placed,
    distance: MeshDistance,
    options: Colours,
    training: Training,
    device: torch.device,
) -> Coloured:
    """Trains a field of colours on samples of ``paint`` that lie on the fitted surface ``placed``,
    to which ``distance`` is measured in the unit box.

    Raises ValueError if no paint is on the surface or the budget is too small.
    """
    started, seed = time.perf_counter(), training.seed
    count = COLOUR_STEPS.pool + HELD_OUT
    points, colours = sample_paint(paint, count, np.random.default_rng([seed, 5]))
    unit = placed.frame.to_unit(points)
    on = np.flatnonzero(np.isfinite(unit).all(axis=1))
    on = on[distance.unsigned(unit[on]) < 2 * AWAY]
    if len(on) < 2 * COLOUR_STEPS.batch:
        raise ValueError("hardly any of the coloured surface is on the fitted one")
    points, colours, unit = points[on], colours[on], unit[on]
    held = len(points) * HELD_OUT // count
    pool = Samples(*(torch.tensor(each[held:], dtype=torch.float32) for each in (unit, colours)))
    size = sized_colours(options.budget(training), placed.vicinity)
    generator = torch.Generator().manual_seed(seed)
    field = size.build(3, 3, near=placed.vicinity, generator=generator).to(device)
    config = replace(COLOUR_STEPS, seed=seed)
    trained = fit(field, pool, ValueObjective(), config)
    return Coloured(
        trained.field,
        paint.source,
        (points[:held], colours[:held]),
        1 - len(on) / count,
        len(pool),
        time.perf_counter() - started,
    )
