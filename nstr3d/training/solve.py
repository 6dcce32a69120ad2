"""Least squares for fields that are linear in their parameters, by conjugate gradients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from nstr3d.fields.base import Field
from nstr3d.fields.conjugate import conjugate_gradients
from nstr3d.training.fit import FitConfig, Progress
from nstr3d.training.losses import Objective
from nstr3d.types import Samples

CHUNK = 1 << 16  # samples that are evaluated at a time
PROBES = 16  # vectors of random signs that estimate the diagonal of J^T J


def least_squares(
    ridge: float = 3e-3, samples: int = 250_000
) -> Callable[[Field, Samples, Objective, FitConfig], Iterator[Progress]]:
    """A training that minimises ``|J theta - y|^2 + r |theta|^2`` by conjugate gradients from zero.

    The first ``samples`` of the pool have the values y. r is ``ridge`` times the mean diagonal of
    J^T J. The iterator yields after every iteration. There is no learning rate. The preconditioner
    is the diagonal of J^T J (Jacobi), estimated with random signs z: E[(J^T z)^2] = diag(J^T J)
    (Hutchinson, 1989). The objective is not used. Raises ValueError if the field is not linear in
    its parameters.
    """

    def steps(
        field: Field, pool: Samples, objective: Objective, config: FitConfig
    ) -> Iterator[Progress]:
        system = _System(field, Samples(pool.points[:samples], pool.values[:samples]))
        started = time.perf_counter()
        diagonal = system.diagonal(torch.Generator().manual_seed(config.seed))
        shift = ridge * float(diagonal.mean())
        solutions = conjugate_gradients(
            lambda theta: system.normal(theta) + shift * theta,
            system.adjoint(system.values),
            scale=1 / (diagonal + shift),
            product=torch.dot,
        )
        spent = 0.0
        for step, (solution, residual) in enumerate(solutions, 1):
            system.put(solution)
            spent += time.perf_counter() - started
            done = min(
                1.0, step / config.steps if config.seconds is None else spent / config.seconds
            )
            yield Progress(step, done, spent, float(residual.norm()))
            if done >= 1:
                return
            started = time.perf_counter()

    return steps


class _System:
    """The linear map J from parameters to values, and its adjoint.

    The parameters of ``field`` are one vector; the values ``(n, c)`` are those at the samples.
    """

    def __init__(self, field: Field, data: Samples):
        self.field, self.points, self.values = field, data.points, data.values
        theta = parameters_to_vector(field.parameters()).detach()
        few = self.points[:64]
        with torch.no_grad():
            value = field(few)
            self.put(2 * theta)
            if not torch.allclose(field(few), 2 * value, rtol=1e-4, atol=1e-5):
                raise ValueError(
                    "Least squares needs a field that is linear in its parameters, without a "
                    "decoder or phase waves."
                )

    def put(self, theta: Tensor) -> None:
        """Set the field's parameters to ``theta``."""
        with torch.no_grad():
            vector_to_parameters(theta, self.field.parameters())

    def adjoint(self, values: Tensor) -> Tensor:
        """J^T ``values``."""
        return self._pull_back(lambda part, value: values[part])

    def normal(self, theta: Tensor) -> Tensor:
        """J^T J ``theta``, in one pass over the samples.

        J^T is applied to each chunk of the values as soon as the chunk is computed.
        """
        self.put(theta)
        return self._pull_back(lambda part, value: value.detach())

    def diagonal(self, generator: torch.Generator) -> Tensor:
        """An estimate of diag(J^T J)."""
        total = None
        for _ in range(PROBES):
            signs = torch.randint(0, 2, self.values.shape, generator=generator) * 2.0 - 1
            square = self.adjoint(signs).square()
            total = square if total is None else total + square
        assert total is not None
        return total / PROBES

    def _pull_back(self, weights: Callable[[slice, Tensor], Tensor]) -> Tensor:
        """J^T of the vectors that ``weights`` returns for each chunk and its values."""
        self.field.zero_grad(set_to_none=True)
        for start in range(0, len(self.points), CHUNK):
            part = slice(start, start + CHUNK)
            value = self.field(self.points[part])
            value.backward(weights(part, value))
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in self.field.parameters()
        ]
        return parameters_to_vector(gradients)
