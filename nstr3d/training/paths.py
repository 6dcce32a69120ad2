"""The paths of computation: a device, and the kernels that evaluate and train fields there.

`nstr3d.training.calibration` finds out which paths are right and how fast they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch

from nstr3d.kernels.field.fused import triton_kernels
from nstr3d.kernels.field.interpolate import plain_torch


@dataclass(frozen=True)
class ComputePath(ABC):
    """A way to compute: fields are moved to ``device`` and used within `using`.

    ``name`` is the word for the path in options, reports and messages; ``means`` says for a table
    what computes.
    """

    name: ClassVar[str]
    means: ClassVar[str]
    device: torch.device

    @abstractmethod
    def using(self) -> AbstractContextManager[None]:
        """The context in which the calling thread takes the path."""

    def fault(self) -> str | None:
        """Why the path cannot be taken on this machine, as a clause; None if it can be tried."""
        return None

    def wait(self) -> None:
        """Returns when the device has done all work that was given to it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


class CpuKernels(ComputePath):
    """The compiled kernels of the CPU; plain torch where they do not apply or numba is absent."""

    name = "cpu"
    means = "compiled kernels on the CPU"

    def using(self) -> AbstractContextManager[None]:
        return nullcontext()


class PlainTorch(ComputePath):
    """Operations of torch, one after the other, on any device."""

    name = "torch"
    means = "operations of torch"

    def using(self) -> AbstractContextManager[None]:
        return plain_torch()


class FusedTriton(ComputePath):
    """The fused kernels of a GPU, and training steps captured as a graph (CUDA and ROCm)."""

    name = "triton"
    means = "fused Triton kernels and captured steps"

    def using(self) -> AbstractContextManager[None]:
        return triton_kernels()

    def fault(self) -> str | None:
        if self.device.type != "cuda":
            return f"Triton has no kernels for the device {self.device.type}"
        if find_spec("triton") is None:
            return "the package triton is not installed"
        return None


PATHS: dict[str, type[ComputePath]] = {
    kind.name: kind for kind in (FusedTriton, PlainTorch, CpuKernels)
}
GPUS = "cuda", "mps"


def gpu() -> torch.device | None:
    """The GPU that torch finds: CUDA, which is also the name of ROCm's devices, or MPS; None if it
    finds none."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return None


def describe_device(device: torch.device) -> dict[str, Any]:
    """What decides whether a calibration on ``device`` holds for another run: the device's name and
    size, the driver, and what compiles for it. For the CPU, the number of torch's threads."""
    import platform

    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        return {
            "name": about.name,
            "capability": [about.major, about.minor],
            "memory": about.total_memory,
            "driver": _driver(),
            "runtime": torch.version.cuda or torch.version.hip,
        }
    if device.type == "mps":
        return {"name": platform.processor() or platform.machine(), "driver": platform.mac_ver()[0]}
    return {
        "name": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, as the Linux kernel tells it; else that of its interface."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            return " ".join(file.readline().split())
    except OSError:
        version = getattr(torch._C, "_cuda_getDriverVersion", None)
        return None if version is None else str(version())
