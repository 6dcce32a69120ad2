"""Evenly spaced streamlines: a selection of traced lines that keep a distance from each other."""

from __future__ import annotations

import numpy as np

from nstr3d.spectrum.flow import End, Streamlines
from nstr3d.types import Polylines


def evenly_spaced(
    flow: Streamlines, separation: float, least: float = 0.0, closest: float = 0.5
) -> Streamlines:
    """Select the lines of ``flow``, or their parts about the seed, that keep a distance.

    Lines are considered in their order. A line is kept if its seed is at least ``separation`` from
    all lines kept before. It is cut where it comes nearer than ``closest * separation`` to one of
    them, or back to itself. Parts shorter than ``least`` are dropped. The method is that of Jobard
    and Lefer, "Creating evenly-spaced streamlines of arbitrary density", 1997, with candidates that
    were integrated before. Raises ValueError if ``separation`` is not positive or ``closest`` is
    outside (0, 1].
    """
    from scipy.spatial import KDTree

    if not separation > 0 or not 0 < closest <= 1:
        raise ValueError(
            "Evenly spaced lines need a positive separation and closest in (0, 1], not "
            f"{separation} and {closest}."
        )
    lines = flow.lines
    along = lines.along()
    tree = KDTree(lines.points)
    kept = np.zeros(len(lines.points), bool)
    chosen = []
    for index, (first, last) in enumerate(zip(lines.starts[:-1], lines.starts[1:])):
        seed = flow.seeds[index]
        if kept[tree.query_ball_point(lines.points[seed], separation)].any():
            continue
        own = slice(first, last)
        near = tree.query_ball_point(lines.points[own], closest * separation)
        free = np.array(
            [
                not _crowded(np.array(nearby), row, kept, along, own, separation, seed)
                for row, nearby in enumerate(near)
            ]
        )
        blocked = np.flatnonzero(~free) + first
        low = max(blocked[blocked < seed], default=first - 1) + 1
        high = min(blocked[blocked > seed], default=last)
        if high - low < 2 or along[high - 1] - along[low] < least:
            continue
        kept[low:high] = True
        chosen.append((index, low, high))
    return _parts(flow, chosen)


def _crowded(
    nearby: np.ndarray,
    row: int,
    kept: np.ndarray,
    along: np.ndarray,
    own: slice,
    separation: float,
    seed: int,
) -> bool:
    """Whether the point ``row`` of the line ``own`` is too near to a kept line or its own line.

    The points ``nearby`` are near this point. A point of its own line counts if it is nearer to the
    seed and more than ``2 * separation`` away along the line.
    """
    if kept[nearby].any():
        return True
    here = own.start + row
    mine = nearby[(nearby >= own.start) & (nearby < own.stop)]
    between = np.abs(along[mine] - along[seed]) < abs(along[here] - along[seed])
    return bool((between & (np.abs(along[mine] - along[here]) > 2 * separation)).any())


def _parts(flow: Streamlines, chosen: list[tuple[int, int, int]]) -> Streamlines:
    """The rows ``low`` to ``high`` of each chosen line; the cut ends become `End.LENGTH`."""
    lines, parts, ends, seeds, sizes = flow.lines, [], [], [], [0]
    for index, low, high in chosen:
        whole = low == lines.starts[index], high == lines.starts[index + 1]
        ends.append([flow.ends[index, side] if whole[side] else End.LENGTH for side in (0, 1)])
        seeds.append(sum(sizes) + flow.seeds[index] - low)
        sizes.append(high - low)
        parts.append(np.arange(low, high))
    rows = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    values = None if lines.values is None else lines.values[rows]
    shape = np.array(ends, np.int64).reshape(-1, 2)
    return Streamlines(
        Polylines(lines.points[rows], np.cumsum(sizes), values), np.array(seeds, np.int64), shape
    )
