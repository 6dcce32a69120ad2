"""The solid that a job fits to the mesh of a file, and what was changed on the way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nstr3d.geometry.mesh.doubts import FarParts, far_parts, without_parts
from nstr3d.geometry.mesh.holes import Closing
from nstr3d.geometry.mesh.repair import RepairReport, repair_parts, unite_repaired
from nstr3d.geometry.mesh.solid import Account, close_repaired, make_solid
from nstr3d.geometry.mesh.union import Union
from nstr3d.jobs.doubts import far_warnings, step_warnings
from nstr3d.jobs.meshwarnings import check_solid, warnings_of
from nstr3d.jobs.solid import turned_warnings
from nstr3d.jobs.surface import check_size
from nstr3d.types import Mesh

EDGES = ("watertight", "boundary_edges", "branching_edges", "one_sided")


@dataclass(frozen=True)
class Prepared:
    """The solid that is fitted: the repaired, closed and united ``mesh``, in world units.

    ``repairs``, ``closing`` and ``union`` say what was changed, and ``account`` what became of each
    part. ``far`` are the parts that lie far from the others, and ``dropped`` says of each whether
    it was left out. ``warnings`` are for the user.
    """

    mesh: Mesh
    repairs: RepairReport
    closing: Closing
    account: Account
    union: Union
    far: FarParts
    dropped: tuple[bool, ...]
    warnings: tuple[str, ...]


def prepare_mesh(
    original: Mesh, drop_far: bool = False, thickness: float | None = None
) -> Prepared:
    """Turns the mesh of a file into the solid that is fitted.

    Strays far from the other parts are left out; ``drop_far`` leaves out all far parts. Open
    surfaces become sheets of ``thickness``, if one is given. Raises ValueError for a mesh that is
    too large or too small, for one that encloses nothing, and as `repair` does.
    """
    check_size(original)
    whole, repairs, part = repair_parts(original)
    far = far_parts(whole, repairs.components)
    dropped = tuple(drop_far or (each.stray and thickness is None) for each in far.parts)
    if any(dropped):
        solid = make_solid(without_parts(whole, far, dropped), thickness)
        edges = {name: getattr(solid.repairs, name) for name in EDGES}
        solid = dataclasses.replace(solid, repairs=dataclasses.replace(repairs, **edges))
    else:
        solid = close_repaired(whole, repairs, part, thickness)
    check_solid(solid)
    mesh, union = unite_repaired(solid.mesh, solid.repairs)
    faces = len(original.faces) - repairs.degenerate_faces - repairs.duplicate_faces
    warnings = [
        *warnings_of(solid, thickness),
        *turned_warnings(repairs, faces),
        *far_warnings(far, dropped),
        *step_warnings(original),
    ]
    made = solid.repairs, solid.closing, solid.account
    return Prepared(mesh, *made, union, far, dropped, tuple(warnings))


def describe_repairs(prepared: Prepared) -> dict[str, Any]:
    """The report's entry on repairs."""
    parts = {"closed": prepared.closing, "union": prepared.union}
    return dataclasses.asdict(prepared.repairs) | {
        name: dataclasses.asdict(part) for name, part in parts.items()
    }


def describe_far(prepared: Prepared) -> dict[str, Any]:
    """The report's entry on parts that lie far from the main parts."""
    far = prepared.far
    return {
        "parts": len(far.parts),
        "faces": sum(part.faces for part in far.parts),
        "share_of_box": far.share,
        "dropped": sum(prepared.dropped),
    }
