"""The report of ``nstr3d bench speed``. It writes speed.json, roofline.md and speed.md;
apps/figures.py puts speed.md into docs/speed.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from nstr3d.bench.commits import find_commit
from nstr3d.bench.fresh import compile_seconds, memory_rows
from nstr3d.bench.options import ROOT
from nstr3d.bench.roofline import ceilings, costs
from nstr3d.bench.speed import (
    dense,
    extraction,
    rates,
    time_to_quality,
    together,
    tracing,
)
from nstr3d.bench.tracks import MeshTrack
from nstr3d.io.atomic import atomic_path
from nstr3d.kernels.field.fused import triton_kernels
from nstr3d.training.fit import FitConfig, draw_pool, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import FIELDS
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Samples

TOGETHER = (1, 4, 16)  # numbers of fields that a GPU trains together


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of speed.json, as ``options`` ask."""
    track = MeshTrack.of(options.mesh)
    data = draw_pool(
        SurfaceBand(track.near, track.distance), FitConfig(pool=max(options.pool, 8192))
    )
    pool = Samples(data.points.to(options.device), data.values.to(options.device))
    threads = options.threads if options.device == "cpu" else [torch.get_num_threads()]
    figures: dict[str, Any] = {
        "commit": find_commit(ROOT),
        "mesh": options.mesh.stem,
        "device": options.device,
    }
    if options.compile:
        figures["compile"] = compile_seconds(options.mesh)
    figures["rates"] = [
        vars(rate)
        for rate in rates(
            track.near, pool, options.params, threads, turns=options.turns, turn=options.turn
        )
    ]
    if options.device != "cpu":
        figures["together"] = together(track.near, pool, options.params, TOGETHER)
    field = FIELDS["nstr"](options.params, track.near).build(3, 1, track.near)
    figures["parameters"] = field.parameter_count
    figures["costs"] = {name: vars(cost) for name, cost in costs(field, 8192).items()}
    figures["ceilings"] = vars(ceilings())
    torch.set_num_threads(max(threads))
    model = fit(
        field,
        data,
        SdfObjective(),
        FitConfig(steps=options.steps, pool=len(data)),
        bounds=track.near.bounds,
    )
    sdf = model.sdf()
    figures["extraction"] = extraction(sdf, options.resolutions)
    figures["memory"] = memory_rows(model, options.memory)
    if options.dense:
        figures["dense"] = dense(sdf, options.dense, _march)
    figures["tracing"] = tracing(sdf, options.size)
    figures["quality"] = {}
    for rival, steps in (("ngp", 1500), ("siren", 500)) if options.race else ():
        ladder = (25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
        figures["quality"][rival] = {
            "rival steps": steps,
            **time_to_quality(track, options.params, rival, steps, ladder),
        }
    return figures


def _march(values):
    from skimage.measure import marching_cubes

    return marching_cubes(values, 0.0)


def table(figures: dict[str, Any]) -> str:
    """speed.md: the table of rates, sentences below it, and the memory of extraction."""
    memory = _memory(figures["memory"]) if figures.get("memory") else []
    where = (
        f"{figures['mesh']}, {figures['parameters']:,} parameters, batch 8192, "
        f"{figures['device']}, commit {figures['commit']}."
    )
    return "\n".join([*_rates(figures["rates"]), *memory, "", *_sentences(figures), where])


def _rates(rates: Sequence[dict[str, Any]]) -> list[str]:
    """The table of training and inference rates, a line per field."""
    threads = sorted({rate["threads"] for rate in rates})
    head = [
        f"step ms, {n} thread{'s' * (n > 1)} | training M samples/s | inference M points/s"
        for n in threads
    ]
    lines = ["| field | " + " | ".join(head) + " |", "|---" * (1 + 3 * len(threads)) + "|"]
    for name in dict.fromkeys(rate["name"] for rate in rates):
        cells = [
            f"{rate['step'] * 1e3:.1f} | {rate['training'] / 1e6:.2f} | "
            f"{rate['inference'] / 1e6:.2f}"
            for rate in sorted(rates, key=lambda rate: rate["threads"])
            if rate["name"] == name
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _memory(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table of the memory of extraction, a line per resolution."""
    lines = ["", "| extraction at | faces | megabytes | bytes / resolution^2 |", "|---" * 4 + "|"]
    for row in rows:
        square = row["megabytes"] * 2**20 / row["resolution"] ** 2
        lines.append(
            f"| {row['resolution']}^3 | {row['faces']:,} | {row['megabytes']:,.0f} | "
            f"{square:,.0f} |"
        )
    return lines


def _sentences(figures: dict[str, Any]) -> list[str]:
    """Compilation, extraction, tracing, and the races to a rival's error, a sentence each."""
    words = []
    if "compile" in figures:
        first, second = figures["compile"]
        words.append(
            f"Kernels compile once in {first:.0f} s and load in {second:.1f} s after that."
        )
    if "together" in figures:
        several = ", ".join(
            f"{row['fields']} at once {row['seconds'] * 1e6:.0f} us" for row in figures["together"]
        )
        words.append(f"Time per field of a step that trains several fields: {several}.")
    seconds = {row["resolution"]: row["seconds"] for row in figures["extraction"]}
    words.append(
        f"Extraction: {', '.join(f'{cells:.0f}^3 in {s:.2f} s' for cells, s in seconds.items())}."
    )
    if "dense" in figures:
        cells = figures["dense"]["resolution"]
        total = figures["dense"]["evaluate"] + figures["dense"]["march"]
        ratio = f", {total / seconds[cells]:.0f} times as long" if cells in seconds else ""
        words.append(f"All {cells}^3 nodes and marching cubes take {total:.1f} s{ratio}.")
    rays = figures["tracing"]
    words.append(
        f"Tracing {rays['size']} x {rays['size']} rays: {rays['seconds']:.2f} s, "
        f"{rays['steps']:.1f} distances per ray "
        f"(plain sphere tracing {rays['plain seconds']:.2f} s, {rays['plain steps']:.1f}); "
        f"normals {rays['normals']:.2f} s."
    )
    for rival, race in figures["quality"].items():
        if "seconds" in race:
            words.append(
                f"The near error of {rival} in plain torch after {race['rival steps']} steps and "
                f"{race['rival seconds']:.0f} s, "
                f"{race['rival near'] * 1e4:.2f} x 1e-4, is reached in {race['seconds']:.2f} s: "
                f"{race['rival seconds'] / race['seconds']:.0f} times sooner."
            )
    return words


def roofline(figures: dict[str, Any]) -> str:
    """roofline.md: the costs of a sample in each part of a step, against the machine's ceilings."""
    top, rate = figures["ceilings"], figures["rates"][0]
    lines = [
        "# Where the time goes",
        "",
        f"Default field, {figures['parameters']:,} parameters, batch 8192, "
        f"commit {figures['commit']}.",
    ]
    lines += [
        "Ceilings on one thread: matrix product {:.0f} GFLOP/s, {:.2f} G sines/s, {:.2f} G "
        "gathered rows/s, copy {:.0f} GB/s."
    ]
    lines[-1] = lines[-1].format(
        *(top[name] / 1e9 for name in ("product", "sine", "gather", "copy"))
    )
    lines += [
        "",
        "| per sample in | operations | bytes | ns at the product's rate | ns at the copy's rate |",
        "|---|---|---|---|---|",
    ]
    least = 0.0
    for name, cost in figures["costs"].items():
        compute, memory = (
            cost["operations"] / top["product"] * 1e9,
            cost["bytes"] / top["copy"] * 1e9,
        )
        least += max(compute, memory)
        lines.append(
            f"| {name} | {cost['operations']:,.0f} | {cost['bytes']:,.0f} | {compute:.1f} | "
            f"{memory:.1f} |"
        )
    step = rate["step"] / 8192 * 1e9
    lines += [
        "",
        f"If each part took the larger of the two times, a step would take {least:.0f} ns per "
        f"sample; it takes {step:.0f}: ",
    ]
    lines[-1] += (
        f"{least / step:.0%} of the roofline. Inference takes {1e9 / rate['inference']:.0f} ns "
        "per point."
    )
    lines += [
        "The tables fit the second-level cache, whose gathers are faster than a copy in memory: "
        "the bytes matter for large fields only."
    ]
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> None:
    """Measures, writes speed.json, roofline.md and speed.md, and prints the table."""
    if not options.mesh.exists():
        raise FileNotFoundError(f"{options.mesh} does not exist; name a mesh to measure on.")
    with triton_kernels() if options.device == "cuda" else nullcontext():
        figures = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("speed.json", json.dumps(figures, indent=1) + "\n"),
        ("roofline.md", roofline(figures)),
        ("speed.md", table(figures) + "\n"),
    ):
        with atomic_path(options.out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(table(figures))
