"""The sizes of shapes that double precision can measure."""

from __future__ import annotations

import numpy as np

SIZES = (1e-30, 1e30)  # world units; beyond, squares and cubes of lengths leave double precision


def check_size(points: np.ndarray, what: str, size: float | None = None) -> None:
    """Raises ValueError for a shape too large or too small for double precision.

    ``what`` names the shape of the finite ``points (n, 3)``. ``size`` is its longest extent if not
    all of the points belong to it. A shape of size zero is left to other checks.
    """
    limits = f"sizes from {SIZES[0]} to {SIZES[1]} units work, so scale it"
    reach = float(max(points.max(), -points.min()))
    if reach > SIZES[1]:
        raise ValueError(f"The {what} reaches out to {reach:.1e}; {limits} down.")
    size = float(np.ptp(points, axis=0).max()) if size is None else size
    if 0 < size < SIZES[0]:
        raise ValueError(f"The {what} is only {size:.1e} long; {limits} up.")
