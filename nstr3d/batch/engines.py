"""Where shapes are fitted: on this machine, or on the machines of a Ray cluster. Both run
`attempt`, so results are the same.

An engine takes tasks (`submit`) while it has fewer than ``capacity`` of them, and hands out results
as they come (`wait`).
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

import torch

from nstr3d.batch.attempt import Slot, Task, attempt, lost
from nstr3d.system import Message, count_processors

GIGABYTE = 1 << 30
NODE_LOSSES = 3  # that a shape may meet before it is given up


@dataclass(frozen=True)
class Result:
    """A task that has come to its end, and its report."""

    task: Task
    report: dict[str, Any]


class LocalEngine:
    """``slots`` on this machine, one shape in each at a time."""

    def __init__(self, slots: Sequence[Slot]):
        self.slots, self.capacity = slots, len(slots)
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self._threads = concurrent.futures.ThreadPoolExecutor(len(slots))
        self._running: dict[concurrent.futures.Future[dict[str, Any]], Task] = {}

    def submit(self, task: Task) -> None:
        """Takes a task."""
        self._running[self._threads.submit(self._attempt, task)] = task

    def wait(self, timeout: float) -> list[Result]:
        """What has ended by the time that something has, or after ``timeout`` seconds. Raises what
        `attempt` does."""
        done, _ = concurrent.futures.wait(
            self._running, timeout, concurrent.futures.FIRST_COMPLETED
        )
        return [Result(self._running.pop(future), future.result()) for future in done]

    def close(self) -> None:
        """Ends all workers, at once."""
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
    """All machines of the Ray cluster at ``address`` ("auto" for the one that this machine is part
    of), each shape with ``threads`` processors, and with the share ``gpus`` of a GPU.

    A shape whose machine is lost is fitted on another. Raises ModuleNotFoundError where Ray is
    missing, OSError where no cluster answers.
    """

    def __init__(self, address: str, threads: int, gpus: float = 0.0):
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                Message("<engine> ray needs Ray: pip install 'nstr3d[batch]'.")
            ) from error
        self.ray, self.threads, self.share = ray, threads, gpus or 1.0
        os.environ.setdefault(
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
        )  # what Ray will do anyway; it warns until told
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own future
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise OSError(
                f"No Ray cluster answers at {address}; start one with ray start --head."
            ) from error
        self._remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=NODE_LOSSES)(
            _attempt_on_node
        )
        self._running: dict[Any, Task] = {}

    @property
    def capacity(self) -> int:
        """Twice as many shapes as the cluster has room for now, so that none of it waits."""
        return max(1, 2 * int(self.ray.cluster_resources().get("CPU", 0)) // self.threads)

    def submit(self, task: Task) -> None:
        """Takes a task."""
        self._running[self._remote.remote(task, self.threads, self.share)] = task

    def wait(self, timeout: float) -> list[Result]:
        """What has ended by the time that something has, or after ``timeout`` seconds. Raises what
        `attempt` does."""
        if not self._running:
            return []
        done, _ = self.ray.wait(list(self._running), timeout=timeout)
        return [self._result(self._running.pop(reference), reference) for reference in done]

    def close(self) -> None:
        """Ends all workers, at once."""
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
                lost(
                    task,
                    f"it was lost with its machine more than {NODE_LOSSES} times "
                    f"({type(error).__name__})",
                ),
            )


_slot: Slot | None = None  # of a process of Ray's, which runs one task at a time


def _attempt_on_node(task: Task, threads: int, share: float) -> dict[str, Any]:
    global _slot
    if _slot is None or _slot.threads != threads:
        _slot = Slot(threads, share=share)  # on the GPU that Ray lets this process see
    return attempt(task, _slot)


def local_slots(workers: int | None, device: str, gpu_memory: float) -> list[Slot]:
    """As many slots as this machine has processors for, or ``workers``; on GPUs, where ``device``
    is cuda or auto finds some, as many on each as have room with ``gpu_memory`` bytes."""
    gpus = [
        torch.cuda.get_device_properties(index).total_memory for index in range(_gpu_count(device))
    ]
    return packed(count_processors(), workers, gpus, gpu_memory)


def packed(cores: int, workers: int | None, gpus: Sequence[float], need: float) -> list[Slot]:
    """Slots that share ``cores`` without fighting: one each by default, or ``workers`` of them.
    With ``gpus``, whose memory in bytes is given, they take turns on those, and no more of them
    than have room with ``need`` bytes.

    Raises ValueError for fewer than one worker.
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


def _gpu_count(device: str) -> int:
    return torch.cuda.device_count() if device != "cpu" else 0
