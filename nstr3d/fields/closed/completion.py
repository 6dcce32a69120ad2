"""Filling in missing samples of a picture or a sound: iterated thresholding in the staggered cosine
frame.

Each round keeps the amplitudes above a threshold that falls from the largest to the smallest, and
puts the known samples back (Elad, Starck, Querre and Donoho, "Simultaneous cartoon and texture
image inpainting", 2005).
"""

from __future__ import annotations

import numpy as np

from nstr3d.fields.closed.cosinefit import fitting, principal_axes
from nstr3d.fields.closed.cosines import CosineConfig, analyse_all, synthesise_all

ROUNDS = 60
LOWEST = 2e-3  # of the largest amplitude: the last threshold
HOP = {1: 1024, 2: 16}  # per number of axes


def fill(
    values: np.ndarray, known: np.ndarray, hop: int | None = None, rounds: int = ROUNDS
) -> np.ndarray:
    """``values (*shape, c)`` float32 where ``known (*shape)`` is true, and the sparsest
    continuation found elsewhere.

    Raises ValueError where nothing is known.
    """
    if not known.any():
        raise ValueError("The mask hides every sample, so there is nothing to continue.")
    shape = values.shape[:-1]
    hops = tuple(fitting(n, hop or HOP[len(shape)]) for n in shape)
    config = CosineConfig(shape, hops, smooth=len(shape) == 1)
    offset, colours = principal_axes(values[known])
    filled = np.where(known[..., None], values, offset).astype(np.float32)
    highest = 0.0
    for index in range(rounds):
        table = analyse_all(filled, config, offset, colours)
        highest = highest or float(np.abs(table).max())
        table[np.abs(table) < highest * LOWEST ** (index / max(1, rounds - 1))] = 0
        planes = table.reshape(values.shape[-1], *config.hops, *config.blocks)
        guess = (
            np.stack([synthesise_all(plane, config, 1) for plane in planes], axis=-1) @ colours.T
            + offset
        )
        filled = np.where(known[..., None], filled, guess)
    return filled
