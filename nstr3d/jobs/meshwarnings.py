"""What a job on a mesh tells the user about its input: what was changed, closed or left out."""

from __future__ import annotations

from nstr3d.geometry.mesh.solid import Solid
from nstr3d.geometry.sizes import check_size
from nstr3d.jobs.messages import Message
from nstr3d.surface.coverage import Coverage
from nstr3d.types import Mesh

MISSING = 0.01  # share of the input's surface that may be missing without a warning
WIDE = 0.5  # width of a cap, in diagonals, above which the surface may be meant as a sheet


def check_mesh(mesh: Mesh) -> None:
    """Raises ValueError for a mesh too large or too small for double precision."""
    check_size(mesh.vertices, "mesh", float(mesh.bounds.extent.max()))


def check_solid(solid: Solid) -> None:
    """Raises ValueError if the mesh has only sheets, which enclose nothing."""
    account = solid.account
    if account.sheets and account.sheets + account.degenerate + account.far == account.parts:
        raise ValueError(
            Message(
                "The mesh is an open sheet that encloses no volume ({} part(s), {} boundary "
                "edges), so nothing is inside; pass <open> to fit it as a sheet with a "
                "<thickness>, or close it first.",
                account.sheets,
                solid.repairs.boundary_edges,
            )
        )


def warnings_of(solid: Solid, thickness: float | None) -> list[str]:
    """One sentence for each change that may surprise the user."""
    return [
        *_about_welding(solid),
        *_about_holes(solid, thickness),
        *_about_parts(solid, thickness),
    ]


def missing_warnings(coverage: Coverage | None) -> list[str]:
    """A warning if more than MISSING of the input's surface is not on the result."""
    if coverage is None or coverage.missing <= MISSING:
        return []
    return [
        f"{coverage.missing:.1%} of the input's surface is missing: it is further than "
        f"{coverage.tolerance:.3g} from the result."
    ]


def _about_welding(solid: Solid) -> list[str]:
    repairs = solid.repairs
    if not (repairs.welded_vertices or repairs.split_edges):
        return []
    done = []
    if repairs.welded_vertices:
        done.append(
            f"{repairs.welded_vertices} vertices on borders were welded to others up to "
            f"{repairs.weld_tolerance:.3g} away"
        )
    if repairs.split_edges:
        done.append(f"{repairs.split_edges} edges on borders were split at vertices of others")
    parts = f"; this joined {repairs.welded_parts} parts" if repairs.welded_parts else ""
    return [f"{', and '.join(done)}{parts}."]


def _about_holes(solid: Solid, thickness: float | None) -> list[str]:
    repairs, closing = solid.repairs, solid.closing
    messages: list[str] = []
    torn = closing.capped or closing.open or repairs.branching_edges
    if not repairs.watertight and thickness is None and torn:
        messages.append(_about_caps(solid))
        if closing.open:
            messages.append(
                f"{closing.open} open part(s) stay without caps, because caps would cut the solid "
                f"that they bound; {closing.left} edges have gaps beside them."
            )
    if repairs.one_sided and thickness is None:
        messages.append(
            f"{repairs.one_sided} component(s) cannot be oriented, so the sign of the distance is "
            "unreliable near them."
        )
    return messages


def _about_caps(solid: Solid) -> str:
    repairs, closing = solid.repairs, solid.closing
    width = closing.widest / solid.mesh.bounds.diagonal
    caps = "no hole was closed"
    if closing.holes:
        caps = f"{closing.holes} hole(s), up to {100 * width:.2g}% of the diagonal wide, got caps"
    text = (
        f"The surface is not watertight ({repairs.boundary_edges} boundary and "
        f"{repairs.branching_edges} branching edges): {caps}, and negative means inside the closed "
        "surface, where its winding number exceeds 1/2."
    )
    if width <= WIDE:
        return text
    return Message("{} If it is meant to be open, pass <open>.", text)


def _about_parts(solid: Solid, thickness: float | None) -> list[str]:
    account, messages = solid.account, []
    if account.thickened:
        messages.append(
            f"{account.thickened} of {account.parts} parts are open; they became sheets "
            f"{thickness:.3g} thick."
        )
    if solid.closing.dropped:
        messages.append(
            Message(
                "{} of {} parts are sheets that enclose no volume and were left out, {:.2%} of "
                "the input's surface; pass <open> to keep them as thin solids.",
                account.sheets,
                account.parts,
                account.left_out_share,
            )
        )
    if account.degenerate:
        messages.append(
            f"{account.degenerate} of {account.parts} parts were left out, because their faces "
            "have no area or are copies of others."
        )
    return messages
