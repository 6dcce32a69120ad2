"""Sizes, vectors and boxes of analytic shapes: validation and construction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nstr3d.types import Box

Vector = Sequence[float] | np.ndarray
LARGEST = 1e30  # length or factor; the least is its inverse: squares of them are numbers too


def require_positive(**sizes: float) -> None:
    """Raises ValueError naming the first of ``sizes`` that is not positive and finite, or beyond
    the largest or the least length."""
    for name, size in sizes.items():
        if not 0 < size < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {size}")
        if not 1 / LARGEST <= size <= LARGEST:
            raise ValueError(
                f"{name} must be from {1 / LARGEST:g} to {LARGEST:g}, not {str(size)[:20]}"
            )


def require_moderate(name: str, *values: float) -> None:
    """Raises ValueError if one of ``values`` is not finite, or larger than the largest length."""
    if not all(abs(value) <= LARGEST for value in values):
        shown = ", ".join(str(value)[:20] for value in values)
        raise ValueError(f"{name} must be finite and at most {LARGEST:g}, not {shown}")


def vector(name: str, values: Vector) -> tuple[float, float, float]:
    """``values`` as a tuple of three floats.

    Raises TypeError or ValueError, with ``name`` in its message, unless they are three finite
    numbers.
    """
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be three finite numbers, not {values!r}") from None
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name} must be three finite numbers, not {numbers}")
    require_moderate(name, *numbers)
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
