"""Measure our fits by other papers' protocols: ``python apps/bench/papers.py FILE or FOLDER ...``.

Meshes are fitted with the budgets of NeuRBF and M-plicits, pictures with those of CARA, and
measured as those papers' released code does (`nstr3d.bench.protocols`). Their published rows stand
beside ours with their source. Every finished row is written at once; run it again to go on. Writes
papers.json and papers.md to --out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from nstr3d.bench.commits import find_commit
from nstr3d.bench.protocols import (
    in_ball,
    sampled_normals,
    shell_iou,
    squared_chamfer,
    uniform_iou,
)
from nstr3d.cli.command import guarded
from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.geometry.mesh.distance import MeshDistance
from nstr3d.geometry.mesh.solid import solid_distance
from nstr3d.geometry.mesh.surface import normalise
from nstr3d.io import load_image, load_mesh
from nstr3d.io.atomic import atomic_path
from nstr3d.signals.ratios import psnr
from nstr3d.surface.extract import extract_mesh
from nstr3d.training.fit import Fit, FitConfig, fit
from nstr3d.training.losses import SdfObjective
from nstr3d.training.presets import sized_nstr
from nstr3d.training.sampling import SurfaceBand
from nstr3d.types import Mesh

ROOT = Path(__file__).resolve().parents[2]
MESHES, PICTURES = (".obj", ".ply", ".stl", ".off", ".glb"), (".png",)
Row = dict[str, Any]
# parameters, then the published rows: (who, parameters, figures as printed)
NEURBF = (
    (124_000, "NeuRBF 3.75, Instant-NGP (137k) 4.93"),
    (235_000, "NeuRBF 3.13, Instant-NGP (260k) 4.11"),
    (448_000, "NeuRBF 2.89, Instant-NGP (498k) 3.20"),
)
MPLICITS = (
    (17_153, "Chamfer 5.36e-5 mean, 3.80e-5 median; IoU .448, .459; 244 s"),
    (246_627, "Chamfer 6.57e-5 mean, 1.87e-5 median; IoU .586, .867; 512 s"),
)
KODAK = (
    (205_000, "CARA 40.03, MetricGrids 39.73, NeuRBF 38.70, SIREN 38.70, Instant-NGP 37.06"),
    (341_000, "CARA 46.24"),
    (471_000, "CARA 48.00"),
    (533_000, ""),
)


@dataclass(frozen=True)
class Options:
    """Measure our fits by other papers' protocols."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Meshes, PNG pictures and folders of them."""
    out: Path = Path("out/papers")
    """Folder of papers.json and papers.md."""
    steps: int = 14_000
    """Training steps of each mesh."""
    pool: int = 2_000_000
    """Training samples of each mesh."""
    seed: int = 0
    """Seed."""
    samples: tuple[int, int] = (1_000_000, 500_000)
    """Surface samples by NeuRBF's and by M-plicits' protocol."""
    points: int = 10_000_000
    """Uniform points of NeuRBF's intersection over union."""
    resolutions: tuple[int, int] = (1024, 512)
    """Cells per axis of the extracted meshes by NeuRBF's and by M-plicits' protocol."""
    voxel: float = 0.01
    """Edge of the voxels of M-plicits' intersection over union."""


def fitted(mesh: Mesh, params: int, options: Options) -> tuple[Fit, float]:
    """A fit of ``mesh`` with at most ``params`` parameters, and the seconds of sampling and
    training."""
    started = time.perf_counter()
    unit, frame = normalise(mesh)
    generator = torch.Generator().manual_seed(options.seed)
    field = sized_nstr(params, unit).build(3, 1, near=unit, generator=generator)
    config = FitConfig(steps=options.steps, pool=options.pool, seed=options.seed)
    sampler = SurfaceBand(unit, MeshDistance(unit))
    result = fit(field, sampler, SdfObjective(), config, frame=frame, bounds=mesh.bounds)
    return result, time.perf_counter() - started


def neurbf(whole: Mesh, params: int, options: Options) -> Row:
    """A mesh by NeuRBF's protocol: in the ball of radius 0.99, extracted from [-1, 1]^3."""
    mesh, _ = in_ball(whole, 0.99)
    result, seconds = fitted(mesh, params, options)
    generator = np.random.default_rng(options.seed)
    # The cells of the protocol are those of the box [-1, 1]; ours are those of the shape's bounds.
    cells = round(options.resolutions[0] * float(mesh.bounds.extent.max()) / 2)
    extracted = extract_mesh(result.sdf(), cells)
    angles = sampled_normals(extracted, mesh, options.samples[0], generator)
    overlap = uniform_iou(result.sdf(), MeshDistance(mesh), options.points, generator)
    return about(result, seconds) | asdict(angles) | {"iou": overlap}


def mplicits(whole: Mesh, params: int, options: Options) -> Row:
    """A mesh by M-plicits' protocol: in the unit ball."""
    mesh, _ = in_ball(whole, 1.0)
    result, seconds = fitted(mesh, params, options)
    generator = np.random.default_rng(options.seed)
    cells = round(options.resolutions[1] * float(mesh.bounds.extent.max()) / 2)
    extracted = extract_mesh(result.sdf(), cells)
    return about(result, seconds) | {
        "chamfer": squared_chamfer(extracted, mesh, options.samples[1], generator),
        "floor": squared_chamfer(mesh, mesh, options.samples[1], generator),
        "shell": shell_iou(extracted, mesh, options.voxel, generator),
        "shell_floor": shell_iou(mesh, mesh, options.voxel, generator),
    }


