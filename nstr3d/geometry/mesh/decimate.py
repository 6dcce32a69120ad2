"""Meshes with fewer faces."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.types import Mesh

FEWEST = 4  # faces of the smallest closed mesh


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """``mesh`` with at most ``faces`` faces, by edge collapses of least quadric error (libigl's
    qslim).

    The result may have more where no edge can be collapsed without breaking the surface. A mesh
    with no more faces is returned as it is. Raises ValueError if ``faces`` is below 4 or the mesh
    cannot be decimated, as one whose edges join more than two faces cannot.
    """
    import igl

    if faces < FEWEST:
        raise ValueError(f"A closed mesh has at least {FEWEST} faces, not {faces}.")
    if len(mesh.faces) <= faces:
        return mesh
    # About the origin with size 1, the sums of squares of the quadrics keep their digits.
    centre, size = mesh.bounds.centre, max(mesh.bounds.diagonal, 1e-300)
    unit = np.asfortranarray((mesh.vertices - centre) / size)
    corners = np.asfortranarray(mesh.faces.astype(np.int32))
    vertices, kept, _, _ = map(np.asarray, igl.qslim(unit, corners, faces))
    if not len(kept) or not np.isfinite(vertices).all():
        raise ValueError(
            "The mesh could not be decimated; its edges must join two faces each. Extract it at "
            "a lower resolution instead."
        )
    return drop_unused_vertices(
        Mesh(np.ascontiguousarray(vertices) * size + centre, kept.astype(np.int64))
    )
