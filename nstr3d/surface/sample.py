"""Points of a surface, even by area, with normals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.sdf import Sdf
from nstr3d.sdf.queries import TOLERANCE
from nstr3d.surface.closest import polished, project
from nstr3d.surface.extract import EmptySurface
from nstr3d.types import PointCloud, expect


def sample_points(sdf: Sdf, count: Any, seed: Any, resolution: int) -> PointCloud:
    """See `nstr3d.sdf.queries.Queries.sample_surface`."""
    for value, name in ((count, "count"), (seed, "seed")):
        expect(value, (int, np.integer), name)
        if not 0 <= value < 1 << 40:
            raise ValueError(f"{name} must be from 0 to {1 << 40}, not {value}")
    accuracy = TOLERANCE * sdf.bounds.diagonal
    try:
        mesh = polished(sdf, resolution, accuracy)
    except EmptySurface:
        raise EmptySurface("the surface is empty, so it has no points; check the bounds") from None
    flat, _ = sample_surface(mesh, int(count), np.random.default_rng(seed))
    points, _ = project(sdf, torch.from_numpy(flat), accuracy)
    with torch.no_grad():
        colours = None if sdf.paint is None else sdf.paint(points).cpu().numpy()
    return PointCloud(points.numpy(), sdf.normals(points.numpy()), colours)
