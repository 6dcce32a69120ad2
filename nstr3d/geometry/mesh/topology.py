"""How many handles a surface has."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloud.neighbours import connected
from nstr3d.types import Mesh


def genera(mesh: Mesh) -> list[int | None]:
    """The genus of each connected component of ``mesh``, those with most faces first: (2 - V + E -
    F) / 2 by Euler and Poincare, None for a component that is not closed, two faces to an edge."""
    count = len(mesh.vertices)
    label = connected(count, mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel())
    start, end = (
        mesh.faces.astype(np.int64).ravel(),
        np.roll(mesh.faces, -1, axis=1).astype(np.int64).ravel(),
    )
    edges, uses = np.unique(
        np.minimum(start, end) * count + np.maximum(start, end), return_counts=True
    )
    starts = edges // count
    size = int(label.max()) + 1
    used = np.unique(mesh.faces)
    vertex, edge, face = (
        np.bincount(label[rows], minlength=size) for rows in (used, starts, mesh.faces[:, 0])
    )
    torn = np.bincount(label[starts[uses != 2]], minlength=size) > 0
    genus = (2 - (vertex - edge + face)) // 2
    order = np.argsort(-face, kind="stable")
    return [None if torn[part] else int(genus[part]) for part in order if face[part]]
