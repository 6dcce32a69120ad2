"""The races of ``nstr3d bench``: our fields against their controls and baselines on files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nstr3d.bench.commits import find_commit
from nstr3d.bench.compare import (
    MARKS,
    Contender,
    Row,
    limit_of,
    place_of,
    race,
    read_rows,
    row_of,
    write_rows,
)
from nstr3d.bench.contenders import SURFACES, only, rasters, tunings
from nstr3d.bench.tables import PICTURE, SOUND, SURFACE, Measure, by_track, plot, summary
from nstr3d.bench.tracks import RESOLUTION, TESTS, MeshTrack, RasterTrack
from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.io.atomic import atomic_path
from nstr3d.signals.kinds import IMAGES, SOUNDS
from nstr3d.training.fit import FitConfig, Progress

HELP = """Race our fields against their controls and baselines.

The files are meshes, images and sounds; the default is two of our meshes, which are in the source
of nstr3d. Each finished race is written at once. A second run continues: it keeps finished rows.
Results go to --out: benchmark.csv (meshes), images.csv and sounds.csv, with tables (markdown) and
plots. Plots need matplotlib: pip install nstr3d[bench].

The word speed in place of files measures speed instead, and has its own options.
"""
ROOT = Path(__file__).resolve().parents[2]  # the source of nstr3d, if the module is not installed
OURS = tuple(ROOT / "assets" / f"{name}.obj" for name in ("bunny", "ripple"))
MESHES = (".obj", ".ply", ".stl", ".off", ".glb", ".gltf")
CLOSED = "nstr, closed form"


@dataclass(frozen=True)
class Kind:
    """A kind of signal: the ``suffixes`` of its files, the name ``results`` of its CSV file, the
    ``measures`` of its table, the field ``base`` that the table compares with, and the default
    numbers of parameters ``budgets``."""

    suffixes: tuple[str, ...]
    results: str
    measures: tuple[Measure, ...]
    base: str
    budgets: tuple[int, ...]


KINDS = (
    Kind(MESHES, "benchmark", SURFACE, "ngp", (25_000, 100_000, 400_000)),
    Kind(IMAGES, "images", PICTURE, "siren, rate 0.001, omega 30", (207_000,)),
    Kind(SOUNDS, "sounds", SOUND, "siren, rate 0.001, omega 3000", (65_000,)),
)


def files(places: Sequence[Path], kind: Kind) -> list[Path]:
    """The files of ``kind`` among the files and below the folders ``places``."""
    candidates = [
        path
        for place in places
        for path in (sorted(place.rglob("*")) if place.is_dir() else [place])
    ]
    return [path for path in candidates if path.suffix.lower() in kind.suffixes]


def run(options: argparse.Namespace) -> None:
    """Runs every race that its CSV file lacks, and writes tables and plots of all rows. Raises
    ValueError if ``options.signals`` holds no mesh, image or sound."""
    work = [(kind, files(options.signals, kind)) for kind in KINDS]
    if not any(paths for _, paths in work):
        raise ValueError(
            f"There is no mesh, image or sound in {', '.join(map(str, options.signals))}."
        )
    if missing := [path for _, paths in work for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]} does not exist; name files or folders to race on.")
    surfaces = only(
        tunings(options.tune) if options.tune else SURFACES, options.fields if work[0][1] else None
    )
    for kind, paths in work:
        if paths:
            results = options.out / f"{'tuning' if options.tune else kind.results}.csv"
            rows = run_kind(paths, kind, surfaces, results, options)
            text = summary(rows, kind.base, kind.measures) + "\n" + by_track(rows, kind.measures[0])
            with atomic_path(results.with_suffix(".md")) as temporary:
                temporary.write_text(text, encoding="utf-8")
            print(text)
            if not options.tune:
                print("wrote", *plot(rows, options.out, kind.measures[0]), results)


def run_kind(
    paths: Sequence[Path],
    kind: Kind,
    surfaces: Sequence[Contender],
    results: Path,
    options: argparse.Namespace,
) -> list[Row]:
    """The rows of all races on ``paths``. Races that ``results`` lacks are run and written
    there."""
    rows, commit = read_rows(results), find_commit(ROOT)
    length = {"steps": options.steps} if options.steps else {"seconds": options.seconds}
    limit = limit_of(length.get("seconds"), length.get("steps"))
    for path in paths:
        track = None
        for params in options.budgets or kind.budgets:
            for seed in options.seeds:
                track = track or (
                    shape(path, options) if kind is KINDS[0] else RasterTrack.of(path)
                )
                done = {
                    row.field
                    for row in rows
                    if row.done == 1 and row.key == (path.stem, row.field, params, limit, seed)
                }
                if isinstance(track, RasterTrack):
                    everybody = only(rasters(track.lattice, track.out_dim), options.fields)
                else:
                    everybody = surfaces
                pending = [contender for contender in everybody if contender.name not in done]
                if pending:
                    rows += race(
                        pending,
                        track,
                        params,
                        seed,
                        **length,
                        marks=options.marks,
                        pool=options.pool,
                        commit=commit,
                        on_row=_tell,
                    )
                if isinstance(track, RasterTrack) and CLOSED not in done and options.fields is None:
                    rows.append(closed_form(track, params, seed, limit, commit))
                write_rows(results, rows)
    return rows


def shape(path: Path, options: argparse.Namespace) -> MeshTrack:
    """The track of the mesh at ``path``, with the measures that ``options`` ask for."""
    return replace(
        MeshTrack.of(path, options.tests), meshed=options.mesh, resolution=options.resolution
    )


def closed_form(track: RasterTrack, params: int, seed: int, limit: str, commit: str) -> Row:
    """The row of the staggered cosines. Their best amplitudes are one matrix product, so they do
    not race, but they are measured like the others."""
    started = time.perf_counter()
    field = fit_cosines(track.values, params)
    row = row_of(
        field,
        CLOSED,
        Progress(0, 1.0, time.perf_counter() - started, 0.0),
        track,
        place_of(track, params, seed, limit, commit),
    )
    _tell(row)
    return row


def _tell(row: Row) -> None:
    if row.done == 1:
        name, value = next(iter(row.measures.items()))
        print(
            f"{row.track} {row.budget} seed {row.seed} {row.field}: {name} {value:.4g}",
            file=sys.stderr,
            flush=True,
        )


def parse(args: Sequence[str], prog: str) -> argparse.Namespace:
    """The options in the words ``args`` of the program ``prog``. Raises SystemExit for unknown
    words."""
    options = _parser(prog).parse_args(args)
    if options.quick:
        options.signals, options.budgets, options.marks = list(OURS), [100_000], ()
        options.seeds, options.seconds, options.mesh = [0, 1], 8.0, False
    return options


def _parser(prog: str) -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "signals",
        nargs="*",
        type=Path,
        default=list(OURS),
        help="meshes, images, sounds, and folders of them",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out") / "benchmark", help="folder for the results"
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=int,
        help="learned parameters; 25k, 100k and 400k for meshes by default",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="training time of each field in each race"
    )
    parser.add_argument(
        "--pool", type=int, default=FitConfig.pool, help="training samples of a mesh"
    )
    parser.add_argument(
        "--tests",
        type=int,
        default=TESTS,
        help="points of each kind at which a mesh's errors are measured",
    )
    _add_measures(parser)
    return parser


def _add_measures(parser: argparse.ArgumentParser) -> None:
    """Adds the options on what is raced, for how long, and how it is measured."""
    parser.add_argument("--steps", type=int, help="race for this number of steps, not for seconds")
    parser.add_argument(
        "--marks",
        nargs="*",
        type=float,
        default=MARKS,
        help="fractions of the training after which to measure",
    )
    parser.add_argument(
        "--no-mesh",
        dest="mesh",
        action="store_false",
        help="leave out the measures of the extracted mesh",
    )
    parser.add_argument(
        "--resolution",
        type=int,
        default=RESOLUTION,
        help="grid cells per axis of the extracted mesh",
    )
    parser.add_argument("--fields", nargs="+", help="only the contenders of these names")
    parser.add_argument(
        "--tune",
        metavar="BASELINE",
        help="race a baseline's variants on meshes: siren, fourier or ngp",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two of our meshes, 100k parameters, two seeds, 8 s: about 8 minutes",
    )
