"""Fits the closed-form cosine field to samples, and computes the samples' local frequency from the
same transform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from nstr3d.fields.closed.cosines import TRIAL, CosineConfig, Cosines, analyse_all
from nstr3d.fields.closed.positions import pack, packed_size
from nstr3d.types import expect

CLEAR = 3.0  # least amplitude that is kept, in standard deviations of the noise
HOPS = {1: (256, 512, 1024, 2048, 4096), 2: (8, 16, 32)}  # hops tried by default, by number of axes


def fit_cosines(
    values: np.ndarray, params: int, hops: Sequence[int] | None = None, noise: float = 0.0
) -> Cosines:
    """Fits the cosine field of at most ``params`` stored parameters, including the positions, to
    ``values (*shape, c)`` float32: it keeps the largest amplitudes of their transform.

    Each hop of ``hops`` (by default `HOPS` for the number of axes) is tried on a central part of at
    most about a million samples, and the one with the least expected error is used. The channels
    are rotated to their principal axes. ``noise`` is the known standard deviation of Gaussian noise
    in the samples, in the units of ``values``; with noise, amplitudes below 3 standard deviations
    are dropped, which denoises the samples (Donoho and Johnstone, 1994). Raises ValueError if
    ``values`` are not finite, a hop is odd, or the budget leaves no amplitude although there is no
    noise.
    """
    expect(values, np.ndarray, "values")
    expect(params, (int, np.integer), "params")
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(f"values must have the shape (n, c) or (h, w, c), not {values.shape}.")
    *shape, channels = values.shape
    values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            "The samples hold values that are not finite; replace them, or mask them out."
        )
    remaining = params - channels * (channels + 1)
    trial = _middle(values)
    each = [tuple(fitting(n, hop) for n in shape) for hop in hops or HOPS[len(shape)]]
    configs = [
        CosineConfig(tuple(shape), along, smooth=len(shape) == 1) for along in dict.fromkeys(each)
    ]
    if len(configs) > 1:
        scaled = remaining * trial.size / values.size
        configs.sort(key=lambda config: _expected_error(trial, config, scaled, noise))
    config = configs[0]
    offset, colours = principal_axes(values.reshape(-1, channels))
    spectrum = analyse_all(values, config, offset, colours)
    kept = _largest(spectrum, config.packing(channels), remaining, noise)
    if not kept.any() and spectrum.any() and not noise:
        raise ValueError(
            f"A budget of {params} parameters is too small for these samples, because the "
            "positions alone would use it; choose a larger one."
        )
    field = Cosines(
        config, len(shape), channels, pack(kept.reshape(config.packing(channels))), spectrum[kept]
    )
    field.colours.copy_(torch.from_numpy(colours.T.copy()))
    field.offset.copy_(torch.from_numpy(offset))
    return field


def fitting(length: int, hop: int) -> int:
    """The hop for an axis of ``length`` samples: the smaller of ``hop`` and the largest power of
    two below ``length`` (at least 2), or 1 for a single sample."""
    return 1 if length == 1 else min(hop, 1 << max(1, (length - 1).bit_length() - 1))


def _middle(values: np.ndarray) -> np.ndarray:
    """The central part of ``values (*shape, c)`` with at most `TRIAL` samples."""
    shape = values.shape[:-1]
    edge = math.floor(TRIAL ** (1 / len(shape)))
    cuts = [slice((n - min(n, edge)) // 2, (n - min(n, edge)) // 2 + min(n, edge)) for n in shape]
    return values[tuple(cuts)] if math.prod(shape) > TRIAL else values


def _expected_error(values: np.ndarray, config: CosineConfig, budget: float, noise: float) -> float:
    """Expected squared error of the best field of ``budget`` parameters, summed over the samples
    and over the parts of the outer blocks beyond the samples."""
    shape = values.shape[:-1]
    config = replace(
        config, shape=shape, hops=tuple(fitting(n, hop) for n, hop in zip(shape, config.hops))
    )
    spectrum = analyse_all(values, config, *principal_axes(values.reshape(-1, values.shape[-1])))
    kept = _largest(spectrum, config.packing(values.shape[-1]), int(budget), noise)
    dropped = float(np.square(spectrum[~kept], dtype=np.float64).sum())
    return dropped + noise**2 * (2 * np.count_nonzero(kept) - kept.size)


def principal_axes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean ``(c,)`` of ``values (n, c)`` and the orthogonal matrix ``(c, c)`` whose columns are
    their principal axes, both float32."""
    mean = values.mean(axis=0, dtype=np.float64)
    second = sum(
        (part := values[start : start + TRIAL] - mean).T @ part
        for start in range(0, len(values), TRIAL)
    )  # summed in parts, which bounds the memory
    _, axes = np.linalg.eigh(second)
    return mean.astype(np.float32), axes.astype(np.float32)


