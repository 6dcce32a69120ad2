"""Warnings about the solid that a mesh bounds: faces that were turned over or left out."""

from __future__ import annotations

from nstr3d.geometry.mesh.repair import RepairReport
from nstr3d.geometry.mesh.union import Union


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


def union_warnings(union: Union, share: float) -> list[str]:
    """Warnings about the surface inside the solid: what was left out, and the ``share`` of the
    surface that still counts (`inner_share`)."""
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
    if share:
        messages.append(
            f"{share:.1%} of the surface has the solid on both sides and still counts as surface, "
            "so distances are too small near it; unite the parts in a modelling program."
        )
    return messages
