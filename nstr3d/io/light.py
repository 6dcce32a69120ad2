"""Display values and linear light (sRGB, IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np


def to_linear(display: np.ndarray) -> np.ndarray:
    """Linear light of display values in [0, 1]."""
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def to_display(linear: np.ndarray) -> np.ndarray:
    """Display values of linear light in [0, 1]."""
    root = np.maximum(linear, 0.0031308) ** (1 / 2.4)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * root - 0.055)
