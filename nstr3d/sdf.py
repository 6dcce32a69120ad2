"""`Sdf`: a signed distance in world units, the one thing that extraction, tracing and metrics consume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nstr3d.autodiff import gradient
from nstr3d.types import Box

Points = TypeVar("Points", np.ndarray, Tensor)


@dataclass(frozen=True)
class Sdf:
    """A signed distance function in world units, negative inside.

    ``distance`` maps torch points ``(n, 3)`` to ``(n,)`` and must be differentiable; ``bounds`` holds the surface;
    ``lipschitz`` bounds ``|distance(p) - distance(q)| / |p - q|``: 1 for an exact distance, more for a fitted one.
    An analytic shape, a baseline and a fitted field are interchangeable here.
    """

    distance: Callable[[Tensor], Tensor]
    bounds: Box
    lipschitz: float = 1.0

    def __call__(self, points: Points) -> Points:
        """Signed distance ``(n,)`` of ``points (n, 3)``: numpy in, numpy out; torch in, torch out on the same device."""
        if isinstance(points, np.ndarray):
            with torch.no_grad():
                return self.distance(torch.from_numpy(np.ascontiguousarray(points))).detach().cpu().numpy()
        return self.distance(points)

    def gradient(self, points: Points) -> Points:
        """Spatial gradient ``(n, 3)``, dimensionless; near 1 in length where the distance is good."""
        if isinstance(points, np.ndarray):
            return gradient(self.distance, torch.from_numpy(np.ascontiguousarray(points))).detach().cpu().numpy()
        return gradient(self.distance, points)

    def normals(self, points: Points) -> Points:
        """Unit outward normals ``(n, 3)``; zero where the gradient vanishes."""
        slope = self.gradient(points)
        if isinstance(slope, np.ndarray):
            return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-12)
        return slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-12)
