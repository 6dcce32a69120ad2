"""The conjugate gradient method for linear systems in NumPy arrays or torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SMALLEST = 1e-30  # least curvature of a direction by which a step is divided


def real_product(one: np.ndarray, two: np.ndarray) -> float:
    """The real part of the inner product of two arrays of one shape, real or complex."""
    return float(np.vdot(one, two).real)


def conjugate_gradients(
    normal: Callable[[Any], Any],
    right: Any,
    start: Any = None,
    scale: Any = 1.0,
    product: Callable[[Any, Any], Any] = real_product,
    tolerance: float = 0.0,
) -> Iterator[tuple[Any, Any]]:
    """Yields the solution and the residual of ``normal(solution) = right`` after each iteration,
    without end (Hestenes and Stiefel, 1952).

    ``normal`` is a symmetric (Hermitian) positive definite linear map on arrays or tensors with the
    shape of ``right``. ``start`` is the first guess (zero if None). ``scale`` approximates the
    inverse of the map's diagonal (the Jacobi preconditioner). ``product`` is the real inner
    product. Iteration stops once ``product(residual, scale * residual)`` is at most ``tolerance``
    times ``product(right, scale * right)``, or 0; the last pair is then yielded again and again.
    """
    solution, residual = (0 * right, right) if start is None else (start, right - normal(start))
    direction = scaled = scale * residual
    size = product(residual, scaled)
    least = tolerance * product(right, scale * right) if tolerance else 0.0
    while size > least:
        image = normal(direction)
        length = size / max(product(direction, image), SMALLEST)
        solution, residual = solution + length * direction, residual - length * image
        yield solution, residual
        scaled = scale * residual
        before, size = size, product(residual, scaled)
        direction = scaled + (size / before) * direction
    while True:
        yield solution, residual
