"""AdamW in one pass over all parameters (numba). Its twin is torch's AdamW, with the same update.

Torch's optimiser updates one parameter after the other and waits for its threads each time, which
costs more than the arithmetic. Creating it also imports torch's compiler, which takes a second.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nstr3d.kernels.field.interpolate import kernels_found
from nstr3d.kernels.threads import split_work

LEAST = 1 << 17  # elements per thread, at least: fewer do not repay the thread's overhead
FUSED = ("cpu", "cuda")  # devices with a fused update in every version of torch
LEAST_ROOT = 1e-15  # added to the root of the second moment


class AdamW:
    """`torch.optim.AdamW` with the same groups and the same state, for dense gradients.

    The update is fused if all tensors are contiguous float32 on the CPU; otherwise torch's is used.
    ``groups`` are dicts with ``params``, ``lr`` and optionally ``weight_decay`` (default 0).
    """

    def __init__(self, groups: list[dict], betas: tuple[float, float]) -> None:
        self.param_groups = [
            {"betas": betas, "eps": LEAST_ROOT, "weight_decay": 0.0, **group} for group in groups
        ]
        self.state: defaultdict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)
        # the addresses of the parameters and moments that the kernel is known to apply to
        self._fitting: dict[torch.Tensor, list[int]] = {}

    def zero_grad(self) -> None:
        """Sets the gradients of all parameters to None."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Updates all parameters that have a gradient."""
        places = self._places() if kernels_found() else []
        if not places:
            self._torch_twin.step()
            return
        from nstr3d.kernels.step.adamcpu import update

        steps, rates = [], []
        for group in self.param_groups:
            learned = [
                self.state[parameter]["step"]
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            steps += learned
            rates += [rates_of(group, float(step) + 1) for step in learned]
        for step in steps:
            step += 1
        arrays = np.array(places, np.int64), np.array(rates, np.float32)
        split_work(
            lambda part, low, high: update(low, high, *arrays),
            int(arrays[0][:, -1].sum()),
            16,
            LEAST,
        )

    @cached_property
    def _torch_twin(self) -> Any:
        """Torch's optimiser with the same groups and the same state."""
        parameters = [each for group in self.param_groups for each in group["params"]]
        fused = all(each.device.type in FUSED for each in parameters)
        twin = torch.optim.AdamW(self.param_groups, fused=fused)
        twin.state = self.state
        return twin

    def _places(self) -> list[list[int]]:
        """For each parameter with a gradient: the addresses of its gradient, its values and both
        moments, and its number of elements. Empty if the kernel does not apply."""
        places = []
        for parameter in (
            parameter for group in self.param_groups for parameter in group["params"]
        ):
            grad, state = parameter.grad, self.state[parameter]
            if grad is None:
                continue
            if not _fits(grad):
                return []
            if not state:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                state |= {"step": torch.tensor(0.0), **moments}
            tensors = parameter, state["exp_avg"], state["exp_avg_sq"]
            where = [each.data_ptr() for each in tensors]
            if self._fitting.get(parameter) != where:
                if not all(_fits(each) for each in tensors):
                    return []
                self._fitting[parameter] = where
            places.append([grad.data_ptr(), *where, parameter.numel()])
        return places


def rates_of(group: dict, step: float) -> tuple[float, ...]:
    """The seven coefficients of `adamcpu.update` for update number ``step``, counted from 1, of a
    group's parameters."""
    (first, second), rate = group["betas"], group["lr"]
    length = rate / (1 - first**step)
    return (
        1 - rate * group["weight_decay"],
        1 - first,
        second,
        1 - second,
        length,
        (1 - second**step) ** -0.5,
        group["eps"],
    )


def _fits(tensor: torch.Tensor) -> bool:
    """Whether the kernel applies to ``tensor``."""
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()
