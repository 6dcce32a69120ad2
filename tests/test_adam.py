"""The fused AdamW against torch's in double precision, and the cases that it leaves to torch."""

import copy

import pytest
import torch
from torch import nn

from nstr3d.kernels.field.interpolate import plain_torch
from nstr3d.kernels.step import adam
from nstr3d.kernels.step.adam import AdamW


def groups(dtype: torch.dtype = torch.float32) -> list[dict]:
    """Two groups of parameters of odd sizes, one of them with weight decay."""
    generator = torch.Generator().manual_seed(0)
    tables = [
        nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for shape in ((301, 7), (1, 3))
    ]
    others = [
        nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for shape in ((), (19, 3), (5,))
    ]
    return [{"params": tables, "lr": 3e-2, "weight_decay": 0.3}, {"params": others, "lr": 1e-2}]


def parameters(optimizer: AdamW | torch.optim.AdamW) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def run(
    optimizer: AdamW | torch.optim.AdamW, steps: int, missing: int | None = None, seed: int = 1
) -> None:
    """Takes steps along random gradients, some of them zero, with changing learning rates.
    Parameter number ``missing`` gets no gradient."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for index, parameter in enumerate(parameters(optimizer)):
            grad = torch.randn(parameter.shape, generator=generator) * torch.randint(
                0, 2, parameter.shape, generator=generator
            )
            parameter.grad = None if index == missing else grad.to(parameter)
        for group in optimizer.param_groups:
            group["lr"] *= 0.9 if step % 2 else 1.05
        optimizer.step()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("missing", [None, 1])
def test_it_updates_as_torch_does_in_double_precision(
    workers: int, missing: int | None, monkeypatch
) -> None:
    monkeypatch.setattr(adam, "LEAST", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(workers)
    mine = AdamW(groups(), (0.9, 0.99))
    truth = torch.optim.AdamW(groups(torch.float64), betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0)
    try:
        for optimizer in (mine, truth):
            run(optimizer, 30, missing)
    finally:
        torch.set_num_threads(before)
    for updated, expected in zip(parameters(mine), parameters(truth), strict=True):
        torch.testing.assert_close(updated.double(), expected, rtol=0, atol=2e-5)
        assert mine.state[updated].keys() == truth.state[expected].keys()
        for name, value in truth.state[expected].items():
            torch.testing.assert_close(
                mine.state[updated][name].double(), value.double(), rtol=1e-5, atol=1e-7
            )


def test_any_number_of_threads_and_any_restart_give_the_same_bits(monkeypatch) -> None:
    monkeypatch.setattr(adam, "LEAST", 16)
    before, updated = torch.get_num_threads(), []
    for workers in (1, 2, 3):
        torch.set_num_threads(workers)
        optimizer = AdamW(groups(), (0.9, 0.99))
        run(optimizer, 5)
        again = AdamW(
            [
                group | {"params": copy.deepcopy(group["params"])}
                for group in optimizer.param_groups
            ],
            (0.9, 0.99),
        )
        for old, new in zip(parameters(optimizer), parameters(again)):
            again.state[new] = copy.deepcopy(optimizer.state[old])
        for each in (optimizer, again):
            run(each, 5, seed=2)
            updated.append(
                torch.cat([parameter.detach().ravel() for parameter in parameters(each)])
            )
    torch.set_num_threads(before)
    for other in updated[1:]:
        assert torch.equal(updated[0], other)


def test_what_the_kernel_does_not_take_is_torchs() -> None:
    doubles, plain, mixed = (
        AdamW(groups(torch.float64), (0.9, 0.99)),
        AdamW(groups(), (0.9, 0.99)),
        AdamW(groups(), (0.9, 0.99)),
    )
    run(doubles, 10)
    with plain_torch():
        run(plain, 10)
    run(mixed, 10)
    for optimizer in (plain, mixed):
        for updated, expected in zip(parameters(optimizer), parameters(doubles), strict=True):
            torch.testing.assert_close(updated.double(), expected, rtol=0, atol=1e-5)
    assert not doubles._fitting
    assert not plain._fitting
    assert len(mixed._fitting) == 5
