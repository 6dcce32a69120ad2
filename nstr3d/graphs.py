"""Training steps captured once as a CUDA graph and replayed: no launch costs, and the host never waits.

Small fields leave most of a GPU idle, so a graph takes many: gradients side by side, a stream for each, then one update of all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.losses import Objective
from nstr3d.types import Samples


class CapturedSteps:
    """One AdamW step of each of ``fields`` under an ``objective`` that does not change with progress, for ``batches`` like these.

    Weights and moments are as before the capture when it is done. Needs a CUDA device.
    """

    def __init__(
        self, fields: Sequence[Field], objective: Objective, batches: Sequence[Samples], betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        self.fields, self.objective = list(fields), objective
        self.batches = [Samples(batch.points.clone(), batch.values.clone()) for batch in batches]
        device = self.batches[0].points.device
        groups = [group | {"lr": torch.tensor(float(group["lr"]), device=device)} for field in fields for group in field.rates()]
        self.peaks = [float(group["lr"]) for group in groups]
        self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=1e-15, weight_decay=0.0, fused=True, capturable=True)
        self.streams = [torch.cuda.Stream() for _ in fields]
        parameters = [parameter for field in fields for parameter in field.parameters()]
        self.graph, before = torch.cuda.CUDAGraph(), [parameter.detach().clone() for parameter in parameters]
        side = torch.cuda.Stream()  # a capture needs a stream of its own, and every kernel compiled and every moment allocated
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
            for state in self.optimizer.state.values():
                for moment in state.values():
                    moment.zero_()

    def step(self, batches: Sequence[Samples], share: float) -> Tensor:
        """Trains on ``batches``, one a field, at ``share`` of the peak rates; the losses ``(fields,)``, which the next step
        overwrites."""
        for mine, batch in zip(self.batches, batches, strict=True):
            mine.points.copy_(batch.points, non_blocking=True)
            mine.values.copy_(batch.values, non_blocking=True)
        for group, peak in zip(self.optimizer.param_groups, self.peaks):
            group["lr"].fill_(peak * share)
        self.graph.replay()
        return self.losses

    def _step(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=False)
        main, losses = torch.cuda.current_stream(), []
        for stream, field, batch in zip(self.streams, self.fields, self.batches):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                loss = self.objective(field, batch, 0.0)
                loss.backward()
                losses.append(loss.detach())
        for stream in self.streams:
            main.wait_stream(stream)
        self.optimizer.step()
        return torch.stack(losses)
