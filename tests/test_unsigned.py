"""The loss of points without sign: what it is for distances known in closed form, and that it knows
no sign."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nstr3d.fields.baselines.siren import SirenConfig
from nstr3d.training.unsigned import (
    AWAY,
    EIKONAL,
    SHARPNESS,
    directional_divergence,
    unsigned_objective,
)
from nstr3d.types import Samples


class Known(nn.Module):
    """A function of points ``(n, 3) -> (n,)`` as a field."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, points: Tensor) -> Tensor:
        return self.function(points)[:, None]


def sphere(points: Tensor) -> Tensor:
    return points.norm(dim=1) - 0.5


def batch(count: int = 400) -> Samples:
    """Half on the sphere of radius 1/2, half at random, with unsigned distances."""
    generator = torch.Generator().manual_seed(0)
    on = (
        torch.nn.functional.normalize(
            torch.randn(count // 2, 3, generator=generator, dtype=torch.float64), dim=1
        )
        / 2
    )
    off = torch.rand(count // 2, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return Samples(
        torch.cat([on, off]),
        torch.cat([torch.zeros(count // 2, 1), sphere(off).abs()[:, None]]).double(),
    )


def none(points: Tensor, slope: Tensor) -> Tensor:
    return torch.zeros_like(points[:, 0])


def test_a_distance_costs_only_what_lies_near_the_surface():
    samples = batch()
    value = unsigned_objective(directional_divergence, 1.0)(Known(sphere), samples, 0.0)
    expected = AWAY * torch.exp(-SHARPNESS * samples.values[200:]).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_knows_no_sign():
    objective, samples = unsigned_objective(directional_divergence, 0.5), batch()

    def bent(points: Tensor) -> Tensor:
        return sphere(points) + 0.1 * torch.sin(3 * points).prod(dim=1)

    there, back = (
        objective(Known(f), samples, 0.0).item() for f in (bent, lambda points: -bent(points))
    )
    assert there == pytest.approx(back, rel=1e-12)
    assert there > objective(Known(sphere), samples, 0.0).item()


def test_the_gradients_length_counts():
    samples = batch()
    loss = unsigned_objective(none, 1.0)(Known(lambda points: 3 * sphere(points)), samples, 0.0)
    away = AWAY * torch.exp(-3 * SHARPNESS * samples.values[200:]).mean()
    assert loss.item() == pytest.approx(2 * EIKONAL + away.item(), rel=1e-6)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_divergence_along_the_gradient_is_the_second_derivative_of_the_radius_power(power):
    points = batch().points.requires_grad_(True)
    radius = points.norm(dim=1)
    slope = torch.autograd.grad((radius**power).sum(), points, create_graph=True)[0]
    expected = power * (power - 1) * radius ** (power - 2)
    np.testing.assert_allclose(
        directional_divergence(points, slope).detach(), expected.detach(), atol=1e-4
    )


def test_the_spreading_term_fades_and_is_then_not_computed():
    calls = []

    def counted(points: Tensor, slope: Tensor) -> Tensor:
        calls.append(1)
        return torch.ones_like(points[:, 0])

    objective, samples, field = unsigned_objective(counted, 1.0), batch(), Known(sphere)
    values = [objective(field, samples, progress).item() for progress in (0.0, 0.2, 0.35, 0.5, 1.0)]
    np.testing.assert_allclose(np.array(values) - values[-1], [1, 1, 0.5, 0, 0], atol=1e-9)
    assert len(calls) == 3


def test_every_weight_of_a_siren_learns_from_it():
    field = SirenConfig(width=8, depth=2).build(3, 1)
    samples = batch()
    loss = unsigned_objective(directional_divergence, 1.0)(
        field, Samples(samples.points.float(), samples.values.float()), 0.0
    )
    loss.backward()
    moved = {
        name
        for name, each in field.named_parameters()
        if each.grad is not None and bool(each.grad.abs().sum() > 0)
    }
    assert {name for name, _ in field.named_parameters()} - moved <= {"layers.2.bias"}
