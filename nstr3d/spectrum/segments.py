"""Spectral segmentation: regions of a signal that have the same local spectrum."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nstr3d.spectrum.reading import TINY, LocalSpectrum

BANDS = 12
OUTSIDE = 0.01  # fraction of the power that may lie below the bands, and as much above them


def band_shares(spectrum: LocalSpectrum, bands: int = BANDS) -> Tensor:
    """The fractions ``(n, bands)`` of each point's power in bands of frequency.

    They sum to 1, or are 0 without power. The bands are even in log |k| over the range that holds
    nearly all power. A wave between two bands counts for both, so the fractions change
    continuously. Directions do not matter: a region keeps its fractions when the signal is rotated.
    Raises ValueError if no point has power.
    """
    size = spectrum.frequency.norm(dim=2).clamp_min(TINY).log()
    order = size.flatten().argsort()
    power = spectrum.power.flatten()[order].double().cumsum(0)
    if not len(power) or not power[-1] > 0:
        raise ValueError(
            "These points have no spectral power, so they cannot be segmented; choose points "
            "near the signal."
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
    """Labels ``(n,)`` int64 of points, by k-means of the square roots of their `band_shares`.

    The distance of these roots is Hellinger's. Label 0 has the lowest local frequency. The start is
    deterministic, so the same spectrum has the same labels: it is the means of ``count`` groups of
    equal size in order of frequency. There may be fewer than ``count`` labels. Raises ValueError if
    ``count`` is below 1 or above the number of points, or the points have no power.
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
