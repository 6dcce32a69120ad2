"""Volume, area, centroid, inertia and bounding box of a solid, by the mesh of its surface.

The mesh is refined once: the middles of its edges are moved on to the surface, and each face
becomes four. On a smooth surface the errors of both meshes are nearly in the ratio of 4 to 1, so
that their difference takes off most of them (Richardson).
"""

from __future__ import annotations

import numpy as np
import torch

from nstr3d.geometry.mesh.surface import area
from nstr3d.sdf import Sdf
from nstr3d.sdf.answers import Solid
from nstr3d.surface.closest import polished
from nstr3d.surface.extract import EmptySurface
from nstr3d.surface.roots import newton
from nstr3d.types import Box, Mesh

ACCURACY = 1e-7  # diagonals of the bounds: residual of the vertices that are measured
CLIMBERS, CLIMBS = 8, 40  # points that look for each side of the bounding box, and their steps


def measure_solid(sdf: Sdf, resolution: int) -> Solid:
    """See `nstr3d.sdf.queries.Queries.solid`."""
    try:
        coarse = polished(sdf, resolution, ACCURACY * sdf.bounds.diagonal)
    except EmptySurface:
        if bool(sdf(sdf.bounds.centre[None]) <= 0):
            raise
        return Solid(0.0, 0.0, None, np.zeros((3, 3)), 0.0, 0.0)
    middle = coarse.bounds.centre
    coarse = Mesh(coarse.vertices - middle, coarse.faces)
    fine = _refined(sdf, coarse, middle)
    first, second = _moments(coarse), _moments(fine)
    volume, centre, spread = (b + (b - a) / 3 for a, b in zip(first, second))
    areas = area(coarse), area(fine)
    whole = areas[1] + (areas[1] - areas[0]) / 3
    centroid = centre / volume
    about = spread - volume * np.outer(centroid, centroid)
    inertia = np.trace(about) * np.eye(3) - about
    return Solid(
        float(volume),
        float(whole),
        centroid + middle,
        inertia,
        abs(float(volume - second[0])),
        abs(float(whole - areas[1])),
    )


def tight_bounds(sdf: Sdf, resolution: int) -> Box:
    """See `nstr3d.sdf.queries.Queries.tight_bounds`."""
    accuracy = ACCURACY * sdf.bounds.diagonal
    mesh = polished(sdf, resolution, accuracy)
    extremes, step = [], float(sdf.bounds.extent.max()) / resolution
    for side in (-1, 1):
        ends = []
        for axis in range(3):
            along = side * mesh.vertices[:, axis]
            start = mesh.vertices[np.argsort(along)[-CLIMBERS:]]
            at = _climb(sdf, torch.from_numpy(start), (axis, side), step, accuracy)
            ends.append(side * max(float((side * at[:, axis]).max()), float(along.max())))
        extremes.append(tuple(ends))
    return Box(*extremes)


def _climb(
    sdf: Sdf, start: torch.Tensor, to: tuple[int, int], step: float, accuracy: float
) -> torch.Tensor:
    """Surface points that go from ``start`` along the surface towards a side: axis and sign."""
    axis, side = to
    at, _, slope = newton(sdf, start, accuracy)
    aim = torch.zeros(3).to(at)
    aim[axis] = side
    stride = torch.full((len(at), 1), step).to(at)
    for _ in range(CLIMBS):
        normal = torch.nn.functional.normalize(slope, dim=1)
        along = torch.nn.functional.normalize(aim - (normal @ aim)[:, None] * normal, dim=1)
        moved, value, steep = newton(sdf, at + stride * along, accuracy)
        good = (value.abs() <= accuracy) & (((moved - at) @ aim) > 0)
        at = torch.where(good[:, None], moved, at)
        slope = torch.where(good[:, None], steep, slope)
        stride = torch.where(good[:, None], stride, stride / 2)
    return at


def _refined(sdf: Sdf, mesh: Mesh, middle: np.ndarray) -> Mesh:
    """The mesh with each face split in four, the new vertices on the surface.

    A middle that would move further than its edge is long stays: there the mesh has cut something
    off that is finer than its cells.
    """
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, first, which = np.unique(
        edges[:, 0] * len(mesh.vertices) + edges[:, 1], return_index=True, return_inverse=True
    )
    a, b = (mesh.vertices[edges[first, end]] for end in (0, 1))
    start = torch.from_numpy((a + b) / 2 + middle)
    accuracy = ACCURACY * sdf.bounds.diagonal
    at, value, _ = newton(sdf, start, accuracy)
    near = (at - start).norm(dim=1).numpy() <= np.linalg.norm(b - a, axis=1)
    good = near & (value.abs().numpy() <= accuracy)
    middles = np.where(good[:, None], at.numpy() - middle, (a + b) / 2)
    x, y, z = (which.reshape(-1, 3) + len(mesh.vertices)).T
    u, v, w = mesh.faces.T
    corners = [(u, x, z), (x, v, y), (z, y, w), (x, y, z)]
    faces = np.concatenate([np.stack(each, axis=1) for each in corners])
    return Mesh(np.concatenate([mesh.vertices, middles]), faces)


def _moments(mesh: Mesh) -> tuple[float, np.ndarray, np.ndarray]:
    """The integrals of 1, of x ``(3,)`` and of x x^T ``(3, 3)`` over the solid of a closed mesh.

    Each face spans a tetrahedron with the origin.
    """
    corners = mesh.corners
    a, b, c = np.moveaxis(corners, 1, 0)
    volumes = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    sums = corners.sum(axis=1)
    first = volumes @ sums / 4
    second = np.einsum("f,fi,fj->ij", volumes, sums, sums, optimize=True)
    second += np.einsum("f,fki,fkj->ij", volumes, corners, corners, optimize=True)
    return float(volumes.sum()), first, second / 20
