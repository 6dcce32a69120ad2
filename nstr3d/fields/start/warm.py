"""A warm start: a trained field carried over to a nearby shape, which it then needs fewer steps to
fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nstr3d.fields.layers import Decoder
from nstr3d.fields.level import Level
from nstr3d.fields.nstr import Nstr
from nstr3d.kernels.field.interpolate import interpolate
from nstr3d.types import Mesh


def warm_start(
    field: Nstr,
    near: Mesh | np.ndarray | None,
    scale: float = 1.0,
    shift: Sequence[float] | None = None,
) -> Nstr:
    """A field of the same config near another shape, whose values at x are those of ``field`` at
    ``scale * x + shift``, over ``scale``: distances in the other shape's unit box.

    The spectrum is interpolated at the other shape's nodes; those out of reach of all that
    ``field`` stores take the nearest's.
    """
    device = next(field.parameters()).device
    made = field.config.build(field.in_dim, field.out_dim, near).to(device)
    made.fresh = False
    offset = (
        torch.zeros(field.in_dim) if shift is None else torch.as_tensor(shift, dtype=torch.float32)
    )
    with torch.no_grad():
        for old, new in zip(field.spectra, made.spectra):
            _carry(old, new, scale, offset.to(device))
        made.decoder.load_state_dict(field.decoder.state_dict())
        if isinstance(made.decoder, Decoder):
            for parameter in made.decoder.out.parameters():
                parameter /= scale
        if made.transport is not None and field.transport is not None:
            made.transport.load_state_dict(field.transport.state_dict())
    return made


def _carry(old: Level, new: Level, scale: float, shift: torch.Tensor) -> None:
    from scipy.spatial import KDTree

    places = new.places() * scale + shift
    known = torch.cat([old.table, torch.ones_like(old.table[:, :1])], dim=1)
    mixed = interpolate(places.clamp(-1, 1), old.grid, known)
    weight = mixed[:, -1:]
    table = mixed[:, :-1] / weight.clamp_min(1e-6)
    out = (weight[:, 0] < 0.01).nonzero()[:, 0]
    nearest = KDTree(old.places().cpu().numpy()).query(places[out].cpu().numpy())[1]
    table[out] = old.table[torch.as_tensor(nearest, device=table.device)]
    new.table.copy_(table)
    if new.config.waves is not None:
        new.omega.copy_(old.omega * scale)
        new.phase.copy_(old.phase + old.omega @ shift)
