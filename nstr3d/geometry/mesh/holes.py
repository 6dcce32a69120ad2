"""Closes the holes of an open mesh, so that its signed distance is continuous.

Across an open hole the winding number still changes sign, but no surface lies there. The signed
distance would jump from +d to -d, and a continuous field cannot represent such a jump.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.caps import Caps, cap_loops
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.loops import Loops, border_loops
from nstr3d.geometry.mesh.probes import middle_winding, probe_faces
from nstr3d.geometry.mesh.surface import face_areas
from nstr3d.geometry.mesh.tiles import Tiles, label_neighbours
from nstr3d.geometry.mesh.topology import Edges, drop_unused_vertices
from nstr3d.types import Mesh

# A component with its caps is a solid if the winding number beside its faces is on average at least
# this far from 0. It is 1/2 on a solid. It is 0 on a flat patch, whose cap coincides with it, and
# near 0 on a relief, which its cap cuts into hills and turned valleys.
SOLID = 0.4
# Caps of less than this share of the area of a component cannot make it a sheet or a relief.
SMALL = 0.1
# A cap lies in a hole if the winding number on it is halfway between two integers up to this, and
# within a solid or outside of it if not.
HALFWAY = 0.3
# A component is a sheet if the winding numbers beside its faces are integers up to this.
SHEET = 0.25


class Fate(IntEnum):
    """What became of a component of a mesh."""

    CLOSED = 0
    """It was closed and stays."""
    CAPPED = 1
    """All of its holes were closed with caps."""
    OPEN = 2
    """It stays open: it is part of a solid, but caps would cut the solid."""
    SHEET = 3
    """It encloses nothing, alone or with others."""


@dataclass(frozen=True)
class Closing:
    """What `close_holes` did.

    ``holes`` is the number of holes that were closed. ``widest`` is the width of the widest of
    them in mesh units: twice the largest distance from a vertex of its boundary to the centroid.
    ``left`` is the number of boundary edges that are still open. ``closed``, ``capped``, ``open``
    and ``sheets`` count the components by `Fate`. ``sheet_area`` is the area of the sheets. They
    are left out if ``dropped``; they stay in the mesh if there is nothing else.
    """

    holes: int = 0
    widest: float = 0.0
    left: int = 0
    closed: int = 0
    capped: int = 0
    open: int = 0
    sheets: int = 0
    sheet_area: float = 0.0
    dropped: bool = False


def close_holes(mesh: Mesh) -> tuple[Mesh, Closing]:
    """Closes the holes of ``mesh`` with caps (`cap_loops`), and leaves out sheets.

    Returns the mesh and the counts. A hole stays open if the cap would not close a solid: if the
    component would still enclose nothing, as a flat patch does, or if the cap would lie within a
    solid that components form together. Faces must be consistently oriented (`repair` ensures it).
    Caps are oriented like the faces around them.
    """
    closed, closing, _ = close_parts(mesh)
    return closed, closing


def close_parts(mesh: Mesh) -> tuple[Mesh, Closing, np.ndarray]:
    """As `close_holes`; the third result is the `Fate` ``(f,)`` of the component of each face."""
    edges = Edges.of(mesh.faces)
    part = label_components(len(mesh.faces), *edges.pairs.T)
    count = int(part.max()) + 1
    if edges.all_paired:
        return mesh, Closing(closed=count), np.full(len(mesh.faces), Fate.CLOSED)
    loops = border_loops(mesh.faces, edges, part)
    caps = cap_loops(mesh.vertices, loops)
    rims = np.bincount(np.concatenate([loops.part, loops.loose]), minlength=count)
    accepted = _accepted(mesh, part, rims > 0, loops, caps)
    taken = accepted[caps.of_loop]
    fate = np.where(rims > 0, Fate.OPEN, Fate.CLOSED)
    fate[(rims > 0) & (np.bincount(loops.part[taken], minlength=count) == rims)] = Fate.CAPPED
    chosen, owner = accepted[caps.cap], np.empty(len(accepted), np.int64)
    owner[caps.of_loop] = loops.part
    lids = Mesh(np.concatenate([mesh.vertices, caps.vertices]), caps.faces[chosen])
    fate[_sheets(mesh, part, fate, lids, owner[caps.cap[chosen]])] = Fate.SHEET
    dropped = bool((fate == Fate.SHEET).any() and (fate != Fate.SHEET).any())
    accepted[caps.of_loop[fate[loops.part] == Fate.SHEET]] = False
    taken, sheet = accepted[caps.of_loop], fate[part] == Fate.SHEET
    kept = Mesh(mesh.vertices, mesh.faces[~sheet] if dropped else mesh.faces)
    number = np.bincount(fate, minlength=len(Fate)).tolist()
    closing = Closing(
        holes=int(accepted.sum()),
        widest=float(caps.width[taken].max(initial=0.0)),
        left=_count_left(loops, taken, fate, dropped),
        closed=number[Fate.CLOSED],
        capped=number[Fate.CAPPED],
        open=number[Fate.OPEN],
        sheets=number[Fate.SHEET],
        sheet_area=float(face_areas(Mesh(mesh.vertices, mesh.faces[sheet])).sum()),
        dropped=dropped,
    )
    closed = _joined(kept, caps, accepted)
    if len(closed.faces) != len(mesh.faces) or dropped:
        closed = drop_unused_vertices(closed)
    return closed, closing, fate[part]


def _count_left(loops: Loops, taken: np.ndarray, fate: np.ndarray, dropped: bool) -> int:
    """The number of border edges without caps of the components that stay in the mesh."""
    stays = fate != Fate.SHEET if dropped else np.ones(len(fate), bool)
    return int(loops.sizes[~taken & stays[loops.part]].sum() + stays[loops.loose].sum())


def _joined(mesh: Mesh, caps: Caps, accepted: np.ndarray) -> Mesh:
    """``mesh`` with the ``accepted`` caps."""
    return Mesh(
        np.concatenate([mesh.vertices, caps.vertices]),
        np.concatenate([mesh.faces, caps.faces[accepted[caps.cap]]]),
    )


def _accepted(
    mesh: Mesh, part: np.ndarray, opened: np.ndarray, loops: Loops, caps: Caps
) -> np.ndarray:
    """Mask of the caps that close a solid; ``opened`` says which components have a border."""
    count = int(caps.of_loop.max(initial=-1)) + 1
    if count == 0:
        return np.zeros(0, bool)
    # Components that share a cap, such as the walls of a pipe, are judged together.
    first = np.empty(count, np.int64)
    first[caps.of_loop] = loops.part
    group = label_components(len(opened), first[caps.of_loop], loops.part)
    walls = np.flatnonzero(opened[part])
    solid = _solid(mesh, group[part], walls, caps, group[first])
    if not solid.any() or len(np.unique(group[opened])) == 1:
        return solid[group[first]]
    return solid[group[first]] & _in_holes(mesh, walls, caps, group[part[walls]], group[first])


def _solid(
    mesh: Mesh, group: np.ndarray, walls: np.ndarray, caps: Caps, group_of_cap: np.ndarray
) -> np.ndarray:
    """Mask of the groups that are a solid with their caps, whatever else is in the mesh.

    ``group (f,)`` is the group of each face, ``walls`` are the faces of open components.
    """
    points = np.concatenate([mesh.vertices, caps.vertices])
    faces = np.concatenate([mesh.faces[walls], caps.faces])
    owner = np.concatenate([group[walls], group_of_cap[caps.cap]])
    wall = np.arange(len(faces)) < len(walls)
    count, areas = int(group.max()) + 1, face_areas(Mesh(points, faces))
    solid = np.bincount(owner, areas * ~wall, count) <= SMALL * np.bincount(
        owner, areas * wall, count
    )
    doubtful = ~solid[owner]
    if doubtful.any():
        names, owner = np.unique(owner[doubtful], return_inverse=True)
        solid[names] = _encloses(points[faces[doubtful]], owner, wall[doubtful])
    return solid


def _encloses(corners: np.ndarray, owner: np.ndarray, wall: np.ndarray) -> np.ndarray:
    """Whether each group of triangles encloses a solid on its own.

    ``corners (f, 3, 3)`` are their corners, ``owner (f,)`` their groups from 0, and ``wall (f,)``
    marks the triangles beside which the winding number is taken; they come first. All groups are
    scaled to one size and set apart, so that one search tree serves them all.
    """
    tiled, count = Tiles.around(corners, owner).mesh(corners, owner), int(owner.max()) + 1
    probed = probe_faces(Mesh(tiled.vertices, tiled.faces[wall]), owner[wall], count)
    number = middle_winding(tiled, probed)
    mean = np.bincount(owner[probed], number, count) / np.bincount(owner[probed], minlength=count)
    return np.abs(mean) >= SOLID


def _in_holes(
    mesh: Mesh, walls: np.ndarray, caps: Caps, group: np.ndarray, group_of_cap: np.ndarray
) -> np.ndarray:
    """Mask of the caps that lie in holes of the surface that neighbouring open components form.

    In a hole the winding number of that surface is halfway between two integers. ``group (n,)`` is
    the group of each of the faces ``walls (n,)``. Components far off do not count: each adds little
    to the winding number, but thousands that are open to one side add up.
    """
    corners = mesh.vertices[mesh.faces[walls]]
    names, owner = np.unique(group, return_inverse=True)
    label = label_neighbours(corners, owner)
    tiles = Tiles.around(corners, label[owner])
    lids = Mesh(np.concatenate([mesh.vertices, caps.vertices]), caps.faces)
    count = len(group_of_cap)
    probed = probe_faces(lids, caps.cap, count)
    cap = caps.cap[probed]
    tile = label[np.searchsorted(names, group_of_cap[cap])]
    points = tiles.move(lids.vertices[lids.faces[probed]].mean(axis=1), tile)
    number = MeshDistance(tiles.mesh(corners, label[owner])).winding(points)
    halfway = np.abs(number - np.floor(number) - 0.5) <= HALFWAY
    return np.bincount(cap, halfway, count) >= 0.5 * np.bincount(cap, minlength=count)


def _sheets(
    mesh: Mesh, part: np.ndarray, fate: np.ndarray, lids: Mesh, part_of_lid: np.ndarray
) -> np.ndarray:
    """The open components that enclose nothing, alone or with their neighbours.

    ``lids`` are the accepted caps, whose faces belong to the components ``part_of_lid``. Components
    without a border add integers to the winding number, so they do not count.
    """
    rows, some = np.flatnonzero(fate[part] == Fate.OPEN), fate[part_of_lid] == Fate.OPEN
    if len(rows) == 0:
        return rows
    corners = np.concatenate([mesh.vertices[mesh.faces[rows]], lids.corners[some]])
    names, owner = np.unique(np.append(part[rows], part_of_lid[some]), return_inverse=True)
    label = label_neighbours(corners, owner)[owner]
    tiled = Tiles.around(corners, label).mesh(corners, label)
    own = owner[: len(rows)]
    probed = probe_faces(Mesh(tiled.vertices, tiled.faces[: len(rows)]), own, len(names))
    number = middle_winding(tiled, probed)
    off = np.bincount(own[probed], np.abs(number - np.rint(number)))
    return names[off / np.bincount(own[probed]) <= SHEET]
