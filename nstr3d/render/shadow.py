"""Soft shadows of a distant light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nstr3d.render.clearance import clearance
from nstr3d.sdf import Sdf
from nstr3d.surface.emptyspace import EmptySpace, array, compiles, marching

FIRST, LEAST, LONGEST = 0.01, 0.01, 0.1  # diagonals; steps towards the light
NEAR = 0.02  # diagonals; a smaller clearance is measured, not taken from the empty space
END = 0.5  # diagonals; how far what shades a point is looked for


@dataclass(frozen=True)
class Shadow:
    """The shadow that ``sdf`` casts in the light of the unit direction ``towards (3,)``.

    It is softer for a larger ``softness``, the tangent of the light's half angle. It takes at most
    ``steps`` steps towards the light. ``empty`` is the empty space of ``sdf``.
    """

    sdf: Sdf
    empty: EmptySpace
    towards: Tensor
    steps: int
    softness: float

    def light(self, starts: Tensor, steepness: Tensor, facing: Tensor) -> Tensor:
        """The fraction ``(n,)`` of the light that the points ``starts (n, 3)`` see, in [0, 1].

        It is given by the smallest ratio of clearance to travel on the way to the light (Quilez,
        "Soft shadows in raymarched SDFs"). It is 1 where ``facing (n,)`` is false. ``steepness
        (n,)`` is the length of the distance's gradient.
        """
        lit = torch.ones_like(starts[:, 0], memory_format=torch.contiguous_format)
        travel = torch.full_like(lit, FIRST * self.sdf.bounds.diagonal)
        active = torch.nonzero(facing).squeeze(1)
        if compiles(lit):
            self._compiled(starts, steepness, lit, travel, active)
        else:
            self._plain(starts, steepness, lit, travel, active)
        return lit * lit * (3 - 2 * lit)

    def _plain(
        self, starts: Tensor, steepness: Tensor, lit: Tensor, travel: Tensor, active: Tensor
    ) -> None:
        size = self.sdf.bounds.diagonal
        for _ in range(self.steps):
            if not len(active):
                return
            along = travel[active]
            at = starts[active] + along[:, None] * self.towards
            # The distance is evaluated only where the coarse grid does not guarantee enough
            # clearance for the whole light.
            clear = self.empty.at(at)
            wide = self.softness * along
            tight = torch.nonzero(clear < wide.clamp_min(NEAR * size)).squeeze(1)
            steep = steepness[active[tight]]
            needed = wide[tight].clamp_min(LONGEST * size) * steep  # what changes light or step
            clear[tight] = clearance(self.sdf, at[tight], needed) / steep
            ratio = 0.5 + 0.5 * clear / wide
            lit[active] = torch.minimum(lit[active], ratio.clamp(0, 1))
            travel[active] = along + clear.clamp(LEAST * size, LONGEST * size)
            active = active[(lit[active] > 0) & (travel[active] < END * size)]

    def _compiled(
        self, starts: Tensor, steepness: Tensor, lit: Tensor, travel: Tensor, active: Tensor
    ) -> None:
        kernels, size = marching(), self.sdf.bounds.diagonal
        columns = map(array, (starts, self.towards, steepness, travel, lit))
        rays, space = kernels.Shadow(*columns), self.empty.compiled()
        reaches = (reach * size for reach in (LEAST, NEAR, LONGEST, END))
        penumbra = kernels.Penumbra(float(self.softness), *reaches)
        clear, needed = torch.empty(2, len(active), dtype=torch.float64)
        tight = torch.empty_like(active)
        for _ in range(self.steps):
            if not len(active):
                return
            points, rows = torch.empty(len(active), 3, dtype=torch.float64), active.numpy()
            free = clear[: len(active)].numpy()
            count = kernels.look(
                rows, rays, space, penumbra, points.numpy(), free, needed.numpy(), tight.numpy()
            )
            distances = clearance(self.sdf, points[:count], needed[:count])
            left = kernels.darken(
                rows, rays, penumbra, free, distances.numpy(), tight[:count].numpy()
            )
            active = active[:left]
