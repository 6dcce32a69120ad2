"""Colours of numbers, and the conversion of linear light to display RGB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Colour = tuple[float, float, float]
GAMMA = 2.2  # exponent between linear light and display RGB

# The colour map "viridis" (van der Walt and Smith, 2015, CC0) at ten even steps, display RGB.
VIRIDIS = (
    (0.267, 0.004, 0.329),
    (0.282, 0.157, 0.471),
    (0.243, 0.290, 0.537),
    (0.192, 0.408, 0.557),
    (0.149, 0.510, 0.557),
    (0.122, 0.620, 0.537),
    (0.208, 0.718, 0.475),
    (0.427, 0.804, 0.349),
    (0.706, 0.871, 0.173),
    (0.992, 0.906, 0.145),
)
# Colours from hollow through flat to ridge, display RGB.
BLUE_TO_RED = (
    (0.08, 0.26, 0.62),
    (0.45, 0.66, 0.85),
    (0.93, 0.93, 0.91),
    (0.93, 0.58, 0.42),
    (0.70, 0.09, 0.15),
)


def colour_map(values: Tensor, stops: Sequence[Colour] = VIRIDIS) -> Tensor:
    """Colours ``(..., 3)`` of ``values (...)`` in [0, 1], linear between even ``stops``.

    Values outside [0, 1] have the colour of the nearest end.
    """
    table = values.new_tensor(stops)
    at = values.clamp(0, 1) * (len(stops) - 1)
    low = at.floor().long().clamp_max(len(stops) - 2)
    fraction = (at - low)[..., None]
    return table[low] * (1 - fraction) + table[low + 1] * fraction


def coloured(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Viridis colours ``(..., 3)`` float32 of ``values (...)``.

    ``low`` is dark violet and ``high`` is yellow.
    """
    return colour_map(torch.from_numpy((values - low) / max(high - low, 1e-30))).float().numpy()


def display(linear: Tensor) -> Tensor:
    """Display RGB of linear light, clamped to [0, 1]."""
    return linear.clamp(0, 1) ** (1 / GAMMA)
