"""Leaves out what lies inside the solid, so that the surface bounds the union of its parts.

The surface lies where the winding number crosses 1/2. Where parts overlap, are nested with the same
orientation, or touch face to face, faces have a winding number above 1/2 on both sides. They are
no surface. The shell of a cavity has 0 on one side and stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.boolean import union_of_shells
from nstr3d.geometry.mesh.boxes import bounding_boxes, faces_near, layers, meeting_boxes
from nstr3d.geometry.mesh.crossings import crossings
from nstr3d.geometry.mesh.cutting import (
    INSIDE,
    INSIDE_OPEN,
    without_inner,
)
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.shells import Shells
from nstr3d.geometry.mesh.surface import area, face_normals, sample_surface, volumes
from nstr3d.geometry.mesh.topology import drop_unused_vertices
from nstr3d.geometry.mesh.walls import without_walls
from nstr3d.types import Mesh

# A change of area below this share is a rounding error.
UNCHANGED = 1e-9
# Surface points at which a surface that overlaps itself is recognised, and their distance from the
# surface, relative to the extent: the winding number is computed in single precision. At least this
# share must lie inside: beside a concave edge, a point may do so by chance.
SAMPLES, OFFSET, LEAST_SHARE = 20_000, 1e-5, 2e-3
# An odd number of directions, none along the edges that boxes usually have.
DIRECTIONS = np.array(
    [[9, 2, 1], [-8, 3, -2], [2, 9, -3], [-3, -8, 2], [1, -2, 9], [3, 2, -8], [5, -6, -4]]
)


@dataclass(frozen=True)
class Union:
    """What `unite` left out.

    ``walls`` counts faces that coincide with a face of opposite orientation inside the solid.
    ``nested`` counts parts that lie wholly inside the solid, ``united`` parts that overlapped or
    touched another and became one surface with it. ``cut`` counts faces that were left out or cut
    one by one, because their part is open or overlaps itself. ``area`` is the share of the surface
    that was left out.
    """

    walls: int = 0
    nested: int = 0
    united: int = 0
    cut: int = 0
    area: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether anything was left out."""
        return any((self.walls, self.nested, self.united, self.cut))

    def followed_by(self, later: Union) -> Union:
        """What this union and a ``later`` one of its result left out."""
        return Union(
            self.walls + later.walls,
            self.nested + later.nested,
            self.united + later.united,
            self.cut + later.cut,
            1 - (1 - self.area) * (1 - later.area),
        )


def unite(mesh: Mesh, watertight: bool = False) -> tuple[Mesh, Union]:
    """The surface of the union of the parts of ``mesh``, and what was left out.

    Faces must be oriented outward (`repair` ensures it). A mesh without faces inside the solid is
    returned as it is. Closed parts that cross are united exactly. Faces of other parts that cross
    are cut along the crossing, and the pieces inside the solid are left out. It saves time if
    ``mesh`` is known to be ``watertight``: each edge has exactly two faces.

    A single part that overlaps itself is not searched for here; `unite_self` does that.
    """
    shells = Shells.of(mesh) if watertight else None
    # In a watertight mesh, only the four faces of a flat pillow are walls.
    if shells and np.bincount(shells.label).min() > 4:
        whole, walls = mesh, 0
    else:
        whole, walls = without_walls(mesh)
        shells = Shells.of(whole)
    boxes = bounding_boxes(whole, shells.label)
    pairs = meeting_boxes(*boxes)
    union, united = Union(walls), whole
    if len(pairs):
        parts = _Parts(whole, shells)
        near = faces_near(whole, shells.label, pairs, boxes)
        parts.unite(np.unique(pairs), near, crossings(whole, near)[0])
        union, united = Union(walls, parts.nested, parts.united, parts.cut), parts.result
    return (united, _with_area(union, mesh, united)) if union.changed else (mesh, union)


def unite_self(mesh: Mesh, distance: MeshDistance) -> tuple[Mesh, Union]:
    """`unite` for parts that overlap themselves; ``distance`` measures from ``mesh``.

    Random points of the surface are probed first, so that a surface without overlap costs little.
    """
    if inner_share(distance) == 0:
        return mesh, Union()
    torn, pieces = without_inner(mesh, np.arange(len(mesh.faces)), distance)
    if len(torn) == 0:
        return mesh, Union()
    united = _joined([Mesh(mesh.vertices, np.delete(mesh.faces, torn, axis=0)), pieces])
    return united, _with_area(Union(cut=len(torn)), mesh, united)


def inner_share(distance: MeshDistance) -> float:
    """The share of the surface with the solid on both sides, at random surface points.

    It is 0 if the share is so small that it may be an error.
    """
    mesh = distance.mesh
    points, face = sample_surface(mesh, SAMPLES, np.random.default_rng(0))
    step = OFFSET * float(mesh.bounds.extent.max()) * face_normals(mesh)[face]
    front = distance.winding(points + step)
    share = float((front > (INSIDE if distance.closed else INSIDE_OPEN)).mean())
    return share if share >= LEAST_SHARE else 0.0


def _with_area(union: Union, before: Mesh, after: Mesh) -> Union:
    return replace(union, area=max(0.0, 1 - area(after) / area(before)))


