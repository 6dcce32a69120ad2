"""What hangs together in a graph."""

from __future__ import annotations

import numpy as np


def label_components(count: int, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A label ``(count,)`` from 0 for each of ``count`` nodes, shared by those that edges ``start
    (m,)`` to ``end (m,)`` connect, in either direction."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
