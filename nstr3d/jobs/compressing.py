"""A shape compressed in closed form, as the options of a job say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import sample_surface
from nstr3d.jobs.compressoptions import Compression
from nstr3d.jobs.messages import Message
from nstr3d.model.pyramidsearch import (
    Target,
    compress_instantly,
    compress_shape,
    compress_to_error,
)
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit
from nstr3d.types import Frame, Mesh, Up

COLOURLESS = "The colours of the input were left out: a compressed model keeps the shape alone."
JUDGED = 20_000  # surface points at which grids are compared
MEASURED = 100_000  # points on either surface with which an error is measured
MEASURED_CELLS = 384  # of the extraction with which an error is measured
TRIALS = 3  # searches for an error, each with a lower aim than the one before
AIM = 0.98  # of the error, that the next search aims at


def surface_target(unit: Mesh, distance: MeshDistance, frame: Frame, up: Up, seed: int) -> Target:
    """The closed mesh ``unit`` of the unit box with its ``distance`` as a target."""
    points, _ = sample_surface(unit, JUDGED, np.random.default_rng([seed, 0]))
    return Target(distance, points, unit.bounds, frame, up, distance.unsigned)


def compress(how: Compression, target: Target, measure: Callable[[Fit], float]) -> Fit:
    """The compressed shape of ``how``; without a size and an error, that of the preset instant.

    ``measure`` gives the error of a fit in the unit box, as `surface_error` does. Raises ValueError
    for a size that is too small and for an error that cannot be reached.
    """
    if how.bytes is not None:
        return compress_shape(target, how.bytes)
    if how.error is None:
        return compress_instantly(target)
    goal = how.error
    for _ in range(TRIALS):
        fit = compress_to_error(target, goal)
        reached = measure(fit)
        if reached <= how.error:
            return fit
        goal *= AIM * how.error / reached
    text = "<error> {:.3g} cannot be reached: the shape's surface is {:.3g} from it; allow more."
    raise ValueError(Message(text, how.error, reached))


def surface_error(fit: Fit, unit: Mesh, distance: MeshDistance, seed: int) -> float:
    """The mean distance between the surface of a fit and the mesh ``unit``, both in the unit box,
    as the mean of both directions; infinite if the fit has no closed surface.

    The surface of the fit is extracted on `MEASURED_CELLS` cells.
    """
    try:
        world = extract_mesh(fit.sdf(), MEASURED_CELLS)
    except ValueError:
        return float("inf")
    surface = Mesh(fit.frame.to_unit(world.vertices), world.faces)
    generator = np.random.default_rng([seed, 5])
    there, _ = sample_surface(unit, MEASURED, generator)
    back, _ = sample_surface(surface, MEASURED, generator)
    ways = MeshDistance(surface).unsigned(there).mean(), distance.unsigned(back).mean()
    return float(sum(ways)) / 2
