"""Structural similarity of two pictures and spectral errors between two sounds.

Signal-to-noise ratios are in `nstr3d.signals.ratios`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nstr3d.signals.spectrogram import magnitudes, window_starts

WINDOW = 11  # taps of the Gaussian window of the structural similarity
DEVIATION = 1.5  # standard deviation of this window in pixels
STABILISERS = (0.01**2, 0.03**2)  # constants C1 and C2 of the similarity for peak 1
ROWS = 64  # rows of windows compared at a time
SIZES = (512, 1024, 2048)  # sizes of the windows of the spectral errors, in samples
FRAMES = 1 << 21  # samples whose spectra are compared at a time
# Magnitudes below this fraction of the reference's largest sample count as silence (-100 dB).
FLOOR = 1e-5


@dataclass(frozen=True)
class SpectralError:
    """Two errors between magnitude spectrograms |E| of an estimate and |R| of a reference.

    ``convergence`` is the norm of |E| - |R| divided by the norm of |R|. ``log_magnitude`` is the
    mean of | 20 log10 |E| / |R| | in dB, where magnitudes below `FLOOR` times the largest sample of
    the reference are raised to this value. Both are means over the window sizes `SIZES` (Yamamoto,
    Song and Kim, "Parallel WaveGAN", 2020).
    """

    convergence: float
    log_magnitude: float


def ssim(estimate: np.ndarray, reference: np.ndarray) -> float | None:
    """Mean structural similarity of ``(h, w, c)`` pictures with peak 1 (Wang et al., 2004).

    The windows are Gaussians of 11 x 11 pixels and standard deviation 1.5 that lie inside the
    picture. The mean is over windows and channels. None if the picture is smaller than a window.
    """
    if min(reference.shape[:2]) < WINDOW:
        return None
    total, count = 0.0, 0
    for top in range(0, reference.shape[0] - WINDOW + 1, ROWS):
        band = slice(top, top + ROWS + WINDOW - 1)
        similarity = _similarity(
            *(torch.from_numpy(np.moveaxis(v[band], -1, 0).copy()) for v in (estimate, reference))
        )
        total, count = (
            total + float(similarity.sum(dtype=torch.float64)),
            count + similarity.numel(),
        )
    return total / count


def spectral_error(
    estimate: np.ndarray, reference: np.ndarray, frames: int = FRAMES
) -> SpectralError | None:
    """The `SpectralError` of ``(n, c)`` sounds over all channels, or None if the whole reference is
    silent. The spectra of about ``frames`` samples are compared at a time, which
    bounds the memory and does not change the result."""
    if not reference.any():
        return None
    each = [_spectral_error(estimate, reference, size, frames) for size in SIZES]
    return SpectralError(*(float(np.mean(errors)) for errors in zip(*each)))


def _similarity(estimate: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of each window of ``(c, h, w)`` pictures."""
    places = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * DEVIATION**2))
    weights = (weights / weights.sum()).tolist()

    def mean(values: Tensor) -> Tensor:
        for axis in (-2, -1):  # sums of shifted pictures are several times faster than convolution
            room = values.shape[axis] - WINDOW + 1
            total = values.narrow(axis, 0, room) * weights[0]
            for tap in range(1, WINDOW):
                total.add_(values.narrow(axis, tap, room), alpha=weights[tap])
            values = total
        return values

    c1, c2 = STABILISERS
    a, b = mean(estimate), mean(reference)
    variances = mean(estimate.square()) - a.square() + mean(reference.square()) - b.square()
    covariance = mean(estimate * reference) - a * b
    return (
        (2 * a * b + c1)
        * (2 * covariance + c2)
        / ((a.square() + b.square() + c1) * (variances + c2))
    )


def _spectral_error(
    estimate: np.ndarray, reference: np.ndarray, size: int, frames: int
) -> tuple[float, float]:
    error, power, log, count = 0.0, 0.0, 0.0, 0
    loudest = float(np.abs(reference).max())
    starts = window_starts(len(reference), size)
    parts = np.array_split(starts, max(1, -(-len(reference) // frames)))
    for channel in range(reference.shape[1]):
        for part in parts:
            # A window reads its neighbours' samples, so each part is cut with those at its ends.
            first, last = max(0, part[0]), part[-1] + size
            e, r = (
                magnitudes(v[first:last, channel], size, part - first)
                for v in (estimate, reference)
            )
            error += float(np.square(e - r, dtype=np.float64).sum())
            power += float(np.square(r, dtype=np.float64).sum())
            low = FLOOR * loudest
            log += float(
                np.abs(
                    20 * np.log10(np.maximum(e, low) / np.maximum(r, low)), dtype=np.float64
                ).sum()
            )
            count += r.size
    return (error / power) ** 0.5, log / count
