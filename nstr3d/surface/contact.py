"""Where two solids touch or come close: depth, place and normal of each contact.

A contact is a point of one surface that is deepest in the other solid, or nearest to it: a local
minimum of the other's signed distance along the surface. The search begins at the vertices of a
mesh of the surface and goes downhill on the surface itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.geometry.mesh.topology import directed_edges
from nstr3d.geometry.shapes.motions import moved
from nstr3d.sdf import Sdf
from nstr3d.sdf.answers import Contacts
from nstr3d.surface.asking import check_count
from nstr3d.surface.closest import polished, project
from nstr3d.surface.extract import EmptySurface
from nstr3d.surface.roots import newton
from nstr3d.types import Mesh, expect

ACCURACY = 1e-6  # diagonals of the bounds: how far a contact may be off its surface
TURNS = 48  # steps downhill, at most
RISE = 1.6  # by which a step that succeeds lengthens the next one, and
FALL = 0.4  # by which one that fails shortens it
SUFFICIENT = 1e-4  # share of the fall promised by the slope with which a step succeeds
STIFF = 1e-6  # by which the entries of a rotation may differ from those of an orthogonal matrix
ALIKE = 0.5  # cosine between the normals of two contacts that may be one
SHADOW = 2.0  # depths of a contact: how far around it there is no other one


@dataclass(frozen=True)
class Body:
    """A solid that is asked for contacts again and again. The mesh of its surface, whose vertices
    are on the surface, is made once.

    ``resolution`` is the number of cells along the longest side of the bounds. Parts thinner than
    a cell may be missed. Raises TypeError or ValueError for other objects and fewer than 2 cells.
    """

    sdf: Sdf
    resolution: int = 64

    def __post_init__(self) -> None:
        expect(self.sdf, Sdf, "sdf")
        check_count(self.resolution, "resolution", 2)

    @cached_property
    def surface(self) -> Mesh:
        """The mesh of the surface; without faces if the surface is empty."""
        try:
            return polished(self.sdf, self.resolution, self.accuracy)
        except EmptySurface:
            return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))

    @property
    def accuracy(self) -> float:
        """How far a contact may be off the surface, in world units."""
        return ACCURACY * self.sdf.bounds.diagonal

    @property
    def cell(self) -> float:
        """The edge of a cell of the mesh, in world units."""
        return float(self.sdf.bounds.extent.max()) / self.resolution

    def contacts(
        self, other: Body, pose: Any = None, margin: float = 0.0, most: int = 64
    ) -> Contacts:
        """The contacts with ``other``; see `nstr3d.sdf.queries.Queries.contacts`."""
        expect(other, Body, "other")
        expect(margin, (int, float, np.number), "margin")
        check_count(most, "most", 1)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin must be at least 0 and finite, not {margin}.")
        matrix = checked_pose(pose)
        mine = _one_sided(self, other.sdf, matrix, margin)
        theirs = _one_sided(other, self.sdf, np.linalg.inv(matrix), margin)
        turn, shift = matrix[:3, :3].T, matrix[:3, 3]
        both = (
            np.concatenate([mine.depth, theirs.depth]),
            np.concatenate([mine.points, theirs.points @ turn + shift]),
            np.concatenate([mine.normals, -theirs.normals @ turn]),
        )
        return _spread(Contacts(*both), min(self.cell, other.cell), most)


NONE = Contacts(np.zeros(0), np.zeros((0, 3)), np.zeros((0, 3)))


def contacts(
    sdf: Sdf, other: Sdf, pose: Any, margin: float, most: int, resolution: int
) -> Contacts:
    """See `nstr3d.sdf.queries.Queries.contacts`."""
    expect(other, Sdf, "other")
    return Body(sdf, resolution).contacts(Body(other, resolution), pose, margin, most)


def checked_pose(pose: Any) -> np.ndarray:
    """``pose`` as a rigid motion ``(4, 4)`` float64; None is the identity. Raises TypeError or
    ValueError for anything else."""
    if pose is None:
        return np.eye(4)
    if isinstance(pose, Tensor):
        pose = pose.detach().cpu().numpy()
    try:
        matrix = np.array(pose, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"pose must be a matrix (4, 4), not {type(pose).__name__}.") from None
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError("pose must be a matrix (4, 4) of finite numbers.")
    turn = matrix[:3, :3]
    rigid = np.abs(turn @ turn.T - np.eye(3)).max() <= STIFF and np.linalg.det(turn) > 0
    if not rigid or not np.array_equal(matrix[3], [0, 0, 0, 1]):
        raise ValueError(
            "pose must be a rigid motion: a rotation and a translation above the row 0 0 0 1; "
            "scale or mirror the shape itself."
        )
    return matrix


def _one_sided(body: Body, other: Sdf, pose: np.ndarray, margin: float) -> Contacts:
    """The contacts of points of the surface of ``body`` with ``other`` moved by ``pose``, in the
    frame of ``body``. Normals point to the other solid."""
    into = moved(other, pose)
    start = _lowest(body, into, margin)
    if not len(start):
        return NONE
    at = torch.from_numpy(body.surface.vertices[start])
    at, value, slope = _downhill(body, into, at)
    near = torch.nonzero(value <= margin + body.accuracy).squeeze(1)
    at, value, slope = at[near], value[near], slope[near]
    if not len(at):
        return NONE
    # The value of a combination may be less than the distance; the closest point tells it.
    accuracy = ACCURACY * into.bounds.diagonal
    met, _ = project(into, at, accuracy)
    way = met - at
    gap = way.norm(dim=1)
    side = torch.where(value > 0, -1.0, 1.0)
    across = -(side / gap.clamp_min(1e-300))[:, None] * way
    unit = torch.nn.functional.normalize(slope, dim=1)
    normals = torch.where((gap > 4 * accuracy)[:, None], across, -unit)
    kept = side * gap >= -margin - accuracy
    columns = (side * gap, (at + met) / 2, normals)
    return Contacts(*(column[kept].numpy() for column in columns))


def _lowest(body: Body, into: Sdf, margin: float) -> np.ndarray:
    """The vertices from which the search goes downhill: local minima of the distance ``into``
    among neighbours, as far as a contact may be near."""
    vertices, reach = body.surface.vertices, margin + body.cell
    box = into.bounds
    near = (vertices >= np.subtract(box.lower, reach)) & (vertices <= np.add(box.upper, reach))
    rows = np.flatnonzero(near.all(axis=1))
    value = np.full(len(vertices), np.inf)
    value[rows] = into(vertices[rows])
    least = np.full(len(vertices), np.inf)
    start, end, _ = directed_edges(body.surface.faces)
    np.minimum.at(least, start, value[end])
    np.minimum.at(least, end, value[start])
    # Vertices of a plateau are all lowest, so that a flat contact is found as a whole.
    return np.flatnonzero((value <= least + body.accuracy) & (value <= reach * into.lipschitz))


def _downhill(body: Body, into: Sdf, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moves ``points (n, 3)`` of the surface of ``body`` along it to where the distance ``into`` is
    least: the points, and distance and gradient there.

    Gradient descent on the surface, with the step of Barzilai and Borwein (1988). Each step is
    followed by a projection back to the surface.
    """
    at, _, out = newton(body.sdf, points, body.accuracy)
    value, slope = into.value_and_gradient(at)
    fall = _along(slope, out)
    stride = torch.full_like(value, body.cell)
    active = torch.arange(len(at))
    for _ in range(TURNS):
        steep = fall[active].norm(dim=1)
        active = active[stride[active] * steep > body.accuracy]
        if not len(active):
            break
        trial = at[active] - stride[active, None] * fall[active]
        trial, off, out = newton(body.sdf, trial, body.accuracy)
        there, gradient = into.value_and_gradient(trial)
        turned = _along(gradient, out)
        promised = SUFFICIENT * stride[active] * fall[active].square().sum(dim=1)
        good = (there < value[active] - promised) & (off.abs() <= body.accuracy)
        change, bend = trial - at[active], turned - fall[active]
        curved = (change * bend).sum(dim=1)
        newer = change.square().sum(dim=1) / curved.clamp_min(1e-300)
        longer = torch.where(curved > 0, newer, stride[active] * RISE)
        longer = longer.clamp(max=4 * body.cell)
        stride[active] = torch.where(good, longer, stride[active] * FALL)
        taken = active[good]
        at[taken], value[taken], slope[taken] = trial[good], there[good], gradient[good]
        fall[taken] = turned[good]
    return at, value, slope


