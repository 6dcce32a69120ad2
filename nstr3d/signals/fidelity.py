"""How near is one signal to another? Structural similarity of pictures, and spectral errors of
sounds.

Peak signal-to-noise and signal-to-noise ratios are in `nstr3d.surface.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nstr3d.signals.spectrogram import magnitudes

WINDOW = 11  # taps of the Gaussian window of the structural similarity
DEVIATION = 1.5
STABILISERS = (0.01**2, 0.03**2)  # C1 and C2 for a peak of 1
ROWS = 64  # that are compared at a time
SIZES = (512, 1024, 2048)  # of the windows of the spectral errors, in samples
FRAMES = 1 << 21  # samples whose spectra are compared at a time
FLOOR = 1e-5  # of the reference's largest magnitude: what lies below counts as silence (-100 dB)


@dataclass(frozen=True)
class SpectralError:
    """Means over `SIZES` of two errors of magnitude spectrograms |E| against |R| (Yamamoto, Song
    and Kim, "Parallel WaveGAN", 2020): ``convergence``, the norm of |E| - |R| over that of |R|, and
    ``log_magnitude``, the mean of | 20 log10 |E| / |R| | in dB, magnitudes below `FLOOR` of the
    largest being raised to it."""

    convergence: float
    log_magnitude: float


def ssim(estimate: np.ndarray, reference: np.ndarray) -> float | None:
    """Mean structural similarity of ``(h, w, c)`` pictures with peak 1 (Wang et al., 2004): 11 x 11
    Gaussian windows of standard deviation 1.5 that lie inside, means over windows and channels.
    None for pictures smaller than a window."""
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
    """The `SpectralError` of ``(n, c)`` sounds, all channels together; None where the reference is
    silent throughout. The spectra of ``frames`` samples are compared at a time."""
    if not reference.any():
        return None
    each = [_spectral_error(estimate, reference, size, frames) for size in SIZES]
    return SpectralError(*(float(np.mean(errors)) for errors in zip(*each)))


def _similarity(estimate: Tensor, reference: Tensor) -> Tensor:
    """Similarity of every window of ``(c, h, w)`` pictures."""
    places = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * DEVIATION**2))
    weights = (weights / weights.sum()).tolist()

    def mean(values: Tensor) -> Tensor:
        for axis in (-2, -1):  # sums of shifted pictures: several times as fast as a convolution
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
    for channel in range(reference.shape[1]):
        for start in range(0, len(reference), frames):
            e, r = (
                magnitudes(v[start : start + frames, channel], size) for v in (estimate, reference)
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
