"""The signed distance of a mesh on torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nstr3d.sdf import Sdf
from nstr3d.types import Rays

if TYPE_CHECKING:
    from nstr3d.geometry.mesh.distance import MeshDistance


def sdf_of(source: MeshDistance) -> Sdf:
    """`MeshDistance.sdf`."""

    def distance(points: Tensor) -> Tensor:
        return _Distance.apply(points, source)  # type: ignore[return-value]

    def cast(rays: Rays) -> tuple[Tensor, Tensor]:
        depth, normals = source.cast(
            *(each.detach().cpu().double().numpy() for each in (rays.origins, rays.directions))
        )
        return torch.from_numpy(depth).to(rays.origins), torch.from_numpy(normals).to(rays.origins)

    # The surface of an open mesh is also where its holes are, so it cannot be cast on.
    return Sdf(distance, source.mesh.bounds, lipschitz=1.0, cast=cast if source.closed else None)


class _Distance(torch.autograd.Function):
    """`MeshDistance` on tensors, computed on the CPU in double precision."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, distance: MeshDistance) -> Tensor:
        at = points.detach().cpu().double().numpy()
        if not ctx.needs_input_grad[0]:
            return torch.from_numpy(distance(at)).to(points)
        value, slope = distance.value_and_gradient(at)
        ctx.save_for_backward(torch.from_numpy(slope).to(points))
        return torch.from_numpy(value).to(points)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return upstream[:, None] * slope, None
