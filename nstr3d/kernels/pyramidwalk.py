"""The walk of a pyramid's encoder and decoder from the coarsest grid to the finest.

`nstr3d.kernels.pyramid` has the kernels, which are imported when they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

REACH = 32  # in a byte: parts of a cell
ROOTS, DEPTHS = range(4, 17), range(1, 6)  # cells per axis of the coarsest grid, and refinements
MOST_CELLS = 256
BANDS = 2  # numbers of grids behind the finest that have statistics of their own


@dataclass(frozen=True)
class Plan:
    """The grids of a pyramid: ``root`` cells per axis, refined ``depth`` times.

    All nodes of the first ``whole`` refined grids are corrected, and of the others those of cells
    whose predicted values come within ``reach`` cells of zero, in parts of 1/32; ``finest`` is the
    reach in the finest grid.
    """

    root: int
    depth: int
    whole: int
    reach: int
    finest: int

    @property
    def cells(self) -> int:
        """Cells per axis of the finest grid."""
        return self.root << self.depth

    @property
    def fault(self) -> str:
        """A clause about the grids if nstr3d makes none such, else an empty string."""
        fits = self.root in ROOTS and self.depth in DEPTHS and self.whole in range(self.depth + 1)
        if fits and self.cells <= MOST_CELLS and {self.reach, self.finest} <= set(range(256)):
            return ""
        return f"its grid of {self.root} cells, refined {self.depth} times, is none of nstr3d's"


def nodes_of(values: np.ndarray, step: float) -> np.ndarray:
    """The distances float32 at the nodes, of which ``values`` are the integers."""
    from nstr3d.kernels.pyramid import UNIT

    return values.astype(np.float32) * np.float32(step / UNIT)


def decode(plan: Plan, step: float, code: np.ndarray) -> np.ndarray:
    """The nodes ``(n, n, n)`` float32 of the finest grid from the ``code (m,)`` uint8, which an
    encoder made with this quantisation ``step``. Raises ValueError, with a clause, if the code does
    not hold them."""
    from nstr3d.kernels import pyramid as kernels

    coder = kernels.begin(code)

    def correct(values, marks, chosen, groups, depth):
        return all(
            kernels.decode(coder, code, values, marks, chosen, places, depth) for places in groups
        )

    values = walk(plan, step, correct)
    if coder[0][2] != len(code):  # an encoder ends with all bytes that its decoder reads
        raise ValueError(f"its code does not end with its {len(code):,} bytes")
    return nodes_of(values, step)


def walk(plan: Plan, step: float, correct: Callable[..., bool]) -> np.ndarray:
    """The finest grid ``(n, n, n)`` int32 of a pyramid.

    ``correct(values, marks, chosen, groups, depth)`` corrects nodes of each grid, from the coarsest
    to the finest; ``groups`` are arrays of places in the order of the code. Raises ValueError, with
    a clause, if it returns false.
    """
    from nstr3d.kernels import pyramid as kernels

    nodes = plan.root + 1
    values, marks = np.zeros((nodes,) * 3, np.int32), np.zeros((nodes,) * 3, np.uint8)
    chosen = np.full(values.shape, kernels.NEAR, np.uint8)
    places = np.indices(values.shape).reshape(3, -1).T.astype(np.int32)
    _need(correct(values, marks, chosen, [np.ascontiguousarray(places)], -1))
    marks[:] = 0
    for number in range(plan.depth):
        values, marks = kernels.refine(values, marks)
        last = plan.depth - 1 - number
        reach = (plan.reach if last else plan.finest) / REACH * 2 / (len(values) - 1)
        limit = int(reach / (step / kernels.UNIT))
        chosen = kernels.choose(values, limit, number < plan.whole)
        groups = [kernels.nodes(chosen, odd) for odd in (1, 2, 3)]
        _need(correct(values, marks, chosen, groups, min(last, BANDS)))
    return values


def _need(whole: bool) -> None:
    if not whole:
        raise ValueError("its code ends too early or holds numbers that are too large")
