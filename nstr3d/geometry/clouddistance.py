"""Signed distance to an oriented cloud: quadratics near the points, the winding number of the points elsewhere.

Near the points, the distances to the nearest patches are blended (moving least squares, Alexa et al., 2003), but for those on
either side of a crease (`kernels.sides`). Elsewhere the sign is that of the points' winding number, each counting as a small disc
(Barill et al., Fast winding numbers for soups and clouds, 2018), balanced so that it is 1/2 on the points: it changes smoothly
across what the cloud lacks, and holes are spanned by a surface that goes on as it does at their rims.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.cloudwinding import CloudWinding
from nstr3d.geometry.patches import FACING, Patches, thinned
from nstr3d.geometry.spline import HermiteSpline
from nstr3d.kernels.threads import share
from nstr3d.sdf import Sdf
from nstr3d.types import Box

BLENDED = 10  # patches that a point is measured from
CLOSE, FAR = 0.75, 1.5  # in spacings: up to where the patches alone decide, and from where on the winding number alone
BLUR, BLURRED = 0.6, 1.3  # width of the blend: root of the squares of so many spacings and so many deviations of the noise
CRISP = 0.5  # spacings: where the noise is larger, what looks like a crease may be none
MARGIN = 0.15  # around the points, in their extents: holes may bulge
SURE = 0.05
BOX = 0.075
SPLINED = 1000
CHUNK = 1 << 16


@dataclass(frozen=True)
class CloudDistance:
    """Signed distance ``(n,)`` at points ``(n, 3)``, negative inside, from ``patches`` whose normals look outward."""

    patches: Patches

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(n,)``."""
        parts = [self._part(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def gap(self, points: np.ndarray) -> np.ndarray:
        """Distance ``(n,)`` to the nearest patch's centre in local spacings: large where the cloud says nothing."""
        reach, near = self._winding.near.nearest(points)
        return reach / self.spacing[near]

    def sdf(self) -> Sdf:
        """The distance as an `Sdf` without derivatives, for extraction."""
        centres = self.patches.centres
        lower, upper = centres.min(axis=0), centres.max(axis=0)
        margin = MARGIN * float((upper - lower).max())

        def distance(points: Tensor) -> Tensor:
            return torch.from_numpy(self(points.detach().double().numpy())).to(points)

        return Sdf(distance, Box(tuple((lower - margin).tolist()), tuple((upper + margin).tolist())), lipschitz=1.5)

    @cached_property
    def spacing(self) -> np.ndarray:
        """Diameter ``(n,)`` of the disc that is each patch's share of the surface."""
        return 2 * np.sqrt(self._winding.areas / np.pi)

    @cached_property
    def _quadratics(self) -> Any:
        from nstr3d.kernels.sides import Quadratics

        patches = self.patches
        arrays = patches.centres, patches.frames, patches.normals, patches.coefficients, patches.radius, patches.scale
        return Quadratics._make(np.ascontiguousarray(each, np.float64) for each in arrays)

    @cached_property
    def _winding(self) -> CloudWinding:
        return CloudWinding(self.patches.centres, self.patches.normals)

    @cached_property
    def _box(self):
        centres = self.patches.centres
        lower, upper = centres.min(axis=0), centres.max(axis=0)
        return (lower + upper) / 2, (upper - lower) / 2 + BOX * float((upper - lower).max())

    @cached_property
    def _spline(self) -> HermiteSpline:
        centres = self.patches.centres
        cell = np.ptp(centres, axis=0).max() / 64
        while len(thinned(centres, cell)) > SPLINED:
            cell *= 1.1
        chosen = thinned(centres, cell)
        return HermiteSpline(centres[chosen], self.patches.normals[chosen])

    def _part(self, points: np.ndarray) -> np.ndarray:
        reach, near = self._winding.near(points, BLENDED)
        spacing = self.spacing[near[:, 0]]
        share = np.clip((reach[:, 0] / spacing - CLOSE) / (FAR - CLOSE), 0, 1)
        share = share * share * (3 - 2 * share)
        local, apart = share < 1, share > 0
        value = np.zeros(len(points))
        value[local] = (1 - share[local]) * self._blend(points[local], reach[local], near[local], spacing[local])
        if apart.any():
            value[apart] += share[apart] * self._apart(points[apart], reach[apart, 0])
        return value

    def _apart(self, points: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Signed distance ``(m,)`` of points ``(m, 3)`` whose nearest patch is at ``reach (m,)``, roughly: its sign counts."""
        number = self._winding(points)
        value = np.clip(1 - 2 * number, -1, 1) * reach
        doubt = np.clip((np.minimum(number, 1 - number) - SURE) / SURE, 0, 1)
        asked = np.flatnonzero(doubt)
        if len(asked):
            beyond = (np.abs(points[asked] - self._box[0]) - self._box[1]).max(axis=1)
            spline = np.clip(np.maximum(self._spline(points[asked]), beyond), -reach[asked], reach[asked])
            value[asked] += doubt[asked] * (spline - value[asked])
        return value

    def _blend(self, points: np.ndarray, reach: np.ndarray, near: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """Signed distance ``(m,)`` from the quadratics of ``near (m, k)``, the nearer the more it counts."""
        from nstr3d.kernels.sides import distances

        width, out = np.hypot(BLUR * spacing, BLURRED * self.patches.noise), np.empty(len(points))
        crisp = self.patches.noise < CRISP * spacing
        given = np.ascontiguousarray(points, np.float64), near, reach, width, crisp, FACING, self._quadratics, out
        share(lambda part, low, high: distances(low, high, *given), len(points))
        return out
