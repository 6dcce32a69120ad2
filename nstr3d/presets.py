"""How much to spend: a preset is a parameter budget and a training length; `sized_nstr` makes a field for any budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.spectrum import LevelConfig, stored_nodes, surface_lattice
from nstr3d.fields.waves import PhaseWaves
from nstr3d.fit import FitConfig
from nstr3d.types import Mesh

SMALLEST, LARGEST = 4, 512  # cells per axis of the finest level


@dataclass(frozen=True)
class Preset:
    """A budget of learned parameters and how to train them."""

    params: int
    training: FitConfig


FAST = Preset(100_000, FitConfig(steps=700, pool=500_000))
STANDARD = Preset(100_000, FitConfig(steps=8000))
FINE = Preset(400_000, FitConfig(steps=20000, pool=4_000_000))
PRESETS = {"fast": FAST, "standard": STANDARD, "fine": FINE}


def levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The three levels of the default field when the finest has ``finest`` cells per axis: phase waves on the finest."""
    return (
        LevelConfig(max(2, round(finest / 4)), plain=8, sparse=False),
        LevelConfig(max(3, round(finest / 2)), plain=8),
        LevelConfig(finest, plain=10, waves=PhaseWaves(6)),
    )


def sized_nstr(params: int, near: Mesh | np.ndarray) -> NstrConfig:
    """The default field near a shape, its resolution the finest whose learned parameters do not exceed ``params``.

    Raises ValueError for a budget below that of the coarsest field, saying what that takes.
    """
    points = surface_lattice(near, 4 / LARGEST) if isinstance(near, Mesh) else near
    template = NstrConfig()

    def cost(finest: int, shape: Mesh | np.ndarray = points) -> int:
        levels = levels_for(finest)
        tables = sum(int(stored_nodes(level, points.shape[1], shape).sum()) * level.channels for level in levels)
        features = sum(level.features for level in levels)
        return tables + (features + 2) * template.hidden + 1

    if params < cost(SMALLEST):
        raise ValueError(f"A budget of {params} parameters is too small for this shape; it takes at least {cost(SMALLEST)}.")
    # Cost grows about with the square of the resolution: a few guesses by that rule bracket the answer.
    low, high, guess = SMALLEST, LARGEST, 32
    while high - low > 1:
        spent = cost(guess)
        low, high = (guess, high) if spent <= params else (low, guess)
        guess = min(max(round(guess * math.sqrt(params / spent)), low + 1), high - 1)
    while low > SMALLEST and cost(low, near) > params:  # the lattice is coarser than the finest levels' cells
        low -= 1
    return replace(template, levels=levels_for(low))
