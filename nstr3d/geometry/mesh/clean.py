"""Cleans a triangle mesh: merges and welds vertices, and drops faces that mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.topology import Edges, drop_unused_vertices
from nstr3d.geometry.mesh.weld import Welding, weld
from nstr3d.types import Mesh

# A face whose height is below this fraction of the mesh's extent has no usable area in float64.
DEGENERATE_HEIGHT = 1e-12


@dataclass(frozen=True)
class Clean:
    """A mesh without useless faces, and what was changed.

    ``part (f,)`` is the component that each face was in before welding, out of ``parts``. ``lost``
    is the number of components that are gone, because their faces have no area or are copies.
    """

    mesh: Mesh
    edges: Edges
    part: np.ndarray
    parts: int
    lost: int
    welding: Welding
    merged: int
    degenerate: int
    duplicate: int
    unreferenced: int

    @property
    def welded(self) -> bool:
        """Whether borders were welded."""
        return self.welding.vertices > 0 or self.welding.edges > 0


def clean_mesh(mesh: Mesh, gap: float, merged: int | None = None) -> Clean:
    """Merges vertices, drops useless faces, and welds the borders if there are any.

    ``merged`` is the second result of `merge_vertices` for a mesh that has gone through it.
    """
    if merged is None:
        mesh, merged = merge_vertices(mesh)
    vertices, faces = mesh.vertices, mesh.faces
    useless = _degenerate(Mesh(vertices, faces))
    kept = faces[~useless]
    if len(kept) == 0:
        raise ValueError(
            f"none of the {len(faces)} faces of the mesh has an area; check the file and its units"
        )
    lost = _count_lost(faces, useless) if useless.any() else 0
    unique = kept[_unique_faces(kept)]
    duplicate, degenerate = len(kept) - len(unique), int(useless.sum())
    compact = drop_unused_vertices(Mesh(vertices, unique))
    unreferenced = len(vertices) - len(compact.vertices)
    edges = Edges.of(compact.faces)
    part = label_components(len(compact.faces), *edges.pairs.T)
    parts = int(part.max()) + 1
    welding = Welding(0, 0, gap * float(compact.bounds.extent.max()))
    if edges.boundary and gap:
        joined, source, welding = weld(compact, gap, edges)
        if welding.vertices or welding.edges:
            useful = np.flatnonzero(~_degenerate(joined))
            unique = useful[_unique_faces(joined.faces[useful])]
            degenerate += len(joined.faces) - len(useful)
            duplicate += len(useful) - len(unique)
            compact = drop_unused_vertices(Mesh(joined.vertices, joined.faces[unique]))
            edges, part = Edges.of(compact.faces), part[source[unique]]
            lost += parts - len(np.unique(part))
    return Clean(
        compact, edges, part, parts, lost, welding, merged, degenerate, duplicate, unreferenced
    )


def _count_lost(faces: np.ndarray, useless: np.ndarray) -> int:
    """The number of components, connected by vertices, of which all faces are ``useless``."""
    label = label_components(int(faces.max()) + 1, faces[:, :2].ravel(), faces[:, 1:].ravel())
    sound = np.zeros(int(label.max()) + 1, bool)
    sound[label[faces[~useless, 0]]] = True
    return len(np.setdiff1d(label[faces[useless, 0]], np.flatnonzero(sound)))


def check_mesh(mesh: Mesh) -> None:
    """Raises ``ValueError`` if ``mesh`` has no faces, if a vertex is not finite, or if a face
    refers to a vertex that does not exist."""
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces, so there is nothing to repair")
    finite = np.isfinite(mesh.vertices).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"vertex {int(np.argmin(finite))} of the mesh is not finite; remove or replace it"
        )
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError(
            f"the faces of the mesh refer to vertices outside 0..{len(mesh.vertices) - 1}; check "
            "the file"
        )


def merge_vertices(mesh: Mesh) -> tuple[Mesh, int]:
    """Merges vertices at equal positions into the first of them, and counts those removed.

    Raises ``ValueError`` as `check_mesh` does.
    """
    check_mesh(mesh)
    vertices, faces = mesh.vertices, mesh.faces
    order = np.lexsort(vertices.T)  # a stable sort: of equal positions the first comes first
    ordered = vertices[order]
    starts = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    first = np.empty(len(vertices), np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    kept = first == np.arange(len(vertices))
    joined = (np.cumsum(kept) - 1)[first[faces]]
    return Mesh(vertices[kept], joined), int((~kept).sum())


def _degenerate(mesh: Mesh) -> np.ndarray:
    """Mask ``(f,)`` of faces that repeat a vertex or have no height over their longest edge."""
    bounds = mesh.bounds
    extent = float(bounds.extent.max())
    if extent == 0:
        return np.ones(len(mesh.faces), bool)
    unit = (mesh.vertices - bounds.centre) / extent
    a, b, c = (np.take(unit, mesh.faces[:, corner], axis=0) for corner in range(3))
    sides = b - a, c - b, a - c
    one, two, three = (np.einsum("ij,ij->i", side, side) for side in sides)
    longest = np.sqrt(np.maximum(np.maximum(one, two), three))
    height = np.linalg.norm(np.cross(sides[0], sides[2]), axis=1) <= DEGENERATE_HEIGHT * longest
    i, j, k = mesh.faces.T
    return (i == j) | (j == k) | (k == i) | height


def _unique_faces(faces: np.ndarray) -> np.ndarray:
    """Mask ``(f,)`` of the faces to keep, which leaves out copies of equal orientation.

    Of two coincident faces of opposite orientation, one is dropped if every face of its component
    has such a partner.
    """
    ordered = np.sort(faces, axis=1)
    # The parity of the permutation that sorts a face gives its orientation: an odd number of cyclic
    # ascents means reversed.
    reversed_ = (
        (faces[:, 0] < faces[:, 1]) ^ (faces[:, 1] < faces[:, 2]) ^ (faces[:, 2] < faces[:, 0])
    )
    order = np.lexsort((reversed_, ordered[:, 2], ordered[:, 1], ordered[:, 0]))
    same_place = (ordered[order][1:] == ordered[order][:-1]).all(axis=1)
    if not same_place.any():
        return np.ones(len(faces), bool)
    same_side = reversed_[order][1:] == reversed_[order][:-1]
    kept = np.ones(len(faces), bool)
    kept[order[1:][same_place & same_side]] = False
    back = order[1:][same_place & ~same_side]
    if len(back):
        paired = _has_back(faces, ordered, order, back)
        kept[back[paired[back]]] = False
    return kept


def _has_back(
    faces: np.ndarray, ordered: np.ndarray, order: np.ndarray, back: np.ndarray
) -> np.ndarray:
    """Mask ``(f,)`` of the faces whose edge-connected component is two-sided throughout.

    Every face of such a component coincides with one of opposite orientation, so the component
    encloses nothing.
    """
    place = np.empty(len(faces), np.int64)
    place[order] = np.cumsum(
        np.concatenate([[False], (ordered[order][1:] != ordered[order][:-1]).any(axis=1)])
    )
    doubled = np.isin(place, place[back])
    edges = Edges.of(faces)
    neighbours = edges.order[1:] // 3, edges.order[:-1] // 3
    component = label_components(len(faces), *(side[edges.joined] for side in neighbours))
    single = np.zeros(component.max() + 1, bool)
    single[component[~doubled]] = True
    return ~single[component]
