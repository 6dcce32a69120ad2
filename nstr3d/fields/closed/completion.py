"""Fills in missing samples of a picture or a sound by iterated thresholding of their lapped cosine
transform.

Each round sets the amplitudes below a threshold to zero and restores the known samples. The
threshold falls from round to round, beginning at the largest amplitude (Elad, Starck, Querre and
Donoho, "Simultaneous cartoon and texture image inpainting", 2005).
"""

from __future__ import annotations

import numpy as np

from nstr3d.fields.closed.cosinefit import fitting, principal_axes
from nstr3d.fields.closed.cosines import CosineConfig, analyse_all, synthesise_all

ROUNDS = 60
LOWEST = 2e-3  # the last threshold, as a fraction of the first round's largest amplitude
HOP = {1: 1024, 2: 16}  # default hop in samples, by number of axes


def fill(
    values: np.ndarray, known: np.ndarray, hop: int | None = None, rounds: int = ROUNDS
) -> np.ndarray:
    """``values (*shape, c)`` float32 with the samples where the bool array ``known (*shape)`` is
    false replaced by a sparse continuation.

    ``hop`` is that of the cosine transform in samples, by default `HOP` for the number of axes.
    ``rounds`` is the number of thresholds. Raises ValueError if no sample is known.
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
