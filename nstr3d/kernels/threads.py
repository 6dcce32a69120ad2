"""How many threads a numba kernel takes: torch's count, so that one setting holds for all."""

from __future__ import annotations

import torch
from numba import config, get_num_threads, set_num_threads


def threads() -> int:
    """torch's number of threads, as far as numba was started with so many; from here on numba's too."""
    most = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # numba refuses more than it started with
    count = min(torch.get_num_threads(), most)
    if get_num_threads() != count:
        set_num_threads(count)
    return count