class _Parts:
    """The shells of a mesh whose boxes meet, and what becomes of their faces."""

    def __init__(self, mesh: Mesh, shells: Shells) -> None:
        self.mesh, self.shells = mesh, shells
        self.distance = MeshDistance(mesh)
        self.kept = np.ones(len(mesh.faces), bool)
        self.added: list[Mesh] = []
        self.nested = self.united = self.cut = 0

    @property
    def result(self) -> Mesh:
        """The mesh after all changes."""
        if self.kept.all():
            return self.mesh
        return _joined([Mesh(self.mesh.vertices, self.mesh.faces[self.kept]), *self.added])

    def unite(self, involved: np.ndarray, near: np.ndarray, pairs: np.ndarray) -> None:
        """Leaves out what lies inside the solid.

        ``involved (s,)`` are the shells whose boxes meet those of others, ``near (n,)`` their faces
        that may touch another, and ``pairs (p, 2)`` the faces that cross.
        """
        self.near = near
        label, closed = self.shells.label, self.shells.closed
        one, two = label[pairs].T
        group = label_components(len(closed), one, two)
        tangled = ~closed
        tangled[one[one == two]] = True
        odd = np.isin(group, group[tangled])
        sound = involved[~odd[involved]]
        for members, sign in zip(self._sort(group, sound), (1, -1)):
            for layer in _layered(self.mesh, label, group, members):
                odd[layer] |= not self._unite_closed(layer, sign)
        self._cut(involved[odd[involved]])

    def _sort(self, group: np.ndarray, shells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ``shells`` of groups that are solids in the open and cavities in a solid.

        Groups inside a solid are left out here. Groups that cannot be united exactly are cut
        here.
        """
        if len(shells) == 0:
            return shells, shells
        sign = np.sign(volumes(self.mesh, self.shells.label))[shells]
        names, name, size = np.unique(group[shells], return_inverse=True, return_counts=True)
        outward = np.bincount(name, sign > 0) == size
        inward = np.bincount(name, sign < 0) == size
        base = self._around(group, names)
        swallowed = outward & (base >= 1) | inward & (base >= 2) & (size == 1)
        inner = shells[swallowed[name]]
        self.kept[np.isin(self.shells.label, inner)] = False
        self.nested += len(inner)
        solids, cavities = outward & (base == 0), inward & (base == 1)
        self._cut(shells[((size > 1) & ~swallowed & ~solids & ~cavities)[name]])
        several = (size > 1)[name]
        return shells[several & solids[name]], shells[several & cavities[name]]

    def _around(self, group: np.ndarray, names: np.ndarray) -> np.ndarray:
        """The winding number ``(n,)`` of all other shells around the groups ``names (n,)``.

        It is constant, because groups do not cross. It is measured beyond the outermost vertices of
        a group, in several directions, because another group may touch one of these.
        """
        owner = group[self.shells.label]
        faces = np.flatnonzero(np.isin(owner, names))
        faces = faces[np.argsort(owner[faces], kind="stable")]
        first = np.searchsorted(owner[faces], names)
        step = OFFSET * float(self.mesh.bounds.extent.max())
        points = []
        for direction in DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True):
            reach = (self.mesh.vertices @ direction)[self.mesh.faces[faces]]
            tip = reach.max(axis=1)
            count = np.diff(np.append(first, len(faces)))
            top = np.flatnonzero(tip == np.repeat(np.maximum.reduceat(tip, first), count))
            top = top[np.searchsorted(top, first)]
            vertex = self.mesh.faces[faces[top], reach[top].argmax(axis=1)]
            points.append(self.mesh.vertices[vertex] + step * direction)
        number = self.distance.winding(np.concatenate(points)).reshape(len(DIRECTIONS), -1)
        margin = 1 - (INSIDE if self.distance.closed else INSIDE_OPEN)
        return np.floor(np.median(number, axis=0) + margin)

    def _unite_closed(self, members: np.ndarray, sign: int) -> bool:
        """Unites closed shells, solids (``sign`` 1) or cavities (-1); false if that failed."""
        faces = np.flatnonzero(np.isin(self.shells.label, members))
        corner = self.mesh.faces[faces].ravel()
        fans, index = np.unique(self.shells.fans[faces].ravel(), return_inverse=True)
        at = np.empty(len(fans), np.int64)
        at[index] = corner
        triangles = index.reshape(-1, 3)[:, ::sign]
        united = union_of_shells(self.mesh.vertices[at], triangles, self.shells.label[faces])
        if united is None:
            return False
        before = area(Mesh(self.mesh.vertices, self.mesh.faces[faces]))
        if abs(area(united) - before) > UNCHANGED * before:
            self.kept[faces] = False
            self.added.append(Mesh(united.vertices, united.faces[:, ::sign]))
            self.united += len(members)
        return True

    def _cut(self, members: np.ndarray) -> None:
        """Leaves out the faces of ``members`` inside the solid, in part where they cross."""
        label = self.shells.label
        chosen = np.isin(label, members) & self.kept
        # Away from all other parts, an open part is left as it is.
        far = ~self.shells.closed[label]
        far[self.near] = False
        faces = np.flatnonzero(chosen & ~far)
        if len(faces) == 0:
            return
        torn, pieces = without_inner(self.mesh, faces, self.distance)
        self.kept[torn] = False
        self.added.append(pieces)
        self.cut += len(torn)


def _layered(
    mesh: Mesh, label: np.ndarray, group: np.ndarray, members: np.ndarray
) -> list[np.ndarray]:
    """Splits the shells ``members`` so that the boxes of the groups in one set do not meet."""
    if len(members) == 0:
        return []
    faces = np.isin(label, members)
    names, owner = np.unique(group[label[faces]], return_inverse=True)
    layer = layers(*bounding_boxes(Mesh(mesh.vertices, mesh.faces[faces]), owner))
    of_member = layer[np.searchsorted(names, group[members])]
    return [members[of_member == number] for number in range(int(layer.max()) + 1)]


def _joined(meshes: list[Mesh]) -> Mesh:
    """All ``meshes`` as one, without unused vertices."""
    count = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + start for mesh, start in zip(meshes, count)]
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    return drop_unused_vertices(Mesh(vertices, np.concatenate(faces)))
