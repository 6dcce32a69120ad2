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
from nstr3d.bench.options import ROOT
from nstr3d.bench.tables import PICTURE, SOUND, SURFACE, Measure, by_track, plot, summary
from nstr3d.bench.tracks import MeshTrack, RasterTrack
from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.io.atomic import atomic_path
from nstr3d.signals.kinds import IMAGES, SOUNDS
from nstr3d.training.fit import Progress

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
