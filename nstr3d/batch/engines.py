"""Engines, which fit shapes on this machine or on the machines of a Ray cluster.

Both engines run `attempt`, so their results are the same. The caller gives an engine tasks
(`submit`) while fewer than ``capacity`` of them are in progress, and collects results as they end
(`wait`).
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nstr3d.batch.attempt import Task, attempt, report_loss
from nstr3d.batch.slot import Slot
from nstr3d.system import Message, count_processors

NODE_LOSSES = 3  # machine losses after which a shape is retried; the next loss fails it


@dataclass(frozen=True)
class Result:
    """A finished task and its report."""

    task: Task
    report: dict[str, Any]


class LocalEngine:
    """Fits shapes in ``slots`` on this machine, one shape at a time in each slot."""

    def __init__(self, slots: Sequence[Slot]):
        self.slots, self.capacity = slots, len(slots)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._threads = concurrent.futures.ThreadPoolExecutor(len(slots))
        self._running: dict[concurrent.futures.Future[dict[str, Any]], Task] = {}

    def submit(self, task: Task) -> None:
        """Starts a task when there is room for it."""
        self._running[self._threads.submit(self._attempt, task)] = task

    def wait(self, timeout: float) -> list[Result]:
        """The results of the tasks that have ended, as soon as any has.

        After ``timeout`` seconds without a result the list is empty. Raises what `attempt` raises.
        """
        done, _ = concurrent.futures.wait(
            self._running, timeout, concurrent.futures.FIRST_COMPLETED
        )
        return [Result(self._running.pop(future), future.result()) for future in done]

    def close(self) -> None:
        """Ends all workers at once, also those that are fitting a shape."""
        for slot in self.slots:
            slot.cancel()
        self._threads.shutdown()
        for slot in self.slots:
            slot.end()

    def _attempt(self, task: Task) -> dict[str, Any]:
        slot = self._free.get()
        try:
            return attempt(task, slot)
        finally:
            self._free.put(slot)


class RayEngine:
    """Fits shapes on all machines of the Ray cluster at ``address``.

    ``address`` "auto" means the cluster that this machine is part of. Each shape gets ``threads``
    processors and the fraction ``gpus`` of a GPU. A shape whose machine is lost is fitted on
    another machine. Raises ModuleNotFoundError if Ray is not installed and OSError if no cluster
    answers.
    """

    def __init__(self, address: str, threads: int, gpus: float = 0.0):
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                Message("<engine> ray needs Ray; install it with pip install 'nstr3d[batch]'.")
            ) from error
        self.ray, self.threads, self.share = ray, threads, gpus or 1.0
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # the future default of Ray, which warns until the variable is set
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's warnings of its future changes
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise OSError(
                f"No Ray cluster answers at {address}; start a cluster with 'ray start --head'."
            ) from error
        self._remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=NODE_LOSSES)(
            _attempt_on_node
        )
        self._running: dict[Any, Task] = {}

    @property
    def capacity(self) -> int:
        """Twice the shapes that the cluster can fit at once now, so that no processor idles."""
        return max(1, 2 * int(self.ray.cluster_resources().get("CPU", 0)) // self.threads)

    def submit(self, task: Task) -> None:
        """Starts a task when there is room for it."""
        self._running[self._remote.remote(task, self.threads, self.share)] = task

    def wait(self, timeout: float) -> list[Result]:
        """The result of a task that has ended, as soon as any has; at most one per call.

        After ``timeout`` seconds without a result the list is empty. Raises what `attempt` raises.
        """
        if not self._running:
            return []
        done, _ = self.ray.wait(list(self._running), timeout=timeout)
        return [self._result(self._running.pop(reference), reference) for reference in done]

    def close(self) -> None:
        """Ends all workers at once, also those that are fitting a shape."""
        for reference in self._running:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()

    def _result(self, task: Task, reference: Any) -> Result:
        try:
            return Result(task, self.ray.get(reference))
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            return Result(
                task,
                report_loss(
                    task,
                    f"it was lost with its machine more than {NODE_LOSSES} times "
                    f"({type(error).__name__})",
                ),
            )


_slot: Slot | None = None  # kept between tasks by a Ray process, which runs one task at a time


def _attempt_on_node(task: Task, threads: int, share: float) -> dict[str, Any]:
    global _slot
    if _slot is None or _slot.threads != threads:
        _slot = Slot(threads, share=share)  # on the GPU that Ray lets this process see
    return attempt(task, _slot)


def local_slots(workers: int | None, device: str, gpu_memory: float) -> list[Slot]:
    """Slots for this machine: ``workers`` of them, by default one per processor.

    Unless ``device`` is "cpu", the slots use the GPUs that torch finds, each GPU at most as many
    slots as have room with ``gpu_memory`` bytes. Raises ValueError if ``workers`` is less than 1.
    """
    return packed(count_processors(), workers, _gpu_memories(device), gpu_memory)


def packed(cores: int, workers: int | None, gpus: Sequence[float], need: float) -> list[Slot]:
    """Slots that divide ``cores`` processors: ``workers`` slots, by default one per processor.

    ``gpus`` lists the memory of each GPU in bytes. With GPUs, slots are assigned to the GPUs in
    turn, each GPU at most as many as have room with ``need`` bytes and at least one. Raises
    ValueError if ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise ValueError(Message("<workers> must be at least 1, not {}.", workers))
    if not gpus:
        count = workers or cores
        return [Slot(max(1, cores // count)) for _ in range(count)]
    rooms = [max(1, int(memory // need)) for memory in gpus]
    places = [
        (str(gpu), 1 / room)
        for turn in range(max(rooms))
        for gpu, room in enumerate(rooms)
        if turn < room
    ]
    places = places[: workers or max(cores, len(gpus))]
    return [Slot(max(1, cores // len(places)), gpu, share) for gpu, share in places]


def _gpu_memories(device: str) -> list[float]:
    """The memory in bytes of each GPU that torch finds; no GPU counts for the ``device`` "cpu"."""
    if device == "cpu":
        return []
    import torch

    if torch.backends.mps.is_available():
        return [torch.mps.recommended_max_memory()]
    cuda = torch.cuda
    return [cuda.get_device_properties(index).total_memory for index in range(cuda.device_count())]
