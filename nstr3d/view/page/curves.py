"""Streamlines in the encoding of the exported page: points and colours as differences of integers,
which deflate well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nstr3d.render.colours import colour_map
from nstr3d.training.fit import Fit
from nstr3d.view.scene import Curves

INTEGERS = 65535  # largest integer of a coordinate
BEYOND = 1.5  # the page shows at most the shape's bounds scaled by this factor


@dataclass(frozen=True)
class LineCode:
    """Encoded lines: ``data`` in the order in which main.js reads it, and ``about``, the sizes and
    ranges that main.js needs to decode it."""

    data: bytes
    about: dict[str, Any]


def line_code(fit: Fit, curves: Curves) -> LineCode:
    """The code of ``curves``, which are in world units.

    If the lines have values, the colours run from dark violet for the 2% quantile to yellow for the
    98% quantile; otherwise they are the colours of ``curves``. Raises ValueError for lines that are
    not in 3 dimensions, and for lines without a point in the bounds scaled by 1.5.
    """
    lines = curves.lines
    if lines.points.shape[1] != 3:
        raise ValueError(
            f"The lines {curves.name} have {lines.points.shape[1]} dimensions; the page shows "
            "lines in 3 dimensions."
        )
    seen = fit.bounds.scaled(BEYOND)
    if not ((lines.points >= seen.lower) & (lines.points <= seen.upper)).all(axis=1).any():
        raise ValueError(
            f"The lines {curves.name} are nowhere near the shape; pass lines that were made from "
            "this model."
        )
    points = fit.frame.to_unit(lines.points)
    lower = points.min(axis=0)
    extent = np.maximum(points.max(axis=0) - lower, 1e-9)
    codes = _differences(np.round((points - lower) / extent * INTEGERS).astype(np.uint16))
    colours, ends = curves.colours, None
    if lines.values is not None:
        low, high = np.quantile(lines.values, [0.02, 0.98])
        ends = float(low), float(max(high, low + 1e-9))
        colours = colour_map(
            torch.from_numpy((lines.values - ends[0]) / (ends[1] - ends[0]))
        ).numpy()
    shades = _differences(np.round(colours * 255).astype(np.uint8))
    joined = np.zeros(len(points), bool)
    joined[lines.segments[:, 0]] = True
    planes = [
        part
        for axis in codes.T
        for part in ((axis >> 8).astype(np.uint8), (axis & 255).astype(np.uint8))
    ]
    data = b"".join(part.tobytes() for part in (*planes, *shades.T, np.packbits(joined)))
    return LineCode(
        data,
        {"count": len(points), "lower": lower.tolist(), "extent": extent.tolist(), "values": ends},
    )


def _differences(values: np.ndarray) -> np.ndarray:
    """Differences of each row ``(n, k)`` from the row before, modulo the range of the integer type.
    The row before the first row is 0."""
    return np.diff(values, axis=0, prepend=np.zeros_like(values[:1]))
