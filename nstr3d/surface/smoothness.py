"""How smooth does a surface look? Kinks at the faces of a field's cells, ripples of its normals,
errors of its curvature.

The eye sees slopes and how they change, and hardly sees where a surface is: a field may be exact to
1e-4 of the unit box and still show a net of creases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.sdf import Sdf
from nstr3d.surface.metrics import angles

Gradient = Callable[[np.ndarray], np.ndarray]
"""Points ``(n, 3)`` to gradients ``(n, 3)`` of any length."""

STEP = 2e-4  # in the unit box: how far to both sides of a face the gradient is looked at
REACH = 4e-3  # in the unit box: how far a point may be moved on to a face
SAME_SIDE = 0.5  # cosine between the normals of two points that are compared: at most 60 degrees
PROJECTIONS = 4  # Newton steps on to a surface


@dataclass(frozen=True)
class Spread:
    """Mean and 99th percentile of a measure over points."""

    mean: float
    p99: float

    @staticmethod
    def of(values: np.ndarray) -> Spread:
        """Of ``values (n,)``."""
        return Spread(float(np.mean(values)), float(np.percentile(values, 99)))


@dataclass(frozen=True)
class Kink:
    """The angle in degrees by which a gradient turns across the faces of cells, over twice STEP, at
    ``kink_points`` places on the surface. Curvature alone turns a gradient too: ``kink_control`` is
    the same across the middles of the finest cells, at ``kink_control_points`` places.
    """

    kink_mean: float
    kink_p99: float
    kink_control_mean: float
    kink_control_p99: float
    kink_points: int
    kink_control_points: int


def measure_kink(gradient: Gradient, points: np.ndarray, resolutions: Sequence[int]) -> Kink:
    """The kinks of ``gradient``, that of a field in the unit box, across the faces of the cells of
    levels with ``resolutions`` cells per axis.

    Of the surface points ``points (n, 3)`` those within REACH of a face are moved on to it, along
    the axis across it; those within REACH of the middle of a finest cell are the control. A middle
    that is a face of another level is left out. Raises ValueError where no point is near enough.
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
            f"None of {len(points)} surface points is within {REACH} of both a face and a middle "
            "of the cells; measure with more points."
        )
    at, beside = Spread.of(kink), Spread.of(control)
    return Kink(at.mean, at.p99, beside.mean, beside.p99, len(kink), len(control))


def measure_normals(normals: np.ndarray, truth: np.ndarray) -> Spread:
    """The angles in degrees between ``normals`` and ``truth (n, 3)``, of any length."""
    return Spread.of(np.degrees(angles(normals, truth)))


def measure_bands(
    points: np.ndarray, normals: np.ndarray, truth: np.ndarray, radius: float
) -> Spread:
    """The part of the normals' error that ripples within ``radius``, in degrees: a high-pass.

    ``points (n, 3)`` are uniform on a surface with the unit normals ``truth (n, 3)``, of which
    ``normals (n, 3)`` are the estimates. The error of a point is the vector between the two, and
    what counts is how far it is from its mean over the points within ``radius`` whose true normals
    are within 60 degrees. For errors that vary slowly this is 0. A ripple whose height is ``a sin
    (k s)`` has the amplitude ``a k |1 - 2 J1(k radius) / (k radius)|`` in radians, J1 being the
    Bessel function. With fewer than 40 points within ``radius`` the noise of the mean adds some per
    cent.
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
    rest = np.linalg.norm(error - total / count[:, None], axis=1)
    return Spread.of(np.degrees(2 * np.arcsin((rest / 2).clip(max=1))))


def measure_curvature(sdf: Sdf, truth: Sdf, points: np.ndarray, step: float) -> Spread:
    """The error ``|H - H_true|`` of the mean curvature of ``sdf`` at ``points (n, 3)`` on the
    surface of ``truth``, in 1 / length; both by differences over ``step`` to both sides."""
    at = torch.from_numpy(np.ascontiguousarray(points))
    found, wanted = (mean_curvature(each, at, each.normals(at), step) for each in (sdf, truth))
    return Spread.of((found - wanted).abs().detach().cpu().numpy())


def mean_curvature(sdf: Sdf, points: Tensor, normals: Tensor, step: float) -> Tensor:
    """Half the divergence of the unit normals of ``sdf`` ``(n,)``, in 1 / length: 1 / r on a ball
    of radius r. By central differences over ``step`` along two tangents of ``points (n, 3)``, whose
    unit ``normals (n, 3)`` are given."""
    helper = torch.eye(3, dtype=points.dtype, device=points.device)[normals.abs().argmin(dim=-1)]
    first = torch.nn.functional.normalize(torch.linalg.cross(normals, helper), dim=-1)
    total = torch.zeros_like(points[:, 0])
    for tangent in (first, torch.linalg.cross(normals, first)):
        ahead, behind = (
            sdf.normals(points + side * step * tangent).to(tangent) for side in (1, -1)
        )
        total += ((ahead - behind) * tangent).sum(dim=-1) / (2 * step)
    return total / 2


def project(sdf: Sdf, points: np.ndarray) -> np.ndarray:
    """``points (n, 3)`` near the surface of ``sdf``, moved on to it along its gradient."""
    for _ in range(PROJECTIONS):
        slope = sdf.gradient(points)
        steepness = (slope * slope).sum(axis=1, keepdims=True)
        points = points - sdf(points)[:, None] * slope / np.maximum(steepness, 1e-12)
    return points


def _on_planes(points: np.ndarray, axis: int, resolution: int, offset: float) -> np.ndarray:
    """Those of ``points`` within REACH of a plane across ``axis`` that is ``offset`` cells beyond a
    face, moved on to it; the sides of the unit box are no planes."""
    number = np.round((points[:, axis] + 1) * resolution / 2 - offset) + offset
    plane = number * (2 / resolution) - 1
    near = (np.abs(plane - points[:, axis]) < REACH) & (number > 0) & (number < resolution)
    moved = points[near]
    moved[:, axis] = plane[near]
    return moved


def _clear(places: np.ndarray, resolutions: Sequence[int]) -> np.ndarray:
    """Which of the coordinates ``places (n,)`` have no face of any level within twice STEP."""
    clear = np.ones(len(places), bool)
    for resolution in resolutions:
        cells = (places + 1) * resolution / 2
        clear &= np.abs(cells - np.round(cells)) * (2 / resolution) > 2 * STEP
    return clear


def _turns(gradient: Gradient, places: Sequence[np.ndarray], axes: np.ndarray) -> np.ndarray:
    """The angles in degrees by which ``gradient`` turns across each of ``places``, groups of points
    ``(n, 3)``, along the group's axis."""
    at = np.concatenate(places)
    step = STEP * np.eye(at.shape[1])[np.repeat(axes, [len(group) for group in places])]
    return np.degrees(angles(gradient(at - step), gradient(at + step)))
