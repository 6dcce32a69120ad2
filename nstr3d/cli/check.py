"""The command ``nstr3d check FILE``, which says what a file holds without fitting it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from nstr3d.jobs.messages import sentence, with_flags

REPAIRS = {
    "merged_vertices": "vertices merged",
    "degenerate_faces": "faces without area dropped",
    "duplicate_faces": "duplicate faces dropped",
    "unreferenced_vertices": "unused vertices dropped",
    "welded_vertices": "vertices on borders welded",
    "split_edges": "edges on borders split",
}


@dataclass(frozen=True)
class Check:
    """Say what a file holds, what would be repaired and what looks suspicious, without fitting."""

    path: tyro.conf.Positional[Path]
    """A mesh, points, a picture or a sound."""
    json: bool = False
    """Print JSON instead of a table."""


def check(options: Check) -> None:
    """Prints the properties of a file. Raises ValueError, OSError or ModuleNotFoundError with one
    sentence if a job could not use the file; with ``json``, the sentence is also printed as
    JSON."""
    from nstr3d.jobs.check import check_file

    try:
        about = check_file(options.path)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if options.json:
            print(json.dumps({"path": str(options.path), "error": sentence(error)}, indent=2))
        raise
    if options.json:
        print(json.dumps(about, indent=2, allow_nan=False))
    else:
        print(check_table(about))


def check_table(about: dict[str, Any]) -> str:
    """The properties from `check_file` as aligned lines."""
    rows = {
        "mesh": _mesh_rows,
        "points": _points_rows,
        "image": _signal_rows,
        "sound": _signal_rows,
    }[about["kind"]](about)
    rows = [("format", f"{about['format']}, {about['bytes']:,} bytes"), *rows]
    rows += [("suspicious", with_flags(each)) for each in about["suspicious"] or ["nothing"]]
    rows.append(("fit it with", about["command"]))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values as lines of two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {_visible(value)}" for name, value in rows)


def _visible(text: str) -> str:
    """``text`` with escapes for the letters that move a terminal's cursor or change its colours,
    which names of files may hold."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _mesh_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    repairs, far = about["repairs"], about["far"]
    done = [f"{repairs[name]:,} {what}" for name, what in REPAIRS.items() if repairs[name]]
    done += _union_words(repairs["union"])
    edges = f"{repairs['boundary_edges']:,} boundary, {repairs['branching_edges']:,} branching"
    closed = repairs["closed"]
    rows = [
        ("holds", f"{about['vertices']:,} vertices, {about['faces']:,} faces"),
        ("components", f"{about['components']:,}"),
        ("watertight", "yes" if about["watertight"] else f"no: edges: {edges}"),
        ("would be repaired", ", ".join(done) or "nothing"),
        ("would be turned", f"{repairs['flipped_faces']:,} faces"),
        ("would be closed", _holes_words(closed)),
        ("the sign rests on", about["sign"]),
        *place_rows(about),
        ("volume", f"{about['volume']:.4g}, on average {about['mean_thickness']:.3g} thick"),
    ]
    if far["parts"]:
        share = f"{far['parts']:,}, which take {far['share_of_box']:.1%} of the box's length"
        rows.append(("far parts", f"{share}; {far['dropped']:,} would be left out"))
    return rows


def _holes_words(closed: dict[str, Any]) -> str:
    holes, width = closed["holes"], closed["widest"]
    return f"{holes:,} hole(s), up to {width:.3g} wide" if holes else "nothing"


def _union_words(union: dict[str, Any]) -> list[str]:
    """What the union of the parts would leave out."""
    inner = union["walls"] + union["cut"]
    words = [f"{inner:,} faces inside the solid dropped or cut"] if inner else []
    if union["nested"]:
        words.append(f"{union['nested']:,} parts inside others dropped")
    if union["united"]:
        words.append(f"{union['united']:,} parts united")
    return words


def _points_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    turned = about["turned"]
    return [
        ("holds", f"{about['points']:,} points, {'with' if about['normals'] else 'no'} normals"),
        ("would be left out", f"{about['duplicates']:,} copies, {about['outliers']:,} outliers"),
        ("would be turned", "not counted" if turned is None else f"{turned:,} normals"),
        ("the sign rests on", about["sign"]),
        ("typical spacing", f"{about['spacing']:.4g}"),
        *place_rows(about),
        ("far points", f"take {about['far']['share_of_box']:.1%} of the box's length"),
    ]


def place_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows on the bounds, the size and the units of a shape."""
    lower, upper = (
        "(" + ", ".join(f"{value:.9g}" for value in about["bounds"][side]) + ")"
        for side in ("lower", "upper")
    )
    size = " x ".join(f"{value:.4g}" for value in about["extent"])
    return [("bounds", f"{lower} to {upper}"), ("size", size), ("units", about["units"])]


def _signal_rows(about: dict[str, Any]) -> list[tuple[str, str]]:
    detail = (
        f"{about['bits']} bits per channel"
        if about["kind"] == "image"
        else f"{about['rate']:,} samples per second, {about['subtype']}"
    )
    return [("holds", f"{' x '.join(map(str, about['shape']))} {about['kind']}, {detail}")]
