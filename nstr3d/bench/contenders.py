"""The contenders of the races: the fields of nstr3d, their controls and the baselines.

They fit signed distances, images and sounds.
"""

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
    SdfObjective,
    TransportPenalty,
    ValueObjective,
)
from nstr3d.training.presets import FIELDS, changed, levels_for, sized_nstr
from nstr3d.training.solve import least_squares
from nstr3d.types import Lattice, Samples

# Baselines train on values alone. Their gradient losses need double backpropagation, which at equal
# seconds raises their near errors (SIREN by 6%, Instant-NGP by 57%; our bunny, 100k, 8 s).
VALUES = SdfObjective(gradient_weight=0.0)
PENALTY = SdfObjective(transport=TransportPenalty(0.1))
# Constant learning rates, as published for runs as short as these.
PAPER = FitConfig(batch=8192, warmup=0, final_rate=1.0, settle=None)
# Baselines train with each of two batch sizes; the better one depends on budget, seconds and
# threads.
LARGE, SMALL = FitConfig(batch=8192, settle=None), FitConfig(batch=1024, settle=None)
RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def waveless_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The control for the phase waves: the default levels with plain channels instead of waves."""
    *coarser, last = levels_for(finest)
    return *coarser, replace(last, plain=last.features, waves=None)


def sized_waveless(params: int, near: Near) -> NstrConfig:
    """The default field with plain channels instead of phase waves; raises as `sized_nstr`."""
    return sized_nstr(params, near, waveless_levels_for)


def multilinear_levels_for(finest: int) -> tuple[LevelConfig, ...]:
    """The control for the quadratic B-splines: the default levels with multilinear splines."""
    return tuple(replace(level, order=1) for level in levels_for(finest))


def sized_multilinear(params: int, near: Near) -> NstrConfig:
    """The default field on multilinear levels; raises as `sized_nstr`."""
    return sized_nstr(params, near, multilinear_levels_for)


def sized_linear(params: int, near: Near) -> NstrConfig:
    """The control for the decoder: a sum of plain grids, linear in its parameters.

    `nstr3d.training.solve.least_squares` trains it. Raises as `sized_nstr`.
    """

    def levels(finest: int) -> tuple[LevelConfig, ...]:
        cells = [max(2 + index, round(finest / ratio)) for index, ratio in enumerate((16, 4, 2, 1))]
        return LevelConfig(cells[0], plain=1, sparse=False), *(
            LevelConfig(count, plain=1) for count in cells[1:]
        )

    return sized_nstr(params, near, levels, NstrConfig(hidden=0))


def relative_objective(offset: float = 0.01) -> Objective:
    """The mean absolute error relative to ``|value| + offset``.

    Instant-NGP trains signed distances with this loss (MAPE).
    """

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
    """The variants among which a baseline is tuned on surfaces: shapes and peak learning rates.

    All other settings are those of the other contenders. Raises ValueError unless ``name`` is
    siren, fourier or ngp.
    """
    if name == "siren":
        variants = {
            f"rate {r:g} omega {w:g}": (sized_siren, {"rate": r, "first_omega": w})
            for r in RATES
            for w in (15.0, 30.0)
        }
    elif name == "fourier":
        variants = {
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
        for label, (size, changes) in variants.items()
    ]


def rasters(lattice: Lattice, channels: int) -> list[Contender]:
    """The fields that are trained on images and sounds with ``channels`` channels.

    Each baseline has several settings, which bracket its best one. The closed form
    (`nstr3d.fields.closed.cosines`) is not trained and is not in this list.
    """
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
    return [Contender(name, config, ValueObjective(), LARGE) for name, config in make]


def only(contenders: Sequence[Contender], names: Sequence[str] | None) -> list[Contender]:
    """The contenders whose names are in ``names``, all if it is None.

    Raises ValueError for an unknown name.
    """
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
