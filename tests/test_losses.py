"""Objectives against their formulas."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nstr3d.fields.base import Field
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig, TransportConfig
from nstr3d.training.losses import SdfObjective, TransportPenalty
from nstr3d.types import Samples


class Constant(Field):
    """A field with one trainable value everywhere."""

    config, in_dim, out_dim = None, 3, 1

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, points: Tensor) -> Tensor:
        return self.value.expand(len(points), 1)

    def rates(self) -> list[dict]:
        return [{"params": [self.value], "lr": 0.1}]


class Linear(Field):
    """A linear field ``x . slope``: a plane's distance times the length of ``slope``."""

    config, in_dim, out_dim = None, 3, 1

    def __init__(self, slope: tuple[float, float, float]):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, points: Tensor) -> Tensor:
        return points @ self.slope[:, None]

    def rates(self) -> list[dict]:
        return [{"params": [self.slope], "lr": 0.1}]


def batch(*values: float) -> Samples:
    points = torch.rand(len(values), 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Samples(points, torch.tensor(values)[:, None])


def small_nstr(transport: TransportConfig | None) -> Nstr:
    config = NstrConfig(levels=(LevelConfig(2, plain=3),), hidden=4, transport=transport)
    return config.build(3, 1, generator=torch.Generator().manual_seed(0))


def test_huber_is_quadratic_below_delta_and_linear_above() -> None:
    loss = SdfObjective(delta=0.01)
    errors = [0.0, 0.002, -0.005, 0.01, -0.3, 1.0]
    expected = [0, 0.2**2 / 2, 0.5**2 / 2, 0.5, 30 - 0.5, 100 - 0.5]
    for error, value in zip(errors, expected):
        assert float(loss(Constant(0.0), batch(error), 0.0).detach()) == pytest.approx(
            0.01 * value, abs=1e-8, rel=1e-5
        )
    mean = float(loss(Constant(0.0), batch(*errors), 0.0).detach())
    assert mean == pytest.approx(0.01 * sum(expected) / 6, rel=1e-5)


def test_wrong_gradients_cost_their_squared_length_per_sample_of_the_batch() -> None:
    field, samples = Linear((0.5, 0.0, -0.25)), batch(0.0, 0.0, 0.0, 0.0)
    targets = torch.tensor([[0.5, 0.0, -0.25], [0.0, 0.0, 0.0], [0.5, 0.0, 0.75], [0.0, 0.6, 0.0]])
    values = Samples(samples.points, field(samples.points).detach(), targets)
    loss = SdfObjective(gradient_weight=0.3)(field, values, 0.0)
    expected = 0.3 * (0 + 1 + 0.5**2 + 0.6**2 + 0.25**2) / 4  # a row of zeros means no gradient
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert field.slope.grad is not None
    errors = (field.slope.detach() - targets)[[0, 2, 3]].sum(dim=0)
    torch.testing.assert_close(field.slope.grad, 2 * 0.3 * errors / 4)
    assert float(SdfObjective(gradient_weight=0.0)(field, values, 0.0).detach()) == 0


@pytest.mark.parametrize("options", [{"delta": 0.0}, {"gradient_weight": -1.0}])
def test_a_loss_without_sense_is_refused(options) -> None:
    with pytest.raises(ValueError, match="delta > 0 and a gradient weight of 0 or more"):
        SdfObjective(**options)


def test_the_loss_pulls_towards_the_value() -> None:
    for start, sign in ((0.5, 1), (-0.5, -1), (0.2, 0)):
        field = Constant(start)
        SdfObjective()(field, batch(0.2), 0.0).backward()
        assert field.value.grad is not None
        assert float(field.value.grad.sign()) == sign


def test_transport_is_added_in_its_window_on_the_first_points() -> None:
    field, data = small_nstr(TransportConfig(hidden=5)), batch(0.1, -0.2, 0.3, 0.0)
    penalty = TransportPenalty(weight=0.7, start=0.25, end=0.75, points=3)
    plain, loss = SdfObjective()(field, data, 0.0), SdfObjective(transport=penalty)
    added = 0.7 * field.transport_loss(data.points[:3])
    for progress, on in (
        (0.0, False),
        (0.24, False),
        (0.25, True),
        (0.74, True),
        (0.75, False),
        (1.0, False),
    ):
        expected = float((plain + added if on else plain).detach())
        assert float(loss(field, data, progress).detach()) == pytest.approx(expected, rel=1e-6)
    assert float(added.detach()) > 0


def test_transport_needs_an_nstr_field_with_a_transport_network() -> None:
    loss = SdfObjective(transport=TransportPenalty())
    with pytest.raises(ValueError, match="not Constant"):
        loss(Constant(0.0), batch(0.1), 0.5)
    with pytest.raises(ValueError, match="without a transport network"):
        loss(small_nstr(None), batch(0.1), 0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"weight": -1.0}, {"start": 0.8, "end": 0.2}, {"end": 1.5}, {"start": -0.1}, {"points": 0}],
)
def test_penalties_out_of_range_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="transport penalty needs"):
        TransportPenalty(**wrong)
