"""What a file holds and what a job would make of it, without fitting.

The file is read, repaired and prepared by the same functions as in the jobs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.geometry.cloud.prepare import prepare
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.doubts import mean_thickness
from nstr3d.geometry.mesh.surface import volume
from nstr3d.io import load_cloud
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.jobs.about import (
    about_picture,
    about_sound,
    box_of,
    command,
    guess_units,
    head,
    read_faces,
)
from nstr3d.jobs.prepared import (
    Prepared,
    describe_far,
    describe_repairs,
    prepare_mesh,
    unite_overlap,
)
from nstr3d.signals.kinds import kind_of
from nstr3d.types import Box, Mesh, PointCloud

# Above this number of points, turned normals are not counted, since that takes seconds.
MOST_TURNED = 50_000
FLAT = 1e-6  # mean thickness, in longest sides, below which a mesh counts as flat
THIN = 1 / 80  # mean thickness, in longest sides, below which the usual cells are too coarse
OFF_CENTRE = 1000  # distance from the origin, in longest sides, that suggests map coordinates


def check_file(path: Path) -> dict[str, Any]:
    """The properties of the mesh, points, picture or sound in ``path``, as plain values by name.

    ``command`` is the command that fits the file, and ``suspicious`` holds sentences on what may be
    wrong. Raises the errors of the readers and of the preparation, with one sentence.
    """
    started = time.perf_counter()
    about = _kind(path)(path)
    return head(path) | about | {"seconds": time.perf_counter() - started}


def _kind(path: Path) -> Callable[[Path], dict[str, Any]]:
    """The function that describes a file of this kind."""
    signals = {"image": about_picture, "sound": about_sound}
    if kind_of(path) in signals:
        return signals[kind_of(path)]
    if path.suffix.lower() in CLOUD_SUFFIXES - {".ply"}:
        return _about_points
    return _about_shape


def _about_shape(path: Path) -> dict[str, Any]:
    read = read_faces(path)
    if read is None:
        return _about_points(path)
    mesh, notes = read
    about = _about_mesh(mesh)
    about["suspicious"] = [*notes, *about["suspicious"]]
    return about | {"command": command("fit", path)}


def _about_mesh(mesh: Mesh) -> dict[str, Any]:
    prepared = prepare_mesh(mesh)
    prepared = unite_overlap(prepared, MeshDistance(prepared.mesh))
    repairs, solid = prepared.repairs, prepared.mesh
    thickness = mean_thickness(solid)
    return {
        "kind": "mesh",
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "components": repairs.components,
        "account": dataclasses.asdict(prepared.account),
        "watertight": repairs.watertight,
        "repairs": describe_repairs(prepared),
        "far": describe_far(prepared),
        "sign": _sign(prepared),
        "bounds": dataclasses.asdict(solid.bounds),
        "extent": solid.bounds.extent.tolist(),
        "volume": abs(volume(solid)),
        "mean_thickness": thickness,
        "units": guess_units(solid.bounds),
        "suspicious": [
            *prepared.warnings,
            *_thin(thickness, solid.bounds),
            *_place(solid.bounds),
        ],
    }


def _sign(prepared: Prepared) -> str:
    """What decides whether a point is inside."""
    repairs, closing = prepared.repairs, prepared.closing
    if repairs.watertight:
        return "closed surface"
    if closing.left:
        return f"winding number; {closing.left} boundary edge(s) stay open"
    if closing.holes:
        return f"winding number of the surface with {closing.holes} hole(s) closed"
    return "winding number of the surface"


def _about_points(path: Path) -> dict[str, Any]:
    cloud = load_cloud(path)
    counted = cloud.normals is not None and len(cloud.points) <= MOST_TURNED
    used = cloud if counted else PointCloud(cloud.points)
    clean, frame, done = prepare(used, outward=lambda tree: np.zeros_like(tree.points))
    world = frame.to_world(clean.points)
    bounds, whole = box_of(world), box_of(cloud.points[np.isfinite(cloud.points).all(axis=1)])
    spacing = float(np.median(clean.tree(clean.points, 2)[0][:, 1])) * frame.scale
    suspicious = _place(bounds)
    if done.outliers:
        text = "{} point(s) lie far from the others and would be left out."
        suspicious.append(text.format(done.outliers))
    if counted and done.turned:
        suspicious.append(f"{done.turned} normal(s) point inward and would be turned outward.")
    return {
        "kind": "points",
        "points": len(cloud.points),
        "normals": cloud.normals is not None,
        "duplicates": done.duplicates,
        "outliers": done.outliers,
        "turned": done.turned if counted else None,
        "spacing": spacing,
        "far": {"share_of_box": 1 - float(bounds.extent.max() / whole.extent.max())},
        "sign": f"normals {'of the file' if cloud.normals is not None else 'that are estimated'}",
        "bounds": dataclasses.asdict(bounds),
        "extent": bounds.extent.tolist(),
        "units": guess_units(bounds),
        "suspicious": suspicious,
        "command": command("points", path),
    }


def _thin(thickness: float, bounds: Box) -> list[str]:
    longest = float(bounds.extent.max())
    if thickness < FLAT * longest:
        return ["The mesh encloses no volume; a signed distance needs a solid, not a flat sheet."]
    if thickness < THIN * longest:
        return [
            f"The solid is thin: {thickness:.3g} on average, 1/{longest / thickness:.0f} of its "
            "longest side; the fit will be coarse."
        ]
    return []


def _place(bounds: Box) -> list[str]:
    """Sentences on coordinates far from the origin, and on degrees instead of lengths."""
    centre, extent = bounds.centre, bounds.extent
    away = float(np.abs(centre).max() / extent.max())
    messages = []
    if away > OFF_CENTRE:
        messages.append(
            f"The shape lies {away:,.0f} times its size from the origin. Results keep its place, "
            "but single precision elsewhere would round it."
        )
    earth = np.abs(centre[:2]) + extent[:2] / 2 <= (180, 90)
    if earth.all() and extent[:2].max() < 1 and extent[2] > 100 * extent[:2].max():
        messages.append("x and y may be degrees while z is a length; project them to metres.")
    return messages
