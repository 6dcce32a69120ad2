"""Measures as other papers define them, so that their published rows can stand beside ours.

NeuRBF (Chen et al., ICCV 2023): normals and occupancy of a mesh in the unit ball. M-plicits (da
Silva et al., arXiv 2609.28684): squared Chamfer distance and overlap of voxel shells. The
definitions follow the papers' released code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import area, face_normals, sample_surface
from nstr3d.sdf import Sdf
from nstr3d.surface.overlap import iou
from nstr3d.types import Frame, Mesh

CHUNK = 1 << 18  # points whose signs are asked at a time


@dataclass(frozen=True)
class Normals:
    """The angles between the normals of two meshes, in degrees, from samples paired by distance.

    ``angle`` is the mean over both directions. ``back`` is the mean over the reference's samples
    alone. ``released`` is the figure that NeuRBF's released code calls NAE: half of ``back`` plus
    half of the mean cosine, because the code overwrites the other direction with the wrong array.
    """

    angle: float
    back: float
    released: float


def in_ball(mesh: Mesh, radius: float) -> tuple[Mesh, Frame]:
    """``mesh`` moved so that its bounding box is centred at the origin, and scaled so that its
    farthest vertex is at ``radius``; and the frame from its world to there."""
    centre = mesh.bounds.centre
    scale = float(np.linalg.norm(mesh.vertices - centre, axis=1).max()) / radius
    return Mesh((mesh.vertices - centre) / scale, mesh.faces), Frame(tuple(centre.tolist()), scale)


def sampled_normals(
    mesh: Mesh, reference: Mesh, samples: int, generator: np.random.Generator
) -> Normals:
    """NeuRBF's comparison of normals over ``samples`` points on each mesh.

    A sample is paired with the nearest sample of the other mesh. Normals are face normals, and
    their sign is ignored.
    """
    points, faces = sample_surface(mesh, samples, generator)
    true_points, true_faces = sample_surface(reference, samples, generator)
    normals, true_normals = face_normals(mesh)[faces], face_normals(reference)[true_faces]
    forward = _cosines(normals, true_normals[Neighbours(true_points).nearest(points)[1]])
    backward = _cosines(true_normals, normals[Neighbours(points).nearest(true_points)[1]])
    ahead, back = (float(np.degrees(np.arccos(c)).mean()) for c in (forward, backward))
    return Normals((ahead + back) / 2, back, (back + float(backward.mean())) / 2)


def uniform_iou(
    sdf: Sdf, truth: MeshDistance, points: int, generator: np.random.Generator
) -> float:
    """NeuRBF's intersection over union at ``points`` uniform points of [-1, 1]^3."""
    inside: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    for start in range(0, points, CHUNK):
        at = generator.uniform(-1, 1, (min(CHUNK, points - start), 3))
        inside[0].append(sdf(at) < 0)
        inside[1].append(truth(at) < 0)
    return iou(np.concatenate(inside[0]), np.concatenate(inside[1]))


def squared_chamfer(
    mesh: Mesh, reference: Mesh, samples: int, generator: np.random.Generator
) -> float:
    """M-plicits' Chamfer distance: the sum over both directions of the mean squared distance from
    each of ``samples`` points of a mesh to the nearest sample of the other mesh."""
    first = Neighbours(sample_surface(mesh, samples, generator)[0])
    second = Neighbours(sample_surface(reference, samples, generator)[0])
    one, other = second.nearest(first.points)[0], first.nearest(second.points)[0]
    return float(np.mean(one**2) + np.mean(other**2))


def shell_iou(mesh: Mesh, reference: Mesh, voxel: float, generator: np.random.Generator) -> float:
    """The intersection over union of the sets of voxels of edge ``voxel`` that two surfaces cross.

    The voxels are those of one lattice through the origin that samples of a surface hit: 40 samples
    per voxel's face area. M-plicits' code tests triangles against voxels instead, and places the
    lattice of each mesh at the mesh's own lower corner.
    """
    cells = []
    for each in (mesh, reference):
        points, _ = sample_surface(each, int(40 * area(each) / voxel**2) + 1, generator)
        index = np.floor(points / voxel).astype(np.int64) + (1 << 20)
        cells.append(np.unique((index[:, 0] << 42) | (index[:, 1] << 21) | index[:, 2]))
    common = len(np.intersect1d(cells[0], cells[1], assume_unique=True))
    return common / (len(cells[0]) + len(cells[1]) - common)


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs((a * b).sum(axis=1)).clip(max=1)
