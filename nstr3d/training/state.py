"""The state of training that a checkpoint keeps beside the field's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nstr3d.kernels.step.adam import AdamW

MOMENTS = "exp_avg", "exp_avg_sq", "step"


def optimizer_state(optimizer: AdamW, step: int, seconds: float) -> dict[str, Tensor]:
    """The step, the clock in seconds, and Adam's moments, as named tensors."""
    state = {
        "step": torch.tensor(step),
        "seconds": torch.tensor(seconds, dtype=torch.float64),
    }
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state[parameter].items():
            state[f"adam.{index}.{name}"] = tensor.detach().clone()
    return state


def restore_optimizer(optimizer: AdamW, state: Mapping[str, Tensor]) -> tuple[int, float]:
    """Sets the moments of ``optimizer`` to those of ``state`` and returns the step and the seconds.

    Raises the ValueError of `check_state`.
    """
    parameters = _parameters(optimizer)
    check_state(parameters, state)
    for index, parameter in enumerate(parameters):
        optimizer.state[parameter] = {
            name: state[f"adam.{index}.{name}"].clone() for name in MOMENTS
        }
    return int(state["step"]), float(state["seconds"])


def check_state(parameters: Sequence[Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming a tensor of ``state`` that is missing, belongs to no parameter, has
    another shape or type than its parameter, or is out of range."""
    shapes: dict[str, tuple[int, ...]] = {"step": (), "seconds": ()}
    for index, parameter in enumerate(parameters):
        shapes |= {f"adam.{index}.{name}": tuple(parameter.shape) for name in MOMENTS}
        shapes[f"adam.{index}.step"] = ()
    text = "The training state does not fit this field"
    if missing := [name for name in shapes if name not in state]:
        raise ValueError(f"{text}: {missing[0]} is missing.")
    if foreign := sorted(state.keys() - shapes.keys()):
        raise ValueError(f"{text}: {foreign[0]} belongs to none of its parameters.")
    for name, shape in shapes.items():
        tensor = state[name]
        whole = name == "step"
        if tuple(tensor.shape) != shape or tensor.is_floating_point() == whole:
            form = f"{tuple(tensor.shape)} {tensor.dtype}"
            raise ValueError(f"{text}: {name} is {form} where its shape has to be {shape}.")
        if not name.endswith(".exp_avg") and not bool((tensor >= 0).all()):
            raise ValueError(f"{text}: {name} has a number that is negative or not a number.")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{text}: {name} has a number that is not finite.")


def _parameters(optimizer: AdamW) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
