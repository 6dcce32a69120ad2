"""What a file holds, as it is: models by their headers, without weights and without torch; meshes,
points, lines, pictures and sounds as they are read, without repair."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nstr3d.geometry.mesh.clean import merge_vertices
from nstr3d.io import load_lines, read_cloud
from nstr3d.io.atomic import check_readable
from nstr3d.io.cloud import CLOUD_SUFFIXES
from nstr3d.io.lines import holds_lines
from nstr3d.io.paintfile import read_paint
from nstr3d.io.paintobj import has_coordinates
from nstr3d.jobs.about import (
    about_picture,
    about_sound,
    box_of,
    command,
    guess_units,
    head,
    place_in,
    read_faces,
)
from nstr3d.jobs.exported import about_network, about_page
from nstr3d.model.header import load_compressed_header, read_header, read_tree
from nstr3d.model.shapeheader import is_shape, load_shape_header
from nstr3d.signals.kinds import kind_of
from nstr3d.system import one_line
from nstr3d.types import Box, Mesh

REPORT = "report.json"
WITHOUT = "it has texture coordinates and no texture; nstr3d fit --texture PICTURE names one"
LARGEST_REPORT = 1 << 22  # bytes; a report has some thousand
MODELS = ("model.safetensors", "model.nstq", "checkpoint.safetensors")
SUBJECTS = {1: "sound", 2: "image", 3: "shape"}


def describe_file(path: Path) -> dict[str, Any]:
    """The properties of the file at ``path``, or of the results of a job in a folder, as plain
    values by name; ``kind`` names the kind.

    Raises the errors of the readers, with one sentence, and FileNotFoundError for a folder without
    a model or report.
    """
    if path.is_dir():
        return describe_file(_main_file(path))
    check_readable(path)
    return head(path) | _kind(path)(path)


def _main_file(folder: Path) -> Path:
    """The file that says most about the results of a job in ``folder``."""
    for name in (*MODELS, REPORT):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} holds no model and no report of nstr3d; name a file.")


def _kind(path: Path) -> Callable[[Path], dict[str, Any]]:
    """The function that describes a file of this kind."""
    suffix = path.suffix.lower()
    if suffix in (".safetensors", ".nstq"):
        return _about_model if suffix == ".safetensors" else _about_compressed
    if suffix in (".html", ".onnx"):
        return about_page if suffix == ".html" else about_network
    if path.name == REPORT:
        return _about_report
    if holds_lines(path):
        return _about_lines
    if suffix == ".npz" and _is_grid(path):
        return _about_grid
    if kind_of(path) != "mesh":
        return _about_signal
    return _about_points if suffix in CLOUD_SUFFIXES - {".ply"} else _about_mesh


def _about_model(path: Path) -> dict[str, Any]:
    tree = read_tree(path)
    if tree is not None:
        return {"kind": "combination", "subject": "shape", **tree}
    read = read_header(path)
    header, config = read.header, read.header.config
    about = {
        "kind": "checkpoint" if read.resumable else "model",
        "subject": SUBJECTS.get(header.in_dim, f"{header.in_dim}D"),
        "version": read.format,
        "field": config.get("tag", config.get("class")) if isinstance(config, dict) else None,
        "config": config,
        "inputs": header.in_dim,
        "outputs": header.out_dim,
        "tensors": read.tensors,
        "stored_numbers": read.elements,
        "bounds": header.bounds.model_dump(),
        "frame": header.frame.model_dump(),
        "lipschitz": header.lipschitz,
        "steps": header.steps,
        "training_seconds": header.seconds,
        "interrupted": header.interrupted,
        "provenance": header.provenance,
    }
    if header.colours is not None:
        about["colours"] = header.colours
    if header.in_dim == 3:
        about["units"] = guess_units(Box(header.bounds.lower, header.bounds.upper))
    return about | _measured(path)


def _about_compressed(path: Path) -> dict[str, Any]:
    if is_shape(path):
        return _about_shape(path)
    header = load_compressed_header(path)
    return {
        "kind": "compressed model",
        "subject": SUBJECTS[len(header.shape)],
        "field": "cosines",
        "shape": [*header.shape, header.channels],
        "hops": list(header.hops),
        "step": header.step,
    } | _measured(path)


def _about_shape(path: Path) -> dict[str, Any]:
    header = load_shape_header(path)
    bounds = header.world_bounds
    return {
        "kind": "compressed shape",
        "subject": "shape",
        "field": "pyramid",
        "cells": header.plan.cells,
        "grids": header.plan.depth + 1,
        "step": header.step * header.frame.scale,
        "bounds": {"lower": list(bounds.lower), "upper": list(bounds.upper)},
        "frame": {"centre": list(header.frame.centre), "scale": header.frame.scale},
        "lipschitz": header.lipschitz,
        "up": header.up,
        "units": guess_units(bounds),
    } | _measured(path)


def _measured(model: Path) -> dict[str, Any]:
    """Parameters, accuracy and colours from the report beside a ``model``, None if there is no
    report of this model: the report notes its size in bytes."""
    nothing = {"parameters": None, "accuracy": None, "colour": None}
    try:
        report = _load_report(model.parent / REPORT)
        if report["field"]["bytes"] != model.stat().st_size:
            return nothing
        return {
            "parameters": report["field"]["parameters"],
            "accuracy": report["accuracy"],
            "colour": report.get("colour"),
        }
    except (OSError, KeyError, TypeError, ValueError):
        return nothing


def _load_report(path: Path) -> dict[str, Any]:
    """The report at ``path``. Raises OSError, and ValueError naming the path for other content."""
    if path.stat().st_size > LARGEST_REPORT:
        raise ValueError(f"{path} is too long for a report of nstr3d.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a report of nstr3d: it is no JSON text.") from error
    if not isinstance(report, dict) or not isinstance(report.get("input"), dict):
        raise ValueError(f"{path} is not a report of nstr3d: it has no entry 'input'.")
    return report


def _about_report(path: Path) -> dict[str, Any]:
    report = _load_report(path)
    parts = ("input", "field", "accuracy", "mesh", "colour", "seconds", "files")
    return {"kind": "report"} | {name: report.get(name) for name in parts}


def _about_lines(path: Path) -> dict[str, Any]:
    lines, _ = load_lines(path)
    values = lines.values
    return {
        "kind": "lines",
        "lines": len(lines),
        "points": len(lines.points),
        "dimensions": lines.points.shape[1],
        "values": None if values is None else [float(values.min()), float(values.max())],
        **place_in(box_of(lines.points)),
    }


def _is_grid(path: Path) -> bool:
    """Whether an NPZ file holds the distances that nstr3d export writes."""
    if not zipfile.is_zipfile(path):
        return False  # the reader of points says what is wrong
    with zipfile.ZipFile(path) as archive:
        return {"distance.npy", "origin.npy", "spacing.npy"} <= set(archive.namelist())


def _about_grid(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            distance, spacing = arrays["distance"], float(arrays["spacing"])
            upper = arrays["origin"] + spacing * (np.array(distance.shape) - 1)
            box = Box(tuple(arrays["origin"].tolist()), tuple(upper.tolist()))
            least, most = float(distance.min()), float(distance.max())
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no usable grid of distances: {one_line(error)}.") from error
    about = {"kind": "grid of distances", "shape": list(distance.shape), "spacing": spacing}
    return about | {"least": least, "most": most, **place_in(box)}


def _about_signal(path: Path) -> dict[str, Any]:
    about = about_picture(path) if kind_of(path) == "image" else about_sound(path)
    about["notes"] = about.pop("suspicious")
    if about["kind"] == "sound":
        about["duration"] = about["shape"][0] / about["rate"]
    return about


def _about_mesh(path: Path) -> dict[str, Any]:
    read = read_faces(path)
    if read is None:
        return _about_points(path)
    mesh, notes = read
    paint, told = read_paint(path)
    colours = {} if paint is None else {"colours": paint.source}
    if paint is None and has_coordinates(path):
        notes = [*notes, WITHOUT]
    return {
        "kind": "mesh",
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "closed": _closed(merge_vertices(mesh)[0]),
        **colours,
        **place_in(mesh.bounds),
        "notes": [*notes, *told],
        "command": command("fit", path),
    }


def _closed(mesh: Mesh) -> bool:
    """Whether every edge has as many faces in one direction as in the other, and none is
    repeated. Vertices at one place must be one, as files have several at the seams of textures."""
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    size = len(mesh.vertices)
    there, back = edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0]
    there.sort()
    back.sort()
    return bool(np.array_equal(there, back) and (np.diff(there) > 0).all())


def _about_points(path: Path) -> dict[str, Any]:
    cloud, reading = read_cloud(path)
    finite = cloud.points[np.isfinite(cloud.points).all(axis=1)]
    return {
        "kind": "points",
        "points": len(cloud.points),
        "normals": cloud.normals is not None,
        "columns": reading.columns,
        **place_in(box_of(finite)),
        "notes": list(reading.warnings),
        "command": command("points", path),
    }
