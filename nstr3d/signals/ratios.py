"""Signal-to-noise ratios of pictures and sounds, in dB."""

from __future__ import annotations

import math

import numpy as np

CHUNK = 1 << 16  # values whose squares are summed at a time


def psnr(estimate: np.ndarray, reference: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio in dB, ``10 log10(peak^2 / mean squared error)``.

    It is infinite if the arrays are equal.
    """
    return _decibels(peak**2, _mean_square(estimate, reference))


def snr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, ``10 log10(mean reference^2 / mean squared error)``.

    It is infinite if the arrays are equal. Raises ValueError if the reference is zero throughout.
    """
    power = _mean_square(reference)
    if power == 0:
        raise ValueError(
            "the reference signal is zero throughout, so a signal-to-noise ratio has no meaning"
        )
    return _decibels(power, _mean_square(estimate, reference))


def _mean_square(values: np.ndarray, reference: np.ndarray | None = None) -> float:
    """Mean square of ``values``, or of ``values - reference``.

    The sum is in double precision and in chunks.
    """
    flat, other = np.ravel(values), None if reference is None else np.ravel(reference)
    total = 0.0
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        if other is not None:
            part -= other[start : start + CHUNK]
        total += float(np.dot(part, part))
    return total / len(flat)


def _decibels(signal: float, noise: float) -> float:
    return 10 * math.log10(signal / noise) if noise else math.inf
