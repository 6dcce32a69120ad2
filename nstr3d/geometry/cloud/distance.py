"""Signed distance to an oriented cloud: quadratics near the points, their winding number and a
spline elsewhere.

Near the points, the distances to the nearest patches are blended (moving least squares, Alexa et
al., 2003), but for those on either side of a crease (`kernels.geometry.sides`). Elsewhere
`spanning` says what is inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.cloud.noise import FACING
from nstr3d.geometry.cloud.patches import Patches
from nstr3d.geometry.cloud.spanning import BULGE, Spanning
from nstr3d.geometry.cloud.winding import CloudWinding
from nstr3d.kernels.threads import share
from nstr3d.sdf import Sdf
from nstr3d.types import Box

BLENDED = 10  # patches that a point is measured from
# in spacings: up to where the patches alone decide, and from where on `Spanning` alone
CLOSE, FAR = 0.75, 1.5
# Width of the blend: root of the sum of squares of ``BLUR`` spacings and ``BLURRED`` deviations
# of the noise.
BLUR, BLURRED = 0.6, 1.3
CRISP = 0.5  # spacings: where the noise is larger, what looks like a crease may be none
MARGIN = BULGE + 0.02  # around the points, in their extents: the surface ends before
CHUNK = 1 << 16


@dataclass(frozen=True)
class CloudDistance:
    """Signed distance ``(n,)`` at points ``(n, 3)``, negative inside, from ``patches`` whose
    normals look outward."""

    patches: Patches

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(n,)``."""
        parts = [
            self._part(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def sdf(self) -> Sdf:
        """The distance as an `Sdf` without derivatives, for extraction."""
        centres = self.patches.centres
        lower, upper = centres.min(axis=0), centres.max(axis=0)
        margin = MARGIN * float((upper - lower).max())

        def distance(points: Tensor) -> Tensor:
            return torch.from_numpy(self(points.detach().double().numpy())).to(points)

        return Sdf(
            distance,
            Box(tuple((lower - margin).tolist()), tuple((upper + margin).tolist())),
            lipschitz=1.5,
        )

    @cached_property
    def spacing(self) -> np.ndarray:
        """Diameter ``(n,)`` of the disc that is each patch's share of the surface."""
        return self._winding.spacing

    @cached_property
    def _quadratics(self) -> Any:
        from nstr3d.kernels.geometry.sides import Quadratics

        patches = self.patches
        arrays = (
            patches.centres,
            patches.frames,
            patches.normals,
            patches.coefficients,
            patches.radius,
            patches.scale,
        )
        return Quadratics._make(np.ascontiguousarray(each, np.float64) for each in arrays)

    @cached_property
    def _winding(self) -> CloudWinding:
        return CloudWinding(self.patches.near, self.patches.normals)

    @cached_property
    def _spanning(self) -> Spanning:
        return Spanning(self._winding)

    def _part(self, points: np.ndarray) -> np.ndarray:
        reach, near = self._winding.near(points, BLENDED)
        spacing = self.spacing[near[:, 0]]
        share = np.clip((reach[:, 0] / spacing - CLOSE) / (FAR - CLOSE), 0, 1)
        share = share * share * (3 - 2 * share)
        local, apart = share < 1, share > 0
        value = np.zeros(len(points))
        value[local] = (1 - share[local]) * self._blend(
            points[local], reach[local], near[local], spacing[local]
        )
        if apart.any():
            value[apart] += share[apart] * self._spanning(points[apart], reach[apart], near[apart])
        return value

    def _blend(
        self, points: np.ndarray, reach: np.ndarray, near: np.ndarray, spacing: np.ndarray
    ) -> np.ndarray:
        """Signed distance ``(m,)`` from the quadratics of ``near (m, k)``, the nearer the more it
        counts."""
        from nstr3d.kernels.geometry.sides import distances

        width, out = np.hypot(BLUR * spacing, BLURRED * self.patches.noise), np.empty(len(points))
        crisp = self.patches.noise < CRISP * spacing
        given = (
            np.ascontiguousarray(points, np.float64),
            near,
            reach,
            width,
            crisp,
            FACING,
            self._quadratics,
            out,
        )
        share(lambda part, low, high: distances(low, high, *given), len(points))
        return out
