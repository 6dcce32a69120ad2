"""Fields sized for a parameter budget use most of it and never exceed it."""

import oracles
import pytest
import torch

from nstr3d.fields.nstr import NstrConfig
from nstr3d.training.presets import PRESETS, levels_for, sized_nstr


@pytest.mark.parametrize("budget", [15_000, 50_000, 120_000])
def test_a_sized_field_uses_its_budget_and_no_more(budget: int) -> None:
    mesh = oracles.sphere(3, radius=0.3)
    field = sized_nstr(budget, mesh).build(
        3, 1, near=mesh, generator=torch.Generator().manual_seed(0)
    )
    assert 0.8 * budget <= field.parameter_count <= budget


def test_a_field_is_sized_near_points_too() -> None:
    points = oracles.sphere(4, radius=0.3).vertices
    field = sized_nstr(40_000, points).build(
        3, 1, near=points, generator=torch.Generator().manual_seed(0)
    )
    assert 0.8 * 40_000 <= field.parameter_count <= 40_000


def test_more_budget_means_finer_levels() -> None:
    mesh = oracles.sphere(2, radius=0.3)
    small, large = (sized_nstr(budget, mesh).levels[-1].resolution for budget in (20_000, 100_000))
    assert small < large


def test_a_budget_too_small_says_what_it_takes() -> None:
    mesh = oracles.sphere(2, radius=0.3)
    with pytest.raises(ValueError, match=r"budget of 100 .* at least \d+\.") as caught:
        sized_nstr(100, mesh)
    least = int(str(caught.value).rstrip(".").split()[-1])
    assert sized_nstr(least, mesh).build(3, 1, near=mesh).parameter_count <= least
    with pytest.raises(ValueError, match="too small"):
        sized_nstr(least - 1, mesh)


@pytest.mark.parametrize("finest", [4, 5, 17, 64])
def test_levels_grow_towards_the_finest(finest: int) -> None:
    resolutions = [level.resolution for level in levels_for(finest)]
    assert resolutions == sorted(resolutions)
    assert resolutions[-1] > resolutions[-2]
    assert resolutions[-1] == finest
    NstrConfig(levels=levels_for(finest))


def test_presets_rise_in_cost() -> None:
    fast, standard, fine = PRESETS["fast"], PRESETS["standard"], PRESETS["fine"]
    assert fast.params <= standard.params <= fine.params
    assert fast.training.steps < standard.training.steps < fine.training.steps
