"""Training steps captured once as a CUDA graph and replayed: no launch costs, and the host never
waits.

Small fields leave most of a GPU idle, so a graph takes many: gradients side by side, a stream for
each, then one update of all.
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
    """Steps of ``optimizer`` down an ``objective`` of each of ``fields`` that does not change with
    progress, for ``batches`` like these, one a field.

    Rates and state are the optimiser's: it may be looked into, kept and restored as if it made the
    steps. The weights are as before the capture when it is done. Needs a CUDA device.
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
        # a capture needs a stream of its own, and every kernel compiled and every moment allocated
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
        """Trains on ``batches``, one a field; the losses ``(fields,)``, which the next step
        overwrites."""
        for mine, batch in zip(self.batches, batches, strict=True):
            mine.points.copy_(batch.points, non_blocking=True)
            mine.values.copy_(batch.values, non_blocking=True)
        for mine, group in zip(self.twin.param_groups, self.optimizer.param_groups):
            mine["lr"].fill_(group["lr"])
        self.graph.replay()
        return self.losses

    def _adopt(self, parameters: Sequence[Tensor]) -> None:
        """Makes the optimiser's state the graph's, which takes over what it was."""
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
