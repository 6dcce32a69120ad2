"""Smoothness metrics of surfaces: kinks at cell faces, ripples of normals, errors of curvature.

The eye sees slopes and their changes, and hardly sees positions: a field may be exact to 1e-4 of
the unit box and still show a net of creases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.sdf import Sdf
from nstr3d.surface.curvature import curvatures_at
from nstr3d.surface.metrics import angles

Gradient = Callable[[np.ndarray], np.ndarray]
"""Maps points ``(n, 3)`` to gradients ``(n, 3)`` of any length."""

STEP = 2e-4  # unit box: distance to each side of a face at which the gradient is evaluated
REACH = 4e-3  # unit box: largest distance by which a point is moved on to a face
SAME_SIDE = 0.5  # least cosine between the normals of two points that are compared: 60 degrees


@dataclass(frozen=True)
class Spread:
    """Mean and 99th percentile of a measure over points."""

    mean: float
    p99: float

    @staticmethod
    def of(values: np.ndarray) -> Spread:
        """The spread of ``values (n,)``."""
        return Spread(float(np.mean(values)), float(np.percentile(values, 99)))


@dataclass(frozen=True)
class Kink:
    """The angle in degrees by which a gradient turns across the faces of cells, over ``2 STEP``.

    ``kink_mean`` and ``kink_p99`` are measured at ``kink_points`` points of the surface. Curvature
    alone also turns a gradient. ``kink_control_mean`` and ``kink_control_p99`` measure this turn
    across the middles of the finest cells, at ``kink_control_points`` points.
    """

    kink_mean: float
    kink_p99: float
    kink_control_mean: float
    kink_control_p99: float
    kink_points: int
    kink_control_points: int


def measure_kink(gradient: Gradient, points: np.ndarray, resolutions: Sequence[int]) -> Kink:
    """Measure how a field's gradient turns across the faces of the field's cells.

    ``gradient`` is the gradient of a field in the unit box whose levels have ``resolutions`` cells
    per axis. Of the surface points ``points (n, 3)``, the points within REACH of a face are moved
    on to the face, along the axis across it. The points within REACH of the middle of a finest cell
    are moved on to the middle and are the control, except where a face of another level is within
    ``2 STEP`` of the middle. Raises ValueError if no point is near enough to a face, or none to a
    middle.
    """
    points = np.asarray(points, np.float64)
    resolutions, axes = sorted(set(resolutions)), range(points.shape[1])
    faces = [_on_planes(points, axis, count, 0.0) for axis in axes for count in resolutions]
    middles = [_on_planes(points, axis, resolutions[-1], 0.5) for axis in axes]
    middles = [at[_clear(at[:, axis], resolutions)] for axis, at in zip(axes, middles)]
    kink = _turns(gradient, faces, np.repeat(axes, len(resolutions)))
    control = _turns(gradient, middles, np.arange(len(axes)))
    if not len(kink) or not len(control):
        raise ValueError(
            f"{len(points)} surface points are too few: some must be within {REACH} of the face of "
            f"a cell, and some within {REACH} of the middle of a cell; measure with more points."
        )
    at, beside = Spread.of(kink), Spread.of(control)
    return Kink(at.mean, at.p99, beside.mean, beside.p99, len(kink), len(control))


def measure_normals(normals: np.ndarray, truth: np.ndarray) -> Spread:
    """The angles in degrees between ``normals (n, 3)`` and ``truth (n, 3)``, of any length."""
    return Spread.of(np.degrees(angles(normals, truth)))


def measure_bands(
    points: np.ndarray, normals: np.ndarray, truth: np.ndarray, radius: float
) -> Spread:
    """Measure the part of the normals' error that ripples within ``radius``, in degrees.

    The measure is a high-pass. ``points (n, 3)`` are uniform on a surface with the unit normals
    ``truth (n, 3)``; ``normals (n, 3)`` are their estimates. The error of a point is the vector
    ``normals - truth``. The measure is the distance of this error from its mean over the points
    within ``radius`` whose true normals are within 60 degrees. It is 0 for errors that vary slowly.
    A ripple of height ``a sin (k s)`` has the amplitude ``a k |1 - 2 J1(k radius) / (k radius)|``
    in radians, where J1 is the Bessel function. With fewer than 40 points within ``radius``, the
    noise of the mean adds some per cent.
    """
    error = normals - truth
    first, second = Neighbours(points).pairs(radius).T
    alike = (truth[first] * truth[second]).sum(axis=1) > SAME_SIDE
    first, second = first[alike], second[alike]
    centre, other = np.concatenate([first, second]), np.concatenate([second, first])
    count = 1 + np.bincount(centre, minlength=len(points))
    total = error + np.stack(
        [
            np.bincount(centre, error[other, axis], minlength=len(points))
            for axis in range(error.shape[1])
        ],
        axis=1,
    )
    ripple = np.linalg.norm(error - total / count[:, None], axis=1)
    return Spread.of(np.degrees(2 * np.arcsin((ripple / 2).clip(max=1))))


def measure_curvature(sdf: Sdf, truth: Sdf, points: np.ndarray, step: float) -> Spread:
    """The error ``|H - H_true|`` of the mean curvature of ``sdf``, in 1 / length.

    It is measured at ``points (n, 3)`` on the surface of ``truth``. Both curvatures are central
    differences over ``step`` to each side.
    """
    at = torch.from_numpy(np.ascontiguousarray(points))
    measured, expected = (
        curvatures_at(each, at, each.normals(at), step)[0] for each in (sdf, truth)
    )
    return Spread.of((measured - expected).abs().detach().cpu().numpy())


def _on_planes(points: np.ndarray, axis: int, resolution: int, offset: float) -> np.ndarray:
    """The ``points`` within REACH of a plane across ``axis``, moved on to the plane.

    The planes lie ``offset`` cells beyond each face. The sides of the unit box do not count as
    planes.
    """
    number = np.round((points[:, axis] + 1) * resolution / 2 - offset) + offset
    plane = number * (2 / resolution) - 1
    near = (np.abs(plane - points[:, axis]) < REACH) & (number > 0) & (number < resolution)
    moved = points[near]
    moved[:, axis] = plane[near]
    return moved


def _clear(places: np.ndarray, resolutions: Sequence[int]) -> np.ndarray:
    """Which of the coordinates ``places (n,)`` have no face of any level within ``2 STEP``."""
    clear = np.ones(len(places), bool)
    for resolution in resolutions:
        cells = (places + 1) * resolution / 2
        clear &= np.abs(cells - np.round(cells)) * (2 / resolution) > 2 * STEP
    return clear


def _turns(gradient: Gradient, places: Sequence[np.ndarray], axes: np.ndarray) -> np.ndarray:
    """The angles in degrees by which ``gradient`` turns across ``places``, over ``2 STEP``.

    ``places`` are groups of points ``(n, 3)``; ``axes`` holds the axis of each group.
    """
    at = np.concatenate(places)
    step = STEP * np.eye(at.shape[1])[np.repeat(axes, [len(group) for group in places])]
    return np.degrees(angles(gradient(at - step), gradient(at + step)))
