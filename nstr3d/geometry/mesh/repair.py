"""Prepares a triangle mesh for measurement.

Seams are merged, useless faces are dropped, and every component is oriented outward. No geometry is
added: holes stay open, because the winding number tolerates them. The parts of a closed mesh are
united. A `RepairReport` counts every change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.boxes import bounding_boxes, meeting_boxes
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.surface import face_areas, face_normals, volume, volumes
from nstr3d.geometry.mesh.topology import directed_edges, drop_unused_vertices
from nstr3d.geometry.mesh.union import Union, unite
from nstr3d.types import Mesh

# A face whose height is below this fraction of the mesh's extent has no usable area in float64.
DEGENERATE_HEIGHT = 1e-12
# Upper bounds on the probe points that decide which components are inside out: in total (unless
# there are more components) and per component.
PROBES, PROBES_PER_COMPONENT = 60_000, 64
# A component is inside out if its mean winding number is below this. The mean is near +1/2 or -1/2
# on a closed component and near 0 on a flat sheet.
INVERTED = -0.05


@dataclass(frozen=True)
class RepairReport:
    """What `repair` changed, and the properties of the resulting mesh.

    The first five fields count the changes. ``components`` is the number of components; a component
    is a set of faces connected across edges with exactly two faces. ``one_sided`` counts components
    that cannot be oriented, such as a Moebius strip. ``boundary_edges`` have one face and
    ``branching_edges`` have more than two. ``watertight`` says that every edge has exactly two
    faces, which run along it in opposite directions. These describe the mesh before its parts were
    united. ``turned`` counts the components that were turned over as a whole, because they were
    inside out. ``union`` is what `unite` left out; it is None for a mesh with boundary edges or
    one-sided components, which is not united.
    """

    merged_vertices: int
    degenerate_faces: int
    duplicate_faces: int
    unreferenced_vertices: int
    flipped_faces: int
    components: int
    one_sided: int
    boundary_edges: int
    branching_edges: int
    watertight: bool
    turned: int = 0
    union: Union | None = None

    @property
    def changed(self) -> bool:
        """Whether the repaired mesh differs from the input mesh."""
        return any(
            (
                self.merged_vertices,
                self.degenerate_faces,
                self.duplicate_faces,
                self.unreferenced_vertices,
                self.flipped_faces,
                self.union and self.union.changed,
            )
        )


def repair(mesh: Mesh) -> tuple[Mesh, RepairReport]:
    """Repairs ``mesh`` and counts what was changed.

    Duplicate vertices (equal positions, as at UV seams), degenerate faces, duplicate faces and
    unused vertices are removed; the order of the remaining vertices and faces is kept. Of
    coincident faces of equal orientation, one is kept. Of two coincident faces of opposite
    orientation, one is dropped if their whole component is two-sided; two solids that touch face to
    face keep both faces.

    Every component is then oriented outward: it is turned over where the winding number beside it
    shows that it is inside out. The shell of a cavity faces into the cavity and stays. If no edge
    is open, faces inside the solid are then left out (`unite`).

    Raises ``ValueError`` if the mesh has no faces or none with area, if a vertex is not finite, or
    if a face refers to a vertex that does not exist.
    """
    _check(mesh)
    vertices, faces, merged = _merge_vertices(mesh.vertices, mesh.faces)
    kept = faces[~_degenerate(Mesh(vertices, faces))]
    if len(kept) == 0:
        raise ValueError(
            f"none of the {len(faces)} faces of the mesh has an area; check the file and its units"
        )
    unique = _drop_duplicates(kept)
    compact = drop_unused_vertices(Mesh(vertices, unique))

    edges = _Edges.of(compact.faces)
    component, flip, one_sided = _consistent_orientation(compact, edges)
    candidate = Mesh(compact.vertices, _flipped(compact.faces, flip))
    watertight = edges.all_paired and one_sided == 0
    turned = _inside_out(candidate, component, closed=watertight)
    oriented = Mesh(compact.vertices, _flipped(compact.faces, flip ^ turned[component]))
    united, union = oriented, None
    if edges.boundary == 0 and one_sided == 0:
        united, union = unite(oriented, component if watertight else None)
    report = RepairReport(
        merged_vertices=merged,
        degenerate_faces=len(faces) - len(kept),
        duplicate_faces=len(kept) - len(unique),
        unreferenced_vertices=len(vertices) - len(compact.vertices),
        flipped_faces=int((flip ^ turned[component]).sum()),
        components=int(component.max()) + 1,
        one_sided=one_sided,
        boundary_edges=edges.boundary,
        branching_edges=edges.branching,
        watertight=watertight,
        turned=int(turned.sum()),
        union=union,
    )
    return united, report


def structure(mesh: Mesh) -> tuple[int, bool]:
    """The number of edge-connected components of ``mesh``, and whether it is watertight."""
    edges = _Edges.of(mesh.faces)
    components = int(label_components(len(mesh.faces), *edges.pairs.T).max()) + 1
    return components, edges.all_paired and bool(edges.agree.all())


def _check(mesh: Mesh) -> None:
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


def _merge_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Merges vertices at equal positions into the first of them.

    Returns the vertices, the faces, and the number of vertices that were removed.
    """
    order = np.lexsort(vertices.T)  # a stable sort: of equal positions the first comes first
    ordered = vertices[order]
    starts = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    first = np.empty(len(vertices), np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    kept = first == np.arange(len(vertices))
    return vertices[kept], (np.cumsum(kept) - 1)[first[faces]], int((~kept).sum())


def _degenerate(mesh: Mesh) -> np.ndarray:
    """Mask ``(f,)`` of faces that repeat a vertex or have no height over their longest edge."""
    bounds = mesh.bounds
    extent = float(bounds.extent.max())
    if extent == 0:
        return np.ones(len(mesh.faces), bool)
    unit = Mesh((mesh.vertices - bounds.centre) / extent, mesh.faces)
    corners = [unit.vertices[mesh.faces[:, corner]] for corner in range(3)]
    longest = np.sqrt(
        np.max([((corners[i] - corners[i - 1]) ** 2).sum(axis=1) for i in range(3)], axis=0)
    )
    a, b, c = mesh.faces.T
    return (a == b) | (b == c) | (c == a) | (2 * face_areas(unit) <= DEGENERATE_HEIGHT * longest)


def _drop_duplicates(faces: np.ndarray) -> np.ndarray:
    """``faces`` without copies of equal orientation.

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
        return faces
    same_side = reversed_[order][1:] == reversed_[order][:-1]
    kept = np.ones(len(faces), bool)
    kept[order[1:][same_place & same_side]] = False
    back = order[1:][same_place & ~same_side]
    if len(back):
        paired = _has_back(faces, ordered, order, back)
        kept[back[paired[back]]] = False
    return faces[kept]


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
    edges = _Edges.of(faces)
    neighbours = edges.order[1:] // 3, edges.order[:-1] // 3
    component = label_components(len(faces), *(side[edges.joined] for side in neighbours))
    single = np.zeros(component.max() + 1, bool)
    single[component[~doubled]] = True
    return ~single[component]


@dataclass(frozen=True)
class _Edges:
    """The three directed edges of every face, grouped by undirected edge.

    Directed edge e belongs to face e // 3. ``order (3 f,)`` sorts the directed edges so that those
    on one undirected edge are consecutive. ``joined (3 f - 1,)`` says whether two consecutive
    directed edges in that order lie on the same undirected edge. ``pairs (m, 2)`` are the two faces
    at every edge with exactly two. ``agree (m,)`` says whether these run along the edge in opposite
    directions, as consistent orientation requires. ``boundary`` counts edges with one face,
    ``branching`` edges with more than two.
    """

    order: np.ndarray
    joined: np.ndarray
    pairs: np.ndarray
    agree: np.ndarray
    boundary: int
    branching: int

    @property
    def all_paired(self) -> bool:
        return self.boundary == 0 and self.branching == 0

    @staticmethod
    def of(faces: np.ndarray) -> _Edges:
        start, _, key = directed_edges(faces)
        order = np.argsort(key, kind="stable")
        joined = key[order[1:]] == key[order[:-1]]
        first = np.flatnonzero(np.concatenate([[True], ~joined]))
        count = np.diff(np.append(first, len(order)))
        one, two = order[first[count == 2]], order[first[count == 2] + 1]
        pairs = np.column_stack([one, two]) // 3
        return _Edges(
            order,
            joined,
            pairs,
            start[one] != start[two],
            int((count == 1).sum()),
            int((count > 2).sum()),
        )


def _consistent_orientation(mesh: Mesh, edges: _Edges) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds which faces to flip so that neighbouring faces are consistently oriented.

    Returns the component ``(f,)`` of every face, the mask ``(f,)`` of faces to flip, and the number
    of components that cannot be oriented, which are left unchanged. In each component, the
    orientation with the larger area is kept.
    """
    agreeing, clashing = edges.pairs[edges.agree], edges.pairs[~edges.agree]
    patch = label_components(len(mesh.faces), *agreeing.T)
    if len(clashing) == 0:
        return patch, np.zeros(len(mesh.faces), bool), 0
    # Patches of consistently oriented faces are the nodes of a small graph. Its double cover has
    # two nodes for each patch, one unchanged and one turned over. A clash links nodes of opposite
    # kinds, so each connected component of the double cover is one consistent choice.
    patches = int(patch.max()) + 1
    one, two = patch[clashing].T
    choice = label_components(
        2 * patches, np.concatenate([one, one + patches]), np.concatenate([two + patches, two])
    )
    component_of_patch = label_components(patches, one, two)
    as_is, turned = choice[:patches], choice[patches:]
    areas = np.bincount(patch, face_areas(mesh) / mesh.bounds.diagonal**2, patches)
    kept_area = np.bincount(as_is, areas, int(choice.max()) + 1)
    flip = (kept_area[turned] > kept_area[as_is]) | (
        (kept_area[turned] == kept_area[as_is]) & (turned < as_is)
    )
    # Where both choices of a patch are connected, none is consistent: the component stays as it is.
    one_sided = len(np.unique(component_of_patch[as_is == turned]))
    return component_of_patch[patch], flip[patch], one_sided


def _inside_out(mesh: Mesh, component: np.ndarray, closed: bool) -> np.ndarray:
    """Mask ``(components,)`` of the components that are inside out.

    Across a face the winding number steps from w in front to w + 1 behind. On an outward component
    these are 0 and 1, with mean 1/2 on the surface; the same holds for the shell of a cavity. On a
    component that is inside out they are -1 and 0, with mean -1/2.
    """
    count = int(component.max()) + 1
    if closed and count == 1:
        return np.array([volume(mesh) < 0])
    probed = _probe_faces(mesh, component, count)
    inverted = np.zeros(count, bool)
    if closed:
        # A closed component away from all others is inside out if its volume is negative.
        meeting = np.unique(meeting_boxes(*bounding_boxes(mesh, component)))
        inverted = volumes(mesh, component) < 0
        probed = probed[np.isin(component[probed], meeting)]
        if len(probed) == 0:
            return inverted
    corners = mesh.vertices[mesh.faces[probed]]
    step = 1e-4 * np.sqrt(face_areas(mesh)[probed])[:, None] * face_normals(mesh)[probed]
    centroid = corners.mean(axis=1)
    number = (
        MeshDistance(mesh)
        .winding(np.concatenate([centroid + step, centroid - step]))
        .reshape(2, -1)
        .mean(axis=0)
    )
    owner = component[probed]
    total = np.bincount(owner, minlength=count)
    mean = np.bincount(owner, number, count) / np.maximum(total, 1)
    return np.where(total > 0, mean < INVERTED, inverted)


def _probe_faces(mesh: Mesh, component: np.ndarray, count: int) -> np.ndarray:
    """Faces spread evenly over the area of each component, the same number for each component."""
    each = int(np.clip(PROBES // count, 1, PROBES_PER_COMPONENT))
    order = np.argsort(component, kind="stable")
    areas = face_areas(mesh)[order] / mesh.bounds.diagonal**2
    reach = np.cumsum(areas)
    last = np.cumsum(np.bincount(component, minlength=count)) - 1
    start = np.concatenate([[0.0], reach[last[:-1]]])
    at = start[:, None] + (np.arange(each) + 0.5) / each * (reach[last] - start)[:, None]
    first = np.concatenate([[0], last[:-1] + 1])
    slots = np.clip(np.searchsorted(reach, at), first[:, None], last[:, None])
    return order[slots].ravel()


def _flipped(faces: np.ndarray, flip: np.ndarray) -> np.ndarray:
    return np.where(flip[:, None], faces[:, ::-1], faces)
