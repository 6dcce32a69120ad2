"""What a run over a data set is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nstr3d.batch.options import ShapeOptions
from nstr3d.jobs.ranges import LARGEST_SECONDS, check_range
from nstr3d.system import Message

GIGABYTE = 1 << 30


@dataclass(frozen=True)
class Rules:
    """Limits for each shape.

    ``timeout`` is in seconds; ``memory`` is in bytes, None for no limit. A shape is tried at most
    ``attempts`` times if its worker dies, because the shape need not be the cause.
    """

    timeout: float = 3600.0
    memory: int | None = None
    attempts: int = 2


@dataclass(frozen=True)
class BatchJob:
    """The shapes to fit, the place of the results, and how to fit them.

    The command line's help describes each option. ``memory`` and ``gpu_memory`` are in gigabytes
    (2^30 bytes), ``timeout`` and ``grace`` in seconds. ``shard`` is part i of n, counted from 1.
    ``address`` is that of a Ray cluster, or None to fit on this machine. Raises ValueError for an
    option out of range.
    """

    source: str
    out: str
    options: ShapeOptions = field(default_factory=ShapeOptions)
    workers: int | None = None
    address: str | None = None
    shard: tuple[int, int] = (1, 1)
    timeout: float = 3600.0
    memory: float | None = None
    gpu_memory: float = 4.0
    attempts: int = 2
    grace: float = 20.0
    where: str = ""

    def __post_init__(self):
        index, count = self.shard
        if not 1 <= index <= count:
            raise ValueError(Message("<shard> is i/n with i from 1 to n, not {}/{}.", index, count))
        for name in ("timeout", "memory", "gpu_memory", "attempts", "workers"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(Message(f"<{name}> must be positive and finite, not {{}}.", value))
        if not self.grace >= 0:
            raise ValueError(Message("<grace> must not be negative, not {}.", self.grace))
        check_range(self, timeout=(0, LARGEST_SECONDS), grace=(0, LARGEST_SECONDS))
        check_range(self, workers=(1, 4096), attempts=(1, 1000), memory=(0, 1e9))
        check_range(self, gpu_memory=(0, 1e9))

    @property
    def rules(self) -> Rules:
        """The limits for each shape."""
        memory = None if self.memory is None else int(self.memory * GIGABYTE)
        return Rules(self.timeout, memory, self.attempts)
