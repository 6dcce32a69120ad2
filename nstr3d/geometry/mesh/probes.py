"""The winding number beside the faces of a mesh, at a few probes on each component."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_areas, face_normals
from nstr3d.types import Mesh

# Probes on a component: at least and at most, and in between about PROBES on all together.
PROBES, LEAST, MOST = 64_000, 6, 64


def middle_winding(mesh: Mesh, faces: np.ndarray) -> np.ndarray:
    """The mean of the winding number in front of and behind each of ``faces (n,)``, at the centroid
    of the face.

    Across a face the winding number steps from w in front to w + 1 behind, so the mean is 1/2 on
    the surface of a solid and an integer on a sheet that encloses nothing.
    """
    step = 1e-4 * np.sqrt(face_areas(mesh)[faces])[:, None] * face_normals(mesh)[faces]
    centroid = mesh.vertices[mesh.faces[faces]].mean(axis=1)
    both = MeshDistance(mesh).winding(np.concatenate([centroid + step, centroid - step]))
    return both.reshape(2, -1).mean(axis=0)


def probe_faces(mesh: Mesh, component: np.ndarray, count: int) -> np.ndarray:
    """Faces spread evenly over the area of each component, the same number for each component."""
    each = int(np.clip(PROBES // count, LEAST, MOST))
    order = np.argsort(component, kind="stable")
    areas = face_areas(mesh)[order] / mesh.bounds.diagonal**2
    reach = np.cumsum(areas)
    last = np.cumsum(np.bincount(component, minlength=count)) - 1
    start = np.concatenate([[0.0], reach[last[:-1]]])
    at = start[:, None] + (np.arange(each) + 0.5) / each * (reach[last] - start)[:, None]
    first = np.concatenate([[0], last[:-1] + 1])
    slots = np.clip(np.searchsorted(reach, at), first[:, None], last[:, None])
    return order[slots].ravel()
