"""Signed distance to an oriented point cloud.

Near the points, the distances to the nearest patches are blended (moving least squares, Alexa et
al., 2003), except for patches on different sides of a crease, which are joined like solids
(`kernels.geometry.sides`). Elsewhere the distance comes from `Spanning`: the winding number of the
points, and a spline where the winding number is undecided.
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
from nstr3d.kernels.threads import split_work
from nstr3d.sdf import Sdf
from nstr3d.types import Box

BLENDED = 10  # nearest patches that determine the distance at a point
# In spacings from the nearest centre: up to ``CLOSE`` the patches alone determine the distance,
# beyond ``FAR`` `Spanning` alone.
CLOSE, FAR = 0.75, 1.5
# The width of the blend is the root of the sum of squares of ``BLUR`` spacings and ``BLURRED``
# standard deviations of the noise.
BLUR, BLURRED = 0.6, 1.3
CRISP = 0.5  # spacings: with more noise than this, an apparent crease may be noise
MARGIN = BULGE + 0.02  # of the bounds, in the points' extents: the surface lies within BULGE
CHUNK = 1 << 16  # points at a time: bounds memory
# The stated Lipschitz bound: |distance(p)| is at most LIPSCHITZ times the distance from p to the
# surface, which is what isosurface extraction relies on. It is measured, not proven. On 80,000
# points about balls and a torus of 2,000 points, with and without noise, the largest ratio is 1.40;
# about a disc five spacings thick it is 1.63. Elsewhere some ratios are larger: about the edges of
# a box 0.2% of them, up to 3.0; with noise of 0.6 spacings 0.6%, up to 4.7; about an open sheet
# 16%, up to 5.9, because the winding number changes quickly there. Extraction notices steeper
# distances and widens the bound: its meshes are those of the bound 8, at half the evaluations.
LIPSCHITZ = 1.5


@dataclass(frozen=True)
class CloudDistance:
    """Signed distance to the surface that ``patches`` describe, negative inside.

    The normals of the patches must point outward. Distances are in the units of the patches.
    """

    patches: Patches

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Signed distance ``(n,)`` at ``points (n, 3)``."""
        parts = [
            self._part(points[start : start + CHUNK]) for start in range(0, len(points), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def sdf(self) -> Sdf:
        """The distance as an `Sdf` without derivatives, for isosurface extraction.

        Near edges, noise and open sheets it is steeper than the stated bound LIPSCHITZ. Extraction
        checks the bound; sphere tracing does not and could miss the surface there.
        """
        centres = self.patches.centres
        lower, upper = centres.min(axis=0), centres.max(axis=0)
        margin = MARGIN * float((upper - lower).max())

        def distance(points: Tensor) -> Tensor:
            return torch.from_numpy(self(points.detach().double().cpu().numpy())).to(points)

        return Sdf(
            distance,
            Box(tuple((lower - margin).tolist()), tuple((upper + margin).tolist())),
            lipschitz=LIPSCHITZ,
        )

    @cached_property
    def spacing(self) -> np.ndarray:
        """Diameter ``(n,)`` of a disc with the area of the surface that belongs to each patch."""
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
        fraction = np.clip((reach[:, 0] / spacing - CLOSE) / (FAR - CLOSE), 0, 1)
        fraction = fraction * fraction * (3 - 2 * fraction)
        local, apart = fraction < 1, fraction > 0
        value = np.zeros(len(points))
        value[local] = (1 - fraction[local]) * self._blend(
            points[local], reach[local], near[local], spacing[local]
        )
        if apart.any():
            value[apart] += fraction[apart] * self._spanning(
                points[apart], reach[apart], near[apart]
            )
        return value

    def _blend(
        self, points: np.ndarray, reach: np.ndarray, near: np.ndarray, spacing: np.ndarray
    ) -> np.ndarray:
        """Signed distance ``(m,)`` from the quadratics of the patches ``near (m, k)``.

        The weight of a patch falls with its distance ``reach (m, k)`` from the point.
        """
        from nstr3d.kernels.geometry.sides import distances

        width, out = np.hypot(BLUR * spacing, BLURRED * self.patches.noise), np.empty(len(points))
        crisp = self.patches.noise < CRISP * spacing
        arguments = (
            np.ascontiguousarray(points, np.float64),
            near,
            reach,
            width,
            crisp,
            FACING,
            self._quadratics,
            out,
        )
        split_work(lambda part, low, high: distances(low, high, *arguments), len(points))
        return out
