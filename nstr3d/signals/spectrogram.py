"""Magnitude spectrograms of sounds."""

from __future__ import annotations

import numpy as np
import torch


def magnitudes(values: np.ndarray, size: int, starts: np.ndarray | None = None) -> np.ndarray:
    """Magnitude spectrogram ``(size / 2 + 1, frames)`` float32 of ``values (n,)``.

    The windows are Hann windows of ``size`` samples. A sine of amplitude 1 has magnitude 1.
    ``starts (frames,)`` are the indices of the windows' first samples, from ``-size`` to n. By
    default they are a quarter of a window apart, and the first window is centred on the first
    sample. The sound is 0 beyond its ends.
    """
    if starts is None:
        starts = window_starts(len(values), size)
    padded = np.pad(values.astype(np.float32), size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts + size]
    window = torch.hann_window(size)
    spectrum = torch.fft.rfft(torch.from_numpy(frames) * window).T
    return (spectrum.abs() * (2 / float(window.sum()))).numpy()


def window_starts(length: int, size: int) -> np.ndarray:
    """The first samples ``(frames,)`` of the windows of ``size`` samples, a quarter of a window
    apart, over a sound of ``length`` samples. The first window is centred on the first sample."""
    return np.arange(-(size // 2), length + 1, size // 4)
