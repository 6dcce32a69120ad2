"""The solid that a mesh bounds: faces inside it are left out, and what was done is put in words."""

from __future__ import annotations

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.repair import RepairReport
from nstr3d.geometry.mesh.union import Union, inner_share, unite_self
from nstr3d.types import Mesh


def unite_overlap(mesh: Mesh, distance: MeshDistance, union: Union) -> tuple[Mesh, Union]:
    """`unite_self` for ``mesh``, whose earlier ``union`` is known.

    ``distance`` may measure from a scaled copy of the mesh, whose search tree is built once.
    """
    if inner_share(distance) == 0:
        return mesh, union
    united, later = unite_self(mesh, MeshDistance(mesh))
    return united, union.followed_by(later)


def turned_warnings(repairs: RepairReport, faces: int) -> list[str]:
    """A warning if faces of the ``faces`` that the mesh has were turned over."""
    flipped = repairs.flipped_faces
    if flipped == 0:
        return []
    meaning = "negative means inside the closed surface"
    if flipped == faces:
        return [
            f"All {faces:,} faces were turned over, because the outermost surface looked inward, "
            f"as in a room that is scanned from inside: {meaning}."
        ]
    whole = f", among them {repairs.turned:,} whole part(s) that were inside out"
    return [
        f"{flipped:,} of {faces:,} faces looked inward or against their neighbours and were turned "
        f"over{whole if repairs.turned else ''}: {meaning}."
    ]


def union_warnings(union: Union, distance: MeshDistance) -> list[str]:
    """Warnings about the surface inside the solid: what was left out, and what still counts.

    ``distance`` measures from the mesh after the union.
    """
    messages = []
    if union.changed:
        kinds = (
            (union.nested, "part(s) lie wholly inside others"),
            (union.united, "parts overlap or touch others"),
            (union.walls, "faces are walls between parts"),
            (union.cut, "faces lie inside in full or in part and were cut one by one"),
        )
        what = ", ".join(f"{count:,} {words}" for count, words in kinds if count)
        messages.append(
            f"{union.area:.2%} of the surface lay inside the solid and was left out ({what}): the "
            "surface is the outside of the union of all parts, and cavities stay."
        )
    share = inner_share(distance)
    if share:
        messages.append(
            f"{share:.1%} of the surface has the solid on both sides and still counts as surface, "
            "so distances are too small near it; unite the parts in a modelling program."
        )
    return messages