def _along(slope: Tensor, out: Tensor) -> Tensor:
    """The part of ``slope (n, 3)`` along a surface with the gradient ``out (n, 3)``."""
    unit = torch.nn.functional.normalize(out, dim=1)
    return slope - (slope * unit).sum(dim=1, keepdim=True) * unit


def _spread(found: Contacts, spacing: float, most: int) -> Contacts:
    """The deepest contacts, none within ``spacing`` of a deeper one with a like normal, and none
    within SHADOW depths of a deeper one: where a corner is deep in a solid, the wall that it passes
    is no contact of its own. If there are more than ``most``, each next one is the farthest from
    those before it."""
    order = np.argsort(-found.depth, kind="stable")
    points, normals = found.points[order], found.normals[order]
    open_ = np.ones(len(order), bool)
    shadow = SHADOW * found.depth[order]
    for row in range(len(order)):
        if not open_[row]:
            continue
        away = np.linalg.norm(points[row + 1 :] - points[row], axis=1)
        alike = normals[row + 1 :] @ normals[row] > ALIKE
        open_[row + 1 :] &= ~((away < shadow[row]) | (alike & (away <= spacing)))
    rows = np.flatnonzero(open_)
    if len(rows) > most:
        chosen, away = [0], np.full(len(rows), np.inf)
        while len(chosen) < most:
            gap = np.linalg.norm(points[rows] - points[rows[chosen[-1]]], axis=1)
            away = np.minimum(away, gap)
            chosen.append(int(away.argmax()))
        rows = rows[np.sort(chosen)]
    kept = order[rows]
    return Contacts(found.depth[kept], found.points[kept], found.normals[kept])
