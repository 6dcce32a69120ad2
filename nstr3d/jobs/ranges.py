"""The ranges of options: each check raises ValueError with a sentence that names the option."""

from __future__ import annotations

import math
from typing import Any

from nstr3d.jobs.messages import Message
from nstr3d.system import check_memory

RESOLUTIONS = (8, 4096)  # the upper end gives a surface of about 90 million faces
LARGEST_PICTURE = 16384  # pixels of width and of height
LARGEST_COUNT = 10**9  # parameters, steps, samples of a pool
LARGEST_SECONDS = 1e9  # 30 years
LARGEST_SEED = 2**32 - 1  # the random generators take seeds derived from it


def check_choice(options: Any, name: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError if the option ``name`` is not one of ``choices``."""
    value = getattr(options, name)
    if value not in choices:
        raise ValueError(Message(f"<{name}> is one of {{}}, not {{}}.", ", ".join(choices), value))


def check_positive(options: Any, *names: str) -> None:
    """Raises ValueError if an option in ``names`` is neither None nor positive and finite."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(Message(f"<{name}> must be positive and finite, not {{}}.", value))


def check_not_negative(options: Any, *names: str) -> None:
    """Raises ValueError if an option in ``names`` is negative, infinite or NaN; None is allowed."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(Message(f"<{name}> must be finite and not negative, not {{}}.", value))


def check_finite(options: Any, *names: str) -> None:
    """Raises ValueError if an option in ``names`` is infinite or NaN; None is allowed."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(Message(f"<{name}> must be finite, not {{}}.", value))


def check_range(options: Any, **ranges: tuple[float, float]) -> None:
    """Raises ValueError if an option lies outside its range, ends included. None is allowed. Of a
    tuple, each number is checked."""
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not low <= number <= high:
                ends = f"{low:,.10g}", f"{high:,.10g}"
                raise ValueError(Message(f"<{name}> is {{}} to {{}}, not {{}}.", *ends, number))


def check_resolution(cells: int) -> None:
    """Raises ValueError for a number of cells outside RESOLUTIONS."""
    if not RESOLUTIONS[0] <= cells <= RESOLUTIONS[1]:
        raise ValueError(Message("<resolution> is {} to {} cells, not {}.", *RESOLUTIONS, cells))


def check_surface(cells: int) -> None:
    """Raises ValueError if a surface on a grid of ``cells`` along its longest side is larger than
    the free memory; that of a sphere has about 6 cells**2 faces, of 100 bytes."""
    subject = Message("A surface at <resolution> {:,}", cells)
    check_memory(600 * cells**2, subject, "choose a smaller one.")


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed outside 0 to LARGEST_SEED."""
    if not 0 <= seed <= LARGEST_SEED:
        raise ValueError(Message("<seed> is 0 to {}, not {}.", LARGEST_SEED, seed))
