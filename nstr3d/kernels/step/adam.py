"""AdamW in one pass over everything that is learned (numba): torch's update, which is its twin.

Torch's own takes every parameter in turn and waits for its threads each time, which costs more than
the sums; and making one imports torch's compiler, which takes a second.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np
import torch

from nstr3d.kernels.field.interpolate import kernels_found
from nstr3d.kernels.threads import share

LEAST = 1 << 17  # elements that are worth a thread
LEAST_ROOT = 1e-15  # added to the root of the second moment


class AdamW:
    """`torch.optim.AdamW` with the same groups and the same state, for dense gradients; fused where
    all is in float32 on the CPU.

    ``groups`` are dicts of ``params``, ``lr`` and, where they decay, ``weight_decay``.
    """

    def __init__(self, groups: list[dict], betas: tuple[float, float]) -> None:
        self.param_groups = [
            {"betas": betas, "eps": LEAST_ROOT, "weight_decay": 0.0, **group} for group in groups
        ]
        self.state: defaultdict[torch.Tensor, dict[str, torch.Tensor]] = defaultdict(dict)
        self._fitting: dict[
            torch.Tensor, list[int]
        ] = {}  # places of parameters and moments that were found to fit

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Updates the parameters that have a gradient."""
        places = self._places() if kernels_found() else []
        if not places:
            self._torchs.step()
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
        given = np.array(places, np.int64), np.array(rates, np.float32)
        share(
            lambda part, low, high: update(low, high, *given), int(given[0][:, -1].sum()), 16, LEAST
        )

    @cached_property
    def _torchs(self) -> Any:
        """Torch's optimiser of the same groups, with the same state."""
        twin = torch.optim.AdamW(self.param_groups, fused=True)
        twin.state = self.state
        return twin

    def _places(self) -> list[list[int]]:
        """Of each parameter with a gradient, the addresses of gradient, values and both moments,
        and how many elements it has; nothing where the kernel does not apply."""
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
    """What the kernel needs to know of a parameter's update number ``step``."""
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
    return tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()
