"""Overlap of two solids, from flags at points: the intersection over union."""

from __future__ import annotations

import numpy as np

from nstr3d.types import Box, Mesh

# Points inside either shape below which an intersection over union is not stated: with 100 of them
# its standard error is at most 0.05.
LEAST_INSIDE = 100


def iou(inside_a: np.ndarray, inside_b: np.ndarray) -> float:
    """Intersection over union of two shapes, from flags ``(n,)`` bool at the same ``n`` points.

    Raises ValueError if no point is inside either shape, since the measure is then undefined.
    """
    union = int(np.count_nonzero(inside_a | inside_b))
    if union == 0:
        raise ValueError(
            f"none of {len(inside_a)} points is inside either shape, so their overlap is unknown; "
            "sample points near the shapes"
        )
    return int(np.count_nonzero(inside_a & inside_b)) / union


def stated_iou(inside_a: np.ndarray, inside_b: np.ndarray) -> tuple[float | None, str | None]:
    """The `iou` and None, or None and the reason if fewer than LEAST_INSIDE points are inside."""
    union = int(np.count_nonzero(inside_a | inside_b))
    if union >= LEAST_INSIDE:
        return iou(inside_a, inside_b), None
    return None, (
        f"only {union} of {len(inside_a)} points are inside either shape, too few for a share; "
        "sample more points"
    )


def common_box(*meshes: Mesh) -> Box:
    """The bounding box of all ``meshes``."""
    boxes = [mesh.bounds for mesh in meshes]
    lower = np.min([box.lower for box in boxes], axis=0)
    upper = np.max([box.upper for box in boxes], axis=0)
    return Box(tuple(lower.tolist()), tuple(upper.tolist()))
