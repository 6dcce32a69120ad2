"""Race our field against its controls and baselines: ``python apps/benchmark.py [MESH or FOLDER ...]``; --help lists options.

Every finished race is written at once; run it again to go on. Results: benchmark.csv, tables (markdown) and plots in --out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nstr3d.cli import guarded
from nstr3d.compare import Contender, Row, race, read_rows, write_rows
from nstr3d.fields.fourier import sized_fourier
from nstr3d.fields.ngp import NgpConfig, sized_ngp
from nstr3d.fields.nstr import TransportConfig
from nstr3d.fields.siren import sized_siren
from nstr3d.fit import FitConfig
from nstr3d.io import atomic_path
from nstr3d.losses import TransportPenalty, relative_objective, sdf_objective
from nstr3d.presets import FIELDS, changed, sized_linear, sized_nstr, sized_waveless
from nstr3d.solve import least_squares
from nstr3d.tables import by_track, plot, summary
from nstr3d.tracks import MeshTrack

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(ROOT / "assets" / f"{name}.obj" for name in ("bunny", "ripple"))
PENALTY = sdf_objective(transport=TransportPenalty(0.1))
PAPER = FitConfig(warmup=0, final_rate=1.0)  # constant rates, as published for runs this short

CONTENDERS = [Contender(name, FIELDS[name]) for name in FIELDS] + [
    Contender("nstr without waves", sized_waveless),
    Contender("linear grid, CG", sized_linear, steps=least_squares()),
    Contender("nstr, F(x, S)", changed(sized_nstr, transport=TransportConfig()), PENALTY),
    Contender("nstr, F = 0", changed(sized_nstr, transport=TransportConfig(hidden=0)), PENALTY),
    Contender("ngp, as published", partial(sized_ngp, template=NgpConfig(table_rate=1e-2)), relative_objective(), PAPER),
]


def variants(name: str) -> list[Contender]:
    """What the tuning of a baseline searches: shapes and peak rates, all else as for every contender."""
    rates = (1e-4, 3e-4, 1e-3, 3e-3)
    if name == "siren":
        found = {f"rate {r:g} omega {w:g}": (sized_siren, {"rate": r, "first_omega": w}) for r in rates for w in (15.0, 30.0)}
    elif name == "fourier":
        found = {f"rate {r:g} deviation {s:g}": (sized_fourier, {"rate": r, "deviation": s}) for r in rates for s in (2.0, 5.0)}
    elif name == "ngp":
        shapes = [(levels, finest, rate) for levels in (6, 8, 16) for finest in (64, 128, 256) for rate in (1e-2, 3e-2)]
        templates = {f"{n} levels to {f} rate {r:g}": NgpConfig(levels=n, finest=f, table_rate=r) for n, f, r in shapes}
        return [Contender(f"ngp, {label}", partial(sized_ngp, template=t)) for label, t in templates.items()]
    else:
        raise ValueError(f"There is nothing to tune for {name}; choose siren, fourier or ngp.")
    return [
        Contender(f"{name}, {label}", lambda params, near, size=size, change=change: replace(size(params, near), **change))
        for label, (size, change) in found.items()
    ]


def meshes(places: Sequence[Path]) -> list[Path]:
    """The mesh files among and below ``places``. Raises ValueError when there are none."""
    found = [path for place in places for path in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    found = [path for path in found if path.suffix.lower() in (".obj", ".ply", ".stl", ".off", ".glb", ".gltf") or path in places]
    if not found:
        raise ValueError(f"There is no mesh in {', '.join(map(str, places))}.")
    return found


def run(options: argparse.Namespace) -> None:
    """Every race that is not in the CSV file yet, then tables and plots of all that is."""
    contenders = variants(options.tune) if options.tune else CONTENDERS
    if options.fields:
        unknown = set(options.fields) - {contender.name for contender in contenders}
        if unknown:
            raise ValueError(f"Unknown fields: {', '.join(sorted(unknown))}; choose from {[c.name for c in contenders]}.")
        contenders = [contender for contender in contenders if contender.name in options.fields]
    results = options.out / ("tuning.csv" if options.tune else "benchmark.csv")
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    rows = read_rows(results)
    limits = [{"steps": options.steps}] if options.steps else [{"seconds": options.seconds}]
    for path in meshes(options.meshes):
        track = None
        for params in options.budgets:
            for seed in options.seeds:
                for limit in limits:
                    words = f"{limit['seconds']:g} s" if "seconds" in limit else f"{limit['steps']} steps"
                    done = {row.key for row in rows if row.done == 1}
                    left = [c for c in contenders if (path.stem, c.name, params, words, seed) not in done]
                    if left:
                        track = track or MeshTrack.of(path)
                        rows += race(left, track, params, seed, **limit, commit=git.stdout.strip(), on_row=_tell)
                        write_rows(results, rows)
    text = summary(rows, "ngp") + "\n" + by_track(rows)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)
    if not options.tune:
        print("wrote", *plot(rows, options.out), results)


def _tell(row: Row) -> None:
    if row.done == 1:
        near = row.measures["near"] * 1e4
        print(f"{row.track} {row.budget} seed {row.seed} {row.field}: near {near:.2f}e-4", file=sys.stderr, flush=True)


def main(args: Sequence[str] | None = None) -> int:
    """Parses options and runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="*", type=Path, default=list(OURS), help="mesh files and folders; two of ours by default")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the results")
    parser.add_argument("--budgets", nargs="+", type=int, default=[25_000, 100_000, 400_000], help="learned parameters")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--seconds", type=float, default=15.0, help="training time of each field in each race")
    parser.add_argument("--steps", type=int, help="race to a number of steps instead")
    parser.add_argument("--fields", nargs="+", help="only these contenders")
    parser.add_argument("--tune", metavar="BASELINE", help="race a baseline's variants: siren, fourier or ngp")
    parser.add_argument("--quick", action="store_true", help="two of our shapes, 100k parameters, two seeds, 8 s: some 8 minutes")
    options = parser.parse_args(args)
    if options.quick:
        options.meshes, options.budgets, options.seeds, options.seconds = list(OURS), [100_000], [0, 1], 8.0
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
