"""Colours between coloured points."""

from __future__ import annotations

import numpy as np

from nstr3d.geometry.cloud.neighbours import Neighbours

NEIGHBOURS = 8
RIDGE = 3e-3  # of the slopes; the neighbours of a place may lie on a line, or all at one place


def between(points: np.ndarray, colours: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The colours ``(m, 3)`` at places ``at (m, 3)`` between ``points (n, 3)`` with ``colours (n,
    3)``.

    A linear function of the place is fitted to the eight nearest points of each place, with more
    weight for nearer ones (moving least squares, Lancaster and Salkauskas 1981). The result is kept
    within the range of their colours.
    """
    far, which = Neighbours(points)(at, NEIGHBOURS)
    reach = np.where(far[:, -1:] > 0, 1.05 * far[:, -1:], 1.0)
    near = (far / reach) ** 2
    weights = (1 - near) ** 2 / (near + 0.01)
    weights /= weights.sum(axis=1, keepdims=True)
    places = (points[which] - at[:, None]) / reach[:, :, None]
    terms = np.concatenate([np.ones((*which.shape, 1)), places], axis=2)
    normal = np.einsum("mk,mki,mkj->mij", weights, terms, terms)
    normal += np.diag([0.0, RIDGE, RIDGE, RIDGE])
    known = colours[which]
    fitted = np.linalg.solve(normal, np.einsum("mk,mki,mkc->mic", weights, terms, known))
    return np.clip(fitted[:, 0], known.min(axis=1), known.max(axis=1))
