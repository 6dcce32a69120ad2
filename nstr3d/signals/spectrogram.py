"""How loud each frequency of a sound is, and when."""

from __future__ import annotations

import numpy as np
import torch


def magnitudes(values: np.ndarray, size: int, starts: np.ndarray | None = None) -> np.ndarray:
    """Magnitude spectrogram ``(size / 2 + 1, frames)`` float32 of ``values (n,)`` in Hann windows
    of ``size`` samples; a sine of amplitude 1 has magnitude 1.

    ``starts (frames,)`` from ``-size`` to n are the windows' first samples, by default a quarter of
    a window apart, the first window centred on the first sample. Beyond the ends the sound is 0.
    """
    if starts is None:
        starts = np.arange(-(size // 2), len(values) + 1, size // 4)
    padded = np.pad(values.astype(np.float32), size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts + size]
    window = torch.hann_window(size)
    spectrum = torch.fft.rfft(torch.from_numpy(frames) * window).T
    return (spectrum.abs() * (2 / float(window.sum()))).numpy()
