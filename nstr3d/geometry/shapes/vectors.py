"""Sizes, vectors and boxes of analytic shapes: validation and construction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nstr3d.types import Box

Vector = Sequence[float]


def require_positive(**sizes: float) -> None:
    """Raises ValueError naming the first of ``sizes`` that is not positive and finite."""
    for name, size in sizes.items():
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"{name} must be positive and finite, not {size}")


def vector(name: str, values: Vector) -> tuple[float, float, float]:
    """``values`` as a tuple of three floats.

    Raises TypeError or ValueError, with ``name`` in its message, unless they are three finite
    numbers.
    """
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be three finite numbers, not {values!r}") from None
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be three finite numbers, not {numbers}")
    return numbers


def like(values: Sequence[float] | Sequence[Sequence[float]], points: Tensor) -> Tensor:
    """``values`` as a tensor with the dtype and device of ``points``."""
    return torch.tensor(values, dtype=points.dtype, device=points.device)


def length(vectors: Tensor) -> Tensor:
    """Euclidean lengths ``(...)`` of ``vectors (..., d)``."""
    return torch.linalg.vector_norm(vectors, dim=-1)


def box_about(middle: Vector, half: Vector) -> Box:
    """The box with centre ``middle`` and half edge lengths ``half``."""
    return Box(tuple(np.subtract(middle, half).tolist()), tuple(np.add(middle, half).tolist()))


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that contains all ``boxes``."""
    lower, upper = (
        np.min([b.lower for b in boxes], axis=0),
        np.max([b.upper for b in boxes], axis=0),
    )
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))


def grown(bounds: Box, margin: float) -> Box:
    """``bounds`` with every face moved outwards by ``margin``."""
    return Box(
        tuple(np.subtract(bounds.lower, margin).tolist()),
        tuple(np.add(bounds.upper, margin).tolist()),
    )
