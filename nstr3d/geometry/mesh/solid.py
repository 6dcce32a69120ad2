"""Turns any triangle mesh into a solid, and accounts for each of its components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.holes import Closing, Fate, close_parts
from nstr3d.geometry.mesh.repair import RepairReport, repair_parts, unite_repaired
from nstr3d.geometry.mesh.sheets import thicken
from nstr3d.geometry.mesh.surface import area
from nstr3d.geometry.mesh.union import unite_self
from nstr3d.types import Mesh


@dataclass(frozen=True)
class Account:
    """How many of the ``parts`` of a mesh, its components before welding, became what.

    ``closed`` parts are closed, after welding where it joined them. ``capped`` parts had holes that
    caps closed. ``open`` parts bound a solid together with others, with gaps between them.
    ``sheets`` enclose nothing and were left out, or are all that there is. ``thickened`` parts are
    open surfaces that became thin solids. Of ``degenerate`` parts all faces have no area or are
    copies of others. ``far`` parts lie far from the others and were left out. These seven numbers
    add up to ``parts``. ``welded`` of the parts were welded to others, ``left_out`` are not in the
    result, and ``left_out_share`` is the share of the area of the mesh that these have.
    """

    parts: int
    closed: int
    capped: int
    open: int
    sheets: int
    thickened: int
    degenerate: int
    welded: int
    left_out: int
    left_out_share: float
    far: int = 0


@dataclass(frozen=True)
class Solid:
    """A solid ``mesh``, and how it was made: its ``repairs``, the ``closing`` of its holes and the
    ``account`` of its components."""

    mesh: Mesh
    repairs: RepairReport
    closing: Closing
    account: Account


def solid_distance(mesh: Mesh) -> MeshDistance:
    """The distance to the solid that ``mesh`` bounds: repaired, with its holes closed and its parts
    united. The solid is the ``mesh`` of the distance.

    Raises ``ValueError`` as `repair` does.
    """
    solid = make_solid(mesh)
    united, _ = unite_repaired(solid.mesh, solid.repairs)
    distance = MeshDistance(united)
    whole, _ = unite_self(united, distance)
    return distance if whole is united else MeshDistance(whole)


def make_solid(mesh: Mesh, thickness: float | None = None) -> Solid:
    """Repairs ``mesh`` and closes its holes, or thickens its open components by ``thickness``.

    Raises ``ValueError`` as `repair` does, and for a thickness that is not positive.
    """
    return close_repaired(*repair_parts(mesh), thickness)


def close_repaired(
    whole: Mesh, repairs: RepairReport, part: np.ndarray, thickness: float | None = None
) -> Solid:
    """`make_solid` for the results of `repair_parts`."""
    if thickness is not None and not thickness > 0:
        raise ValueError(f"the thickness of a sheet must be positive, not {thickness}")
    if repairs.watertight:
        solid, closing = whole, Closing(closed=repairs.components)
        fate = np.full(len(part), Fate.CLOSED)
    elif thickness is not None:
        solid, sheet = thicken(whole, thickness)
        fate, closing = np.where(sheet, Fate.SHEET, Fate.CLOSED), Closing()
    else:
        solid, closing, fate = close_parts(whole)
    first = np.full(repairs.parts, -1)
    first[part] = np.arange(len(part))
    kinds = np.bincount(fate[first[first >= 0]], minlength=len(Fate)).tolist()
    sheets, thickened = (0, kinds[Fate.SHEET]) if thickness else (kinds[Fate.SHEET], 0)
    lost = repairs.lost_parts
    account = Account(
        parts=sum(kinds) + lost,
        closed=kinds[Fate.CLOSED],
        capped=kinds[Fate.CAPPED],
        open=kinds[Fate.OPEN],
        sheets=sheets,
        thickened=thickened,
        degenerate=lost,
        welded=repairs.welded_parts,
        left_out=lost + (sheets if closing.dropped else 0),
        left_out_share=closing.sheet_area / area(whole) if closing.dropped else 0.0,
    )
    return Solid(solid, repairs, closing, account)
