"""The distance to a surface as far as shadows and hollows need it."""

from __future__ import annotations

import torch
from torch import Tensor

from nstr3d.sdf import Sdf


def clearance(sdf: Sdf, points: Tensor, enough: Tensor) -> Tensor:
    """The distance ``(n,)`` at ``points (n, 3)`` where it is less than ``enough (n,)``, elsewhere a
    value from ``enough`` to the distance. Both have the type of the points.

    The distance of a fit outside its unit box takes a search. Lower bounds leave out the points
    that do not need it.
    """
    with torch.no_grad():
        lower = torch.as_tensor(sdf.bounds.lower).to(points)
        upper = torch.as_tensor(sdf.bounds.upper).to(points)
        value = (points - points.clamp(lower, upper)).norm(dim=1)
        outside = torch.nonzero((value > 0) & (value < enough)).squeeze(1)
        value[outside] = sdf.bound(points[outside]).to(points)
        asked = torch.nonzero(value < enough).squeeze(1)
        value[asked] = sdf(points[asked]).to(points)
        return value
