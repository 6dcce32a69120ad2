"""A training step captured once as a CUDA graph and replayed: no launch costs, and the host never waits."""

from __future__ import annotations

import torch
from torch import Tensor

from nstr3d.fields.base import Field
from nstr3d.losses import Objective
from nstr3d.types import Samples


class CapturedStep:
    """One AdamW step of ``field`` under an ``objective`` that does not change with progress, for batches like ``batch``.

    Weights and moments are as before the capture when it is done. Needs a CUDA device.
    """

    def __init__(self, field: Field, objective: Objective, batch: Samples, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self.batch = Samples(batch.points.clone(), batch.values.clone())
        device = batch.points.device
        groups = [group | {"lr": torch.tensor(float(group["lr"]), device=device)} for group in field.rates()]
        self.peaks = [float(group["lr"]) for group in groups]
        self.optimizer = torch.optim.AdamW(groups, betas=betas, eps=1e-15, weight_decay=0.0, fused=True, capturable=True)
        self.graph, before = torch.cuda.CUDAGraph(), [parameter.detach().clone() for parameter in field.parameters()]

        def step() -> Tensor:
            self.optimizer.zero_grad(set_to_none=False)
            loss = objective(field, self.batch, 0.0)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        side = torch.cuda.Stream()  # a capture needs a stream of its own, and every kernel compiled and every moment allocated
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self.graph):
            self.loss = step()
        with torch.no_grad():
            for parameter, value in zip(field.parameters(), before):
                parameter.copy_(value)
            for state in self.optimizer.state.values():
                for moment in state.values():
                    moment.zero_()

    def step(self, batch: Samples, share: float) -> Tensor:
        """Trains on ``batch`` at ``share`` of the peak rates; the loss, which the next step overwrites."""
        self.batch.points.copy_(batch.points, non_blocking=True)
        self.batch.values.copy_(batch.values, non_blocking=True)
        for group, peak in zip(self.optimizer.param_groups, self.peaks):
            group["lr"].fill_(peak * share)
        self.graph.replay()
        return self.loss
