"""The direction from which a shape shows the most."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.surface import face_normals, sample_surface
from nstr3d.sdf import Sdf
from nstr3d.surface.extract import extract_mesh
from nstr3d.types import Camera, Mesh, Up

AZIMUTHS, ELEVATIONS = np.arange(0.0, 360.0, 30.0), (15.0, 30.0)
CUSTOM = 30.0  # the azimuth that wins among equal views
SAMPLES, CELLS, BINS = 20_000, 48, 8
COARSE = 48  # cells of the extraction of a distance along the longest side
# Weights of the visible share of the surface, of the variety of its normals, of the length of its
# outlines, and of a direction near the customary one.
AREA, VARIETY, OUTLINE, HABIT = 1.0, 0.8, 0.6, 0.03


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
