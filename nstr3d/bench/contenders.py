"""Who races whom: our fields, their controls and the baselines, for distances, images and
sounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from nstr3d.bench.compare import Contender
from nstr3d.fields.base import Field
from nstr3d.fields.baselines.finer import sized_finer
from nstr3d.fields.baselines.fourier import sized_fourier
from nstr3d.fields.baselines.ngp import NgpConfig, sized_ngp
from nstr3d.fields.baselines.siren import sized_siren
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.vicinity import Near
from nstr3d.signals.signal import sized_waves
from nstr3d.training.fit import FitConfig
from nstr3d.training.losses import (
    Objective,
    TransportPenalty,
    sdf_objective,
    value_objective,
)
from nstr3d.training.presets import FIELDS, changed, levels_for, sized_nstr
from nstr3d.training.solve import least_squares
from nstr3d.types import Lattice, Samples

# Baselines train on values alone: at equal seconds the gradients, which autograd differentiates
# twice for them, raise their near errors (SIREN by 6%, Instant-NGP by 57%; our bunny, 100k, 8 s).
VALUES = sdf_objective(gradient_weight=0.0)
PENALTY = sdf_objective(transport=TransportPenalty(0.1))
# constant rates, as published for runs this short
PAPER = FitConfig(batch=8192, warmup=0, final_rate=1.0, settle=None)
# The baselines train on either of two batches: which does better depends on budget, seconds and
# threads.
LARGE, SMALL = FitConfig(batch=8192, settle=None), FitConfig(batch=1024, settle=None)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def waveless_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The control for the phase waves: the same levels, with plain channels in their place."""
    *coarser, last = levels_for(finest)
    return *coarser, replace(last, plain=last.features, waves=None)


def sized_waveless(params: int, near: Near) -> NstrConfig:
    """The default field with plain channels in place of the phase waves."""
    return sized_nstr(params, near, waveless_levels_for)


