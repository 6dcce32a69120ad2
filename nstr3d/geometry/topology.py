"""How many handles a surface has."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.neighbours import connected
from nstr3d.types import Mesh


def genera(mesh: Mesh) -> list[int | None]:
    """The genus of each connected component of ``mesh``, those with most faces first: (2 - V + E - F) / 2 by Euler and Poincare,
    None for a component that is not closed, two faces to an edge."""
    label = connected(len(mesh.vertices), mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel())
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]), axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    size = int(label.max()) + 1
    used = np.unique(mesh.faces)
    vertex, edge, face = (np.bincount(label[rows], minlength=size) for rows in (used, edges[:, 0], mesh.faces[:, 0]))
    torn = np.bincount(label[edges[uses != 2, 0]], minlength=size) > 0
    genus = (2 - (vertex - edge + face)) // 2
    order = np.argsort(-face, kind="stable")
    return [None if torn[part] else int(genus[part]) for part in order if face[part]]