def _largest(
    spectrum: np.ndarray, packing: tuple[int, int], budget: int, noise: float
) -> np.ndarray:
    """Mask ``(rows, columns)`` of the largest amplitudes of ``spectrum`` that together with their
    positions take at most ``budget`` parameters. ``packing`` is the table's shape when positions
    are packed."""
    magnitude = np.abs(spectrum)
    if noise:
        magnitude[magnitude < CLEAR * noise] = 0
    low, high, best = 0, min(max(budget, 0), magnitude.size), np.zeros(magnitude.shape, bool)
    guess = high
    for _ in range(12):
        kept = _top(magnitude, guess)
        spent = np.count_nonzero(kept) + packed_size(kept.reshape(packing)) / 4
        if spent <= budget:
            low, best = guess, kept
        else:
            high = guess - 1
        if low >= high or low > 0.999 * high:
            return best
        guess = min(max(int(guess * budget / max(spent, 1)), low + 1), high)
    return best


def _top(magnitude: np.ndarray, count: int) -> np.ndarray:
    """Mask of the ``count`` largest entries of ``magnitude``; fewer if entries are equal or
    zero."""
    if count >= magnitude.size:
        return magnitude > 0
    if count == 0:
        return np.zeros(magnitude.shape, bool)
    threshold = np.partition(magnitude.ravel(), magnitude.size - count - 1)[
        magnitude.size - count - 1
    ]
    return magnitude > threshold


def local_frequency(values: np.ndarray, hop: int) -> np.ndarray:
    """The local frequency of ``values (*shape, c)``: the energy-weighted mean of ``|omega|`` in
    radians per sample, one value per block ``(*blocks)`` of ``hop`` samples.

    The mean is over a block and its neighbours along every axis, because the energy of a real wave
    in a single block depends on its phase. Raises ValueError if ``hop`` is odd.
    """
    shape = values.shape[:-1]
    config = CosineConfig(shape, tuple(fitting(n, hop) for n in shape))
    energy = np.zeros((math.prod(config.hops), math.prod(config.blocks)), np.float32)
    for channel in np.moveaxis(values, -1, 0):  # one channel at a time, to save memory
        mean = channel.mean(dtype=np.float64, keepdims=True).astype(np.float32).ravel()
        table = analyse_all(channel[..., None], config, mean, np.ones((1, 1), np.float32))
        energy += np.square(table, out=table).reshape(energy.shape)
    along = [np.pi * (np.arange(hop) + 0.5) / hop for hop in config.hops]
    omega = np.sqrt(sum(np.square(grid) for grid in np.meshgrid(*along, indexing="ij")))
    moments = [
        energy.sum(axis=0).reshape(config.blocks),
        (omega.reshape(-1, 1) * energy).sum(axis=0).reshape(config.blocks),
    ]
    for axis in range(len(shape)):
        padded = [
            np.pad(m, [(1, 1) if a == axis else (0, 0) for a in range(len(shape))], mode="edge")
            for m in moments
        ]
        windows = [np.lib.stride_tricks.sliding_window_view(m, 3, axis=axis) for m in padded]
        moments = [window.sum(axis=-1) for window in windows]
    return moments[1] / np.maximum(moments[0], 1e-30)
