"""The state of training that a checkpoint keeps beside the field's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nstr3d.kernels.step.adam import AdamW


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

    Raises ValueError where a moment is missing or has another shape than its parameter.
    """
    for index, parameter in enumerate(_parameters(optimizer)):
        prefix = f"adam.{index}."
        moments = {
            name.removeprefix(prefix): tensor.clone()
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        for name, shape in (
            ("exp_avg", parameter.shape),
            ("exp_avg_sq", parameter.shape),
            ("step", ()),
        ):
            if name not in moments or moments[name].shape != shape:
                raise ValueError(
                    f"The training state does not fit this field: {prefix}{name} is missing or "
                    "has another shape."
                )
        optimizer.state[parameter] = moments
    return int(state["step"]), float(state["seconds"])


def _parameters(optimizer: AdamW) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
