"""Bounding boxes of the parts of a mesh, and the pairs of parts whose boxes meet."""

from __future__ import annotations

import numpy as np

from nstr3d.types import Mesh

# Pairs that are compared at once; bounds temporary memory.
CHUNK = 1 << 22
# Above this number of pairs, faces are not compared with the box of each partner.
PAIRS = 4096

Boxes = tuple[np.ndarray, np.ndarray]


def bounding_boxes(mesh: Mesh, label: np.ndarray) -> Boxes:
    """`corner_boxes` for the faces of ``mesh``."""
    return corner_boxes(mesh.corners, label)


def corner_boxes(corners: np.ndarray, label: np.ndarray) -> Boxes:
    """The lower and upper corners ``(s, 3)`` of the boxes of the parts.

    ``label (f,)`` is the part of each triangle of ``corners (f, 3, 3)``, and every part has one.
    """
    one, two, three = corners[:, 0], corners[:, 1], corners[:, 2]
    lower = np.minimum(np.minimum(one, two), three)
    upper = np.maximum(np.maximum(one, two), three)
    if (np.diff(label) < 0).any():
        order = np.argsort(label, kind="stable")
        label, lower, upper = label[order], lower[order], upper[order]
    first = np.flatnonzero(np.append(True, np.diff(label) != 0))
    return np.minimum.reduceat(lower, first), np.maximum.reduceat(upper, first)


def meeting_boxes(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The pairs ``(p, 2)`` of boxes that share a point; the first of a pair is the smaller index.

    The boxes are swept along the axis on which the fewest pairs overlap.
    """
    spans = []
    for axis in range(3):
        order = np.argsort(lower[:, axis], kind="stable")
        reach = np.searchsorted(lower[order, axis], upper[order, axis], side="right")
        spans.append((int((reach - np.arange(len(order)) - 1).sum()), axis, order, reach))
    _, swept, order, reach = min(spans, key=lambda span: span[:2])
    lower, upper = lower[order], upper[order]
    later = reach - np.arange(len(order)) - 1
    found = [np.empty((0, 2), np.int64)]
    total = np.cumsum(later)
    begin = 0
    while begin < len(order):
        done = total[begin - 1] if begin else 0
        stop = max(int(np.searchsorted(total, done + CHUNK, side="right")), begin + 1)
        size = later[begin:stop]
        one = np.repeat(np.arange(begin, stop), size)
        two = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(size) - size, size)
        for axis in {0, 1, 2} - {swept}:
            low, high = lower[:, axis], upper[:, axis]
            meet = (low[one] <= high[two]) & (low[two] <= high[one])
            one, two = one[meet], two[meet]
        found.append(np.sort(np.column_stack([order[one], order[two]]), axis=1))
        begin = stop
    return np.concatenate(found)


def faces_near(mesh: Mesh, label: np.ndarray, pairs: np.ndarray, boxes: Boxes) -> np.ndarray:
    """Indices of the faces that may touch another part: only these can cross one.

    ``pairs (p, 2)`` are the parts whose ``boxes`` meet. Of a part, the faces whose bounding box
    meets the box of a partner are returned; if there are many pairs, all faces of the parts are.
    """
    if len(pairs) > PAIRS:
        return np.flatnonzero(np.isin(label, pairs))
    order = np.argsort(label, kind="stable")
    first = np.searchsorted(label[order], np.arange(len(boxes[0]) + 1))
    corners = mesh.corners
    lower, upper = corners.min(axis=1), corners.max(axis=1)
    near = np.zeros(len(label), bool)
    for part, partner in np.concatenate([pairs, pairs[:, ::-1]]):
        own = order[first[part] : first[part + 1]]
        meet = (lower[own] <= boxes[1][partner]) & (boxes[0][partner] <= upper[own])
        near[own[meet.all(axis=1)]] = True
    return np.flatnonzero(near)


def layers(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """A layer ``(s,)`` for each box, so that the boxes of one layer do not meet."""
    earlier: list[list[int]] = [[] for _ in lower]
    for one, two in meeting_boxes(lower, upper).tolist():
        earlier[two].append(one)
    layer = np.zeros(len(lower), np.int64)
    for box, others in enumerate(earlier):
        used = set(layer[others].tolist())
        layer[box] = next(number for number in range(len(used) + 1) if number not in used)
    return layer
