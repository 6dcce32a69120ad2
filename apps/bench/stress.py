"""Race fields on signals whose frequency varies in space: ``python apps/bench/stress.py``.

The 1D signals are a chirp and a jump of frequency, both from 40 to 400 cycles. The 2D signals are a
zone plate, and a checker beside a ramp. The 3D shape is a torus with a spiral relief whose pitch
drifts. All fields have the same number of parameters. Fields with a closed form are solved; the
others train for the same seconds. A second comparison is the quality against the number of waves at
a fixed number of parameters, for real and complex spectra. Rows go to stress.csv, tables to
stress.md and a figure to waves.png, all in --out. A second run continues: it keeps finished rows.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from nstr3d.bench.compare import (
    Contender,
    Row,
    Track,
    limit_of,
    place_of,
    race,
    read_rows,
    row_of,
    write_rows,
)
from nstr3d.bench.contenders import sized_waveless
from nstr3d.bench.tables import SURFACE, Measure, final, mean_of, summary
from nstr3d.bench.tracks import MeshTrack, RasterTrack
from nstr3d.cli.command import guarded
from nstr3d.fields.baselines.fourier import sized_fourier
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import sized_siren
from nstr3d.fields.closed.cosinefit import fit_cosines
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves, PhaseWaves
from nstr3d.io.atomic import atomic_path
from nstr3d.training.fit import FitConfig, Progress
from nstr3d.training.presets import FIELDS, changed
from nstr3d.training.solve import least_squares
from nstr3d.types import Mesh

ROOT = Path(__file__).resolve().parents[2]
COUNT = 8192  # samples of the 1D signals
CLOSED = "staggered cosines, closed form"
CYCLES = 480  # highest frequency of the waves of a 1D spectrum, in cycles over the interval
SIDE = 128  # pixels per side of the 2D signals
BUDGETS = {1: 1600, 2: 2400, 3: 50_000}  # parameters for each dimension
SIGNAL = (
    Measure("snr", "SNR dB", rising=True, axis="SNR dB"),
    Measure("overshoot", "overshoot", form=".3f"),
    Measure("ringing", "error at the jump", form=".4f"),
)


def chirp() -> RasterTrack:
    """A sine whose frequency rises linearly from 40 to 400 cycles over the interval."""
    t = (np.arange(COUNT) + 0.5) / COUNT
    return RasterTrack("chirp", np.sin(2 * np.pi * (40 * t + 180 * t**2))[:, None], peak=2.0)


def jump() -> RasterTrack:
    """A sine of 40 cycles over the interval in the first half and of 400 cycles in the second."""
    t = (np.arange(COUNT) + 0.5) / COUNT
    return RasterTrack(
        "jump", np.sin(2 * np.pi * np.where(t < 0.5, 40, 400) * t)[:, None], peak=2.0, jump=0.0
    )


def zone_plate() -> RasterTrack:
    """Rings whose frequency rises from 0 at the centre to a sixth of a cycle per pixel at the
    edges."""
    x = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
    square = x[:, None] ** 2 + x**2
    return RasterTrack("zone plate", np.cos(np.pi * SIDE / 12 * square)[..., None], peak=2.0)


def checker() -> RasterTrack:
    """A checker of 4 pixels on the left, a smooth ramp on the right."""
    row, column = np.indices((SIDE, SIDE))
    squares, ramp = np.where((row // 4 + column // 4) % 2, 1.0, -1.0), 2 * row / SIDE - 1
    return RasterTrack(
        "checker and ramp",
        np.where(column < SIDE // 2, squares, ramp)[..., None],
        peak=2.0,
        jump=0.0,
    )


def spiral() -> MeshTrack:
    """A torus with a spiral relief around its tube. The relief has 8 to 40 waves per turn of the
    ring; the number drifts from 8 to 40 and back."""
    turn, tube = np.meshgrid(
        np.linspace(0, 1, 1200, endpoint=False),
        np.linspace(0, 1, 160, endpoint=False),
        indexing="ij",
    )
    phase = 24 * turn - 16 * np.sin(2 * np.pi * turn) / (2 * np.pi)
    radius = 0.3 + 0.02 * np.sin(2 * np.pi * (phase + tube))
    ring = 1 + radius * np.cos(2 * np.pi * tube)
    around = np.stack([ring * np.cos(2 * np.pi * turn), ring * np.sin(2 * np.pi * turn)], axis=-1)
    vertices = np.concatenate([around, (radius * np.sin(2 * np.pi * tube))[..., None]], axis=-1)
    corner = np.arange(turn.size).reshape(turn.shape)
    right, up = np.roll(corner, -1, axis=0), np.roll(corner, -1, axis=1)
    both = np.roll(right, -1, axis=1)
    faces = np.concatenate(
        [
            np.stack([corner, right, both], -1).reshape(-1, 3),
            np.stack([corner, both, up], -1).reshape(-1, 3),
        ]
    )
    return MeshTrack.around("spiral torus", Mesh(vertices.reshape(-1, 3), faces))


TRACKS: tuple[Callable[[], Track], ...] = (chirp, jump, zone_plate, checker, spiral)


def one_level(
    params: int, near: np.ndarray, waves: type, count: int, plain: int = 0, hidden: int = 0
) -> NstrConfig:
    """A field of one dense level with ``count`` waves, as fine as ``params`` parameters allow. The
    band of the waves covers the frequencies of the signals."""
    dim = near.shape[1]
    channels = plain + (count * waves.channels_per_wave if count else 0)
    decoder = (plain + count + 2) * hidden + 1 if hidden else 0
    cells = max(2, int(((params - decoder) / channels) ** (1 / dim)) - 1)
    made = (
        waves(count, band=(0.0, (CYCLES if dim == 1 else SIDE / 6) / (cells / 2)))
        if count
        else None
    )
    return NstrConfig((LevelConfig(cells, plain, made, sparse=False),), hidden=hidden, start=None)


def fields(dim: int) -> list[Contender]:
    """All contenders in ``dim`` dimensions. Each baseline has the frequency scales that a user
    would try."""
    if dim == 3:
        names = ("siren", "fourier", "ngp", "grid", "nstr")
        return [
            *(Contender(name, FIELDS[name]) for name in names),
            Contender("nstr without waves", sized_waveless),
        ]
    train = FitConfig(batch=COUNT // 2)
    baselines = []
    for omega in (30.0, 300.0) if dim == 1 else (30.0, 60.0):
        size = changed(sized_siren, first_omega=omega, rate=1e-3)
        baselines.append(Contender(f"siren, omega {omega:g}", size, training=train))
    for deviation in (10.0, 100.0) if dim == 1 else (5.0, 15.0):
        size = changed(sized_fourier, deviation=deviation, rate=3e-3)
        baselines.append(Contender(f"fourier, deviation {deviation:g}", size, training=train))
    template = NgpConfig(
        levels=6, coarsest=16, finest=COUNT // 8 if dim == 1 else SIDE, width=16, table_rate=3e-2
    )
    baselines.append(Contender("ngp", partial(sized_ngp, template=template), training=train))
    phase = partial(one_level, waves=PhaseWaves, count=4 if dim == 1 else 12, plain=4, hidden=16)
    baselines.append(Contender("phase waves, trained", phase, training=train))
    plain = partial(one_level, waves=AmplitudeWaves, count=0, plain=1)
    return [
        *baselines,
        Contender("plain grid, closed form", plain, steps=least_squares(1e-6)),
        *ladder(dim),
    ]


def ladder(dim: int) -> list[Contender]:
    """Real and complex spectra with increasing numbers of waves at the same number of parameters,
    solved by least squares."""
    counts = (1, 2, 4, 8, 16, 32) if dim == 1 else (4, 8, 16, 32, 64)
    kinds = {"real": AmplitudeWaves, "complex": ComplexWaves}
    return [
        Contender(
            f"{name}, K = {k}", partial(one_level, waves=kind, count=k), steps=least_squares(1e-6)
        )
        for name, kind in kinds.items()
        for k in counts
    ]


def run(options: argparse.Namespace) -> None:
    """Runs every race that stress.csv lacks, and writes the rows, the tables and the figure."""
    results = options.out / "stress.csv"
    rows = read_rows(results)
    for make in TRACKS:
        track = make()
        params = BUDGETS[track.in_dim]
        seconds = options.seconds * (4 if track.in_dim == 3 else 1)
        limit = limit_of(seconds, None)
        for seed in options.seeds:
            done = {row.key for row in rows if row.done == 1}
            pending = [
                c
                for c in fields(track.in_dim)
                if (track.name, c.name, params, limit, seed) not in done
            ]
            if pending:
                rows += race(pending, track, params, seed, seconds=seconds, marks=(), on_row=_tell)
            if (
                isinstance(track, RasterTrack)
                and (track.name, CLOSED, params, limit, seed) not in done
            ):
                started = time.perf_counter()
                field = fit_cosines(track.values, params)
                moment = Progress(0, 1.0, time.perf_counter() - started, 0.0)
                rows.append(
                    row_of(field, CLOSED, moment, track, place_of(track, params, seed, limit, ""))
                )
            write_rows(results, rows)
    text = tables(rows)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)
    print("wrote", ladders(rows, options.out), results)


def tables(rows: Sequence[Row]) -> str:
    """stress.md: a table for each signal; for 1D signals the number of waves that reach 40 dB."""
    parts = []
    for track in dict.fromkeys(row.track for row in rows):
        own = [row for row in rows if row.track == track]
        measures = SIGNAL if "snr" in own[-1].measures else SURFACE[:4]
        base = next(
            (row.field for row in own if row.field in ("ngp", "siren, omega 30")), own[0].field
        )
        parts.append(f"{track.capitalize()}. " + summary(own, base, measures))
        if "snr" in own[-1].measures and own[-1].budget == BUDGETS[1]:
            parts.append("; ".join(_needed(own, kind) for kind in ("real", "complex")) + ".\n")
    return "\n".join(parts)


def _needed(rows: Sequence[Row], kind: str, enough: float = 40.0) -> str:
    """The least number of waves with which a ``kind`` of spectrum reaches ``enough`` dB in every
    seed, in words."""
    counts = sorted({int(row.field.split("= ")[1]) for row in rows if row.field.startswith(kind)})
    for count in counts:
        own = [row.measures["snr"] for row in final(rows) if row.field == f"{kind}, K = {count}"]
        if own and min(own) >= enough:
            return f"a {kind} spectrum reaches {enough:g} dB with {count} waves"
    return (
        f"a {kind} spectrum reaches {enough:g} dB with none of {', '.join(map(str, counts))} waves"
    )


def ladders(rows: Sequence[Row], folder: Path) -> Path:
    """Writes waves.png to ``folder``, and returns its path: SNR against the number of waves at a
    fixed number of parameters, a panel for each signal."""
    from matplotlib.figure import Figure

    raster = [row for row in final(rows) if ", K = " in row.field]
    tracks = list(dict.fromkeys(row.track for row in raster))
    figure = Figure(figsize=(3.5 * len(tracks), 3.2), layout="constrained")
    for axes, track in zip(figure.subplots(1, len(tracks), squeeze=False)[0], tracks):
        for kind in ("real", "complex"):
            own = [row for row in raster if row.track == track and row.field.startswith(kind)]
            counts = sorted({int(row.field.split("= ")[1]) for row in own})
            means = [
                mean_of([row for row in own if row.field == f"{kind}, K = {count}"], "snr")
                for count in counts
            ]
            axes.plot(counts, means, marker="o", label=kind)
        axes.set(title=track, xlabel="waves K")
        axes.set_xscale("log", base=2)
        axes.grid(True, alpha=0.2)
    figure.axes[0].set_ylabel("SNR dB")
    figure.axes[0].legend()
    figure.savefig(folder / "waves.png", dpi=110)
    return folder / "waves.png"


def _tell(row: Row) -> None:
    if row.done == 1:
        print(
            f"{row.track} seed {row.seed} {row.field}: {dict(row.measures)}",
            file=sys.stderr,
            flush=True,
        )


def main(args: Sequence[str] | None = None) -> int:
    """Parses the options ``args`` (the command line's by default), runs, and returns the exit
    code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the results"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="training time of each field, four times as long in 3D",
    )
    options = parser.parse_args(args)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
