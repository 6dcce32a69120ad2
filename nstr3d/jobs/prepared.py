"""The solid that a job fits to the mesh of a file, and what was changed on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nstr3d.geometry.mesh.clean import merge_vertices
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.doubts import FarPart, FarParts, far_parts, without_parts
from nstr3d.geometry.mesh.holes import Closing
from nstr3d.geometry.mesh.repair import RepairReport, repair_parts, unite_repaired
from nstr3d.geometry.mesh.solid import Account, Solid, close_repaired
from nstr3d.geometry.mesh.union import Union, inner_share, unite_self
from nstr3d.jobs.doubts import far_warnings, step_warnings
from nstr3d.jobs.meshwarnings import check_mesh, check_solid, warnings_of
from nstr3d.jobs.solid import turned_warnings, union_warnings
from nstr3d.system import Message
from nstr3d.types import Box, Mesh

THINNEST = 1e-6  # thickness of a sheet in longest sides: what single precision can tell apart


@dataclass(frozen=True)
class Prepared:
    """The solid that is fitted: the repaired, closed and united ``mesh``, in world units.

    ``repairs``, ``closing`` and ``union`` say what was changed, and ``account`` what became of each
    part. ``far`` are the parts far from the others that are left, and ``dropped`` those that were
    left out. ``thickness`` is that of sheets, None if open surfaces were closed. ``warnings`` are
    for the user.
    """

    mesh: Mesh
    repairs: RepairReport
    closing: Closing
    account: Account
    union: Union
    far: FarParts
    dropped: tuple[FarPart, ...]
    thickness: float | None
    warnings: tuple[str, ...]


def prepare_mesh(
    original: Mesh, drop_far: bool = False, thickness: Callable[[Box], float] | None = None
) -> Prepared:
    """Turns the mesh of a file into the solid that is fitted, but for parts that overlap
    themselves; `unite_overlap` completes it.

    Strays far from the other parts are left out; ``drop_far`` leaves out all far parts. This comes
    first, because tolerances of repair depend on the size of the mesh. Far parts without area count
    as degenerate, as such parts elsewhere do. Open surfaces become sheets
    if ``thickness`` gives their thickness for the box of the mesh; strays are then kept. Raises
    ValueError for a mesh that is too large or too small, for one that encloses nothing, for a
    thickness below a millionth of the longest side, and as `repair` does.
    """
    check_mesh(original)
    merged, count = merge_vertices(original)
    merged, far, dropped = _without_far(merged, drop_far, strays=thickness is None)
    empty = [part for part in dropped if part.empty]
    dropped = tuple(part for part in dropped if not part.empty)
    thick = thickness and _check_thickness(thickness(merged.bounds), merged.bounds)
    whole, repairs, part = repair_parts(merged, merged=count)
    repairs = dataclasses.replace(
        repairs,
        degenerate_faces=repairs.degenerate_faces + sum(each.faces for each in empty),
        lost_parts=repairs.lost_parts + len(empty),
    )
    solid = _with_far(close_repaired(whole, repairs, part, thick), dropped)
    check_solid(solid)
    mesh, union = unite_repaired(solid.mesh, repairs)
    warnings = [
        *warnings_of(solid, thick),
        *turned_warnings(repairs, len(whole.faces)),
        *far_warnings(far, dropped),
        *step_warnings(original),
    ]
    return Prepared(
        mesh, repairs, solid.closing, solid.account, union, far, dropped, thick, tuple(warnings)
    )


def unite_overlap(prepared: Prepared, distance: MeshDistance) -> Prepared:
    """``prepared`` without the faces inside parts that overlap themselves, and with warnings about
    all faces inside the solid.

    ``distance`` may measure from a scaled copy of the mesh, whose search tree is built once.
    """
    mesh, union, share = prepared.mesh, prepared.union, inner_share(distance)
    if share:
        mesh, later = unite_self(mesh, MeshDistance(mesh))
        union, share = union.followed_by(later), inner_share(MeshDistance(mesh))
    warnings = (*prepared.warnings, *union_warnings(union, share))
    return dataclasses.replace(prepared, mesh=mesh, union=union, warnings=warnings)


def _check_thickness(thickness: float, bounds: Box) -> float:
    longest = float(bounds.extent.max())
    if thickness < THINNEST * longest:
        text = "<thickness> {:.3g} is below {} of the longest side, {:.3g}, so no sheet is left."
        raise ValueError(Message(text, thickness, THINNEST, longest))
    return thickness


def _without_far(
    mesh: Mesh, drop_far: bool, strays: bool
) -> tuple[Mesh, FarParts, tuple[FarPart, ...]]:
    """``mesh`` without far parts, the far parts that are left, and those that were dropped: all if
    ``drop_far``, else the strays among them if ``strays``, and those without area always."""
    far = far_parts(mesh)
    flags = [drop_far or each.empty or (strays and each.stray) for each in far.parts]
    if not any(flags):
        return mesh, far, ()
    dropped = tuple(each for each, flag in zip(far.parts, flags) if flag)
    mesh = without_parts(mesh, far, flags)
    return mesh, far_parts(mesh), dropped


def _with_far(solid: Solid, dropped: tuple[FarPart, ...]) -> Solid:
    """``solid`` whose account has the far parts that were ``dropped``."""
    if not dropped:
        return solid
    account, area = solid.account, sum(each.area for each in dropped)
    account = dataclasses.replace(
        account,
        parts=account.parts + len(dropped),
        far=len(dropped),
        left_out=account.left_out + len(dropped),
        left_out_share=area + (1 - area) * account.left_out_share,
    )
    return dataclasses.replace(solid, account=account)


def describe_repairs(prepared: Prepared) -> dict[str, Any]:
    """The report's entry on repairs."""
    parts = {"closed": prepared.closing, "union": prepared.union}
    return dataclasses.asdict(prepared.repairs) | {
        name: dataclasses.asdict(part) for name, part in parts.items()
    }


def describe_far(prepared: Prepared) -> dict[str, Any]:
    """The report's entry on parts that lie far from the main parts, those left out included.
    ``share_of_box`` is that of the parts that are left."""
    parts = (*prepared.far.parts, *prepared.dropped)
    return {
        "parts": len(parts),
        "faces": sum(part.faces for part in parts),
        "share_of_box": prepared.far.share,
        "dropped": len(prepared.dropped),
    }
