"""The command ``nstr3d info FILE``, which says what a file or a folder of results holds."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from nstr3d.cli.check import aligned, place_rows
from nstr3d.jobs.messages import sentence

MEASURES = {
    "distance_error_near": ("near error", "{:.3g} of the unit box"),
    "normal_error_field": ("normals", "{:.3g} degrees"),
    "iou_volume": ("IoU", "{:.4f}"),
    "chamfer": ("Chamfer", "{:.3g} of the diagonal"),
    "psnr": ("PSNR", "{:.4g} dB"),
    "snr": ("SNR", "{:.4g} dB"),
    "ssim": ("SSIM", "{:.4f}"),
}


@dataclass(frozen=True)
class Info:
    """Say what a model, a mesh, points, lines, a picture, a sound, or the results of a fit or of a
    batch hold, as they are. nstr3d check says what a fit would make of a file."""

    path: tyro.conf.Positional[Path]
    """A file that nstr3d reads or has written, or a folder of results."""
    json: bool = False
    """Print JSON instead of a table."""


def info(options: Info) -> None:
    """Prints the properties of a file. Raises ValueError, OSError or ModuleNotFoundError with one
    sentence if it cannot be read; with ``json``, the sentence is also printed as JSON."""
    from nstr3d.batch.about import describe_dataset, is_dataset
    from nstr3d.jobs.info import describe_file

    try:
        describe = describe_dataset if is_dataset(options.path) else describe_file
        about = describe(options.path)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if options.json:
            print(json.dumps({"path": str(options.path), "error": sentence(error)}, indent=2))
        raise
    print(json.dumps(about, indent=2, allow_nan=False) if options.json else info_table(about))


def info_table(about: dict[str, Any]) -> str:
    """The properties from `describe_file` or `describe_dataset` as aligned lines."""
    subject = f" of {about['subject']}" if "subject" in about else ""
    rows = [
        ("file", f"{about['path']} ({about['bytes']:,} bytes)"),
        ("kind", f"{about['kind']}{subject}"),
        ("holds", _holds(about)),
    ]
    rows += _field_rows(about)
    if "colours" in about:
        rows.append(("colours", _colours(about)))
    if "units" in about:
        lower, upper = (about["bounds"][side] for side in ("lower", "upper"))
        extent = [high - low for low, high in zip(lower, upper)]
        rows += place_rows(about | {"extent": extent})
    rows += [("note", note) for note in about.get("notes", ())]
    rows += [("error", error) for error in about.get("errors", ())]
    if "command" in about:
        rows.append(("fit it with", about["command"]))
    return aligned([row for row in rows if row[1]])


def _holds(about: dict[str, Any]) -> str:
    kind = about["kind"]
    if kind == "mesh":
        closed = "closed" if about["closed"] else "not closed"
        return f"{about['vertices']:,} vertices, {about['faces']:,} faces, {closed}"
    if kind == "points":
        normals = "with" if about["normals"] else "no"
        return f"{about['points']:,} points, {normals} normals; {about['columns']}"
    if kind == "lines":
        return f"{about['lines']:,} lines of {about['points']:,} points"
    if kind == "image":
        return f"{' x '.join(map(str, about['shape']))}, {about['bits']} bits per channel"
    if kind == "sound":
        frames, channels = about["shape"]
        rate = f"{about['rate']:,} samples per second, {about['subtype']}"
        return f"{about['duration']:.2f} s, {frames:,} frames x {channels}, {rate}"
    if kind == "data set":
        states = ", ".join(f"{count:,} {state}" for state, count in about["states"].items())
        return f"{about['shapes']:,} shapes: {states}, {about['seconds']:,.0f} s of work"
    if kind == "report":
        return f"of {about['input'].get('path', 'a fit')}"
    if kind == "grid of distances":
        return f"{' x '.join(map(str, about['shape']))} nodes, {about['spacing']:.4g} apart"
    if kind == "combination":
        return ", ".join(f"{count} {tag}" for tag, count in _tags(about.get("tree")).items())
    if kind == "page":
        return f"the shape {about['title']!r} at level {about['level']:g}; open it in a browser"
    if kind == "network":
        inputs, outputs = (
            ", ".join(f"{name} ({' x '.join(shape)})" for name, shape in about[side].items())
            for side in ("inputs", "outputs")
        )
        return f"{inputs} to {outputs}, by {about['producer'] or 'an unnamed program'}"
    if kind == "compressed shape":
        return f"{about['grids']} grids, the finest of {about['cells']} cells per axis"
    if kind == "compressed model":
        return f"{' x '.join(map(str, about['shape']))} samples, blocks of {about['hops']}"
    return f"{about['tensors']} tensors of {about['stored_numbers']:,} numbers"


def _tags(tree: Any) -> Counter[str]:
    """How often each tag occurs in a combination."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    own = [str(tree["tag"])] if isinstance(tree, dict) and "tag" in tree else []
    return sum(map(_tags, inner), Counter(own))


def _field_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows on a fitted field: what it is, where it comes from, and how near it is to its input."""
    rows = []
    field = about.get("field")
    if field is None and about.get("parameters") is not None:
        rows.append(("field", f"{_count(about['parameters'])} parameters"))
    if isinstance(field, dict):
        parameters = field.get("parameters")
        rows.append(("field", f"{field.get('name', '')}, {_count(parameters)} parameters"))
    elif field is not None:
        count = about.get("parameters")
        known = "" if count is None else f", {_count(count)} parameters"
        rows.append(("field", f"{field}{_levels(about.get('config'))}{known}"))
    if "steps" in about:
        state = ", stopped early" if about["interrupted"] else ""
        trained = f"{about['steps']:,} steps in {about['training_seconds']:.1f} s{state}"
        rows.append(("trained", trained if about["steps"] else "closed form"))
        source = [
            f"{name} {value[:12] if name == 'sha256' else value}"
            for name, value in about["provenance"].items()
            if value is not None
        ]
        rows.append(("from", ", ".join(source)))
    measures = about.get("accuracy") or about.get("medians") or {}
    named = [
        f"{MEASURES[name][0]} {MEASURES[name][1].format(value)}"
        for name, value in measures.items()
        if name in MEASURES and isinstance(value, int | float)
    ]
    rows.append(("median accuracy" if "medians" in about else "accuracy", ", ".join(named)))
    return rows


def _colours(about: dict[str, Any]) -> str:
    """What is known of the colours of a mesh, or of a model by its report."""
    if isinstance(about["colours"], str):
        return f"of {about['colours']}"
    known = about.get("colour")
    if not isinstance(known, dict):
        return "a field of display RGB"
    ratio = known.get("psnr")
    near = f", {ratio:.1f} dB at points held out" if isinstance(ratio, int | float) else ""
    return f"a field of display RGB, {_count(known.get('parameters'))} parameters{near}"


def _levels(config: Any) -> str:
    """The cells of a field's levels, for a config that has levels."""
    levels = config.get("levels") if isinstance(config, dict) else None
    if not isinstance(levels, list):
        return ""
    cells = [str(each.get("resolution")) for each in levels if isinstance(each, dict)]
    return f" with levels of {', '.join(cells)} cells"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"
