"""Losses: an `Objective` measures the error of a field on a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from nstr3d.fields.base import Field
from nstr3d.fields.nstr import Nstr
from nstr3d.types import Samples

GRADIENT_WEIGHT = 0.04  # weight of the squared error of the gradients, if samples have any

Objective = Callable[[Field, Samples, float], Tensor]
"""``(field, batch, progress in [0, 1]) -> scalar loss``."""


@dataclass(frozen=True)
class TransportPenalty:
    """The weight of the transport loss while ``start <= progress < end``.

    The loss is evaluated on the first ``points`` points of each batch. Raises ValueError if a value
    is out of range.
    """

    weight: float = 0.1
    start: float = 0.0
    end: float = 1.0
    points: int = 2048

    def __post_init__(self):
        if self.weight < 0 or not 0 <= self.start <= self.end <= 1 or self.points < 1:
            raise ValueError(
                "A transport penalty needs weight >= 0, 0 <= start <= end <= 1 and points >= 1, "
                f"not {self}."
            )


@dataclass(frozen=True)
class ValueObjective:
    """Mean squared error of the values, for images and sounds.

    With ``transport``, adds the transport loss as `SdfObjective` does, but at midpoints between
    the points of the batch. Between samples the transport loss acts alone.
    """

    transport: TransportPenalty | None = None

    def __call__(self, field: Field, batch: Samples, progress: float) -> Tensor:
        # Midpoints of random pairs are at both sampled and unsampled places.
        between = (batch.points + batch.points.flip(0)) / 2
        return (field(batch.points) - batch.values).square().mean() + _transport(
            self.transport, field, between, progress
        )


@dataclass(frozen=True)
class SdfObjective:
    """Huber loss on the distance, quadratic below ``delta`` (unit-box units) and linear above.

    The loss is divided by ``delta``, so the linear part has slope 1. A plain L1 loss on many
    samples at exactly 0 collapses to a flat field; the quadratic part prevents the collapse. With
    ``transport``, adds the transport loss of an NSTR field that was built with a transport network.
    If samples have gradients, adds ``gradient_weight`` times the squared error of the field's
    gradient, as a mean over all samples of the batch; values alone leave the normals too free.
    Raises ValueError if ``delta`` is not positive or ``gradient_weight`` is negative or not finite.
    """

    delta: float = 1e-3
    transport: TransportPenalty | None = None
    gradient_weight: float = GRADIENT_WEIGHT

    def __post_init__(self):
        if not (self.delta > 0 and 0 <= self.gradient_weight < math.inf):
            raise ValueError(
                f"A loss needs delta > 0 and a gradient weight of 0 or more, not {self}."
            )

    def pulls(self, batch: Samples) -> bool:
        """Whether the gradients of samples like ``batch`` contribute to the loss."""
        return self.gradient_weight > 0 and batch.gradients is not None

    def __call__(self, field: Field, batch: Samples, progress: float) -> Tensor:
        loss = huber_loss(field(batch.points), batch.values, delta=self.delta) / self.delta
        if self.pulls(batch):
            loss = loss + self.gradient_weight * _gradient_error(field, batch)
        return loss + _transport(self.transport, field, batch.points, progress)


sdf_objective = SdfObjective  # the former name, kept for one version


def _gradient_error(field: Field, batch: Samples) -> Tensor:
    """The squared error of the field's gradient, per sample of the batch.

    The sum is over the samples that have a gradient.
    """
    wanted = batch.gradients
    assert wanted is not None
    known, points = wanted.any(dim=1), batch.points
    if points.device.type == "cpu":
        points, wanted, known = points[known], wanted[known], None
    at = points.detach().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(field(at).sum(), at, create_graph=True)
    error = (slope - wanted).square().sum(dim=1)
    # Elsewhere the host would have to wait for the number of the samples.
    error = error if known is None else torch.where(known, error, 0.0)
    return error.sum() / max(len(batch), 1)


def _transport(
    penalty: TransportPenalty | None, field: Field, points: Tensor, progress: float
) -> Tensor | float:
    """The weighted transport loss at the first of ``points (n, d)``, or 0 if none is due."""
    if penalty is None or not penalty.start <= progress < penalty.end:
        return 0.0
    if not isinstance(field, Nstr):
        raise ValueError(f"The transport loss needs an NSTR field, not {type(field).__name__}.")
    return penalty.weight * field.transport_loss(points[: penalty.points])
