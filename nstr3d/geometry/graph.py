"""Connected components of a graph."""

from __future__ import annotations

import numpy as np


def label_components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Labels the connected components of an undirected graph: ``(count,)`` integers from 0.

    The graph has ``count`` nodes. Its edges connect node ``start[i]`` and node ``end[i]``, both
    arrays ``(m,)``; their direction is ignored. Connected nodes share a label. Of two components,
    that with the lowest node has the lower label.

    It is as fast as scipy's, which takes a fifth of a second to import.
    """
    root = np.arange(count)  # each tree of nodes grows towards its lowest node
    while len(start):
        # Each root takes its lowest neighbour for its parent, if that is lower. A root without a
        # lower neighbour wins its neighbours in this round or the next, so two halve the roots.
        np.minimum.at(root, np.maximum(start, end), np.minimum(start, end))
        while not np.array_equal(further := root[root], root):
            root = further
        start, end = root[start], root[end]
        apart = start != end
        start, end = start[apart], end[apart]
    return (np.cumsum(root == np.arange(count)) - 1)[root]
