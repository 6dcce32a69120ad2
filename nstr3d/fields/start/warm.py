"""The warm start: transfers a trained field to a nearby shape, so that training needs fewer
steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nstr3d.fields.conjugate import conjugate_gradients
from nstr3d.fields.lattice import lattice_nodes, sparse_rows
from nstr3d.fields.layers import Decoder
from nstr3d.fields.level import Level, LevelConfig
from nstr3d.fields.nstr import Nstr, Transport
from nstr3d.fields.vicinity import Near, Vicinity
from nstr3d.fields.waves import PhaseWaves
from nstr3d.kernels.field.interpolate import interpolate

REACHED = 0.3  # least sum of the stored nodes' weights at a position whose spectrum is fitted
ITERATIONS = 30  # iterations of conjugate gradients for the coefficients of quadratic levels


def warm_start(
    field: Nstr,
    near: Near | None,
    scale: float = 1.0,
    shift: Sequence[float] | None = None,
) -> Nstr:
    """A field of the same config for another shape, which is given by ``near``. Its value at x is
    about that of ``field`` at ``scale * x + shift``, divided by ``scale``, so that it is a distance
    in the other shape's unit box.

    ``shift (in_dim,)`` is in the units of ``field``'s unit box and 0 by default. The spectrum of
    ``field`` is interpolated at the new nodes. A new node that no stored node of ``field`` reaches
    gets the coefficients of the nearest stored node. The spectrum at a node of a quadratic level is
    not the node's coefficient, so quadratic levels then solve for the coefficients. A decoder that
    sums the features has no weights to divide by ``scale``; the spectrum's channels in which the
    value is linear are then divided instead. A transport network keeps its law: it then models the
    slopes of the new spectrum as well as it modelled those of the old one.

    Raises ValueError if ``scale`` is not positive and finite.
    """
    unmoved = (0.0,) * field.in_dim
    return warm_starts(field, near, [(scale, unmoved if shift is None else shift)])[0]


def warm_starts(
    field: Nstr, near: Near | None, moves: Sequence[tuple[float, Sequence[float]]]
) -> list[Nstr]:
    """The `warm_start` for each of ``moves``, which are pairs of a scale and a shift
    ``(in_dim,)``. The nodes and the search trees are computed once for all moves."""
    for scale, _ in moves:
        if not 0 < scale < math.inf:
            raise ValueError(f"A warm start's scale must be positive and finite, not {scale}.")
    near = None if near is None else Vicinity.of(near)
    sources = [_Source(level) for level in field.spectra]
    return [_move_field(field, near, sources, scale, shift) for scale, shift in moves]


class _Source:
    """A ``level`` to read from, and a search tree over its nodes, which is built on first use."""

    def __init__(self, level: Level):
        self.level = level

    @cached_property
    def tree(self) -> Any:
        from scipy.spatial import KDTree

        return KDTree(self.level.places().cpu().numpy())


def _move_field(
    field: Nstr,
    near: Vicinity | None,
    sources: Sequence[_Source],
    scale: float,
    shift: Sequence[float],
) -> Nstr:
    device = next(field.parameters()).device
    made = field.config.build(field.in_dim, field.out_dim, near).to(device)
    made.fresh = False
    offset = torch.as_tensor(shift, dtype=torch.float32).to(device)
    with torch.no_grad():
        for source, new in zip(sources, made.spectra):
            _move_level(source, new, scale, offset)
        made.decoder.load_state_dict(field.decoder.state_dict())
        if isinstance(made.decoder, Decoder):
            for parameter in made.decoder.out.parameters():
                parameter /= scale
            factors = torch.ones(sum(level.channels for level in field.config.levels))
        else:
            each = [_factors(level, 1 / scale) for level in field.config.levels]
            for level, factor in zip(made.spectra, each):
                level.table *= factor.to(device)
            factors = torch.cat(each)
        if made.transport is not None and field.transport is not None:
            made.transport.load_state_dict(field.transport.state_dict())
            _move_transport(made.transport, scale, offset, factors.to(device))
    return made


def _factors(config: LevelConfig, factor: float) -> Tensor:
    """The factors ``(channels,)`` of a level's spectrum that multiply the level's features by
    ``factor``: ``factor``, and 1 for the phases of phase waves."""
    factors = torch.full((config.channels,), factor)
    if isinstance(config.waves, PhaseWaves):
        factors[config.plain + config.waves.count :] = 1
    return factors


def _move_transport(transport: Transport, scale: float, shift: Tensor, factors: Tensor) -> None:
    """Makes the law of the old field that of the new one, whose spectrum at x is ``factors
    (channels,)`` times the old spectrum at ``scale * x + shift``.

    The slope per cell at x is then ``scale * factors`` times the old slope.
    """
    if not transport.config.hidden:
        return
    first, last = transport.first, transport.last
    if transport.config.position:
        dim = transport.dim
        first.bias.add_(first.weight[:, :dim] @ shift)
        first.weight[:, :dim] *= scale
        first.weight[:, dim:] /= factors
    else:
        first.weight.div_(factors)
    rows = scale * factors.repeat_interleave(transport.dim)
    last.weight.mul_(rows[:, None])
    last.bias.mul_(rows)


def _move_level(source: _Source, new: Level, scale: float, shift: torch.Tensor) -> None:
    old = source.level
    places = new.places() * scale + shift
    known = torch.cat([old.table, torch.ones_like(old.table[:, :1])], dim=1)
    reach = 1 + (old.config.order - 1) / old.config.resolution  # coordinate of the outermost nodes
    mixed = interpolate(places.clamp(-reach, reach), old.grid, known)
    weight = mixed[:, -1:]
    table = mixed[:, :-1] / weight.clamp_min(1e-6)
    out = (weight[:, 0] < 0.01).nonzero()[:, 0]
    if len(out):
        nearest = source.tree.query(places[out].cpu().numpy())[1]
        table[out] = old.table[torch.as_tensor(nearest, device=table.device)]
    if old.config.order > 1:
        reached = (weight[:, 0] > REACHED).cpu().numpy()
        table += _correction(new, table, mixed[:, :-1], reached)
    new.table.copy_(table)
    if new.config.waves is not None:
        new.omega.copy_(old.omega * scale)
        new.phase.copy_(old.phase + old.omega @ shift)


def _correction(level: Level, table: Tensor, wanted: Tensor, reached: np.ndarray) -> Tensor:
    """The correction ``(nodes, c)`` to the coefficients ``table (nodes, c)`` with which the
    spectrum at the positions of the ``reached (nodes,)`` nodes fits ``wanted (nodes, c)`` by least
    squares."""
    config = level.config
    nodes, weights = lattice_nodes(level.places().cpu().numpy(), config.resolution, config.order)
    columns = level.rows.cpu().numpy()[nodes]
    stored = columns >= 0
    matrix = sparse_rows(np.where(stored, columns, 0), weights * stored, len(table))[reached]
    missing = wanted.cpu().numpy()[reached] - matrix @ table.cpu().numpy()
    solutions = conjugate_gradients(lambda x: matrix.T @ (matrix @ x), matrix.T @ missing)
    solution, _ = next(islice(solutions, ITERATIONS - 1, None))
    return torch.as_tensor(solution, dtype=table.dtype, device=table.device)
