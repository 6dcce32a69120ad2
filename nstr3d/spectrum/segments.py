"""Spectral segmentation: regions of a signal that have the same local spectrum."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nstr3d.spectrum.reading import TINY, LocalSpectrum

BANDS = 12
OUTSIDE = 0.01  # share of the power that may lie below, and above, the bands


def band_shares(spectrum: LocalSpectrum, bands: int = BANDS) -> Tensor:
    """How each point's power is spread over frequency: shares ``(n, bands)`` that sum to 1, or are
    0 without power.

    Bands are even in log |k| over what holds nearly all power; a wave between two bands counts for
    both, so that shares change continuously. Directions play no part: a region keeps its shares
    when the signal is turned.
    """
    size = spectrum.frequency.norm(dim=2).clamp_min(TINY).log()
    order = size.flatten().argsort()
    power = spectrum.power.flatten()[order].double().cumsum(0)
    if not len(power) or not power[-1] > 0:
        raise ValueError(
            "These points have no spectral power, so nothing tells them apart; take points near "
            "the signal."
        )
    edges = torch.searchsorted(
        power, power[-1] * torch.tensor([OUTSIDE, 1 - OUTSIDE], dtype=power.dtype)
    )
    low, high = size.flatten()[order][edges.clamp(max=len(power) - 1)].tolist()
    place = (size - low) / max(high - low, math.log(1.01)) * (bands - 1)
    place = place.clamp(0, bands - 1)
    below = place.floor().clamp(max=bands - 2)
    total = spectrum.power.new_zeros(len(size), bands)
    total.scatter_add_(1, below.long(), spectrum.power * (1 - (place - below)))
    total.scatter_add_(1, below.long() + 1, spectrum.power * (place - below))
    return total / total.sum(dim=1, keepdim=True).clamp_min(TINY)


def segment(spectrum: LocalSpectrum, count: int, iterations: int = 50) -> np.ndarray:
    """A label ``(n,)`` int64 per point, 0 where local frequency is lowest, from k-means of the
    roots of the `band_shares`.

    Their distance is Hellinger's. The start is not drawn: it is the means of ``count`` groups of
    equal size in order of frequency, so the same spectrum has the same labels. There may be fewer
    than ``count``. Raises ValueError for a count below 1 or above the number of points, and for
    points without power.
    """
    from scipy.cluster.vq import kmeans2

    if not 1 <= count <= len(spectrum.power):
        raise ValueError(
            f"{len(spectrum.power)} points make 1 to {len(spectrum.power)} segments, not {count}."
        )
    features = band_shares(spectrum).sqrt().double().cpu().numpy()
    centroid = spectrum.centroid.cpu().numpy()
    groups = np.array_split(np.argsort(centroid, kind="stable"), count)
    start = np.stack([features[group].mean(axis=0) for group in groups])
    _, labels = (
        kmeans2(features, start, iter=iterations, minit="matrix", missing="warn")
        if count > 1
        else (None, np.zeros(1, int))
    )
    labels = np.broadcast_to(labels, len(features))
    used = np.unique(labels)
    order = used[
        np.argsort([np.median(centroid[labels == label]) for label in used], kind="stable")
    ]
    names = np.zeros(count, np.int64)
    names[order] = np.arange(len(order))
    return names[labels]