def kodak(values: np.ndarray, params: int) -> Row:
    """A picture's closed form with at most ``params`` parameters, positions counted."""
    started = time.perf_counter()
    field = fit_cosines(values, params)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        error = psnr(field.raster().clip(0, 1), values, 1.0)
    return {"parameters": field.stored_parameters, "seconds": seconds, "psnr": error}


def about(result: Fit, seconds: float) -> Row:
    """Size and cost of a fit."""
    return {"parameters": result.field.parameter_count, "steps": result.steps, "seconds": seconds}


def paths(options: Options, suffixes: Sequence[str]) -> list[Path]:
    """The files among and below those of ``options`` that end in one of ``suffixes``."""
    every = [
        path
        for place in options.files
        for path in (sorted(place.rglob("*")) if place.is_dir() else [place])
    ]
    return [path for path in every if path.suffix.lower() in suffixes]


def measure(options: Options) -> None:
    """Measures what papers.json does not hold yet, and writes the page."""
    meshes, pictures = paths(options, MESHES), paths(options, PICTURES)
    if not meshes and not pictures:
        raise ValueError(
            f"There is no mesh or PNG picture in {', '.join(map(str, options.files))}."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "papers.json"
    rows: list[Row] = json.loads(store.read_text()) if store.exists() else []
    done = {(row["protocol"], row["file"], row["budget"]) for row in rows}

    def keep(protocol: str, path: Path, budget: int, work: Callable[[], Row]) -> None:
        if (protocol, path.stem, budget) in done:
            return
        place = {"protocol": protocol, "file": path.stem, "budget": budget}
        machine = {"commit": find_commit(ROOT), "threads": torch.get_num_threads()}
        rows.append(place | machine | work())
        print(rows[-1], file=sys.stderr, flush=True)
        with atomic_path(store) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")

    for path in meshes:
        mesh = solid_distance(load_mesh(path)).mesh
        for budget, _ in NEURBF:
            keep("neurbf", path, budget, lambda mesh=mesh, n=budget: neurbf(mesh, n, options))
        for budget, _ in MPLICITS:
            keep("mplicits", path, budget, lambda mesh=mesh, n=budget: mplicits(mesh, n, options))
    for path in pictures:
        values = load_image(path)[..., :3]
        for budget, _ in KODAK:
            keep("kodak", path, budget, lambda values=values, n=budget: kodak(values, n))
    with atomic_path(options.out / "papers.md") as temporary:
        temporary.write_text(page(rows, options))


HEADS = {
    "neurbf": (
        "Normals and occupancy (NeuRBF, ICCV 2023)",
        "Published (figure 7, one mesh, 20,000 steps on a GPU; degrees):",
        "A mesh in the ball of radius 0.99; extraction on 1,024 cells per axis; 1 M samples of "
        "each surface paired by distance; the mean angle between face normals in degrees; IoU at "
        "10 M uniform points. The released code computes its angle (NAE) as half the mean angle "
        "from the reference plus half the mean cosine: *as released*. Whether the published "
        "figures come from that code is not known, so both are given.",
        (
            ("angle", "angle", ".2f"),
            ("as released", "released", ".2f"),
            ("IoU", "iou", ".5f"),
        ),
    ),
    "mplicits": (
        "Chamfer distance and voxel shells (M-plicits, arXiv 2609.28684)",
        "Published (37 shapes, RTX 5090):",
        "A mesh in the unit ball; extraction on 512 cells per axis; 500 k samples of each surface; "
        "the sum over both directions of the mean squared distance; the overlap of the voxels of "
        "edge 0.01 that the surfaces cross. *Floor* is the same between two samplings of the "
        "reference. Their voxels are found by triangles on a lattice per mesh, ours by samples on "
        "one lattice.",
        (
            ("Chamfer x 1e-5", "chamfer", ".3g"),
            ("floor x 1e-5", "floor", ".3g"),
            ("shell IoU", "shell", ".3f"),
            ("floor", "shell_floor", ".3f"),
        ),
    ),
    "kodak": (
        "Pictures (Kodak-24)",
        "Published (mean of 24 pictures, dB):",
        "The closed form; its positions count as parameters, 32 to one.",
        (("PSNR dB", "psnr", ".2f"),),
    ),
}


def page(rows: Sequence[Row], options: Options) -> str:
    """The tables in markdown, with the published rows and what differs."""
    parts = [
        "# By the protocols of other papers",
        f"`python apps/bench/papers.py FILES --steps {options.steps}`, seed {options.seed}. Their "
        "meshes are not ours: compare orders, not digits.",
    ]
    published = {"neurbf": NEURBF, "mplicits": MPLICITS, "kodak": KODAK}
    for protocol, (title, source, words, columns) in HEADS.items():
        chosen = [row for row in rows if row["protocol"] == protocol]
        if not chosen:
            continue
        commits = ", ".join(dict.fromkeys(row["commit"] for row in chosen))
        parts += [f"## {title}", words, _table(chosen, columns), source]
        parts.append(
            "\n".join(
                f"- {budget:,}: {figures}" for budget, figures in published[protocol] if figures
            )
        )
        parts.append(f"Ours: {chosen[0]['threads']} CPU threads, commit {commits}.")
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str, str]]) -> str:
    heads = ["file", "budget", "parameters", *(heading for heading, *_ in columns), "seconds"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [row["file"], f"{row['budget']:,}", f"{row['parameters']:,}"]
        for heading, key, form in columns:
            factor = 1e5 if "1e-5" in heading else 1.0
            cells.append(format(row[key] * factor, form))
        lines.append("| " + " | ".join([*cells, f"{row['seconds']:.1f}"]) + " |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the app on ``args`` (the command line's by default) and returns its exit code."""
    return guarded(lambda: measure(tyro.cli(Options, prog="papers.py", args=args)))


if __name__ == "__main__":
    sys.exit(main())
