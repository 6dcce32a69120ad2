"""Connected components of a graph."""

from __future__ import annotations

import numpy as np


def label_components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Labels the connected components of an undirected graph: ``(count,)`` integers from 0.

    The graph has ``count`` nodes. Its edges connect node ``start[i]`` and node ``end[i]``, both
    arrays ``(m,)``; their direction is ignored. Connected nodes share a label. Of two components,
    that with the lowest node has the lower label.
    """
    # Every node points at one of its component. In each turn, an edge hooks the higher of two
    # roots to the lower one, and the edges within a tree are dropped. SciPy's function takes
    # longer, and its import more than a file of 60,000 faces.
    nodes = np.arange(count)
    root = nodes
    while len(start):
        root = root.copy()
        np.minimum.at(root, np.maximum(start, end), np.minimum(start, end))
        while not np.array_equal(root, above := root[root]):
            root = above
        start, end = root[start], root[end]
        apart = start != end
        start, end = start[apart], end[apart]
    return (np.cumsum(root == nodes) - 1)[root]
