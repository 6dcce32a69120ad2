"""One training step: compiled on the CPU, captured as a graph on a GPU, or by autograd."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.kernels.field.fused import triton_wanted
from nstr3d.kernels.step.adam import AdamW
from nstr3d.training.graphs import CapturedSteps
from nstr3d.training.losses import Objective, SdfObjective
from nstr3d.types import Samples


def training_steps(
    objective: Objective, field: Field, optimizer: AdamW, like: Samples
) -> Callable[[Samples, float], Tensor]:
    """A function ``(batch, progress) -> loss`` that takes one step of ``optimizer`` and returns the
    loss before the step, detached.

    Without a transport loss the step is compiled if the field has compiled steps. Else, on a GPU,
    it is captured as a graph for batches of the shapes of ``like``.
    """
    if isinstance(objective, SdfObjective) and objective.transport is None:
        compiled = field.compiled_steps(objective.delta, objective.gradient_weight, optimizer)
        if compiled is not None:
            return lambda batch, progress: compiled(batch)
        if like.points.is_cuda and triton_wanted() and not objective.pulls(like):
            captured = CapturedSteps([field], objective, [like], optimizer)
            return lambda batch, progress: captured.step([batch])[0].clone()

    def step(batch: Samples, progress: float) -> Tensor:
        optimizer.zero_grad()
        loss = objective(field, batch, progress)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
