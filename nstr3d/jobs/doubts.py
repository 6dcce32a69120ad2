"""Warnings about a mesh that fits coarsely: far parts, thin solids, rounded coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nstr3d.geometry.mesh.doubts import FarPart, FarParts, coordinate_step, mean_thickness
from nstr3d.jobs.messages import Message
from nstr3d.surface.bricks import PADDING
from nstr3d.types import Mesh

NAMED = 3  # far parts that a warning names
THIN = 1 / 20  # mean thickness, in longest sides, above which a solid does not count as thin


def far_warnings(far: FarParts, dropped: Sequence[FarPart]) -> list[str]:
    """Warnings that name the parts far from the main parts: those that were ``dropped``, and those
    that are left with their share of the box."""
    messages = []
    if dropped:
        where = _named(dropped)
        messages.append(
            f"{len(dropped)} part(s) lie far from the others and were left out: {where}."
        )
    if far.parts:
        text = (
            "{} part(s) lie far from the others: {}. {:.1%} of the box's length serves far parts "
            "alone, so that the others fit coarsely; <drop_far> leaves them out."
        )
        messages.append(Message(text, len(far.parts), _named(far.parts), far.share))
    return messages


def _named(parts: Sequence[FarPart]) -> str:
    named = [
        f"{part.faces} face(s) about ({', '.join(f'{value:.6g}' for value in part.bounds.centre)})"
        for part in parts[:NAMED]
    ]
    more = [f"{len(parts) - NAMED} more"] if len(parts) > NAMED else []
    return ", ".join(named + more)


def thin_warnings(
    mesh: Mesh, finest: float | None, resolution: int, advice: str = "raise <params>"
) -> list[str]:
    """Warnings if the closed ``mesh`` is on average thinner than a cell and than THIN.

    ``finest`` is the edge of the field's finest cells in world units, None for a field without
    cells. ``resolution`` is the number of cells of the extraction along the longest side.
    ``advice`` says how the cells become smaller.
    """
    thickness, longest = mean_thickness(mesh), float(mesh.bounds.extent.max())
    if thickness > THIN * longest:
        return []
    extracted = longest * (1 + 2 * PADDING) / resolution
    part = f"The solid is thin: {thickness:.3g} on average, at a length of {longest:.3g}"
    if finest is not None and thickness < finest:
        text = (
            "{}. The finest cells of the field are {:.3g} wide, so the result may be too thick, "
            "too thin or in pieces; <advice>, or fit the parts of the solid apart."
        )
        return [Message(text.replace("<advice>", advice), part, finest)]
    if thickness < extracted:
        text = (
            "{}. The cells of the extracted mesh are {:.3g} wide, so the mesh may lack parts; "
            "raise <resolution>."
        )
        return [Message(text, part, extracted)]
    return []


def step_warnings(mesh: Mesh) -> list[str]:
    """A warning if the coordinates of ``mesh`` look rounded to coarse single precision numbers."""
    step = coordinate_step(mesh.vertices)
    if step is None:
        return []
    reach = float(np.abs(mesh.vertices).max())
    return [
        f"The file's coordinates, up to {reach:.7g}, have steps of up to {step:.3g}, as float32 "
        "has there, so detail is gone; write the file in double precision or nearer to the origin."
    ]