def multilinear_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The control for the quadratic B-splines: the same levels, multilinear."""
    return tuple(replace(level, order=1) for level in levels_for(finest))


def sized_multilinear(params: int, near: Near) -> NstrConfig:
    """The default field on multilinear levels."""
    return sized_nstr(params, near, multilinear_levels_for)


def sized_linear(params: int, near: Near) -> NstrConfig:
    """A sum of plain grids, linear in its parameters, for `nstr3d.training.solve.least_squares`:
    the control for the decoder."""

    def levels(finest: int) -> tuple[LevelConfig, ...]:
        cells = [max(2 + index, round(finest / share)) for index, share in enumerate((16, 4, 2, 1))]
        return LevelConfig(cells[0], plain=1, sparse=False), *(
            LevelConfig(count, plain=1) for count in cells[1:]
        )

    return sized_nstr(params, near, levels, NstrConfig(hidden=0))


def relative_objective(offset: float = 0.01) -> Objective:
    """Mean absolute error relative to ``|value| + offset``: the loss that Instant-NGP trains
    distances with (MAPE)."""

    def loss(field: Field, batch: Samples, progress: float) -> Tensor:
        return ((field(batch.points) - batch.values).abs() / (batch.values.abs() + offset)).mean()

    return loss


NGP = Contender(
    "ngp, batches of 1,024",
    changed(FIELDS["ngp"], table_rate=1.5e-2, mlp_rate=5e-3),
    VALUES,
    SMALL,
)
SURFACES = [
    Contender("nstr", FIELDS["nstr"]),
    Contender("grid", FIELDS["grid"]),
    NGP,
    *(Contender(name, FIELDS[name], VALUES, LARGE) for name in ("ngp", "siren", "fourier")),
    *(
        Contender(f"{name}, batches of 1,024", FIELDS[name], VALUES, SMALL)
        for name in ("siren", "fourier")
    ),
    Contender("nstr without waves", sized_waveless),
    Contender("nstr, multilinear", sized_multilinear),
    Contender("nstr, values alone", FIELDS["nstr"], VALUES),
    Contender("linear grid, CG", sized_linear, steps=least_squares()),
    Contender("nstr, F(x, S)", changed(sized_nstr, transport=TransportConfig()), PENALTY),
    Contender("nstr, F = 0", changed(sized_nstr, transport=TransportConfig(hidden=0)), PENALTY),
    Contender(
        "ngp, as published",
        partial(sized_ngp, template=NgpConfig(table_rate=1e-2)),
        relative_objective(),
        PAPER,
    ),
]


def tunings(name: str) -> list[Contender]:
    """What the tuning of a baseline on surfaces searches: shapes and peak rates, all else as for
    every contender.

    Raises ValueError for a name that has nothing to tune.
    """
    if name == "siren":
        found = {
            f"rate {r:g} omega {w:g}": (sized_siren, {"rate": r, "first_omega": w})
            for r in RATES
            for w in (15.0, 30.0)
        }
    elif name == "fourier":
        found = {
            f"rate {r:g} deviation {s:g}": (sized_fourier, {"rate": r, "deviation": s})
            for r in RATES
            for s in (2.0, 5.0)
        }
    elif name == "ngp":
        shapes = [
            (levels, finest, rate)
            for levels in (6, 8, 16)
            for finest in (64, 128, 256)
            for rate in (1e-2, 3e-2)
        ]
        templates = {
            f"{n} levels to {f} rate {r:g}": NgpConfig(levels=n, finest=f, table_rate=r)
            for n, f, r in shapes
        }
        return [
            Contender(f"ngp, {label}", partial(sized_ngp, template=t), VALUES, LARGE)
            for label, t in templates.items()
        ]
    else:
        raise ValueError(f"There is nothing to tune for {name}; choose siren, fourier or ngp.")
    return [
        Contender(f"{name}, {label}", changed(size, **changes), VALUES, LARGE)
        for label, (size, changes) in found.items()
    ]


def rasters(lattice: Lattice, channels: int) -> list[Contender]:
    """The fields that are trained on images and sounds. Each baseline comes with the settings
    between which its best lies; the closed form (`nstr3d.fields.closed.cosines`) is not trained and
    joins by itself."""
    image = len(lattice.shape) == 2
    omegas = (30.0,) if image else (300.0, 3000.0)
    ends = (max(lattice.shape) // 2, max(lattice.shape)) if image else (4096, 32768)
    make = [
        *(
            (f"siren, rate {r:g}, omega {w:g}", _siren(channels, r, w))
            for r in (1e-3, 2e-3)
            for w in omegas
        ),
        *(
            (f"finer, rate {r:g}, omega {w:g}", _finer(channels, r, w))
            for r in (1e-3, 2e-3)
            for w in omegas
        ),
        *(
            (f"ngp, {end} cells", partial(sized_ngp, out_dim=channels, template=_ngp(end, image)))
            for end in ends
        ),
        ("nstr, trained", _waves(lattice, channels)),
        ("nstr without waves, trained", _waves(lattice, channels, count=0)),
    ]
    return [Contender(name, config, value_objective(), LARGE) for name, config in make]


def only(contenders: Sequence[Contender], names: Sequence[str] | None) -> list[Contender]:
    """Those with the given names, or all. Raises ValueError for a name that nobody has."""
    if names is None:
        return list(contenders)
    unknown = set(names) - {contender.name for contender in contenders}
    if unknown:
        raise ValueError(
            f"Unknown fields: {', '.join(sorted(unknown))}; choose from "
            f"{[c.name for c in contenders]}."
        )
    return [contender for contender in contenders if contender.name in names]


def _siren(out_dim: int, rate: float, omega: float):
    return changed(partial(sized_siren, out_dim=out_dim), rate=rate, first_omega=omega)


def _finer(out_dim: int, rate: float, omega: float):
    return changed(partial(sized_finer, out_dim=out_dim), rate=rate, omega=omega)


def _ngp(finest: int, image: bool) -> NgpConfig:
    return NgpConfig(levels=8 if image else 12, coarsest=16, finest=max(16, finest))


def _waves(
    lattice: Lattice, channels: int, **changes: int
) -> Callable[[int, np.ndarray], NstrConfig]:
    return lambda params, near: sized_waves(params, lattice, channels, **changes)
