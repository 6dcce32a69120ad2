"""Empty space around a surface, known on a coarse grid: rays cross it without evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.kernels.available import numba_found
from nstr3d.kernels.threads import split_work
from nstr3d.sdf import Sdf
from nstr3d.types import Rays, expect

MARGIN = 0.01  # enlargement of the bounds on every side, in diagonals of the bounds
EMPTY_CELLS = 48  # cells of the empty space along the longest side of the bounds
EMPTY_STEPS = 96


@dataclass(frozen=True)
class EmptySpace:
    """Distance over Lipschitz bound at the cell centres of a coarse grid, ``clearance (x, y, z)``.

    ``origin (3,)`` and ``cell``, the edge length of a cell, are in world units. The grid is sampled
    once for a picture and then moves all rays through empty space at the cost of one lookup a step.
    The stored cells of a sparse field would clear only part of the same space.
    """

    origin: Tensor
    cell: float
    clearance: Tensor

    @property
    def surface(self) -> bool:
        """Whether the zero level set may pass through a cell, by the clearance at its centre."""
        return bool(self.clearance.min() < self.cell * 3**0.5 / 2)

    @staticmethod
    def of(
        sdf: Sdf,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        cells: int = EMPTY_CELLS,
    ) -> EmptySpace:
        """The empty space in the enlarged bounds of ``sdf``, from at most about ``cells``^3
        distances."""
        expect(sdf, Sdf, "sdf")
        margin = MARGIN * sdf.bounds.diagonal
        extent = torch.as_tensor(sdf.bounds.extent, dtype=dtype) + 2 * margin
        cell = float(extent.max()) / cells
        counts = torch.ceil(extent / cell - 1e-6).long().clamp_min(1).tolist()
        origin = torch.tensor(sdf.bounds.lower, dtype=dtype, device=device) - margin
        axes = [torch.arange(count, dtype=dtype, device=device) + 0.5 for count in counts]
        centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        with torch.no_grad():
            distance = sdf.bound(origin + centres * cell).to(dtype)
        return EmptySpace(origin, cell, (distance / sdf.lipschitz).reshape(counts))

    def at(self, points: Tensor) -> Tensor:
        """A lower bound ``(n,)`` on distance over Lipschitz bound at ``points (n, 3)``.

        The points are within the enlarged bounds.
        """
        if compiles(points):
            free = torch.empty(len(points), dtype=torch.float64)
            arrays = array(points), self.compiled(), free.numpy()
            split_work(lambda part, low, high: marching().free(low, high, *arrays), len(free))
            return free
        scaled = (points - self.origin) / self.cell
        x, y, z = (
            cells.clamp(0, count - 1)
            for cells, count in zip(scaled.floor().long().unbind(1), self.clearance.shape)
        )
        away = (scaled - torch.stack([x, y, z], dim=1) - 0.5).norm(dim=-1) * self.cell
        return self.clearance[x, y, z].to(points.dtype) - away

    def leave(self, rays: Rays, near: Tensor, far: Tensor) -> Tensor:
        """Depths ``(n,)`` up to which the rays are known to be empty, from ``near`` on.

        A ray stops where less than a quarter of a cell is known to be empty.
        """
        depth = near.clone()
        if compiles(near):
            columns = array(rays.origins), array(rays.directions), array(far)
            arrays = *columns, self.compiled(), EMPTY_STEPS, depth.numpy()
            split_work(lambda part, low, high: marching().leave(low, high, *arrays), len(depth))
            return depth
        active = torch.nonzero(near < far).squeeze(1)
        for _ in range(EMPTY_STEPS):
            if not len(active):
                break
            free = self.at(
                torch.addcmul(rays.origins[active], depth[active, None], rays.directions[active])
            )
            open_ = free > self.cell / 4
            active, free = active[open_], free[open_]
            depth[active] += free
            active = active[depth[active] < far[active]]
        return depth

    def compiled(self) -> Any:
        """What the compiled kernels take in place of this object."""
        origin, clearance = array(self.origin.double()), array(self.clearance.double())
        return marching().Space(origin, float(self.cell), clearance)


def compiles(tensor: Tensor) -> bool:
    """Whether the compiled kernels may work on ``tensor``."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float64 and numba_found()


def array(tensor: Tensor) -> np.ndarray:
    """``tensor`` as the kernels take it: it shares its memory, if it is contiguous."""
    return tensor.detach().contiguous().numpy()


def marching() -> Any:
    """The compiled kernels; numba is imported when they are first used."""
    from nstr3d.kernels.geometry import marching

    return marching
