"""Measure whether the transport loss improves fits: ``python apps/bench/ablation.py [FILE ...]``.

The transport loss and its controls are trained on clean, sparse and noisy signed distances of
meshes, and on a quarter of the pixels of images, where the error is measured on the other pixels.
All contenders have equal steps. F(x, S) and F(S) are transport networks. F = 0 is plain smoothness.
Ridge is a stronger weight decay of the tables; a useful prior has to be better than it. Rows go to
ablation.csv and tables to ablation.md, both in --out. A second run continues: it keeps finished
rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nstr3d.bench.compare import Contender, Row, race, read_rows, write_rows
from nstr3d.bench.contenders import sized_waveless, waveless_levels_for
from nstr3d.bench.options import add_race_options
from nstr3d.bench.tables import PICTURE, SURFACE, Measure, summary
from nstr3d.bench.tracks import MeshTrack, RasterTrack
from nstr3d.cli.command import guarded
from nstr3d.fields.base import Field
from nstr3d.fields.layers import Decoder, linear
from nstr3d.fields.level import Level, LevelConfig, stored_nodes
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.io.atomic import atomic_path
from nstr3d.kernels.field.interpolate import gather
from nstr3d.signals.kinds import kind_of
from nstr3d.signals.signal import sized_waves
from nstr3d.training.losses import SdfObjective, TransportPenalty, ValueObjective
from nstr3d.training.presets import changed, sized_nstr

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(ROOT / "assets" / name for name in ("bunny.obj", "ripple.obj", "texture.png"))
KINDS = {
    "F(x, S)": TransportConfig(),
    "F(S)": TransportConfig(position=False),
    "F = 0": TransportConfig(hidden=0),
}
DATA = {"clean": {}, "sparse": {"samples": 20_000}, "noisy": {"samples": 100_000, "noise": 0.01}}
MASKED = "masked"
COLUMNS = (*SURFACE[:5], Measure("residual", "residual"))


@dataclass(frozen=True)
class HermiteConfig(NstrConfig):
    """Smoothstep (C1) interpolation of plain levels.

    With ``slopes`` each node has the slope F(S), the transport law:
    S(x) = sum_c w_c(x) (S_c + F(S_c) (x - x_c)). Without ``slopes`` the slopes are zero.
    """

    slopes: bool = True

    def build(self, in_dim, out_dim, near=None, generator=None) -> Hermite:
        """A field of one output; the parameters are those of `NstrConfig.build`."""
        generator = generator or torch.Generator().manual_seed(0)
        return Hermite(
            self,
            in_dim,
            [np.packbits(stored_nodes(level, in_dim, near)) for level in self.levels],
            generator,
        )

    def restore(self, in_dim: int, out_dim: int, tensors: Mapping[str, Tensor]) -> Hermite:
        """Raises NotImplementedError: races do not reload fields."""
        raise NotImplementedError("An ablation field cannot be restored from tensors.")


class Hermite(Field):
    """The field of `HermiteConfig`, with one output."""

    def __init__(self, config: HermiteConfig, dim: int, nodes: list, generator: torch.Generator):
        super().__init__()
        self.config, self.in_dim, self.out_dim = config, dim, 1
        self.levels = nn.ModuleList(
            Level(level, dim, bitmap, generator) for level, bitmap in zip(config.levels, nodes)
        )
        self.decoder = Decoder(
            sum(level.features for level in config.levels),
            config.hidden,
            1,
            config.sharpness,
            generator,
        )
        widths = [level.channels for level in config.levels] if config.slopes else []
        self.laws = nn.ModuleList(
            nn.Sequential(linear(c, 32, generator), nn.Tanh(), linear(32, c * dim, generator))
            for c in widths
        )

    def forward(self, points: Tensor) -> Tensor:
        return self.decoder(
            torch.cat([self._features(index, points) for index in range(len(self.levels))], dim=1)
        )

    def _features(self, index: int, points: Tensor) -> Tensor:
        level: Level = self.levels[index]  # type: ignore[assignment]
        cells = level.config.resolution
        scaled = (points + 1) * (cells / 2)
        cell = scaled.detach().floor().clamp(0, cells - 1)
        offset = scaled - cell
        # The linear weights at ``smooth`` equal the C1 weights at ``points``.
        smooth = (cell + offset * offset * (3 - 2 * offset)) * (2 / cells) - 1
        if not self.laws:
            return gather(smooth, level.grid, level.table)
        # Slopes are per cell: S_c + F(S_c) (x - x_c) / h splits into a value and a slope, which are
        # interpolated separately.
        slopes = self.laws[index](level.table)  # (nodes, channels * dim), axes last
        nodes = torch.nonzero(level.rows.reshape((cells + 1,) * self.in_dim) >= 0).to(points)
        node_slopes = slopes.view(len(nodes), -1, self.in_dim)
        values = level.table - (node_slopes * nodes[:, None]).sum(dim=2)
        mixed = gather(smooth, level.grid, torch.cat([values, slopes], dim=1))
        value, slope = mixed.split([level.config.channels, slopes.shape[1]], dim=1)
        return value + (slope.view(len(points), -1, self.in_dim) * scaled[:, None]).sum(dim=2)

    def rates(self) -> list[dict]:
        tables = [p for name, p in self.named_parameters() if name.endswith(".table")]
        others = [p for name, p in self.named_parameters() if not name.endswith(".table")]
        return [
            {
                "params": tables,
                "lr": self.config.table_rate,
                "weight_decay": self.config.table_decay,
            },
            {"params": others, "lr": self.config.decoder_rate},
        ]


def hermite(params: int, near, slopes: bool) -> HermiteConfig:
    """The levels of the default field without waves, with multilinear nodes and C1
    interpolation."""

    def levels(finest: int) -> tuple[LevelConfig, ...]:
        return tuple(replace(level, order=1) for level in waveless_levels_for(finest))

    return HermiteConfig(sized_nstr(params, near, levels).levels, slopes=slopes)


def contenders(weights: Sequence[float]) -> list[Contender]:
    """All contenders on meshes: no transport, ridges, each transport loss at each of ``weights``,
    no waves, and the two C1 interpolations."""
    entries = [Contender("off", sized_nstr)]
    entries += [
        Contender(f"ridge {decay:g}", changed(sized_nstr, table_decay=decay))
        for decay in (0.3, 3.0)
    ]
    for name, transport in KINDS.items():
        for weight in weights:
            objective = SdfObjective(transport=TransportPenalty(weight))
            entries.append(
                Contender(
                    f"{name}, weight {weight:g}",
                    changed(sized_nstr, transport=transport),
                    objective,
                )
            )
    entries.append(Contender("no waves", sized_waveless))
    entries.append(Contender("C1 interpolation", partial(hermite, slopes=False)))
    entries.append(Contender("transport interpolation", partial(hermite, slopes=True)))
    return entries


def raster_contenders(weights: Sequence[float], track: RasterTrack) -> list[Contender]:
    """All contenders on images: no transport, ridges, and each transport loss at each of
    ``weights`` divided by 1000."""

    def size(params: int, near) -> NstrConfig:
        return sized_waves(params, track.lattice, track.out_dim)

    entries = [Contender("off", size, ValueObjective())]
    entries += [
        Contender(f"ridge {decay:g}", changed(size, table_decay=decay), ValueObjective())
        for decay in (0.1, 1.0)
    ]
    for name, transport in KINDS.items():
        for weight in weights:
            # The squared errors of images are about 1000 times smaller than the losses of meshes.
            objective = ValueObjective(TransportPenalty(weight / 1000))
            entries.append(
                Contender(
                    f"{name}, weight {weight / 1000:g}",
                    changed(size, transport=transport),
                    objective,
                )
            )
    return entries


def run(options: argparse.Namespace) -> None:
    """Runs every race that ablation.csv lacks, and writes the rows and the tables."""
    results = options.out / "ablation.csv"
    rows = read_rows(results)
    limit = f"{options.steps} steps"
    for path in options.signals:
        for label in [MASKED] if kind_of(path) == "image" else options.data:
            track = None
            for seed in options.seeds:
                done = {row.key for row in rows if row.done == 1}
                name = f"{path.stem}, {label}"
                track = track or (
                    masked(path, name)
                    if label == MASKED
                    else spoilt(path, options.tests, name, label)
                )
                if isinstance(track, RasterTrack):
                    everybody = raster_contenders(options.weights, track)
                else:
                    everybody = contenders(options.weights)
                pending = [
                    c for c in everybody if (name, c.name, options.budget, limit, seed) not in done
                ]
                if pending:
                    rows += race(
                        pending,
                        track,
                        options.budget,
                        seed,
                        steps=options.steps,
                        marks=(),
                        pool=options.pool,
                        on_row=_tell,
                    )
                    write_rows(results, rows)
    text = table(rows)
    with atomic_path(results.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    print(text)


@lru_cache(maxsize=2)
def shape(path: Path, tests: int) -> MeshTrack:
    """The track of a mesh with clean data and ``tests`` points of each kind."""
    return MeshTrack.of(path, tests)


def spoilt(path: Path, tests: int, name: str, label: str) -> MeshTrack:
    """The track of a mesh with the training data ``DATA[label]``."""
    return replace(shape(path, tests), name=name, meshed=False, **DATA[label])


def masked(path: Path, name: str) -> RasterTrack:
    """The track of the central 192 x 192 pixels of an image, a quarter of which are training
    data."""
    whole = RasterTrack.of(path)
    top, left = (max(0, (length - 192) // 2) for length in whole.values.shape[:2])
    return replace(
        whole, name=name, values=whole.values[top : top + 192, left : left + 192], keep=0.25
    )


def table(rows: Sequence[Row]) -> str:
    """ablation.md: for each kind of data a table of means over signals and seeds."""
    parts = []
    for label in (*DATA, MASKED):
        own = [row for row in rows if row.track.endswith(f", {label}")]
        if own:
            parts.append(
                f"{label.capitalize()} data. "
                + summary(own, "off", PICTURE if label == MASKED else COLUMNS)
            )
    return "\n".join(parts)


def _tell(row: Row) -> None:
    if row.done == 1:
        name, value = next(iter(row.measures.items()))
        print(
            f"{row.track} seed {row.seed} {row.field}: {name} {value:.4g}",
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
        "signals",
        nargs="*",
        type=Path,
        default=list(OURS),
        help="meshes and images to fit; ours by default",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "benchmark", help="folder for the results"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        choices=list(DATA),
        default=list(DATA),
        help="kinds of training data of meshes",
    )
    parser.add_argument("--budget", type=int, default=100_000, help="learned parameters")
    add_race_options(parser, steps=700)
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        default=[0.1, 1.0, 10.0],
        help="weights of the transport loss",
    )
    options = parser.parse_args(args)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
