"""Training steps captured as a CUDA graph and replayed, without launch costs or waits of the host.

Small fields leave most of a GPU idle, so one graph trains many fields. It computes their gradients
side by side, with one stream for each field, and then updates all fields at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.kernels.step.adam import AdamW
from nstr3d.training.losses import Objective
from nstr3d.types import Samples


class CapturedSteps:
    """Captured steps of ``optimizer`` that minimise ``objective`` for each of ``fields``.

    ``batches`` has one batch for each field; later batches must have the same shapes. The objective
    must not change with progress. Learning rates and state are the optimiser's: they may be read,
    kept and restored as if the optimiser made the steps. The capture leaves the weights as they
    were. Needs a CUDA device.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        objective: Objective,
        batches: Sequence[Samples],
        optimizer: AdamW,
    ) -> None:
        self.fields, self.objective, self.optimizer = list(fields), objective, optimizer
        self.batches = [Samples(batch.points.clone(), batch.values.clone()) for batch in batches]
        device = self.batches[0].points.device
        groups = [
            group | {"lr": torch.tensor(float(group["lr"]), device=device)}
            for group in optimizer.param_groups
        ]
        self.twin = torch.optim.AdamW(groups, fused=True, capturable=True)
        self.streams = [torch.cuda.Stream() for _ in fields]
        parameters = [parameter for group in groups for parameter in group["params"]]
        self.graph, before = (
            torch.cuda.CUDAGraph(),
            [parameter.detach().clone() for parameter in parameters],
        )
        # A capture needs its own stream; the steps before it compile kernels and allocate moments.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self.graph):
            self.losses = self._step()
        with torch.no_grad():
            for parameter, value in zip(parameters, before):
                parameter.copy_(value)
        self._adopt(parameters)

    def step(self, batches: Sequence[Samples]) -> Tensor:
        """Train on ``batches``, one for each field; return the losses ``(fields,)``.

        The next step overwrites the losses.
        """
        for mine, batch in zip(self.batches, batches, strict=True):
            mine.points.copy_(batch.points, non_blocking=True)
            mine.values.copy_(batch.values, non_blocking=True)
        for mine, group in zip(self.twin.param_groups, self.optimizer.param_groups):
            mine["lr"].fill_(group["lr"])
        self.graph.replay()
        return self.losses

    def _adopt(self, parameters: Sequence[Tensor]) -> None:
        """Give the optimiser the graph's state, filled with the optimiser's former values."""
        for parameter in parameters:
            mine, before = self.twin.state[parameter], self.optimizer.state[parameter]
            for name, tensor in mine.items():
                tensor.copy_(before[name]) if before else tensor.zero_()
            self.optimizer.state[parameter] = mine

    def _step(self) -> Tensor:
        self.twin.zero_grad(set_to_none=False)
        main, losses = torch.cuda.current_stream(), []
        for stream, field, batch in zip(self.streams, self.fields, self.batches):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                loss = self.objective(field, batch, 0.0)
                loss.backward()
                losses.append(loss.detach())
        for stream in self.streams:
            main.wait_stream(stream)
        self.twin.step()
        return torch.stack(losses)
