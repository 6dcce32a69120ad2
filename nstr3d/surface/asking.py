"""Points that a question is asked at, and the answer in their kind and type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.types import expect

CHUNK = 1 << 16  # points that are followed at a time: it bounds memory
Back = Callable[[Tensor], Any]


def asked(sdf: Sdf, points: Any, name: str = "points") -> tuple[Tensor, Back]:
    """``points (n, 3)`` as a tensor of float64, and the function that gives answers their kind,
    type and device. Truths stay bool, and whole numbers int64.

    Raises the errors of a call of ``sdf``, which name ``name``, and ValueError for a coordinate
    that is not finite.
    """
    try:
        points = sdf.checked(points)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("points", name, 1)) from None
    array = isinstance(points, np.ndarray)
    tensor = torch.from_numpy(points) if array else points
    kind = tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must be finite.")

    def back(answer: Tensor) -> Any:
        answer = answer.to(kind) if answer.is_floating_point() else answer
        return answer.detach().cpu().numpy() if array else answer

    return tensor.to(torch.float64), back


def check_tolerance(tolerance: Any, name: str = "tolerance") -> None:
    """Raises TypeError or ValueError unless ``tolerance``, in diagonals of the bounds, is from
    1e-12 to 0.1."""
    expect(tolerance, (int, float, np.number), name)
    if not 1e-12 <= tolerance <= 0.1:
        raise ValueError(
            f"{name} must be from 1e-12 to 0.1 diagonals of the bounds, not {tolerance}."
        )


def check_count(value: Any, name: str, least: int) -> None:
    """Raises TypeError or ValueError unless ``value`` is a whole number of at least ``least``."""
    expect(value, (int, np.integer), name)
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}.")


def check_vector(values: Any, name: str) -> np.ndarray:
    """Three finite numbers ``(3,)``. Raises TypeError or ValueError for others."""
    try:
        vector = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be three numbers, not {type(values).__name__}.") from None
    if vector.shape != (3,) or not all(map(math.isfinite, vector)):
        raise ValueError(f"{name} must be three finite numbers, not {values}.")
    return vector


def pieces(count: int) -> Iterator[slice]:
    """Slices of at most CHUNK that cover ``count`` rows."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))
