"""Spatial derivatives of functions whose derivatives are known, and of a field."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nstr3d.autodiff import gradient, jacobian
from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.waves import PhaseWaves

# torch's forward mode compiles its rules with a function that torch has deprecated
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
)


def draw(count: int = 50, dim: int = 3, seed: int = 0) -> Tensor:
    return (
        torch.rand(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        * 2
        - 1
    )


def test_gradient_of_closed_forms() -> None:
    points = draw()
    expected = torch.stack(
        [points[:, 1] * points[:, 2].cos(), points[:, 0] * points[:, 2].cos()], dim=1
    )
    expected = torch.cat(
        [expected, (-points[:, 0] * points[:, 1] * points[:, 2].sin())[:, None]], dim=1
    )
    flat = gradient(lambda p: p[:, 0] * p[:, 1] * p[:, 2].cos(), points)
    column = gradient(lambda p: (p[:, 0] * p[:, 1] * p[:, 2].cos())[:, None], points)
    np.testing.assert_allclose(flat, expected, atol=1e-14)
    assert torch.equal(flat, column)


def test_gradient_works_where_grad_is_off_and_leaves_the_points_alone() -> None:
    points = draw()
    with torch.no_grad():
        derivative = gradient(lambda p: p.square().sum(dim=1), points)
    np.testing.assert_allclose(derivative, 2 * points, atol=1e-14)
    assert not derivative.requires_grad
    assert not points.requires_grad


def test_jacobian_of_a_linear_and_a_curved_map() -> None:
    points, matrix = (
        draw(dim=2),
        torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.5, 0.25]], dtype=torch.float64),
    )
    np.testing.assert_allclose(
        jacobian(lambda p: p @ matrix.T, points), matrix.expand(50, 3, 2), atol=1e-14
    )
    derivative = jacobian(lambda p: torch.stack([p[:, 0] * p[:, 1], p[:, 0].sin()], dim=1), points)
    np.testing.assert_allclose(derivative[:, 0], points.flip(1), atol=1e-14)
    np.testing.assert_allclose(
        derivative[:, 1], torch.stack([points[:, 0].cos(), torch.zeros(50)], dim=1), atol=1e-14
    )


def test_jacobian_of_a_constant_is_zero() -> None:
    derivative = jacobian(lambda p: torch.ones(len(p), 4, dtype=torch.float64), draw())
    assert derivative.shape == (50, 4, 3)
    assert not derivative.any()


def test_jacobian_of_a_field_is_reverse_mode_and_differentiable_in_its_parameters() -> None:
    config = NstrConfig(
        levels=(LevelConfig(4, plain=2), LevelConfig(5, waves=PhaseWaves(3))), hidden=6
    )
    field = config.build(3, 2, generator=torch.Generator().manual_seed(1)).double()
    points = draw(30)
    forward = jacobian(field, points)
    for channel in range(2):
        reverse = gradient(lambda p, channel=channel: field(p)[:, channel], points)
        np.testing.assert_allclose(forward[:, channel].detach(), reverse, atol=1e-10)
    # the derivative of |J|^2 in a weight against its finite difference
    forward.square().sum().backward()
    weight = field.spectra[1].table
    assert weight.grad is not None
    place = np.unravel_index(int(weight.grad.abs().argmax()), weight.shape)
    with torch.no_grad():
        ends = []
        for step in (1e-5, -2e-5):
            weight[place] += step
            ends.append(float(jacobian(field, points).square().sum()))
    np.testing.assert_allclose(weight.grad[place], (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


def test_jacobian_sees_the_points_of_a_single_precision_field() -> None:
    config = NstrConfig(levels=(LevelConfig(4, plain=3),), hidden=6)
    field = config.build(3, 1, generator=torch.Generator().manual_seed(2))
    points = draw().float()
    with torch.no_grad():
        forward = jacobian(field, points)[:, 0]
    np.testing.assert_allclose(forward, gradient(field, points), atol=1e-5)
    assert bool((forward.norm(dim=1) > 0).all())
