"""A tree of boxes over points, split at the median of the longest side until few points remain.

The points of each box are consecutive in the tree's order, and parents come before their children,
so a search is one loop: a box that is left out jumps to the next one that is not inside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEAF = 24  # boxes with at most this many points are not split


class Boxes(NamedTuple):
    """``order (n,)`` of the points, and for each of ``m`` boxes: the position ``begin`` of its
    first point in this order, the ``end`` of its points, the next box ``skip`` that is not inside
    it, and its corners ``low`` and ``high (m, 3)``."""

    order: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    skip: np.ndarray
    low: np.ndarray
    high: np.ndarray


def boxes_of(points: np.ndarray) -> Boxes:
    """The tree over ``points (n, 3)``, at least one."""
    order, begin, end, skip = np.arange(len(points)), [], [], []

    def split(low: int, high: int) -> None:
        box = len(begin)
        begin.append(low)
        end.append(high)
        skip.append(0)
        if high - low > LEAF:
            own = points[order[low:high]]
            middle = (high - low) // 2
            axis = int(np.argmax(np.ptp(own, axis=0)))
            order[low:high] = order[low:high][np.argpartition(own[:, axis], middle)]
            split(low, low + middle)
            split(low + middle, high)
        skip[box] = len(begin)

    split(0, len(points))
    padded = points[np.append(order, order[-1])]
    edges = np.stack([begin, end], axis=1).ravel()
    corners = (bound.reduceat(padded, edges, axis=0)[::2] for bound in (np.minimum, np.maximum))
    return Boxes(order, np.array(begin), np.array(end), np.array(skip), *corners)
