"""The direction from which a shape shows the most, and contact sheets from six sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.render.camera import Camera
from nstr3d.render.labels import titled
from nstr3d.render.panels import beside, stacked
from nstr3d.render.traced import RenderConfig, turntable
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.types import Mesh, Up

AZIMUTHS, ELEVATIONS = np.arange(0.0, 360.0, 30.0), (15.0, 30.0)
CUSTOM = 30.0  # the azimuth that wins among equal views
SAMPLES, CELLS, BINS = 20_000, 48, 8
COARSE = 48  # cells of the extraction of a distance along the longest side
# Weights of the visible share of the surface, of the variety of its normals, of the length of its
# outlines, and of a direction near the customary one.
AREA, VARIETY, OUTLINE, HABIT = 1.0, 0.8, 0.6, 0.03

# The views of a contact sheet: azimuth and elevation.
SIDES = {
    "front": (0.0, 0.0),
    "right": (90.0, 0.0),
    "above": (0.0, 90.0),
    "back": (180.0, 0.0),
    "left": (270.0, 0.0),
    "below": (0.0, -90.0),
}


def best_view(mesh: Mesh, up: Up = "y") -> tuple[float, float]:
    """Azimuth and elevation in degrees, for `Camera.around`, from which ``mesh`` shows the most.

    Of 24 directions a little above the horizon, it is the one with most visible surface, variety of
    normals and outlines. The choice is deterministic. Raises ValueError if the mesh has no area.
    """
    points, faces = sample_surface(mesh, SAMPLES, np.random.default_rng(0))
    normals = face_normals(mesh)[faces]
    points = (points - mesh.bounds.centre) / mesh.bounds.diagonal
    views = [(float(azimuth), height) for height in ELEVATIONS for azimuth in AZIMUTHS]
    return max(views, key=lambda view: _score(mesh, points, normals, *view, up))


def _score(
    mesh: Mesh, points: np.ndarray, normals: np.ndarray, azimuth: float, elevation: float, up: Up
) -> float:
    axes = Camera.around(mesh.bounds, azimuth, elevation, up=up).axes
    column, row, depth = (points @ axes.T).T
    at = np.floor((np.stack([row, column]) + 0.5) * CELLS).astype(np.int64).clip(0, CELLS - 1)
    cell = at[0] * CELLS + at[1]
    nearest = np.full(CELLS * CELLS, -np.inf)
    np.maximum.at(nearest, cell, depth)
    facing = normals @ axes.T
    seen = (facing[:, 2] > 0) & (depth > nearest[cell] - 2 / CELLS)
    bins = np.floor((facing[seen, :2] + 1) / 2 * BINS).astype(np.int64).clip(0, BINS - 1)
    # Steep surface is foreshortened and says less.
    counts = np.bincount(bins @ (BINS, 1), facing[seen, 2], BINS * BINS)
    shares = counts[counts > 0] / max(counts.sum(), 1e-300)
    variety = -float((shares * np.log(shares)).sum()) / np.log(BINS * BINS)
    image = np.where(np.isfinite(nearest), nearest, -1.0).reshape(CELLS, CELLS)
    steps = sum(int((np.abs(np.diff(image, axis=axis)) > 4 / CELLS).sum()) for axis in (0, 1))
    outline = steps / (8 * CELLS)
    habit = np.cos(np.radians(azimuth - CUSTOM))
    return AREA * float(seen.mean()) + VARIETY * variety + OUTLINE * outline + HABIT * habit


def view_of(sdf: Sdf, up: Up = "y") -> tuple[float, float]:
    """The `best_view` of the surface of ``sdf``, or the customary view if none can be extracted."""
    try:
        return best_view(extract_mesh(sdf, COARSE), up)
    except ValueError:
        return CUSTOM, ELEVATIONS[0]


def contact_sheet(
    sdf: Sdf,
    config: RenderConfig,
    size: tuple[int, int],
    up: Up = "y",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Six labelled parallel views ``(h, w, 3)`` of ``sdf``, in two rows and at one scale.

    ``size`` is the width and height of a view in pixels. Raises ValueError without a backdrop.
    """
    if config.backdrop is None:
        raise ValueError("A contact sheet needs a background.")
    width, height = size
    cameras = [
        Camera.around(sdf.bounds, *angles, width=width, height=height, orthographic=True, up=up)
        for angles in SIDES.values()
    ]
    span = max(camera.span or 0.0 for camera in cameras)
    cameras = [replace(camera, span=span) for camera in cameras]
    views = [
        titled(view, name) for name, view in zip(SIDES, turntable(sdf, cameras, config, device))
    ]
    return stacked([beside(views[:3]), beside(views[3:])])
