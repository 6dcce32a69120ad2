"""Who races whom: our fields, their controls and the baselines, for distances, images and sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from nstr3d.compare import Contender
from nstr3d.fields.finer import sized_finer
from nstr3d.fields.fourier import sized_fourier
from nstr3d.fields.ngp import NgpConfig, sized_ngp
from nstr3d.fields.nstr import NstrConfig, TransportConfig
from nstr3d.fields.siren import sized_siren
from nstr3d.fields.spectrum import LevelConfig
from nstr3d.fields.waves import AmplitudeWaves
from nstr3d.fit import FitConfig
from nstr3d.losses import TransportPenalty, relative_objective, sdf_objective, value_objective
from nstr3d.presets import FIELDS, changed, sized_linear, sized_nstr, sized_waveless
from nstr3d.solve import least_squares

PENALTY = sdf_objective(transport=TransportPenalty(0.1))
PAPER = FitConfig(warmup=0, final_rate=1.0)  # constant rates, as published for runs this short
RATES = (1e-4, 3e-4, 1e-3, 3e-3)

SURFACES = [Contender(name, FIELDS[name]) for name in FIELDS] + [
    Contender("nstr without waves", sized_waveless),
    Contender("linear grid, CG", sized_linear, steps=least_squares()),
    Contender("nstr, F(x, S)", changed(sized_nstr, transport=TransportConfig()), PENALTY),
    Contender("nstr, F = 0", changed(sized_nstr, transport=TransportConfig(hidden=0)), PENALTY),
    Contender("ngp, as published", partial(sized_ngp, template=NgpConfig(table_rate=1e-2)), relative_objective(), PAPER),
]


def tunings(name: str) -> list[Contender]:
    """What the tuning of a baseline on surfaces searches: shapes and peak rates, all else as for every contender.

    Raises ValueError for a name that has nothing to tune.
    """
    if name == "siren":
        found = {f"rate {r:g} omega {w:g}": (sized_siren, {"rate": r, "first_omega": w}) for r in RATES for w in (15.0, 30.0)}
    elif name == "fourier":
        found = {f"rate {r:g} deviation {s:g}": (sized_fourier, {"rate": r, "deviation": s}) for r in RATES for s in (2.0, 5.0)}
    elif name == "ngp":
        shapes = [(levels, finest, rate) for levels in (6, 8, 16) for finest in (64, 128, 256) for rate in (1e-2, 3e-2)]
        templates = {f"{n} levels to {f} rate {r:g}": NgpConfig(levels=n, finest=f, table_rate=r) for n, f, r in shapes}
        return [Contender(f"ngp, {label}", partial(sized_ngp, template=t)) for label, t in templates.items()]
    else:
        raise ValueError(f"There is nothing to tune for {name}; choose siren, fourier or ngp.")
    return [Contender(f"{name}, {label}", changed(size, **changes)) for label, (size, changes) in found.items()]


def rasters(dim: int, out_dim: int) -> list[Contender]:
    """The fields that are trained on images (``dim`` 2) or sounds (1) with ``out_dim`` channels. Each baseline comes with the two
    settings between which its best lies; the closed form (`nstr3d.fields.cosines`) is not trained and joins by itself."""
    omegas = (30.0,) if dim == 2 else (300.0, 3000.0)
    ends = (256, 512) if dim == 2 else (4096, 32768)
    make = [
        *((f"siren, rate {r:g}, omega {w:g}", _siren(out_dim, r, w)) for r in (1e-3, 2e-3) for w in omegas),
        *((f"finer, rate {r:g}, omega {w:g}", _finer(out_dim, r, w)) for r in (1e-3, 2e-3) for w in omegas),
        *((f"ngp, {end} cells", partial(sized_ngp, out_dim=out_dim, template=_image_ngp(end, dim))) for end in ends),
        ("nstr, trained", partial(sized_waves, out_dim=out_dim)),
        ("nstr without waves, trained", partial(sized_waves, out_dim=out_dim, count=0)),
    ]
    return [Contender(name, config, value_objective()) for name, config in make]


def sized_waves(params: int, near: np.ndarray, out_dim: int, count: int = 42) -> NstrConfig:
    """One dense level of ``count`` amplitude waves beside four plain channels under a decoder, as fine as ``params`` allow: the
    trained model for samples on a line or a plane. Without waves the plain channels take the waves' place."""
    dim, side = near.shape[1], len(np.unique(near[:, 0]))
    hidden, plain = 64, 4 if count else 8
    decoder = (plain + count + 1) * hidden + (hidden + 1) * out_dim + (dim + 1) * count
    cells = max(2, int(((params - decoder) / (plain + count)) ** (1 / dim)) - 1)
    waves = AmplitudeWaves(count, band=(0.0, side / cells / 2), learned=True) if count else None  # half the samples' Nyquist
    return NstrConfig((LevelConfig(cells, plain, waves, sparse=False),), hidden=hidden, table_rate=1e-1, table_decay=0.0)


def only(contenders: Sequence[Contender], names: Sequence[str] | None) -> list[Contender]:
    """Those with the given names, or all. Raises ValueError for a name that nobody has."""
    if names is None:
        return list(contenders)
    unknown = set(names) - {contender.name for contender in contenders}
    if unknown:
        raise ValueError(f"Unknown fields: {', '.join(sorted(unknown))}; choose from {[c.name for c in contenders]}.")
    return [contender for contender in contenders if contender.name in names]


def _siren(out_dim: int, rate: float, omega: float):
    return changed(partial(sized_siren, out_dim=out_dim), rate=rate, first_omega=omega)


def _finer(out_dim: int, rate: float, omega: float):
    return changed(partial(sized_finer, out_dim=out_dim), rate=rate, omega=omega)


def _image_ngp(finest: int, dim: int) -> NgpConfig:
    template = NgpConfig(levels=8 if dim == 2 else 12, coarsest=16, finest=finest, table_rate=1e-2)
    return replace(template, mlp_rate=1e-2)
