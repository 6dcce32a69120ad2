"""Curvatures of level sets, by central differences of gradients and normals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nstr3d.sdf import Sdf
from nstr3d.sdf.answers import Curvatures
from nstr3d.surface.asking import asked, check_tolerance, pieces

STEP = 1e-3  # diagonals of the bounds, to each side


def curvatures(sdf: Sdf, points: Any, step: float) -> Curvatures:
    """See `nstr3d.sdf.queries.Queries.curvatures`."""
    check_tolerance(step, "step")
    at, back = asked(sdf, points)
    at = at.detach()
    mean, gaussian = torch.empty_like(at[:, 0]), torch.empty_like(at[:, 0])
    for rows in pieces(len(at)):
        here = at[rows]
        answer = curvatures_at(sdf, here, sdf.normals(here), step * sdf.bounds.diagonal)
        mean[rows], gaussian[rows] = answer
    return Curvatures(back(mean), back(gaussian))


def curvatures_at(sdf: Sdf, points: Tensor, normals: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Mean ``(n,)`` and Gaussian curvature ``(n,)`` of ``sdf``: half the trace and the determinant
    of the derivative of its unit normals along the surface.

    They are 1 / r and 1 / r^2 on a ball of radius r. They are computed by central differences over
    ``step`` to each side along two tangents at ``points (n, 3)`` with the unit ``normals (n, 3)``.
    """
    helper = torch.eye(3, dtype=points.dtype, device=points.device)[normals.abs().argmin(dim=-1)]
    first = torch.nn.functional.normalize(torch.linalg.cross(normals, helper), dim=-1)
    tangents = first, torch.linalg.cross(normals, first)
    rows = []
    for tangent in tangents:
        ahead, behind = (
            sdf.normals(points + side * step * tangent).to(tangent) for side in (1, -1)
        )
        turn = (ahead - behind) / (2 * step)
        rows.append([(turn * other).sum(dim=-1) for other in tangents])
    (a, b), (c, d) = rows
    return (a + d) / 2, a * d - ((b + c) / 2).square()


def hessian(sdf: Sdf, points: Tensor) -> Tensor:
    """The second derivatives ``(n, 3, 3)`` of ``sdf`` at ``points (n, 3)``, symmetric, by central
    differences of the gradient."""
    step, columns = STEP * sdf.bounds.diagonal, []
    for axis in range(3):
        shift = torch.zeros(3).to(points)
        shift[axis] = step
        ahead, behind = (sdf.value_and_gradient(points + side * shift)[1] for side in (1, -1))
        columns.append((ahead - behind) / (2 * step))
    matrix = torch.stack(columns, dim=2)
    return (matrix + matrix.transpose(1, 2)) / 2
