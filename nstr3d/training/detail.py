"""The detail of values on a surface, and a budget of parameters that suits it."""

from __future__ import annotations

import numpy as np

from nstr3d.fields.nstr import NstrConfig
from nstr3d.fields.vicinity import Near
from nstr3d.training.presets import sized_colours

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the largest budget, which are tried in turn
WANTED = 10 ** (-27 / 20)  # of the residual, chosen on the paints of nstr3d.bench.painted
FEWEST = 8  # points in a cell that tell its residual
COVERED = 0.9  # share of the points in such cells, below which points are too few for the cells


def local_residual(points: np.ndarray, values: np.ndarray, cells: int) -> tuple[float, float]:
    """The root mean square, over cells of a grid with ``cells`` per axis of the unit box, of what
    linear functions of the place leave of ``values (n, c)`` at surface ``points (n, 3)``.

    Each cell has a function of its own. The second value is the share of the points that lie in
    cells with points enough to tell. Both are 0 if there is no such cell.
    """
    place = np.floor((points + 1) / 2 * cells)
    local = (points + 1) / 2 * cells - place - 0.5
    key = place.astype(np.int64) @ [1, cells + 2, (cells + 2) ** 2]
    _, cell = np.unique(key, return_inverse=True)
    cell = cell.reshape(-1)
    terms = np.concatenate([np.ones((len(local), 1)), local], axis=1)
    found = [terms[:, [i]] * np.concatenate([terms, values], axis=1) for i in range(4)]
    sums = np.stack([np.bincount(cell, column) for row in found for column in row.T], axis=1)
    sums = sums.reshape(len(sums), 4, 4 + values.shape[1])
    count = sums[:, 0, 0]
    # A flat piece of surface leaves one slope free; the ridge, which is tiny, sets it to zero.
    normal = sums[:, :, :4] + 1e-6 * count[:, None, None] * np.eye(4)
    fitted = np.linalg.solve(normal, sums[:, :, 4:])
    left = ((values - np.einsum("nt,ntc->nc", terms, fitted[cell])) ** 2).mean(axis=1)
    known = count >= FEWEST
    if not known.any():
        return 0.0, 0.0
    # A surface is two-dimensional, so that three of the four terms are determined by the points.
    variance = np.bincount(cell, left)[known] / (count[known] - 3)
    weight = count[known] / count[known].sum()
    return float(np.sqrt(weight @ variance)), float(count[known].sum() / len(points))


def suited_colours(most: int, near: Near, points: np.ndarray, colours: np.ndarray) -> NstrConfig:
    """The smallest of several fields of colours with at most ``most`` parameters whose finest cells
    resolve ``colours (n, 3)`` at the ``points (n, 3)`` of the surface ``near``, in the unit box.

    It is the largest of them if none does, or the last for whose cells there are enough points.
    Raises ValueError if ``most`` is too small for any.
    """
    best = None
    for share in SHARES:
        try:
            config = sized_colours(int(share * most), near)
        except ValueError:
            if share == 1:
                raise
            continue
        left, known = local_residual(points, colours, config.levels[-1].resolution)
        if best is not None and known < COVERED:
            return best
        best = config
        if left <= WANTED:
            return best
    assert best is not None
    return best
