"""Prepares a triangle mesh for measurement.

Seams are merged, borders that nearly coincide are welded, useless faces are dropped, and every
component is oriented outward. No geometry is added: holes stay open, because the winding number
tolerates them. The parts of a closed mesh are united. A `RepairReport` counts every change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.boxes import bounding_boxes, meeting_boxes
from nstr3d.geometry.mesh.clean import Clean, clean_mesh
from nstr3d.geometry.mesh.probes import middle_winding, probe_faces
from nstr3d.geometry.mesh.surface import face_areas, volume, volumes
from nstr3d.geometry.mesh.topology import Edges
from nstr3d.geometry.mesh.union import Union, unite
from nstr3d.geometry.mesh.weld import WELD
from nstr3d.types import Mesh, expect

# A component is inside out if its mean winding number is below this. The mean is near +1/2 or -1/2
# on a closed component and near 0 on a flat sheet.
INVERTED = -0.05


@dataclass(frozen=True)
class RepairReport:
    """What `repair` changed, and the properties of the resulting mesh.

    The fields up to ``flipped_faces`` count the changes. ``welded_vertices`` are vertices of
    borders that were joined to others up to ``weld_tolerance`` away, in mesh units.
    ``split_edges`` are edges of borders that were split at the vertices of other borders.

    ``parts`` is the number of components before welding, ``welded_parts`` the number of those that
    were welded to others, and ``lost_parts`` the number of further components of which no face
    has an area or all faces are copies of others. ``components`` is the number of components; a
    component is a set of faces connected across edges with exactly two faces. ``one_sided`` counts
    components that cannot be oriented, such as a Moebius strip. ``boundary_edges`` have one face
    and ``branching_edges`` have more than two. ``watertight`` says that every edge has exactly two
    faces, which run along it in opposite directions. These describe the mesh before its parts were
    united. ``turned`` counts the components that were turned over as a whole, because they were
    inside out. ``union`` is what `unite` left out; it is None for a mesh with boundary edges or
    one-sided components, which is not united.
    """

    merged_vertices: int
    degenerate_faces: int
    duplicate_faces: int
    unreferenced_vertices: int
    welded_vertices: int
    split_edges: int
    flipped_faces: int
    weld_tolerance: float
    parts: int
    welded_parts: int
    lost_parts: int
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
                self.welded_vertices,
                self.split_edges,
                self.flipped_faces,
                self.union and self.union.changed,
            )
        )


def repair(mesh: Mesh, gap: float = WELD) -> tuple[Mesh, RepairReport]:
    """Repairs ``mesh`` and counts what was changed.

    Duplicate vertices (equal positions, as at UV seams), degenerate faces, duplicate faces and
    unused vertices are removed; the order of the remaining vertices and faces is kept. Of
    coincident faces of equal orientation, one is kept. Of two coincident faces of opposite
    orientation, one is dropped if their whole component is two-sided; two solids that touch face to
    face keep both faces.

    Borders within ``gap`` longest extents of one another are then welded (`weld`); 0 welds none.
    Every component is oriented outward: it is turned over where the winding number beside it shows
    that it is inside out. The shell of a cavity faces into the cavity and stays. If no edge is
    open, faces inside the solid are then left out (`unite`).

    Raises ``ValueError`` if the mesh has no faces or none with area, if a vertex is not finite, or
    if a face refers to a vertex that does not exist.
    """
    expect(mesh, Mesh, "mesh")
    repaired, report, _ = repair_parts(mesh, gap)
    if report.boundary_edges or report.one_sided:
        return repaired, report
    united, union = unite_repaired(repaired, report)
    return united, replace(report, union=union)


def unite_repaired(mesh: Mesh, report: RepairReport) -> tuple[Mesh, Union]:
    """`unite` for a ``mesh`` of `repair_parts`, at no cost if it is a single closed component."""
    single = report.watertight and report.components == 1
    return (mesh, Union()) if single else unite(mesh, report.watertight)


def repair_parts(
    mesh: Mesh, gap: float = WELD, merged: int | None = None
) -> tuple[Mesh, RepairReport, np.ndarray]:
    """As `repair`, but without the union of the parts.

    The third result is the part ``(f,)`` of each face, its component before welding. Parts are
    numbered from 0 to ``parts`` - 1. ``merged`` is the second result of `merge_vertices` for a mesh
    that has gone through it.
    """
    clean = clean_mesh(mesh, gap, merged)
    component, flip, one_sided = _consistent_orientation(clean)
    candidate = Mesh(clean.mesh.vertices, _flipped(clean.mesh.faces, flip))
    watertight = clean.edges.all_paired and one_sided == 0
    turned = _inside_out(candidate, component, closed=watertight)
    flip ^= turned[component]
    report = RepairReport(
        merged_vertices=clean.merged,
        degenerate_faces=clean.degenerate,
        duplicate_faces=clean.duplicate,
        unreferenced_vertices=clean.unreferenced,
        welded_vertices=clean.welding.vertices,
        split_edges=clean.welding.edges,
        flipped_faces=int(flip.sum()),
        weld_tolerance=clean.welding.tolerance,
        parts=clean.parts,
        welded_parts=_count_joined(clean.part, component) if clean.welded else 0,
        lost_parts=clean.lost,
        components=int(component.max()) + 1,
        one_sided=one_sided,
        boundary_edges=clean.edges.boundary,
        branching_edges=clean.edges.branching,
        watertight=watertight,
        turned=int(turned.sum()),
    )
    return Mesh(clean.mesh.vertices, _flipped(clean.mesh.faces, flip)), report, clean.part


def _count_joined(part: np.ndarray, component: np.ndarray) -> int:
    """The number of parts whose component holds more than one part."""
    pairs = np.unique(np.column_stack([component, part]), axis=0)
    return int((np.bincount(pairs[:, 0])[pairs[:, 0]] > 1).sum())


def structure(mesh: Mesh) -> tuple[int, bool]:
    """The number of edge-connected components of ``mesh``, and whether it is watertight."""
    edges = Edges.of(mesh.faces)
    components = int(label_components(len(mesh.faces), *edges.pairs.T).max()) + 1
    return components, edges.all_paired and bool(edges.agree.all())


def _consistent_orientation(clean: Clean) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds which faces to flip so that neighbouring faces are consistently oriented.

    Returns the component ``(f,)`` of every face, the mask ``(f,)`` of faces to flip, and the number
    of components that cannot be oriented, which are left unchanged. In each component, the
    orientation with the larger area is kept.
    """
    mesh, edges = clean.mesh, clean.edges
    agreeing, clashing = edges.pairs[edges.agree], edges.pairs[~edges.agree]
    if len(clashing) == 0 and not clean.welded:
        return clean.part, np.zeros(len(mesh.faces), bool), 0
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
    probed = probe_faces(mesh, component, count)
    inverted = np.zeros(count, bool)
    if closed:
        # A closed component away from all others is inside out if its volume is negative.
        meeting = np.unique(meeting_boxes(*bounding_boxes(mesh, component)))
        inverted = volumes(mesh, component) < 0
        probed = probed[np.isin(component[probed], meeting)]
        if len(probed) == 0:
            return inverted
    number, owner = middle_winding(mesh, probed), component[probed]
    total = np.bincount(owner, minlength=count)
    mean = np.bincount(owner, number, count) / np.maximum(total, 1)
    return np.where(total > 0, mean < INVERTED, inverted)


def _flipped(faces: np.ndarray, flip: np.ndarray) -> np.ndarray:
    return np.where(flip[:, None], faces[:, ::-1], faces)
