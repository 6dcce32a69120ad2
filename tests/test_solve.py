"""Conjugate gradients against the dense normal equations that they solve."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from nstr3d.fields.level import LevelConfig
from nstr3d.fields.nstr import Nstr, NstrConfig
from nstr3d.fields.waves import AmplitudeWaves, ComplexWaves
from nstr3d.training.fit import FitConfig, training_state
from nstr3d.training.losses import SdfObjective
from nstr3d.training.solve import least_squares
from nstr3d.types import Samples

LEVELS = (
    LevelConfig(3, plain=1),
    LevelConfig(5, waves=ComplexWaves(2)),
    LevelConfig(4, waves=AmplitudeWaves(3)),
)


def linear_field(levels=LEVELS) -> Nstr:
    return NstrConfig(levels=levels, hidden=0).build(2, 1, None, torch.Generator().manual_seed(0))


@pytest.fixture
def data() -> Samples:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(400, 2, generator=generator) * 2 - 1
    return Samples(points, torch.sin(3 * points[:, :1] + points[:, 1:] ** 2))


def dense_answer(field: Nstr, data: Samples, ridge: float) -> tuple[np.ndarray, np.ndarray, float]:
    """J (built column by column), the minimiser of |J theta - y|^2 + r |theta|^2, and r, in
    float64."""
    theta = parameters_to_vector(field.parameters()).detach()
    columns = []
    with torch.no_grad():
        for unit in torch.eye(len(theta)):
            vector_to_parameters(unit, field.parameters())
            columns.append(field(data.points)[:, 0].double().numpy())
    matrix = np.stack(columns, axis=1)
    shift = ridge * (matrix**2).sum(axis=0).mean()
    return (
        matrix,
        np.linalg.solve(
            matrix.T @ matrix + shift * np.eye(len(theta)), matrix.T @ data.values[:, 0].numpy()
        ),
        shift,
    )


def test_it_reaches_the_minimiser_of_the_normal_equations(data: Samples) -> None:
    field = linear_field()
    matrix, expected, shift = dense_answer(field, data, 1e-2)
    for _ in least_squares(ridge=1e-2)(
        field, data, SdfObjective(), FitConfig(steps=300, batch=100, pool=400)
    ):
        pass
    solution = parameters_to_vector(field.parameters()).detach().double().numpy()

    def cost(theta: np.ndarray) -> float:
        return float(
            ((matrix @ theta - data.values[:, 0].numpy()) ** 2).sum() + shift * (theta**2).sum()
        )

    # The solver estimates the mean diagonal, so its ridge is off by some percent. The cost is flat
    # at the minimum, so cost and solution are still close.
    assert cost(solution) == pytest.approx(cost(expected), rel=1e-2)
    assert np.abs(matrix @ (solution - expected)).max() < 0.02


def test_iterations_are_counted_and_repeat(data: Samples) -> None:
    runs = []
    for _ in range(2):
        field = linear_field()
        progress = list(
            least_squares()(field, data, SdfObjective(), FitConfig(steps=7, batch=100, pool=400))
        )
        assert [item.step for item in progress] == list(range(1, 8))
        assert progress[-1].done == 1
        runs.append(parameters_to_vector(field.parameters()).detach())
    assert torch.equal(*runs)


def test_only_the_first_samples_count(data: Samples) -> None:
    wild = Samples(data.points, torch.cat([data.values[:200], torch.full((200, 1), 1e6)]))
    one, two = linear_field(), linear_field()
    config = FitConfig(steps=20, batch=100, pool=400)
    for field, pool in ((one, data), (two, wild)):
        list(least_squares(samples=200)(field, pool, SdfObjective(), config))
    assert torch.equal(
        parameters_to_vector(one.parameters()), parameters_to_vector(two.parameters())
    )


def test_a_field_with_a_decoder_is_refused(data: Samples) -> None:
    field = NstrConfig(levels=LEVELS).build(2, 1, None, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="linear in its parameters"):
        next(least_squares()(field, data, SdfObjective(), FitConfig()))


def test_there_is_no_state_to_resume_from(data: Samples) -> None:
    progress = next(least_squares()(linear_field(), data, SdfObjective(), FitConfig()))
    with pytest.raises(ValueError, match="no optimiser"):
        training_state(progress)
