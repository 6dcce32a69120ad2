"""Connected components of a graph."""

from __future__ import annotations

import numpy as np


def label_components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Labels the connected components of an undirected graph: ``(count,)`` integers from 0.

    The graph has ``count`` nodes. Its edges connect node ``start[i]`` and node ``end[i]``, both
    arrays ``(m,)``; their direction is ignored. Connected nodes share a label. Of two components,
    that with the lowest node has the lower label.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
