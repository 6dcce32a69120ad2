"""Presets of parameter budgets and training lengths, and fields sized to any budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nstr3d.fields.baselines.fourier import sized_fourier
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import sized_siren
from nstr3d.fields.level import LevelConfig, stored_nodes
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.vicinity import Near, Vicinity
from nstr3d.fields.waves import PhaseWaves
from nstr3d.training.fit import FitConfig

SMALLEST, LARGEST = 2, 512  # cells per axis of the finest level


@dataclass(frozen=True)
class Preset:
    """A budget of learned parameters and a training configuration."""

    params: int
    training: FitConfig


FAST = Preset(100_000, FitConfig(steps=700, pool=500_000))
STANDARD = Preset(100_000, FitConfig(steps=8000))
FINE = Preset(400_000, FitConfig(steps=20000, pool=4_000_000))
PRESETS = {"fast": FAST, "standard": STANDARD, "fine": FINE}


COLOURS = NstrConfig(start=None)  # there is no distance to start from
COLOUR_STEPS = FitConfig(steps=2000, batch=4096, pool=500_000)


def levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The levels of the default field, with ``finest`` cells per axis on the finest level.

    All levels are quadratic B-splines, and the finest level has phase waves. A second dense level,
    of one channel, holds the ridges of the distance far from the surface: without it the error
    there doubles. It has 3/4 of the finest cells per axis, or 1/2 in large fields, where more would
    leave too few parameters near the surface.
    """
    coarse, middle = max(2, round(finest / 4)), max(3, round(finest / 2))
    large = coarse >= 12
    ridges = middle if large else max(3, round(finest * 3 / 4))
    return (
        LevelConfig(coarse, plain=8, sparse=False, order=2),
        LevelConfig(middle, plain=8 if large else 6, order=2),
        LevelConfig(ridges, plain=1, sparse=False, order=2),
        LevelConfig(finest, plain=6, waves=PhaseWaves(8), order=2),
    )


def plain_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """Levels without waves, with ``finest`` cells per axis on the finest level.

    They are a control for the waves: the best plain grid that we have.
    """
    return (
        LevelConfig(max(2, round(finest / 8)), plain=8, sparse=False, order=2),
        LevelConfig(max(3, round(finest / 4)), plain=8, order=2),
        LevelConfig(max(4, round(finest / 2)), plain=10, order=2),
        LevelConfig(max(5, finest), plain=3, order=2),
    )


def sized_nstr(
    params: int,
    near: Near,
    levels_for: Callable[[int], tuple[LevelConfig, ...]] = levels_for,
    template: NstrConfig | None = None,
    out_dim: int = 1,
) -> NstrConfig:
    """Fill ``template`` with the finest levels whose learned parameters do not exceed ``params``.

    ``template`` defaults to the default field. ``near`` is the shape near which sparse levels store
    nodes. ``levels_for`` gives the levels for a number of cells per axis, and ``out_dim`` is the
    number of values. Raises ValueError if the budget is below that of the coarsest field; the
    message names the smallest budget.
    """
    template, vicinity = template or NstrConfig(), Vicinity.of(near)

    def cost(finest: int) -> int:
        levels = levels_for(finest)
        stored = [int(stored_nodes(level, vicinity.dim, vicinity).sum()) for level in levels]
        tables = sum(nodes * level.channels for nodes, level in zip(stored, levels))
        features = sum(level.features for level in levels)
        decoder = (features + 1 + out_dim) * template.hidden + out_dim
        return tables + (decoder if template.hidden else 0)

    if params < cost(SMALLEST):
        raise ValueError(
            f"A budget of {params} parameters is too small for this shape; it takes at least "
            f"{cost(SMALLEST)}."
        )
    # The cost grows about with the square of the resolution, so a few guesses by this rule bracket
    # the answer.
    low, high, guess = SMALLEST, LARGEST, 32
    while high - low > 1:
        spent = cost(guess)
        low, high = (guess, high) if spent <= params else (low, guess)
        guess = min(max(round(guess * math.sqrt(params / spent)), low + 1), high - 1)
    return replace(template, levels=levels_for(low))


def colour_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The levels of a field of colours, with ``finest`` cells per axis on the finest level. All
    are sparse, as colours are asked for on the surface alone."""
    return (
        LevelConfig(max(2, round(finest / 4)), plain=4, order=2),
        LevelConfig(max(3, round(finest / 2)), plain=3, order=2),
        LevelConfig(finest, plain=1, waves=PhaseWaves(8), order=2),
    )


def sized_colours(params: int, near: Near) -> NstrConfig:
    """A field of three colours on the surface of ``near``; raises as `sized_nstr`."""
    return sized_nstr(params, near, colour_levels_for, COLOURS, out_dim=3)


def sized_grid(params: int, near: Near) -> NstrConfig:
    """A sparse multi-level feature grid and decoder without waves.

    It is the control for the contribution of the sinusoids.
    """
    return sized_nstr(params, near, plain_levels_for)


def sized_tuned_ngp(params: int, near: Near) -> NgpConfig:
    """Instant-NGP with the levels and the rate that measured best for distances.

    Three budgets were measured; the one nearest to ``params`` decides.
    """
    budget = min(TUNED_NGP, key=lambda tuned: abs(math.log(params / tuned)))
    return sized_ngp(params, near, template=TUNED_NGP[budget])


def changed(size: Callable[..., Any], **changes: Any) -> Callable[[int, Near], Any]:
    """A function like ``size`` that applies ``changes`` to the configurations it makes."""
    return lambda params, near: replace(size(params, near), **changes)


# The settings that `apps/benchmark.py --tune` found best on our bunny and Nefertiti; its rows are
# in assets/results/tuning.csv.
TUNED_NGP = {
    25_000: NgpConfig(levels=6, finest=64, table_rate=3e-2),
    100_000: NgpConfig(levels=8, finest=64, table_rate=3e-2),
    400_000: NgpConfig(levels=8, finest=64, table_rate=3e-2),
}
FIELDS: dict[str, Callable[[int, Near], Any]] = {
    "nstr": sized_nstr,
    "grid": sized_grid,
    "ngp": sized_tuned_ngp,
    "siren": changed(sized_siren, rate=1e-3),
    "fourier": changed(sized_fourier, rate=3e-3, deviation=5.0),
}
